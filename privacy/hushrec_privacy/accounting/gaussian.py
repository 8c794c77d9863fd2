"""The exact privacy curve of the Gaussian mechanism, in log space and plain floats, rounded against us.

A mechanism is mu-GDP when no test tells neighbours apart better than N(0, 1) from N(mu, 1) (Dong, Roth, Su 2019,
arXiv:1905.02383, definition 4); mu is the L2 distance of the two shifts over the noise. Its exact curve (Balle, Wang
2018, arXiv:1805.06530, theorem 8; Dong et al., corollary 2.13) is, with a = epsilon/mu - mu/2 and b = a + mu,

    delta(epsilon) = Q(a) - exp(epsilon) Q(b),    Q the upper tail of N(0, 1).

Since exp(epsilon) = phi(a)/phi(b), this is phi(a) (M(a) - M(b)) with the Mills ratio M = Q/phi, and M(a) - M(b) is the
integral of h(x) = 1 - x M(x) from a to b: no step subtracts near numbers, however small mu or delta is.
Composition: mu^2 adds up, also when later data depend on earlier outputs (Dong et al., corollary 3.3), the noise being
fixed beforehand. Nothing here knows sampling or discrete noise: see `sampled` and `discrete`.
"""

import math
from collections.abc import Callable, Iterable
from functools import cache

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError

__all__ = [
    "check_delta",
    "check_epsilon",
    "check_noise",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_mu",
    "mu_of_mixed_noise",
    "mu_of_participations",
    "noise_of_mu",
]

_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)
_UP = 1 + 4 * 2.0**-52
"""Covers the rounding of a few operations."""
_FRACTION_FROM = 3.0  # above it Mills ratios come from a continued fraction, below from erfc
_NODES = 12
_SMALL_SHIFT = 0.5
_ERROR = 1e-12  # relative, of everything but the exponent -a^2/2


def gaussian_delta(mu: float, epsilon: float) -> float:
    """The smallest delta of a mu-GDP mechanism at an epsilon, rounded up.

    Args:
        mu: Separation in standard deviations, 0 to infinity.
        epsilon: At least 0, or infinity.

    Returns:
        0 to 1; the smallest float above 0 where the true value is smaller still.

    Raises:
        ConfigError: An argument is NaN or negative.

    >>> round(gaussian_delta(1.0, 1.0), 6)
    0.126937
    """
    _check_mu(mu)
    check_epsilon(epsilon)
    if mu == 0 or epsilon == math.inf:
        return 0.0
    if mu == math.inf:
        return 1.0
    log_delta = _log_delta_above(mu, epsilon)
    return 1.0 if log_delta >= 0 else max(math.exp(log_delta) * _UP, math.ulp(0.0))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The smallest epsilon of a mu-GDP mechanism at a delta, rounded up (by about 1e-12).

    Args:
        mu: Separation in standard deviations, 0 to infinity.
        delta: 0 (included) to 1 (excluded).

    Returns:
        0 to infinity; infinity for delta 0, unless mu is 0.

    Raises:
        ConfigError: An argument is NaN or out of range.

    >>> round(gaussian_epsilon(2**0.5 / 8.35, 1e-10), 6)
    0.99355
    """
    _check_mu(mu)
    check_delta(delta)
    if mu == 0:
        return 0.0
    if delta == 0 or mu == math.inf:
        return math.inf
    target = math.log(delta)
    if _log_delta_above(mu, 0.0) <= target:
        return 0.0
    enough = mu * (mu / 2 + math.sqrt(-2 * target)) * (1 + 1e-9)  # Q(a) <= exp(-a^2 / 2) / 2 for a >= 0
    return _first(lambda epsilon: _log_delta_above(mu, epsilon) <= target, enough)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest mu whose mechanisms are (epsilon, delta)-DP, rounded down: the inverse of `gaussian_epsilon`.

    Args:
        epsilon: At least 0, or infinity.
        delta: 0 (included) to 1 (excluded).

    Raises:
        ConfigError: An argument is NaN or out of range.

    >>> round(gaussian_mu(1.0, 1e-6), 6)
    0.236704
    """
    check_epsilon(epsilon)
    check_delta(delta)
    if epsilon == math.inf:
        return math.inf
    if delta == 0:
        return 0.0
    target = math.log(delta)

    def holds(inverse: float) -> bool:
        return _log_delta_above(1 / inverse, epsilon) <= target

    enough = 1.0
    while not holds(enough):
        enough *= 2
    while holds(enough / 2):
        enough /= 2
    return 1 / (_first(holds, enough, enough / 2) * _UP)


def mu_of_participations(noise_multiplier: float, participations: int = 1) -> float:
    """Separation after k participations under noise of one size: mu = sqrt(k) / z, rounded up.

    Args:
        noise_multiplier: z, standard deviation of the noise over the L2 bound of one participation.
        participations: k.

    Raises:
        ConfigError: z is negative or not finite, or k is negative or not whole.

    >>> mu_of_participations(2.0, 4)
    1.0000000000000009
    """
    return mu_of_mixed_noise([(noise_multiplier, participations)])


