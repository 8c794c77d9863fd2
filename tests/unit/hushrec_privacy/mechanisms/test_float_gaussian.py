"""Gaussian noise in floating point: its scale, its shape, and that nobody can repeat it.

Statistical tests use fresh noise; the bounds are wide enough that a sound sampler fails once in more than a million
runs (normal quantile 5 for two sides: 5.7e-7).
"""

import numpy as np
import pytest
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.float_gaussian import float_gaussian
from hushrec_privacy.randomness import OsRandom

DRAWS = 300_001  # odd: Box-Muller makes pairs


def scale_is(found: np.ndarray, scale: float) -> bool:
    """Whether the variance is within 5 standard errors, sqrt(2 / n) each, of the one wanted."""
    return bool(abs(np.mean(found**2) / scale**2 - 1) <= 5 * np.sqrt(2 / len(found)))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3.7, 1e4])
def test_the_scale_is_the_one_asked_for(scale: float) -> None:
    drawn = float_gaussian(OsRandom(), DRAWS, scale)
    assert drawn.shape == (DRAWS,)
    assert scale_is(drawn, scale)
    assert abs(drawn.mean()) <= 5 * scale / np.sqrt(DRAWS)


@pytest.mark.parametrize("wrong", [2 / 3, 3 / 2])
def test_two_thirds_and_three_halves_of_the_scale_are_told_apart(wrong: float) -> None:
    assert not scale_is(wrong * float_gaussian(OsRandom(), DRAWS, 1.0), 1.0)


def test_the_draws_are_normal() -> None:
    """Largest distance of the distribution functions (Massart 1990): above it with probability 2 exp(-2 n d^2)."""
    from scipy.stats import norm

    drawn = np.sort(float_gaussian(OsRandom(), DRAWS, 1.0))
    farthest = np.abs(norm.cdf(drawn) - np.arange(DRAWS) / DRAWS).max()
    assert farthest <= np.sqrt(np.log(2 / 5.7e-7) / (2 * DRAWS)) + 1 / DRAWS


def test_neighbouring_draws_do_not_go_together() -> None:
    drawn = float_gaussian(OsRandom(), DRAWS, 1.0)
    for gap in (1, DRAWS // 2):
        pairs = len(drawn) - gap
        assert abs(np.mean(drawn[gap:] * drawn[:-gap])) <= 5 / np.sqrt(pairs)


def test_no_two_calls_draw_the_same() -> None:
    random = OsRandom()
    assert not np.isin(float_gaussian(random, 1000, 1.0), float_gaussian(random, 1000, 1.0)).any()


def test_no_noise_is_zeros() -> None:
    assert not float_gaussian(OsRandom(), 5, 0.0).any()
    assert float_gaussian(OsRandom(), 0, 1.0).shape == (0,)


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="scale is"):
        float_gaussian(OsRandom(), 5, scale)
