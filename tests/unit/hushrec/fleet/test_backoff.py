"""Waits grow, are spread, have bounds, and a server can make them longer only."""

import math

import pytest
from hushrec.fleet.backoff import LONGEST_WAIT_S, Backoff
from hushrec_privacy.errors import ConfigError


def test_the_ceiling_doubles_up_to_its_bound() -> None:
    backoff = Backoff(least_s=2, most_s=32, uniform=lambda: 1 - 2**-53)
    assert [round(backoff.wait_s()) for _ in range(7)] == [4, 6, 10, 18, 34, 34, 34]


def test_a_server_that_says_zero_for_ever_is_asked_ever_more_rarely() -> None:
    backoff = Backoff(least_s=5, most_s=3600)
    waits = [backoff.wait_s(retry_after_s=0) for _ in range(2_000)]
    assert min(waits) >= 5
    assert sum(waits[100:]) / len(waits[100:]) > 3600 / 2 * 0.9


def test_the_jitter_is_full() -> None:
    backoff = Backoff(least_s=1, most_s=1024)
    for _ in range(10):
        backoff.wait_s()
    later = [backoff.wait_s() - 1 for _ in range(2_000)]
    assert min(later) < 20
    assert max(later) > 1004
    assert 480 < sum(later) / len(later) < 544  # 512 expected; the deviation of the mean is 6.6


def test_patience_that_is_asked_for_is_given_with_a_little_jitter_on_top_however_often_it_was_asked() -> None:
    backoff = Backoff(least_s=1, most_s=1024, uniform=lambda: 0.5)
    for _ in range(20):
        backoff.wait_s()
    assert backoff.wait_s(retry_after_s=3000) == 3000.5
    assert backoff.wait_s(retry_after_s=300) == 513


@pytest.mark.parametrize("asked", [1e18, 86_401.0])
def test_no_server_sends_a_device_away_for_longer_than_a_day(asked: float) -> None:
    backoff = Backoff(least_s=1, most_s=8, uniform=lambda: 0.0)
    assert backoff.wait_s(retry_after_s=asked) == LONGEST_WAIT_S


@pytest.mark.parametrize("asked", [-5.0, math.nan, math.inf, -math.inf, None])
def test_what_is_no_time_is_passed_over(asked: float | None) -> None:
    assert Backoff(least_s=3, most_s=8, uniform=lambda: 0.0).wait_s(retry_after_s=asked) == 3


def test_success_starts_anew() -> None:
    backoff = Backoff(least_s=1, most_s=64, uniform=lambda: 0.5)
    waits = [backoff.wait_s() for _ in range(5)]
    backoff.succeeded()
    assert [backoff.wait_s() for _ in range(5)] == waits


def test_very_many_failures_stay_finite() -> None:
    backoff = Backoff(least_s=1, most_s=60)
    assert all(1 <= backoff.wait_s() <= 61 for _ in range(5_000))


@pytest.mark.parametrize(("least_s", "most_s"), [(0, 1), (-1, 1), (2, 1), (1, math.inf), (math.nan, 1)])
def test_bounds_that_bound_nothing_are_refused(least_s: float, most_s: float) -> None:
    with pytest.raises(ConfigError):
        Backoff(least_s=least_s, most_s=most_s)
