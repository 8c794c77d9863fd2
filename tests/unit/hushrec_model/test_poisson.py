"""Poisson sampling: every user alike, independently, with the probability that the accounting was told."""

import numpy as np
import pytest
from hushrec_model.poisson import PoissonSampler
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.randomness import OsRandom
from scipy.stats import chi2

USERS, STEPS = 500, 4_000
FALSE_ALARM = 1e-6


def spread(sizes: np.ndarray, rate: float) -> float:
    """Sum of squared distances of batch sizes from the binomial's mean, over its variance."""
    return float(((sizes - USERS * rate) ** 2).sum() / (USERS * rate * (1 - rate)))


def looks_binomial(sizes: np.ndarray, rate: float) -> bool:
    """Mean and variance of batch sizes; both tests are normal to well within what their bounds leave."""
    low, high = chi2.ppf([FALSE_ALARM / 4, 1 - FALSE_ALARM / 4], len(sizes))
    off = abs(sizes.mean() - USERS * rate) / np.sqrt(USERS * rate * (1 - rate) / len(sizes))
    return bool(low * 0.97 <= spread(sizes, rate) <= high * 1.03 and off <= 5.1)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_batch_sizes_follow_the_binomial(rate: float) -> None:
    sampler = PoissonSampler(USERS, rate, OsRandom())
    assert looks_binomial(np.array([len(sampler.draw()) for _ in range(STEPS)]), rate)


def test_batches_of_a_fixed_size_do_not() -> None:
    assert not looks_binomial(np.full(STEPS, 50), 0.1)


def test_every_user_is_drawn_as_often_as_every_other() -> None:
    sampler = PoissonSampler(USERS, 0.3, OsRandom())
    drawn = np.bincount(np.concatenate([sampler.draw() for _ in range(STEPS)]), minlength=USERS)
    assert abs(drawn - STEPS * 0.3).max() <= 6.2 * np.sqrt(STEPS * 0.3 * 0.7)  # 500 users at 5.6e-10 each


def test_users_are_drawn_apart_from_each_other() -> None:
    """Neighbours are together in a batch q^2 of the time."""
    sampler = PoissonSampler(USERS, 0.5, OsRandom())
    inside = np.zeros((STEPS, USERS))
    for row in inside:
        row[sampler.draw()] = 1
    together = (inside[:, 1:] * inside[:, :-1]).mean()
    assert abs(together - 0.25) <= 5.1 * np.sqrt(0.25 / (STEPS * USERS))


def test_a_rate_of_one_is_everybody() -> None:
    assert PoissonSampler(7, 1.0, OsRandom()).draw().tolist() == list(range(7))


def test_a_batch_may_be_empty() -> None:
    assert PoissonSampler(3, 1e-12, OsRandom()).draw().shape == (0,)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0000001, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="sampling_rate"):
        PoissonSampler(5, rate, OsRandom())


def test_nobody_to_draw_from_is_refused() -> None:
    with pytest.raises(ConfigError, match="population"):
        PoissonSampler(0, 0.5, OsRandom())
