"""The newest bundle on the device is used; what cannot be fetched leaves the one that is there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hushrec.bundle import Bundle
from hushrec.fleet.models import Models
from hushrec.profile import Profile
from hushrec.updates import Candidate
from hushrec_privacy.errors import BundleError, FleetError, ReleaseError

from tests.tiny_bundle import tiny_bundle, write_tiny_bundle


class FakeUpdater:
    """Has a bundle, or not; gets another one when it is told."""

    def __init__(self, path: Path | None, *steps: Path | Exception | None) -> None:
        self.path, self.steps, self.made = path, list(steps), 0
        self.offered: Candidate | None = None

    def __call__(self) -> "FakeUpdater":
        self.made += 1
        return self

    def current(self) -> Path:
        if self.path is None:
            raise ReleaseError("nothing here")
        return self.path

    def candidate(self, stop: Callable[[], bool]) -> Candidate | None:
        assert not stop()
        return self.offered

    def fetch(self, stop: Callable[[], bool]) -> Path | None:
        assert not stop()
        found = self.steps.pop(0)
        if isinstance(found, Exception):
            raise found
        self.path = found or self.path
        return found


def go_on() -> bool:
    return False


@pytest.fixture
def shipped(tmp_path: Path) -> Bundle:
    return Bundle.open(tiny_bundle(tmp_path))


def models(updater: FakeUpdater, shipped: Bundle | None) -> Models:
    return Models(updater, shipped, Profile().hash_record)  # type: ignore[arg-type]


def test_nothing_is_opened_before_it_is_asked_for(shipped: Bundle) -> None:
    updater = FakeUpdater(None)
    found = models(updater, shipped)
    assert found.known_version == shipped.manifest.model_version
    assert updater.made == 0
    assert models(updater, None).known_version == 0


def test_the_shipped_bundle_is_used_until_there_is_a_newer_one(shipped: Bundle, tmp_path: Path) -> None:
    newer = write_tiny_bundle(tmp_path / "newer.hush", seed=9)
    updater = FakeUpdater(shipped.root, None, newer, None)
    found = models(updater, shipped)
    assert found.newest() is shipped
    found.fetch(go_on)
    assert found.newest() is shipped
    found.fetch(go_on)
    newest = found.newest()
    assert newest is not None
    assert newest.root == newer
    found.fetch(go_on)
    assert found.newest() is newest
    assert updater.made == 1


def test_a_device_without_any_bundle_says_so() -> None:
    found = models(FakeUpdater(None), None)
    assert found.newest() is None
    assert found.version() == 0


@pytest.mark.parametrize("error", [FleetError("away"), ReleaseError("it does not work here")])
def test_what_cannot_be_fetched_changes_nothing(shipped: Bundle, error: Exception) -> None:
    found = models(FakeUpdater(shipped.root, error), shipped)
    with pytest.raises(type(error)):
        found.fetch(go_on)
    assert found.newest() is shipped


def test_a_candidate_is_opened_and_is_not_the_newest(shipped: Bundle, tmp_path: Path) -> None:
    other = Bundle.open(write_tiny_bundle(tmp_path / "other.hush", seed=9))
    updater = FakeUpdater(shipped.root)
    found = models(updater, shipped)
    assert found.candidate(go_on) is None
    updater.offered = Candidate(other.sha256, other.root)
    compared = found.candidate(go_on)
    assert compared is not None
    assert compared.bundle is not None
    assert (compared.sha256, compared.bundle.root) == (other.sha256, other.root)
    assert found.newest() is shipped
    assert found.known_root == shipped.root
    updater.offered = Candidate(other.sha256, None)
    assert found.candidate(go_on) == (other.sha256, None), "it does not work here"


def test_what_is_compared_with_is_what_the_updater_says_is_in_use(shipped: Bundle, tmp_path: Path) -> None:
    """Also if somebody else updated the folder meanwhile."""
    newer = write_tiny_bundle(tmp_path / "newer.hush", seed=9)
    updater = FakeUpdater(shipped.root)
    found = models(updater, shipped)
    assert found.newest() is shipped
    updater.path, updater.offered = newer, Candidate("ab" * 32, None)
    found.candidate(go_on)
    assert found.known_root == newer


def test_a_candidate_that_is_damaged_on_this_disk_is_no_candidate_that_finds_nothing(
    shipped: Bundle, tmp_path: Path
) -> None:
    other = Bundle.open(write_tiny_bundle(tmp_path / "other.hush", seed=9))
    updater = FakeUpdater(shipped.root)
    updater.offered = Candidate(other.sha256, other.root)
    (other.root / "items.bin").unlink()
    with pytest.raises(BundleError):
        models(updater, shipped).candidate(go_on)
