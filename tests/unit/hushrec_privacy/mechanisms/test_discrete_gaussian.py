"""Noise has exactly the discrete Gaussian's distribution: against its formula, its moments, and OpenDP's sampler.

Every rejection below has a false-alarm probability of 1e-6 or less (and the key is fixed, so a pass stays a pass).
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.discrete_gaussian import sample_discrete_gaussian
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray
from scipy import stats

from tests.fixed_random import FixedRandom

ALARM = 1e-6
SMALL = [Fraction(1, 3), Fraction(1, 2), Fraction(1), Fraction(7, 3), Fraction(5, 2), Fraction(37, 10), Fraction(12)]
LARGE = [(1000, 1), (2**16 + 1, 1), (10**9 + 7, 10**3), (2**40, 1), (2**40 - 1, 3)]


def _chances(sigma: Fraction) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The exact probabilities: y from -10 sigma - 3 on."""
    y = np.arange(-int(10 * sigma) - 3, int(10 * sigma) + 4)
    weight = np.exp(-(y.astype(float) ** 2) / (2 * float(sigma) ** 2))
    return y, weight / weight.sum()


def _p_value(drawn: NDArray[np.int64], sigma: Fraction) -> float:
    """Chi-square against the exact probabilities; values expected less than 10 times are one bin a side."""
    y, chance = _chances(sigma)
    expected = chance * len(drawn)
    common = np.flatnonzero(expected >= 10)
    low, high = y[common[0]], y[common[-1]]
    counts = np.bincount(np.clip(drawn, low, high) - low, minlength=len(common))
    wanted = expected[common].copy()
    wanted[0] += expected[: common[0]].sum()
    wanted[-1] += expected[common[-1] + 1 :].sum()
    return float(stats.chisquare(counts, wanted * counts.sum() / wanted.sum()).pvalue)


@pytest.mark.parametrize("sigma", SMALL, ids=str)
def test_small_noise_has_the_exact_probabilities(sigma: Fraction) -> None:
    drawn = sample_discrete_gaussian(FixedRandom(1), 400_000, sigma.numerator, sigma.denominator)
    assert _p_value(drawn, sigma) > ALARM


@pytest.mark.parametrize("factor", [Fraction(2, 3), Fraction(3, 2), Fraction(99, 100), Fraction(101, 100)], ids=str)
def test_the_wrong_noise_is_told_from_the_right_one(factor: Fraction) -> None:
    sigma = Fraction(5, 2)
    drawn = sample_discrete_gaussian(FixedRandom(2), 400_000, (sigma * factor).numerator, (sigma * factor).denominator)
    assert _p_value(drawn, sigma) < ALARM


@pytest.mark.parametrize(("p", "q"), LARGE)
def test_large_noise_is_a_gaussian_of_the_right_deviation(p: int, q: int) -> None:
    count = 300_000
    standard = sample_discrete_gaussian(FixedRandom(3), count, p, q) / (p / q)
    assert stats.kstest(standard, "norm").pvalue > ALARM
    assert abs(standard.mean()) < 5 / math.sqrt(count)
    assert abs(standard.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((standard**4).mean() - 3) < 5 * math.sqrt(96 / count)
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(standard * wrong, "norm").pvalue < ALARM


@pytest.mark.parametrize(("p", "q"), [(2, 1), (37, 10), (100, 1)])
def test_opendp_draws_the_same_distribution(p: int, q: int) -> None:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int), size=40_000), dp.l2_distance(T=float)
    measure = dp.m.make_gaussian(*space, scale=p / q)
    theirs = np.array(measure([0] * 40_000))
    ours = sample_discrete_gaussian(FixedRandom(4), 400_000, p, q)
    cuts = np.unique(np.quantile(ours, np.linspace(0.01, 0.99, 30)))
    table = [np.bincount(np.searchsorted(cuts, drawn), minlength=len(cuts) + 1) for drawn in (ours, theirs)]
    assert stats.chi2_contingency(table).pvalue > ALARM
    table[1] = np.bincount(np.searchsorted(cuts, theirs * 1.25), minlength=len(cuts) + 1)
    assert stats.chi2_contingency(table).pvalue < ALARM


def test_a_fraction_and_its_lowest_terms_are_the_same_noise() -> None:
    one, other = (sample_discrete_gaussian(FixedRandom(5), 100, 5 * k, 2 * k) for k in (1, 2**41))
    np.testing.assert_array_equal(one, other)


def test_draws_do_not_depend_on_each_other() -> None:
    source = FixedRandom(6)
    first, second = (sample_discrete_gaussian(source, 200_000, 1000) / 1000 for _ in range(2))
    for one, other in ((first, second), (first[1:], first[:-1]), (np.abs(first), np.abs(second))):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(len(one))
    assert abs(np.corrcoef(first, first + second)[0, 1]) > 0.6


def test_two_sources_of_the_operating_system_draw_different_noise() -> None:
    one, other = (sample_discrete_gaussian(OsRandom(), 64, 2**20) for _ in range(2))
    assert not np.array_equal(one, other)


def test_none_asked_none_drawn() -> None:
    assert sample_discrete_gaussian(OsRandom(), 0, 3).shape == (0,)


@pytest.mark.parametrize(
    "arguments", [(-1, 1, 1), (1, 0, 1), (1, -3, 1), (1, 1, 0), (1, 2**40 + 1, 1), (1, 1, 2**40 + 1), (1, 1.5, 1)]
)
def test_what_is_out_of_range_is_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError):
        sample_discrete_gaussian(OsRandom(), *arguments)
