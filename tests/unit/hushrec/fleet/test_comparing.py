"""Devices compare a candidate with the release they use: fetched first, asked for a held-out event, used by nobody."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hushrec.bundle import Bundle, write_bundle
from hushrec.federated_counts import own_segments
from hushrec.profile import Profile
from hushrec.recommender import Recommender
from hushrec.updates import Candidate, Updater
from hushrec_privacy.encoding import decode_sum, split_segments, to_lattice
from hushrec_privacy.errors import FleetError, ReleaseError
from hushrec_privacy.plans.schema import Segment, Vector
from hushrec_server.publishing import Newest

from tests.release_shop import Server, Shop, serving
from tests.tiny_bundle import write_tiny_bundle
from tests.whole_fleet import GOOD, ROUND_S, START, KeptResults, TestClient, WholeFleet, made

VECTOR = Vector(
    "counts",
    (
        Segment("evaluation", 3, "1.75", "how well the model does on this device's latest events"),
        Segment("gain", 2, "1.5", "whether a new model would do better on them"),
    ),
)
ROUNDED = 0.25
"""Seven standard deviations of what rounding on six devices moves a sum by."""


class Comparing(KeptResults):
    """A publisher whose rounds are about a candidate."""

    candidate_bundle = ""

    def newest(self) -> Newest:
        """Of the release its version, of the candidate its bundle: what rounds of this fleet name."""
        return super().newest()._replace(bundle=self.candidate_bundle)

    def candidate(self) -> Newest:
        """The same."""
        return self.newest()


class Repository:
    """What devices see of the shop's releases; all of them the same."""

    def __init__(self, release: Path, candidate: Bundle | None) -> None:
        self.release, self.asked, self.fetched = release, 0, 0
        self.candidate = None if candidate is None else Candidate(candidate.sha256, candidate.root)
        self.newer: Path | None = None
        self.before: Callable[[Callable[[], bool]], None] = lambda _stop: None


class FakeUpdater:
    """A device's view of it."""

    def __init__(self, repository: Repository) -> None:
        self.repository, self.path = repository, repository.release

    def current(self) -> Path:
        return self.path

    def candidate(self, stop: Callable[[], bool]) -> Candidate | None:
        self.repository.asked += 1
        self.repository.before(stop)
        if stop():
            return None
        if self.repository.newer not in (None, self.path):
            raise FleetError("another release is the newest", reason="release", retry_after_s=0.0)
        return self.repository.candidate

    def fetch(self, stop: Callable[[], bool]) -> Path | None:
        assert not stop()
        self.repository.fetched += 1
        self.path = self.repository.newer or self.path
        return self.path


@pytest.fixture
def fleet(tmp_path: Path) -> WholeFleet:
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=VECTOR)
    fleet.service.database.close()
    fleet.publisher = Comparing(fleet.bundle)
    fleet.open()
    return fleet


@pytest.fixture
def candidate(fleet: WholeFleet) -> Bundle:
    bundle = Bundle.open(write_tiny_bundle(fleet.folder / "candidate.hush", seed=9))
    assert isinstance(fleet.publisher, Comparing)
    fleet.publisher.candidate_bundle = bundle.sha256
    return bundle


@pytest.fixture
def repository(fleet: WholeFleet, candidate: Bundle, monkeypatch: pytest.MonkeyPatch) -> Repository:
    repository = Repository(fleet.bundle.root, candidate)
    monkeypatch.setattr(TestClient, "_updater", lambda _: FakeUpdater(repository))
    return repository


def profiles() -> list[Profile]:
    """Shoppers who ended where one of the two bundles would have sent them, or neither."""
    found = []
    for number in range(6):
        kept = Profile()
        for place in range(8):
            item = f"item-{(7 * number + 11 * place * (number + 1)) % 60 + 1}"
            kept.append(item, "view", int((START - 100 + place) * 1e6))
        found.append(kept)
    return found


@pytest.fixture
def devices(fleet: WholeFleet, repository: Repository) -> list[TestClient]:
    assert repository.asked == 0
    return [fleet.device(number, kept) for number, kept in enumerate(profiles())]


def sums(fleet: WholeFleet) -> dict[str, Any]:
    """What the newest round says, without its noise."""
    outcome = fleet.sums.outcomes[-1]
    return split_segments(fleet.plan, decode_sum(fleet.plan, to_lattice(fleet.plan, outcome.sum)) * fleet.plan.cohort)


def expected(fleet: WholeFleet, release: Bundle, candidate: Bundle | None) -> dict[str, Any]:
    now_us = int(fleet.clock.now * 1e6)
    found = [own_segments(fleet.plan, release, kept, now_us=now_us, candidate=candidate) for kept in profiles()]
    return {name: np.sum([each[name] for each in found], axis=0) for name in ("evaluation", "gain")}


