"""A device whose clock is put forward or back, in a round or between two: it spends once, and never waits for ever."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec.fleet.pacing import Pace
from hushrec_privacy.errors import FleetError
from hushrec_server.service import FleetService

from tests.whole_fleet import ROUND_S, START, TestClient, WholeFleet, made, nothing

URL = "https://learn.shop.example"
HOURS, DAYS = 3_600.0, 86_400.0
PHASES = ("advertise", "choose", "share", "mask", "agree", "reveal")


class OwnClock:
    """A device's clock: true time, and so much ahead."""

    def __init__(self, fleet: WholeFleet, ahead_s: float = 0.0) -> None:
        self.fleet, self.ahead_s = fleet, ahead_s

    def __call__(self) -> float:
        return self.fleet.clock.now + self.ahead_s


@pytest.fixture
def fleet(tmp_path: Path) -> WholeFleet:
    return WholeFleet(tmp_path / "fleet")


@pytest.fixture
def clocks(fleet: WholeFleet) -> list[OwnClock]:
    return [OwnClock(fleet) for _ in range(6)]


@pytest.fixture
def devices(fleet: WholeFleet, clocks: list[OwnClock]) -> list[TestClient]:
    return [fleet.device(number, clock=clock) for number, clock in enumerate(clocks)]


def rounds_of(device: TestClient) -> int:
    """Participations on the device's own record."""
    return sum(plan.rounds for plan in device._store.record().totals().plans.values())


def masked(device: TestClient) -> list[str]:
    """Paths of the masked vectors that it sent."""
    return [path for method, path, _ in device.sent if method == "POST" and path.endswith("/mask")]


@pytest.mark.parametrize(
    "ahead_s",
    [
        5 * HOURS,
        -5 * HOURS,
        pytest.param(60 * DAYS, marks=pytest.mark.slow),
        pytest.param(-10 * DAYS, marks=pytest.mark.slow),
    ],
)
def test_a_clock_that_jumps_in_any_phase_ends_no_round(
    fleet: WholeFleet, clocks: list[OwnClock], devices: list[TestClient], ahead_s: float
) -> None:
    """Each device's clock jumps in another phase of one round."""
    for device, clock, phase in zip(devices, clocks, PHASES, strict=True):

        def jumping(method: str, path: str, phase: str = phase, clock: OwnClock = clock) -> None:
            if method == "POST" and path.endswith(f"/{phase}"):
                clock.ahead_s = ahead_s

        device.connections[URL].before = jumping
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    (outcome,) = fleet.sums.outcomes
    assert len(outcome.survivors) == 6
    np.testing.assert_array_equal(outcome.sum, made(devices, 1))
    assert [rounds_of(device) for device in devices] == [1] * 6
    assert [device.status().rounds for device in devices] == [1] * 6
    for device, clock in zip(devices, clocks, strict=True):  # and put right again
        device.connections[URL].before, clock.ahead_s = nothing, 0.0
    fleet.play(*devices, until=lambda: len(fleet.publisher.results) == 2, seconds=2 * ROUND_S)
    assert [rounds_of(device) for device in devices] == [2] * 6


def test_work_is_not_stopped_by_a_clock_that_is_put_forward(
    fleet: WholeFleet, clocks: list[OwnClock], devices: list[TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = devices[0].given.vector

    def working(*given: Any) -> Any:
        clocks[0].ahead_s = 5 * HOURS
        return vector(*given)

    monkeypatch.setattr(devices[0].given, "vector", working)
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    assert len(fleet.sums.outcomes[0].survivors) == 6


@pytest.mark.parametrize("phase", ["choose", "agree"])
def test_a_round_whose_server_went_silent_is_left_in_time_though_the_clock_was_put_back(
    fleet: WholeFleet, clocks: list[OwnClock], devices: list[TestClient], phase: str
) -> None:
    device = devices[0]
    fleet.play(*devices, until=lambda: device.sent[-1:] != [] and device.sent[-1][1].endswith(f"/{phase}"))
    began, spent = fleet.clock.now, rounds_of(device)

    def silent(_method: str, _path: str) -> None:
        raise FleetError("away", reason="unreachable", retry_after_s=0)

    device.connections[URL].before = silent
    clocks[0].ahead_s = -5 * HOURS
    fleet.play(device, until=lambda: device.status().state != "round", seconds=10 * ROUND_S)
    assert fleet.clock.now - began <= Pace(ROUND_S).patience_s + 60
    assert rounds_of(device) == spent == int(phase == "agree")


@pytest.mark.parametrize("ahead_s", [5 * HOURS, 60 * DAYS])
def test_a_clock_that_was_ahead_and_is_put_right_takes_part_in_the_next_round(
    fleet: WholeFleet, clocks: list[OwnClock], devices: list[TestClient], ahead_s: float
) -> None:
    for clock in clocks:
        clock.ahead_s = ahead_s
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results))
    fleet.play(*devices, seconds=30)
    for clock in clocks:
        clock.ahead_s = 0.0
    fleet.play(*devices, until=lambda: len(fleet.publisher.results) == 2, seconds=2 * ROUND_S)
    assert [rounds_of(device) for device in devices] == [2] * 6


