"""The server's rate rises, stays and falls over the rounds of a run, and is smaller where the noise is loud."""

import math

import pytest
from hushrec.federated.schedule import share_of_rate
from hushrec_privacy.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st


def test_it_rises_over_fifty_rounds_and_falls_from_the_middle_on() -> None:
    shares = [share_of_rate(number, 600) for number in range(1, 601)]
    assert shares[:50] == [number / 50 for number in range(1, 51)]
    assert set(shares[50:301]) == {1.0}
    assert shares[301:] == [2 * left / 600 for left in range(299, 0, -1)]


def test_of_a_short_run_a_quarter_rises() -> None:
    assert [share_of_rate(number, 12) for number in range(1, 5)] == [1 / 3, 2 / 3, 1.0, 1.0]


def test_one_round_is_taken_whole() -> None:
    assert share_of_rate(1, 1) == 1.0


@given(st.integers(1, 5000).flatmap(lambda rounds: st.tuples(st.integers(1, rounds), st.just(rounds))))
def test_every_round_moves_the_model_and_none_by_more_than_the_rate(place: tuple[int, int]) -> None:
    number, rounds = place
    share = share_of_rate(number, rounds)
    assert 1 / rounds <= share <= 1
    assert share_of_rate(number, rounds, 0.5) == share
    assert share_of_rate(number, rounds, 5.0) == pytest.approx(share / 10)


@pytest.mark.parametrize("wrong", [(0, 5), (6, 5), (1, 0), (1, 5, -0.1), (1, 5, math.nan), (1, 5, math.inf)])
def test_what_is_no_round_has_no_rate(wrong: tuple[int, int]) -> None:
    with pytest.raises(ConfigError):
        share_of_rate(*wrong)
