"""Epsilon of Gaussian noise over Poisson-sampled batches, by privacy loss distributions through dp-accounting.

For central training with true Poisson sampling only: every step takes each user independently with probability q,
and nobody sees who was taken. Shuffled or fixed-size batches and rounds that devices join by themselves have no such
guarantee, whatever the numbers say. Adjacency: add-or-remove one user.

The loss of one step is put on a grid so that the result is never below the truth (Doroshenko et al. 2022,
arXiv:2207.04380, "connect the dots") and composed by FFT (Koskela et al. 2020, arXiv:1906.03049). Below the accuracy
of the FFT the Renyi bound (Mironov, Talwar, Zhang 2019, arXiv:1908.10530) takes over: valid, but not tight.
"""

import math
from typing import TYPE_CHECKING, Any

from hushrec_privacy import checks
from hushrec_privacy.accounting.gaussian import (
    check_delta,
    check_epsilon,
    check_noise,
    gaussian_delta,
    gaussian_epsilon,
    mu_of_participations,
)
from hushrec_privacy.errors import ConfigError

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

__all__ = ["poisson_delta", "poisson_epsilon", "poisson_noise_multiplier"]

_MOST_POINTS, _MOST_COMPOSED = 500_000, 2_000_000  # of the grid of one step, and of all together
_WIDEST, _OF_DEVIATION = 3e-4, 0.05
_TAIL = 11.0  # standard deviations that the grid reaches out: Q(11) is below exp(-60)
_SMALLEST_RATE = 1e-9  # a smaller one is taken for it: valid, and at such rates delta is hardly ever worth more
_LARGEST = 1e7  # loss of one step; above it sampling is not worth a grid
_FFT_ERROR = 2.0**-51  # of delta, for each step composed
_TRUSTED = 0.02  # share of delta that the error of the FFT may be; it moves epsilon by less than 0.1 %
_TOLERANCE = 1e-3


def poisson_epsilon(
    sampling_rate: float, steps: int, noise_multiplier: float, delta: float, *, released_mu: float = 0.0
) -> float:
    """An epsilon of a whole training run, at most about 0.1 % above the tight one while delta is at least 1e-11.

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
    _check(sampling_rate, steps, noise_multiplier)
    check_delta(delta)
    if steps == 0 or sampling_rate == 0:
        return gaussian_epsilon(released_mu, delta)
    if noise_multiplier == 0 or delta == 0:
        return math.inf
    mu = math.hypot(mu_of_participations(noise_multiplier, steps), released_mu)
    unsampled = gaussian_epsilon(mu, delta)
    ever = sampling_rate * steps * (1 + _TOLERANCE)  # the chance to be in any step, at most
    if ever < delta:
        return min(unsampled, gaussian_epsilon(released_mu, delta - ever))  # without being taken nothing is lost
    sampling_rate = max(sampling_rate, _SMALLEST_RATE)
    if sampling_rate == 1 or unsampled == 0 or _largest_loss(noise_multiplier) > _LARGEST:
        return unsampled  # taking everybody is a bound for taking some
    error = _FFT_ERROR * steps
    found = unsampled
    if error <= _TRUSTED * delta:
        composed = _loss(sampling_rate, steps, noise_multiplier, error, released_mu)
        found = min(found, float(composed.get_epsilon_for_delta(delta - error)))
    if found == unsampled or error > _TRUSTED * delta:
        found = min(found, _renyi(sampling_rate, steps, noise_multiplier, released_mu).get_epsilon(delta))
    return max(0.0, float(found))


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
    _check(sampling_rate, steps, noise_multiplier)
    check_epsilon(epsilon)
    if steps == 0 or sampling_rate == 0 or epsilon == math.inf:
        return 0.0
    if noise_multiplier == 0:
        return 1.0
    unsampled = gaussian_delta(mu_of_participations(noise_multiplier, steps), epsilon)
    unsampled = min(unsampled, sampling_rate * steps)
    sampling_rate = max(sampling_rate, _SMALLEST_RATE)
    if sampling_rate == 1 or _largest_loss(noise_multiplier) > _LARGEST:
        return unsampled
    error = _FFT_ERROR * steps
    composed = _loss(sampling_rate, steps, noise_multiplier, error, 0.0)
    found = float(composed.get_delta_for_epsilon(epsilon)) + error
    if error > _TRUSTED * found:
        found = min(found, float(_renyi(sampling_rate, steps, noise_multiplier, 0.0).get_delta(epsilon)))
    return min(1.0, unsampled, found)


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
    _check(sampling_rate, steps, 1.0)
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


def _check(sampling_rate: float, steps: int, noise_multiplier: float) -> None:
    if not 0 <= sampling_rate <= 1:
        raise ConfigError(f"sampling_rate is {sampling_rate!r}; it must be 0 to 1")
    checks.at_least(0, steps=steps)
    check_noise(noise_multiplier)


def _loss(
    sampling_rate: float, steps: int, noise_multiplier: float, error: float, released_mu: float
) -> "PrivacyLossDistribution":
    """The composed privacy loss, cut where less mass than the FFT's own error is left."""
    from dp_accounting.pld import privacy_loss_distribution as pld  # a second to import

    interval = _grid(sampling_rate, steps, noise_multiplier)
    one = pld.from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sampling_rate, value_discretization_interval=interval, use_connect_dots=True
    )
    all_steps = one.self_compose(steps, tail_mass_truncation=min(1e-15, error))
    if not released_mu:
        return all_steps
    released = pld.from_gaussian_mechanism(
        1 / released_mu, value_discretization_interval=interval, use_connect_dots=True
    )
    return all_steps.compose(released, tail_mass_truncation=min(1e-15, error))


def _grid(sampling_rate: float, steps: int, noise_multiplier: float) -> float:
    """Interval of the grid: small against the deviation of one step's loss, but not more points than are affordable.

    A loss between two points is split between them, which adds at most a quarter of the squared interval to the
    variance of each step.
    """
    z, q = noise_multiplier, sampling_rate
    largest = _largest_loss(z)
    reach = largest if largest > 700 else math.log1p(q * math.expm1(largest)) - math.log1p(-q)
    spread = q * math.sqrt(math.expm1(min(700.0, z**-2)))  # root of the chi-square divergence of one step
    composed = 24 * math.sqrt(steps) * min(spread, math.sqrt(q) * reach)
    affordable = max(reach / _MOST_POINTS, composed / _MOST_COMPOSED)
    return max(affordable, min(_WIDEST, _OF_DEVIATION * spread))


def _largest_loss(noise_multiplier: float) -> float:
    return (_TAIL + 0.5 / noise_multiplier) / noise_multiplier


def _renyi(sampling_rate: float, steps: int, noise_multiplier: float, released_mu: float) -> Any:
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    orders = [*(1 + 2 ** (n / 6) for n in range(-18, 25)), *(round(2 ** (n / 4)) for n in range(17, 53))]
    step = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    accountant = RdpAccountant(orders).compose(step, steps)
    return accountant.compose(dp_accounting.GaussianDpEvent(1 / released_mu)) if released_mu else accountant
