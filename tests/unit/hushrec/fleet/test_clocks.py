"""Waits end about when they should, whatever is done to the clock; seconds of a round only rise."""

import time

import pytest
from hushrec.fleet.clocks import Waits, elapsed_s

from tests.whole_fleet import Clock


def test_a_clock_that_only_rises_is_left_as_it_is() -> None:
    clock = Clock(100.0)
    waits = Waits(clock)
    for now in (100.0, 100.5, 4_000.0):
        clock.now = now
        assert waits() == now


def test_a_wait_begun_while_the_clock_was_ahead_takes_no_longer_because_it_was_put_back() -> None:
    clock = Clock(1_000_000.0)
    waits = Waits(clock)
    due = waits() + 60
    clock.now = 20.0  # put back by days
    assert waits() < due
    clock.now += 59
    assert waits() < due
    clock.now += 1
    assert waits() >= due


def test_a_wait_ends_at_once_when_the_clock_is_put_forward_past_it() -> None:
    clock = Clock(20.0)
    waits = Waits(clock)
    due = waits() + 3_600
    clock.now = 1_000_000.0
    assert waits() >= due


def test_no_walk_of_the_clock_makes_it_fall_or_run_more_slowly() -> None:
    clock = Clock(1_000.0)
    waits, last = Waits(clock), 1_000.0
    for moved in (5.0, -300.0, 0.0, 40_000.0, -40_000.0, -1.0, 7.0):
        clock.now += moved
        now = waits()
        assert now == pytest.approx(last + max(0.0, moved))
        last = now


def test_elapsed_seconds_do_not_ask_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> float:
        raise AssertionError

    monkeypatch.setattr(time, "time", forbidden)
    first = elapsed_s()
    assert 0 <= elapsed_s() - first < 60
