"""A plan counts items by places of a fixed number; the catalogue of the next release may have more or fewer of them."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hushrec.bundle import Bundle, write_bundle
from hushrec.federated_counts import own_segments
from hushrec.profile import Profile
from hushrec_privacy.encoding import decode_sum, join_segments, split_segments, to_lattice
from hushrec_privacy.plans.schema import Segment, Vector

from tests.fleet_plans import a_fleet_plan
from tests.tiny_bundle import write_tiny_bundle
from tests.whole_fleet import ROUND_S, START, TestClient, WholeFleet, made

PLACES = 40
VECTOR = Vector(
    "counts",
    (
        Segment("trending", PLACES, "3", "which items were looked at this week", 7),
        Segment("evaluation", 3, "2", "how well the model would have guessed what you took last"),
    ),
)
LOOKED_AT = (1, 25, 39, 41, 65)
"""Numbers of items: each catalogue here has item-n at n, as far as it goes."""


def a_profile() -> Profile:
    kept = Profile()
    for place, number in enumerate(LOOKED_AT):
        kept.append(f"item-{number}", "view", int((START - 100 + place) * 1e6))
    return kept


def a_release(folder: Path, items: int, version: int) -> Bundle:
    """A release of so many items."""
    bundle = Bundle.open(write_tiny_bundle(folder / f"made-{items}", items=items))
    manifest = msgspec.structs.replace(bundle.manifest, model_version=version)
    files: dict[str, Path | bytes] = {name: bundle.path(name) for name in bundle.manifest.files}
    origins = {name: info.origin for name, info in bundle.manifest.files.items()}
    return write_bundle(folder / f"release-{version}", manifest, files, origins)


@pytest.mark.parametrize(
    ("items", "counted", "asked"),
    [
        (20, [1], 0.0),  # one event that it knows: nothing to evaluate
        (39, [1, 25, 39], 1.0),
        (PLACES, [1, 25, 39], 1.0),
        (60, [1, 25, 39], 1.0),  # item 41 has no place
        (70, [1, 25, 39], 1.0),
    ],
)
def test_places_beyond_the_catalogue_are_zeros_and_items_beyond_the_places_are_left_out(
    tmp_path: Path, items: int, counted: list[int], asked: float
) -> None:
    plan, bundle = a_fleet_plan(vector=VECTOR), Bundle.open(write_tiny_bundle(tmp_path / "b.hush", items=items))
    with a_profile() as kept:
        found = own_segments(plan, bundle, kept, now_us=int(START * 1e6))
    assert (np.flatnonzero(found["trending"]) + 1).tolist() == counted
    assert found["evaluation"][2] == asked
    assert join_segments(plan, found).shape == (plan.parameters,)


class Switching:
    """An updater whose release a test changes."""

    newest: Bundle

    def __init__(self) -> None:
        self.path = self.newest.root

    def current(self) -> Path:
        return self.path

    def fetch(self, stop: Callable[[], bool]) -> Path | None:
        assert not stop()
        self.path = self.newest.root
        return self.path


def test_a_catalogue_that_grows_and_shrinks_between_rounds_of_a_plan_ends_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = [a_release(tmp_path, items, version) for version, items in enumerate((60, 30, 70), start=1)]
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=VECTOR)
    Switching.newest = fleet.publisher.bundle = releases[0]
    monkeypatch.setattr(TestClient, "_updater", lambda _: Switching())
    devices = [fleet.device(number, a_profile()) for number in range(6)]
    for number, (release, looked, evaluated) in enumerate(
        zip(releases, ([1, 25, 39], [1, 25], [1, 25, 39]), (6, 6, 6), strict=True), start=1
    ):
        Switching.newest = fleet.publisher.bundle = release
        for device in devices:
            device._participant._look_at = device._participant._update_at = 0.0
        fleet.play(*devices, until=lambda number=number: len(fleet.publisher.results) == number, seconds=2 * ROUND_S)  # type: ignore[misc]
        (*_, result), (*_, outcome) = fleet.publisher.results, fleet.sums.outcomes
        assert result.release == release.sha256
        np.testing.assert_array_equal(outcome.sum, made(devices, result.number))
        decoded = decode_sum(fleet.plan, to_lattice(fleet.plan, outcome.sum)) * fleet.plan.cohort
        found = split_segments(fleet.plan, decoded)
        assert (np.flatnonzero(found["trending"] > 3) + 1).tolist() == looked
        assert found["evaluation"][2] == pytest.approx(evaluated, abs=0.2)
        assert [device.status().model_version for device in devices] == [release.manifest.model_version] * 6


def test_a_release_that_comes_while_a_round_is_running_changes_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = a_release(tmp_path, 60, 1), a_release(tmp_path, 30, 2)
    fleet = WholeFleet(tmp_path / "fleet", real=True, vector=VECTOR)
    Switching.newest = fleet.publisher.bundle = first
    monkeypatch.setattr(TestClient, "_updater", lambda _: Switching())
    devices = [fleet.device(number, a_profile()) for number in range(6)]
    fleet.play(*devices, until=lambda: all(device.status().state == "round" for device in devices))
    Switching.newest = fleet.publisher.bundle = second
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    (result,), (outcome,) = fleet.publisher.results, fleet.sums.outcomes
    assert result.release == first.sha256
    assert len(outcome.survivors) == 6
    decoded = decode_sum(fleet.plan, to_lattice(fleet.plan, outcome.sum)) * fleet.plan.cohort
    assert (np.flatnonzero(split_segments(fleet.plan, decoded)["trending"] > 3) + 1).tolist() == [1, 25, 39]
