"""Rounding keeps the mean, the bound, and every bit of a coin's chance."""

import math

import numpy as np
import pytest
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.rounding import BETA, _bernoulli, round_conditionally, rounded_norm_bound
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

from tests.fixed_random import FixedRandom


class _Given(OsRandom):
    """Words out of a list."""

    def __init__(self, *words: int) -> None:
        super().__init__()
        self._given = list(words)

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next words of the list."""
        taken, self._given = self._given[:count], self._given[count:]
        return np.array(taken, np.uint64)


def test_the_bound_is_the_one_worked_by_hand() -> None:
    # C = 100, d = 400, beta = e^-2: sqrt(2 ln(1/beta)) = 2, so sqrt(10000 + 100 + 2 (100 + 10)) = sqrt(10320)
    assert rounded_norm_bound(100.0, 400, math.exp(-2)) == pytest.approx(math.sqrt(10320), rel=1e-12)
    assert rounded_norm_bound(100.0, 400, 0.0) == pytest.approx(120, rel=1e-12)
    # C = 1, d = 1: the second form, sqrt(1 + 1/4 + 1.5), is below 2
    assert rounded_norm_bound(1.0, 1, BETA) == pytest.approx(math.sqrt(2.75), rel=1e-12)


def test_each_coordinate_goes_up_as_often_as_its_fraction_says() -> None:
    vector = np.tile([0.25, -0.25, 3.5, -7.875, 2.0, 1e-9], 50_000)
    rounded = round_conditionally(FixedRandom(1), vector, clip_norm=float(np.linalg.norm(vector)))
    means = rounded.reshape(-1, 6).mean(0)
    np.testing.assert_allclose(means, vector[:6], atol=6 * 0.5 / math.sqrt(50_000))
    assert set(np.unique(rounded.reshape(-1, 6)[:, 3])) == {-8, -7}
    assert (rounded.reshape(-1, 6)[:, 4] == 2).all()


def test_a_vector_is_drawn_again_until_it_is_within_the_bound() -> None:
    # d = 100 halves: |rounded|^2 = number of ones, mean 50; C = 5: bound^2 = 25 + 25 + (5 + 5) = 60 at beta = e^-1/2
    vector, source = np.full(100, 0.5), FixedRandom(2)
    unconditional = [_bernoulli(source, vector).sum() for _ in range(2000)]
    assert max(unconditional) > 60
    drawn = [int((round_conditionally(source, vector, clip_norm=5.0) ** 2).sum()) for _ in range(2000)]
    assert max(drawn) == 60


def test_a_draw_passes_the_bound_no_more_often_than_beta() -> None:
    vector, source = np.full(64, 0.5), FixedRandom(3)  # norm 4
    for beta in (0.1, 0.5):
        bound = rounded_norm_bound(4.0, 64, beta)
        passed = sum(_bernoulli(source, vector).sum() > bound**2 for _ in range(4000))
        assert passed <= 4000 * beta + 5 * math.sqrt(4000 * beta)


def test_a_coin_uses_the_bits_beyond_the_first_64() -> None:
    chance = np.array([2.0**-64 * 1.5])  # first word 1, then one half
    assert _bernoulli(_Given(0), chance)[0]
    assert not _bernoulli(_Given(2), chance)[0]
    assert _bernoulli(_Given(1, 2**63 - 1), chance)[0]
    assert not _bernoulli(_Given(1, 2**63 + 1), chance)[0]
    assert not _bernoulli(_Given(1, 2**63, 1), chance)[0]  # equal twice: nothing is left of the chance


def test_the_largest_fraction_and_zero_are_exact() -> None:
    assert _bernoulli(_Given(2**64 - 2**11 - 1), np.array([1 - 2.0**-53]))[0]
    assert not _bernoulli(_Given(2**64 - 2**11 + 1), np.array([1 - 2.0**-53]))[0]
    assert not _bernoulli(_Given(1), np.array([0.0]))[0]


def test_a_vector_that_was_not_clipped_is_refused_not_rounded() -> None:
    with pytest.raises(ConfigError, match="longer than clip_norm"):
        round_conditionally(OsRandom(), np.full(4, 1e18), clip_norm=2.0)
    with pytest.raises(ConfigError, match="longer than clip_norm"):
        round_conditionally(OsRandom(), np.array([1e308]), clip_norm=2.0**30)


def test_the_error_does_not_show_the_vector() -> None:
    with pytest.raises(ConfigError) as refused:
        round_conditionally(OsRandom(), np.full(4, 123456.0), clip_norm=2.0)
    assert "123456" not in str(refused.value)


@pytest.mark.parametrize("bad", [[], [np.nan], [np.inf], [[1.0]]])
def test_what_is_no_row_of_finite_numbers_is_refused(bad: list[float]) -> None:
    with pytest.raises(ConfigError, match="finite"):
        round_conditionally(OsRandom(), np.array(bad), clip_norm=2.0)


@pytest.mark.parametrize(
    ("clip_norm", "dimension", "beta"),
    [(0.0, 1, 0.5), (math.nan, 1, 0.5), (2.0**31, 1, 0.5), (1.0, 0, 0.5), (1.0, 2**41, 0.5), (1.0, 1, 1.0), (1, 1, -1)],
)
def test_arguments_out_of_range_are_refused(clip_norm: float, dimension: int, beta: float) -> None:
    with pytest.raises(ConfigError):
        rounded_norm_bound(clip_norm, dimension, beta)
