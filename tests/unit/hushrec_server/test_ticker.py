"""Rounds advance in the background, whatever one tick does, and requests are answered meanwhile."""

import asyncio
import time
from pathlib import Path

import pytest
from hushrec.messages import path_of
from hushrec_privacy.errors import FleetError, StorageError
from hushrec_server.metrics import Metrics
from hushrec_server.ticker import Ticker

from tests.asgi import asks
from tests.fake_fleet import AUTHORITY_KEY, FakeFleet, World


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ticker(fleet: FakeFleet, clock: Clock, **more: object) -> Ticker:
    return Ticker(fleet, Metrics(), clock=clock, **more)  # type: ignore[arg-type]


@pytest.fixture
def fleet() -> FakeFleet:
    return FakeFleet(AUTHORITY_KEY.public(), lambda: 0.0)


def test_a_tick_says_when_the_next_one_is_due_within_bounds(fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ticker(fleet, Clock())
    for told, kept in ((0.0, 0.05), (-1.0, 0.05), (7.0, 7.0), (1e9, 30.0)):
        monkeypatch.setattr(fleet, "tick", lambda told=told: told)
        assert made.once() == kept


def test_a_tick_that_fails_is_tried_again_ever_later(fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> float:
        raise StorageError("gone")

    made = ticker(fleet, Clock())
    monkeypatch.setattr(fleet, "tick", broken)
    assert [made.once() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    monkeypatch.undo()
    assert made.once() == 0.05
    monkeypatch.setattr(fleet, "tick", broken)
    assert made.once() == 1


def test_readiness_fails_when_no_tick_has_succeeded_for_minutes(
    fleet: FakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> float:
        raise RuntimeError("secret")

    clock = Clock()
    made = ticker(fleet, clock)
    made.check()
    monkeypatch.setattr(fleet, "tick", broken)
    clock.now = 301.0
    made.once()
    with pytest.raises(FleetError, match="have not advanced for 301 s"):
        made.check()
    monkeypatch.undo()
    made.once()
    made.check()


def test_chores_are_done_at_the_start_and_every_ten_minutes_and_may_fail(fleet: FakeFleet) -> None:
    done: list[str] = []

    def broken() -> None:
        done.append("broken")
        raise RuntimeError("secret")

    clock = Clock()
    made = ticker(fleet, clock, chores=(broken, lambda: done.append("chore")))
    for now in (0.0, 1.0, 599.0, 600.0, 601.0):
        clock.now = now
        made.once()
    assert done == ["broken", "chore"] * 2


def test_a_long_tick_does_not_hold_up_a_request(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fleet.tick_s = 0.4

    async def run() -> float:
        made = Ticker(world.fleet, Metrics(), clock=time.monotonic)
        worst = 0.0
        async with made.running():
            until = time.monotonic() + 0.6
            while time.monotonic() < until:
                began = time.monotonic()
                assert (await asks(world.app, "GET", path_of("fleet"))).status == 200
                worst = max(worst, time.monotonic() - began)
                await asyncio.sleep(0.01)
        return worst

    worst = asyncio.run(run())
    assert world.fleet.ticks >= 2
    assert worst < 0.3, "a request waited for a tick"


def test_the_end_waits_for_a_tick_that_has_begun(fleet: FakeFleet) -> None:
    fleet.tick_s = 0.2

    async def run() -> None:
        async with Ticker(fleet, Metrics(), clock=time.monotonic).running():
            await asyncio.sleep(0.05)

    began = time.monotonic()
    asyncio.run(run())
    assert fleet.ticks == 1
    assert time.monotonic() - began >= 0.2