def paths(device: TestClient) -> set[str]:
    """What it sent, without plan and round."""
    return {path.rpartition("/")[2] for _, path, _ in device.sent}


def test_what_devices_find_out_of_a_candidate_is_in_the_sum(
    fleet: WholeFleet, devices: list[TestClient], candidate: Bundle
) -> None:
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    assert fleet.publisher.results[0].release == candidate.sha256
    np.testing.assert_array_equal(fleet.sums.outcomes[0].sum, made(devices, 1))
    found, wanted = sums(fleet), expected(fleet, fleet.bundle, candidate)
    assert wanted["evaluation"][2] == 6
    assert np.any(wanted["gain"]), "or nothing was compared"
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, abs=ROUNDED)
    for device in devices:
        assert device.bundle == fleet.bundle.root, "the app is told of no other"
        assert device.status().model_version == fleet.bundle.manifest.model_version
        assert device.status().rounds == 1


def test_a_candidate_that_does_not_work_on_devices_finds_nothing(
    fleet: WholeFleet, devices: list[TestClient], repository: Repository, candidate: Bundle
) -> None:
    repository.candidate = Candidate(candidate.sha256, None)
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    found, wanted = sums(fleet), expected(fleet, fleet.bundle, None)
    np.testing.assert_array_equal(wanted["gain"], -wanted["evaluation"][:2])
    assert np.any(wanted["gain"])
    assert found["gain"] == pytest.approx(wanted["gain"], abs=ROUNDED)


def test_without_a_candidate_no_device_checks_in_and_all_come_when_there_is_one(
    fleet: WholeFleet, devices: list[TestClient], repository: Repository
) -> None:
    there, repository.candidate = repository.candidate, None
    fleet.play(*devices, seconds=2 * ROUND_S)
    for device in devices:
        assert device.status().refusal.reason == "candidate"  # type: ignore[union-attr]
        assert paths(device) == {"fleet", "certificates"}
        assert device._store.record().totals().rho == "0"
    assert 6 * 2 <= repository.asked <= 6 * 40, "by the plan's own pacing"
    repository.candidate = there
    # Each looks again at a time of its own, and a round needs all six: in some rounds one comes too late.
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results), seconds=15 * ROUND_S)
    assert fleet.publisher.results


def test_a_device_with_an_older_release_updates_before_it_compares(
    fleet: WholeFleet, devices: list[TestClient], repository: Repository, candidate: Bundle
) -> None:
    newer = renumbered(Bundle.open(write_tiny_bundle(fleet.folder / "newer.hush", seed=8)), 2)
    repository.newer = newer.root
    fleet.play(*devices, seconds=20)
    assert not any("check-in" in paths(device) for device in devices)
    fleet.publisher.bundle = newer  # the server says so at the next look
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results), seconds=2 * ROUND_S)
    assert repository.fetched == 6
    assert {device.bundle for device in devices} == {newer.root}
    found, wanted = sums(fleet), expected(fleet, newer, candidate)
    assert found["gain"] == pytest.approx(wanted["gain"], abs=ROUNDED)


def renumbered(bundle: Bundle, version: int) -> Bundle:
    """The same bundle under another model version."""
    manifest = msgspec.structs.replace(bundle.manifest, model_version=version)
    files: dict[str, Path | bytes] = {name: bundle.path(name) for name in bundle.manifest.files}
    origins = {name: info.origin for name, info in bundle.manifest.files.items()}
    return write_bundle(bundle.root.with_suffix(f".{version}"), manifest, files, origins)


def test_a_candidate_that_changes_before_the_check_in_is_not_compared(
    fleet: WholeFleet, devices: list[TestClient], repository: Repository, candidate: Bundle
) -> None:
    device, there = devices[0], repository.candidate
    repository.candidate = Candidate("cd" * 32, candidate.root)
    fleet.play(device, until=lambda: "check-in" in paths(device))
    assert device.status().refusal.reason == "release"  # type: ignore[union-attr]
    assert device.status().state == "waiting"
    assert paths(device) == {"fleet", "certificates", "check-in"}
    assert device._store.record().totals().rho == "0"
    repository.candidate = there
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results), seconds=2 * ROUND_S)
    assert device.status().rounds == 1


