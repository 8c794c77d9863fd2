"""Integer noise is at least as private as the Gaussian noise that it is taken for, by the plain sums."""

import math

import numpy as np
import pytest
from hushrec_privacy.accounting.discrete import MOST_DRAWS, equivalent_gaussian_deviation
from hushrec_privacy.accounting.gaussian import gaussian_delta
from hushrec_privacy.errors import ConfigError


def discrete_delta(deviation: float, shift: int, epsilon: float) -> float:
    """Hockey-stick divergence of N_Z(shift, s^2) from N_Z(0, s^2), summed over the integers."""
    n = np.arange(-int(40 * deviation) - shift, int(40 * deviation) + shift + 1, dtype=np.float64)
    near, far = (np.exp(-((n - m) ** 2) / (2 * deviation**2)) for m in (shift, 0))
    near, far = near / near.sum(), far / far.sum()
    return float(np.maximum(near - math.exp(epsilon) * far, 0).sum())


@pytest.mark.parametrize("deviation", [2.6, 3.0, 7.3, 100.0])
@pytest.mark.parametrize("shift", [1, 2, 17])
def test_the_integer_curve_is_never_above(deviation: float, shift: int) -> None:
    mu = shift / equivalent_gaussian_deviation(deviation, 1)
    for epsilon in (0.0, 0.1, 0.7, 2.0, 5.0):
        assert discrete_delta(deviation, shift, epsilon) <= gaussian_delta(mu, epsilon) * (1 + 1e-9) + 1e-15


def test_a_continuous_gaussian_rounded_at_random_is_the_integer_noise() -> None:
    """The proof's own step: the mixture's density over that of the discrete Gaussian is 1, whatever the shift."""
    deviation, rounding, mean = 4.0, 2.5, 3
    x = np.linspace(-60, 60, 240_001)
    weight = np.exp(-((x - mean) ** 2) / (2 * (deviation**2 - rounding**2)))
    n = np.arange(-20, 27)[:, None]
    whole = np.arange(-90, 91)
    sums = np.exp(-((whole[None, :] - x[:, None]) ** 2) / (2 * rounding**2)).sum(1)
    mixed = (weight * np.exp(-((n - x) ** 2) / (2 * rounding**2)) / sums).sum(1)
    plain = np.exp(-((n[:, 0] - mean) ** 2) / (2 * deviation**2))
    np.testing.assert_allclose(mixed / mixed.sum() * plain.sum() / plain, 1.0, rtol=1e-9)


def test_the_loss_vanishes_on_a_fine_lattice() -> None:
    assert 1 - 1e-9 < equivalent_gaussian_deviation(2.0**20, 10**12) / 2**20 < 1


@pytest.mark.parametrize(("deviation", "draws"), [(2.5, 1), (0.0, 1), (math.nan, 1), (9.0, MOST_DRAWS + 1), (9.0, 0)])
def test_noise_that_the_bound_does_not_cover_is_refused(deviation: float, draws: int) -> None:
    with pytest.raises(ConfigError):
        equivalent_gaussian_deviation(deviation, draws)
