"""Tails agree with SciPy's, far out too."""

import numpy as np
import pytest
from hushrec_privacy.audit.tails import (
    binomial_masses,
    chi_square_lower,
    chi_square_quantile,
    chi_square_upper,
    two_sided,
)
from hushrec_privacy.errors import ConfigError
from scipy import stats


@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 45, 1000, 100_000, 1_000_000])
def test_chi_square_tails_are_scipys(freedom: int) -> None:
    for deviations in (-6.0, -3.0, -1.0, 0.0, 0.01, 1.0, 3.0, 10.0):
        x = max(0.01, freedom + deviations * (2 * freedom) ** 0.5)
        lower, upper = stats.chi2.cdf(x, freedom), stats.chi2.sf(x, freedom)
        assert chi_square_lower(x, freedom) == pytest.approx(lower, rel=1e-7, abs=1e-15)
        assert chi_square_upper(x, freedom) == pytest.approx(upper, rel=1e-7, abs=1e-15)
        assert two_sided(x, freedom) == pytest.approx(min(1, 2 * min(lower, upper)), rel=1e-7)


@pytest.mark.parametrize("freedom", [1, 2, 45, 100_000])
def test_quantiles_are_scipys(freedom: int) -> None:
    for chance in (1e-6, 0.025, 0.5, 0.975, 1 - 1e-6):
        assert chi_square_quantile(chance, freedom) == pytest.approx(stats.chi2.ppf(chance, freedom), rel=1e-8)


def test_the_ends_are_certain() -> None:
    assert (chi_square_lower(0.0, 5), chi_square_upper(0.0, 5)) == (0.0, 1.0)
    assert (chi_square_lower(np.inf, 5), chi_square_upper(np.inf, 5)) == (1.0, 0.0)


@pytest.mark.parametrize(("trials", "chance"), [(0, 0.5), (1, 0.25), (1000, 0.9), (100_000, 0.73)])
def test_binomial_masses_are_scipys(trials: int, chance: float) -> None:
    expected = stats.binom.pmf(np.arange(trials + 1), trials, chance)
    seen = expected > 1e-200
    np.testing.assert_allclose(binomial_masses(trials, chance)[seen], expected[seen], rtol=1e-8)


def test_arguments_out_of_range_are_refused() -> None:
    for call in (
        lambda: chi_square_lower(-1.0, 1),
        lambda: chi_square_lower(np.nan, 1),
        lambda: chi_square_lower(1.0, 0),
        lambda: chi_square_quantile(0.0, 1),
        lambda: chi_square_quantile(1.0, 1),
        lambda: binomial_masses(-1, 0.5),
        lambda: binomial_masses(1, 0.0),
        lambda: binomial_masses(1, 1.0),
    ):
        with pytest.raises(ConfigError):
            call()