@pytest.mark.parametrize("named", ["", "ab" * 32])
def test_a_round_that_does_not_name_the_candidate_is_left(
    fleet: WholeFleet, devices: list[TestClient], named: str
) -> None:
    assert isinstance(fleet.publisher, Comparing)
    fleet.publisher.candidate_bundle = named or fleet.bundle.sha256  # of the release itself
    fleet.play(devices[0], until=lambda: "check-in" in paths(devices[0]))
    assert devices[0].status().refusal.reason == "release"  # type: ignore[union-attr]
    assert "advertise" not in paths(devices[0])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FleetError("away", reason="unreachable", retry_after_s=0), "unreachable"),
        (ReleaseError("candidate 2 is a DEMO and protects nobody"), "release"),
    ],
)
def test_a_candidate_that_cannot_be_had_is_asked_for_again_later(
    fleet: WholeFleet, devices: list[TestClient], repository: Repository, error: Exception, reason: str
) -> None:
    def failing(_stop: Callable[[], bool]) -> None:
        raise error

    repository.before = failing
    fleet.play(devices[0], until=lambda: repository.asked == 3)
    assert devices[0].status().refusal.reason == reason  # type: ignore[union-attr]
    assert devices[0]._participant._agenda.due(fleet.clock.now, lambda _: True) is None, "other plans have their turn"
    assert paths(devices[0]) == {"fleet", "certificates"}
    repository.before = lambda _stop: None
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results), seconds=2 * ROUND_S)
    assert rounds_done(devices) == [1] * 6


def rounds_done(devices: list[TestClient]) -> list[int]:
    return [device.status().rounds for device in devices]


@pytest.mark.parametrize("ends", ["conditions", "consent"])
def test_a_download_that_conditions_or_consent_end_is_followed_by_no_check_in(
    fleet: WholeFleet, devices: list[TestClient], repository: Repository, ends: str
) -> None:
    device = devices[0]

    def ending(stop: Callable[[], bool]) -> None:
        assert not stop()
        if ends == "consent":
            device.consent = False
        else:
            device.now = GOOD.__class__(idle=False, charging=True, unmetered=True)
        assert stop()

    repository.before = ending
    fleet.play(device, until=lambda: repository.asked == 1)
    assert device.status().refusal.reason == ("no-consent" if ends == "consent" else "conditions")  # type: ignore[union-attr]
    fleet.play(device, seconds=100)
    assert repository.asked == 1
    assert paths(device) == {"fleet", "certificates"}


def test_a_round_is_dated_after_the_download(
    fleet: WholeFleet, devices: list[TestClient], repository: Repository
) -> None:
    """A download may take until the round's time: what was too early before it is not too early after it."""
    fleet.clock.now = START - 120.0
    for device in devices:
        device.step()
        device._participant._agenda._offers[fleet.plan.plan_id].not_before = 0.0

    def long(_stop: Callable[[], bool]) -> None:
        fleet.clock.now = max(fleet.clock.now, START + 5.0)

    repository.before = long
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    assert rounds_done(devices) == [1] * 6
    assert not any(device.sent.count(sent) > 1 for device in devices for sent in device.sent if "check-in" in sent[1])


def test_plans_that_compare_nothing_ask_for_no_candidate(tmp_path: Path, repository: Repository) -> None:
    fleet = WholeFleet(tmp_path / "other", real=True, vector=Vector("counts", VECTOR.schema[:1]))
    repository.release = fleet.bundle.root
    device = fleet.device(0, Recommender.open(fleet.bundle.root))
    fleet.play(device, until=lambda: device.status().state == "round")
    assert repository.asked == 0


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path / "shop")
    shop.publish(1)
    return shop


@pytest.fixture
def server(shop: Shop) -> Iterator[Server]:
    with serving(shop.repository.folder) as server:
        yield server


def test_a_real_repository_s_candidate_is_compared_and_becomes_the_release_without_a_download(
    fleet: WholeFleet, shop: Shop, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        TestClient, "_updater", lambda self: Updater(server.url, self._folder.releases, shop.root, clock=shop.clock)
    )
    fleet.publisher.bundle = Bundle.open(shop.bundle(1))
    staged = shop.stage(2, seed=9)
    assert isinstance(fleet.publisher, Comparing)
    fleet.publisher.candidate_bundle = staged.bundle
    devices = []
    for number in range(6):
        shopper = Recommender.open(shop.first)
        for place in range(5):
            shopper.observe(f"item-{number + place + 1}", at=datetime.fromtimestamp(START - 60 + place, UTC))
        devices.append(fleet.device(number, shopper.profile))
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results), seconds=2 * ROUND_S)
    assert rounds_done(devices) == [1] * 6
    assert [device.status().model_version for device in devices] == [1] * 6
    server.asked.clear()
    shop.repository.accept(staged.bundle, ledger_head=None)
    fleet.publisher.bundle, fleet.publisher.candidate_bundle = Bundle.open(shop.bundle(2, 9)), ""
    for device in devices:
        device._participant._look_at = device._participant._update_at = 0.0  # as an hour later
    fleet.play(*devices, seconds=30)
    assert [device.status().model_version for device in devices] == [2] * 6
    assert not [path for path in server.asked if "/blobs/" in path]