def test_a_clock_that_was_years_ahead_is_put_right_and_the_device_looks_again(
    fleet: WholeFleet, clocks: list[OwnClock], devices: list[TestClient]
) -> None:
    clocks[0].ahead_s = 3_650 * DAYS
    fleet.play(devices[0], seconds=60)
    assert devices[0].status().refusal.reason == "keys"  # type: ignore[union-attr]
    clocks[0].ahead_s = 0.0
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results), seconds=ROUND_S)
    assert rounds_of(devices[0]) == 1


@pytest.mark.parametrize("behind_s", [5 * HOURS, 10 * DAYS])
def test_a_clock_that_was_behind_waits_for_the_start_by_it_and_no_longer_once_it_is_right(
    fleet: WholeFleet, clocks: list[OwnClock], devices: list[TestClient], behind_s: float
) -> None:
    for clock in clocks:
        clock.ahead_s = -behind_s
    fleet.play(*devices, seconds=ROUND_S)
    assert not fleet.publisher.results, "by its own clock the first round is to come"
    for clock in clocks:
        clock.ahead_s = 0.0
    fleet.play(*devices, until=lambda: bool(fleet.publisher.results), seconds=3 * ROUND_S)
    assert [rounds_of(device) for device in devices] == [1] * 6


def test_a_round_that_comes_too_early_by_a_clock_that_was_put_back_is_left_before_anything_is_spent(
    fleet: WholeFleet, clocks: list[OwnClock], devices: list[TestClient]
) -> None:
    device = devices[0]

    def back(_method: str, path: str) -> None:
        if path.endswith("/check-in"):
            clocks[0].ahead_s = -5 * HOURS

    device.connections[URL].before = back
    fleet.play(device, until=lambda: clocks[0].ahead_s < 0)
    assert device.status().refusal.reason == "early"  # type: ignore[union-attr]
    assert rounds_of(device) == 0


@pytest.mark.slow
def test_a_clock_that_jumps_all_the_time_spends_each_round_once_and_takes_part_again_when_it_is_right(
    fleet: WholeFleet, clocks: list[OwnClock], devices: list[TestClient]
) -> None:
    rng = np.random.default_rng(8)
    while fleet.clock.now < START + 5 * ROUND_S:
        for clock in clocks:
            if rng.random() < 0.3:
                clock.ahead_s = float(rng.choice([0, 0, 1, -1])) * float(rng.integers(1, 12)) * HOURS
        fleet.play(*devices, seconds=float(rng.integers(20, 200)))
    for device in devices:
        assert len(set(masked(device))) == len(masked(device)) == rounds_of(device)
    for outcome, result in zip(fleet.sums.outcomes, fleet.publisher.results, strict=True):
        here = [device for device in devices if any(f"/rounds/{result.number}/" in path for path in masked(device))]
        assert len(outcome.survivors) == len(here)
        np.testing.assert_array_equal(outcome.sum, made(here, result.number))
    for clock in clocks:
        clock.ahead_s = 0.0
    before = len(fleet.publisher.results)
    fleet.play(*devices, until=lambda: len(fleet.publisher.results) > before + 1, seconds=4 * ROUND_S)
    assert len(fleet.sums.outcomes[-1].survivors) == 6


def test_the_server_s_clock_dates_nothing_but_requests(
    fleet: WholeFleet, devices: list[TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says it is years later moves no device to a round before its time."""
    info = FleetService.info
    fleet.clock.now = START - 2 * HOURS
    monkeypatch.setattr(
        FleetService, "info", lambda self: info(self).__class__(**{**info(self).__dict__, "now": START + 10**8})
    )
    fleet.play(devices[0], seconds=HOURS)
    assert {path for _, path, _ in devices[0].sent} == {"/v1/fleet"}