def mu_of_mixed_noise(noise: Iterable[tuple[float, int]]) -> float:
    """Separation after participations under noise of several sizes: mu^2 = sum of k / z^2, rounded up.

    Args:
        noise: Pairs (z, k): noise multiplier and participations under it.

    Raises:
        ConfigError: A z is negative or not finite, or a k is negative or not whole.

    >>> round(mu_of_mixed_noise([(2.0, 4), (1.0, 3)]), 12)
    2.0
    """
    parts = []
    for noise_multiplier, participations in noise:
        check_noise(noise_multiplier)
        checks.at_least(0, participations=participations)
        if participations:
            parts.append(math.sqrt(participations) / noise_multiplier if noise_multiplier else math.inf)
    return math.hypot(*parts) * _UP


def noise_of_mu(mu: float, sensitivity: float) -> float:
    """The smallest noise, in units of the sensitivity's, that separates by mu at most, rounded up.

    Args:
        mu: 0 to infinity.
        sensitivity: L2 distance between the shifts of neighbours, such as sqrt(k) for k participations.

    Raises:
        ConfigError: mu is 0 though the sensitivity is not: no noise is enough.
    """
    _check_mu(mu)
    if not sensitivity:
        return 0.0
    if mu == 0:
        raise ConfigError("no finite noise reaches epsilon or delta 0; allow a little more of both")
    return sensitivity / mu * _UP


def check_delta(delta: float) -> None:
    """Require 0 <= delta < 1."""
    if not 0 <= delta < 1:  # also refuses NaN
        raise ConfigError(f"delta is {delta!r}; it must be at least 0 and below 1, such as 1e-6")


def check_epsilon(epsilon: float) -> None:
    """Require epsilon >= 0; infinity is allowed."""
    if not epsilon >= 0:
        raise ConfigError(f"epsilon is {epsilon!r}; it must be at least 0")


def check_noise(noise_multiplier: float) -> None:
    """Require a finite z >= 0."""
    if not 0 <= noise_multiplier < math.inf:
        raise ConfigError(f"noise_multiplier is {noise_multiplier!r}; it must be a finite number of at least 0")


def _check_mu(mu: float) -> None:
    if not mu >= 0:
        raise ConfigError(f"mu is {mu!r}; it must be at least 0")


def _log_delta_above(mu: float, epsilon: float) -> float:
    """An upper bound of log delta, for finite mu > 0; the true value lies about 1e-12 below."""
    centre = epsilon / mu
    a, b = centre - mu / 2, centre + mu / 2
    if a * a == math.inf:
        return -math.inf if a > 0 else 0.0  # delta is 0, or 1
    error = _ERROR + 2.0**-50 * abs(a) * (abs(a) + b)  # of -a^2 / 2, a having been rounded
    log_phi = -0.5 * a * a - _LOG_ROOT_TWO_PI
    if mu <= _SMALL_SHIFT or mu <= a / 4:
        return log_phi + math.log(mu * _mean_slope(a, mu)) + error
    if a > 0:
        return log_phi + math.log(_mills(a) - _mills(b)) + error
    return math.log(0.5 * math.erfc(a / math.sqrt(2)) - math.exp(log_phi) * _mills(b)) + error


def _mean_slope(a: float, mu: float) -> float:
    """Mean of h over [a, a + mu] by Gauss-Legendre quadrature; h varies little there."""
    half = 0.5 * mu
    return 0.5 * math.fsum(weight * _slope(a + half * (1 + node)) for node, weight in _legendre(_NODES))


def _mills(x: float) -> float:
    """Q(x) / phi(x)."""
    if x < _FRACTION_FROM:
        return math.sqrt(math.pi / 2) * math.exp(0.5 * x * x) * math.erfc(x / math.sqrt(2))
    return 1 / (x + _ratio(x))


def _slope(x: float) -> float:
    """h(x) = 1 - x M(x), which is minus the derivative of M."""
    if x < _FRACTION_FROM:
        return 1 - x * _mills(x)
    ratio = _ratio(x)
    return ratio / (x + ratio)


def _ratio(x: float) -> float:
    """h(x) / M(x) as the continued fraction 1/(x + 2/(x + 3/(x + ...))): all terms positive, from the far end.

    With I_n = integral of t^n/n! exp(-xt - t^2/2) over t > 0, by parts (n + 1) I_{n+1} = I_{n-1} - x I_n; M is I_0 and
    h is I_1.
    """
    value = 0.0
    for n in range(12 + int(300 / (x * x)), 0, -1):  # the rest is below exp(-2 x sqrt(2 n)), under 1e-23
        value = 1 / (x + (n + 1) * value)
    return value


@cache
def _legendre(count: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights of Gauss-Legendre quadrature on [-1, 1], by Newton's method."""
    found = []
    for i in range(count):
        x = math.cos(math.pi * (i + 0.75) / (count + 0.5))
        for _ in range(100):
            before, value = 1.0, x
            for n in range(2, count + 1):
                before, value = value, ((2 * n - 1) * x * value - (n - 1) * before) / n
            slope = count * (x * value - before) / (x * x - 1)
            step = value / slope
            x -= step
            if abs(step) < 1e-16:
                break
        found.append((x, 2 / ((1 - x * x) * slope * slope)))
    return tuple(found)


def _first(holds: Callable[[float], bool], enough: float, too_little: float = 0.0) -> float:
    """The smallest x in (too_little, enough] from which on a monotone condition holds, to 1e-14 above."""
    while enough - too_little > 1e-14 * enough:
        middle = 0.5 * (too_little + enough)
        if not too_little < middle < enough:
            break
        if holds(middle):
            enough = middle
        else:
            too_little = middle
    return enough
