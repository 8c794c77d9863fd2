"""Noise that one device adds: as large as its epsilon needs, not larger, and for every input."""

import math

import numpy as np
import pytest
from hushrec_privacy.accounting import gaussian_mu
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.discrete_gaussian import sample_discrete_gaussian
from hushrec_privacy.mechanisms.local_noise import LocalNoise
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

from tests.fixed_random import FixedRandom

NOISE = LocalNoise(length=4000, clip_norm=0.5, epsilon=4.0, delta=1e-6)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 4.0, 12.0])
@pytest.mark.parametrize("length", [1, 64, 2**20])
def test_the_noise_is_the_least_that_keeps_epsilon(epsilon: float, length: int) -> None:
    found = LocalNoise(length, 1.0, epsilon, 1e-6)
    assert epsilon * (1 - 1e-5) < found.guarantee().epsilon <= epsilon
    assert found.deviation_of_a_number == pytest.approx(2 / gaussian_mu(epsilon, 1e-6), rel=1e-4)


def test_the_noise_has_the_stated_deviation_and_no_other() -> None:
    vector = np.linspace(-0.01, 0.01, 4000).astype(np.float32)  # norm .37
    error = NOISE.read(NOISE.release(vector, FixedRandom(1))) - vector
    measured, slack = float(np.sqrt(np.mean(error**2))), 5 / math.sqrt(2 * 4000)
    assert abs(measured / NOISE.deviation_of_a_number - 1) < slack
    for wrong in (2 / 3, 3 / 2):
        assert abs(measured / (wrong * NOISE.deviation_of_a_number) - 1) > slack


def test_two_releases_have_different_noise() -> None:
    one, other = (NOISE.release(np.zeros(4000, np.float32), OsRandom()) for _ in range(2))
    assert (one != other).mean() > 0.99


@pytest.mark.parametrize("value", [math.nan, math.inf, np.finfo(np.float32).max, 1.0])
def test_no_vector_is_further_from_its_opposite_than_the_noise_was_made_for(value: float) -> None:
    vector = np.full(4000, value, np.float32)
    sent = [_without_noise(vector), _without_noise(-vector)]
    distance = math.sqrt(sum(int(x) ** 2 for x in sent[0] - sent[1]))
    most = NOISE.deviation * gaussian_mu(4.0, 1e-6)
    assert distance <= most
    assert distance == 0 if not math.isfinite(value) else distance > 0.99 * most


def _without_noise(vector: NDArray[np.float32]) -> NDArray[np.int64]:
    """What is sent, less the noise: drawn again from where the keystream stood."""
    source, again = FixedRandom(2), FixedRandom(2)
    sent = NOISE.release(vector, source)
    again.words(4000)  # the coins of one rounding
    return sent - sample_discrete_gaussian(again, 4000, NOISE.deviation)


def test_releases_compose() -> None:
    assert NOISE.guarantee(0).epsilon == 0
    assert 2 * NOISE.guarantee().epsilon < NOISE.guarantee(4).epsilon < 4 * NOISE.guarantee().epsilon
    assert "the server sees" in NOISE.guarantee().trust


@pytest.mark.parametrize(
    ("length", "clip", "epsilon", "delta", "message"),
    [
        (0, 1.0, 1.0, 1e-6, "length is 0"),
        (2**20 + 1, 1.0, 1.0, 1e-6, "2\\^20"),
        (8, 0.0, 1.0, 1e-6, "clip_norm"),
        (8, 1e-31, 1.0, 1e-6, "clip_norm"),
        (8, math.nan, 1.0, 1e-6, "clip_norm"),
        (8, 1.0, 0.0, 1e-6, "epsilon"),
        (8, 1.0, math.inf, 1e-6, "epsilon"),
        (8, 1.0, 1.0, 0.0, "delta"),
        (8, 1.0, 1.0, 1.0, "delta"),
        (8, 1.0, 1e-9, 1e-12, "allow more"),
    ],
)
def test_a_noise_that_cannot_be_is_refused(
    length: int, clip: float, epsilon: float, delta: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        LocalNoise(length, clip, epsilon, delta)


def test_another_length_is_refused_whatever_the_values() -> None:
    for wrong in (np.zeros(3999, np.float32), np.zeros((4000, 1), np.float32), np.full(2, math.nan, np.float32)):
        with pytest.raises(ConfigError, match="4000 numbers"):
            NOISE.release(wrong, OsRandom())
