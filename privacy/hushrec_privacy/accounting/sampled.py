"""Epsilon of Gaussian noise over Poisson-sampled batches, by privacy loss distributions.

For central training with true Poisson sampling only: every step takes each user independently with probability q,
and nobody sees who was taken. Shuffled or fixed-size batches and rounds that devices join by themselves have no such
guarantee, whatever the numbers say. Adjacency: add-or-remove one user. How it is computed: see `tilted`.
"""

import math

from hushrec_privacy.accounting.gaussian import check_delta, check_epsilon, gaussian_epsilon
from hushrec_privacy.accounting.privacy_loss import PrivacyLoss, SampledSteps
from hushrec_privacy.errors import ConfigError

__all__ = ["poisson_delta", "poisson_epsilon", "poisson_noise_multiplier"]

_TOLERANCE = 1e-3


def poisson_epsilon(
    sampling_rate: float, steps: int, noise_multiplier: float, delta: float, *, released_mu: float = 0.0
) -> float:
    """An epsilon of a whole training run, never below the tight one, at most about 1e-4 of it above.

    Further above, and still no further than the Renyi bound, where rates are below 1e-4 and delta is far below them.

    Args:
        sampling_rate: q, 0 to 1: the chance of each user to be in a step.
        steps: T.
        noise_multiplier: z, standard deviation of the noise over the clip norm.
        delta: 0 (included) to 1 (excluded).
        released_mu: Separation of what Gaussian noise over all users released beside the steps, such as tables of
            counts; composed exactly.

    Returns:
        0 to infinity; infinity where no noise is added, or for delta 0.

    Raises:
        ConfigError: An argument is NaN or out of range.

    >>> round(poisson_epsilon(0.01, 1000, 1.0, 1e-6), 2)
    2.12
    """
    steps_ = SampledSteps(sampling_rate, noise_multiplier, steps)
    return PrivacyLoss(released_mu, (steps_,)).epsilon(delta)


def poisson_delta(sampling_rate: float, steps: int, noise_multiplier: float, epsilon: float) -> float:
    """A delta of a whole training run at an epsilon; never below the true one.

    Args:
        sampling_rate: q, 0 to 1.
        steps: T.
        noise_multiplier: z, standard deviation of the noise over the clip norm.
        epsilon: At least 0, or infinity.

    Raises:
        ConfigError: An argument is NaN or out of range.

    >>> round(poisson_delta(0.01, 1000, 1.0, 2.12), 7) <= 1.1e-6
    True
    """
    return PrivacyLoss(sampled=(SampledSteps(sampling_rate, noise_multiplier, steps),)).delta(epsilon)


def poisson_noise_multiplier(
    sampling_rate: float, steps: int, epsilon: float, delta: float, *, released_mu: float = 0.0
) -> float:
    """A noise multiplier with which a run stays within (epsilon, delta); at most about 0.1 % above the least.

    Args:
        sampling_rate: q, 0 to 1.
        steps: T.
        epsilon: At least 0, or infinity.
        delta: 0 (included) to 1 (excluded).
        released_mu: As for `poisson_epsilon`; it is paid for from the same epsilon.

    Returns:
        z; 0 if no noise is needed.

    Raises:
        ConfigError: An argument is NaN or out of range, or no finite noise is enough.

    >>> z = poisson_noise_multiplier(0.01, 1000, 2.0, 1e-6)
    >>> poisson_epsilon(0.01, 1000, z, 1e-6) <= 2.0, 1.0 < z < 1.1
    (True, True)
    """
    SampledSteps(sampling_rate, 1.0, steps)
    check_epsilon(epsilon)
    check_delta(delta)
    if epsilon == math.inf or steps == 0 or sampling_rate == 0:
        return 0.0
    if epsilon == 0 or delta == 0:
        raise ConfigError("no finite noise reaches epsilon or delta 0 here; allow a little more")
    if gaussian_epsilon(released_mu, delta) >= epsilon:
        raise ConfigError("what is released beside the steps costs the whole epsilon; allow a larger one")

    def holds(noise_multiplier: float) -> bool:
        found = poisson_epsilon(sampling_rate, steps, noise_multiplier, delta, released_mu=released_mu)
        return found <= epsilon

    enough = 1.0
    while not holds(enough):
        enough *= 2
    while enough > 2.0**-20 and holds(enough / 2):
        enough /= 2
    too_little = enough / 2
    while enough - too_little > _TOLERANCE * enough:
        middle = math.sqrt(enough * too_little)
        enough, too_little = (middle, too_little) if holds(middle) else (enough, middle)
    return enough
