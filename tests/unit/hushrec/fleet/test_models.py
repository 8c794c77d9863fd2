"""The newest bundle on the device is used; what cannot be fetched leaves the one that is there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hushrec.bundle import Bundle
from hushrec.fleet.models import Models
from hushrec.profile import Profile
from hushrec_privacy.errors import FleetError, ReleaseError

from tests.tiny_bundle import tiny_bundle, write_tiny_bundle


class FakeUpdater:
    """Has a bundle, or not; gets another one when it is told."""

    def __init__(self, path: Path | None, *steps: Path | Exception | None) -> None:
        self.path, self.steps, self.made = path, list(steps), 0

    def __call__(self) -> "FakeUpdater":
        self.made += 1
        return self

    def current(self) -> Path:
        if self.path is None:
            raise ReleaseError("nothing here")
        return self.path

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
