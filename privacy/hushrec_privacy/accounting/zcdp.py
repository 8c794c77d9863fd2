"""What zero-concentrated DP implies: an upper bound for every mechanism, and the exact curve when it is Gaussian.

rho-zCDP (Bun, Steinke 2016, arXiv:1605.02065, definition 1.1) adds up under adaptive composition (lemma 1.7). The two
conversions answer different questions and are never mixed: `zcdp_epsilon` holds for any mechanism of that rho,
`gaussian_rho_epsilon` only where rho comes from Gaussian noise, mu = sqrt(2 rho).
"""

import math
from collections.abc import Callable, Iterable

from hushrec_privacy.accounting.gaussian import (
    check_delta,
    check_epsilon,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    mu_of_participations,
)
from hushrec_privacy.errors import ConfigError

__all__ = [
    "gaussian_rho",
    "gaussian_rho_delta",
    "gaussian_rho_epsilon",
    "rho_of_gaussian_epsilon",
    "rho_of_zcdp_epsilon",
    "zcdp_delta",
    "zcdp_epsilon",
]

_UP, _DOWN = 1 + 1e-13, 1 - 1e-13
_GOLDEN = (math.sqrt(5) - 1) / 2


def gaussian_rho(noise_multiplier: float, participations: int = 1) -> float:
    """rho of k participations under Gaussian noise: k / (2 z^2), rounded up (Bun, Steinke, proposition 1.6).

    Args:
        noise_multiplier: z, standard deviation of the noise over the L2 bound of one participation; 0 gives infinity.
        participations: k.

    Raises:
        ConfigError: z is negative or not finite, or k is negative or not whole.

    >>> round(gaussian_rho(8.35, 2), 9)
    0.014342572
    """
    mu = mu_of_participations(noise_multiplier, participations)
    return mu * mu / 2


def gaussian_rho_epsilon(rho: float, delta: float) -> float:
    """Exact epsilon of Gaussian noise whose participations sum to rho; only for Gaussian noise.

    >>> round(gaussian_rho_epsilon(0.15068403, 1e-10), 6)
    3.424007
    """
    return gaussian_epsilon(_mu(rho), delta)


def gaussian_rho_delta(rho: float, epsilon: float) -> float:
    """Exact delta of Gaussian noise whose participations sum to rho; only for Gaussian noise."""
    return gaussian_delta(_mu(rho), epsilon)


def rho_of_gaussian_epsilon(epsilon: float, delta: float) -> float:
    """The largest rho of Gaussian noise that is (epsilon, delta)-DP, rounded down."""
    mu = gaussian_mu(epsilon, delta)
    return mu * mu / 2 * _DOWN


def zcdp_epsilon(rho: float, delta: float) -> float:
    """An epsilon that every rho-zCDP mechanism keeps at a delta.

    The least over alpha > 1 of alpha rho + log(1 - 1/alpha) - log(alpha delta)/(alpha - 1): Canonne, Kamath, Steinke
    2020, arXiv:2004.00010, corollary 13 solved for epsilon. Every alpha is valid, so an inexact search costs
    tightness, never truth.

    Args:
        rho: 0 to infinity.
        delta: 0 (included) to 1 (excluded); 0 gives infinity.

    Raises:
        ConfigError: An argument is NaN or out of range.

    >>> round(zcdp_epsilon(0.014342572, 1e-10), 4)
    1.0423
    """
    _check_rho(rho)
    check_delta(delta)
    if rho == 0:
        return 0.0
    if delta == 0 or rho == math.inf:
        return math.inf
    log_delta = math.log(delta)

    def bound(order: float) -> float:
        above = math.exp(order)  # alpha - 1
        parts = (rho * (1 + above), -math.log1p(1 / above), -math.log1p(above) / above, -log_delta / above)
        return _sum_above(parts)

    return max(0.0, _least(bound, 0.5 * (math.log(-log_delta) - math.log(rho))))


def zcdp_delta(rho: float, epsilon: float) -> float:
    """A delta that every rho-zCDP mechanism keeps at an epsilon (Canonne et al. 2020, corollary 13).

    Args:
        rho: 0 to infinity.
        epsilon: At least 0, or infinity.

    Raises:
        ConfigError: An argument is NaN or negative.

    >>> zcdp_delta(0.014342572, 1.0423362) <= 1e-10
    True
    """
    _check_rho(rho)
    check_epsilon(epsilon)
    if rho == 0 or epsilon == math.inf:
        return 0.0
    if rho == math.inf or epsilon <= rho:
        return 1.0

    def bound(order: float) -> float:
        above = math.exp(order)
        alpha = 1 + above
        return _sum_above((above * alpha * rho, -above * epsilon, -order, -alpha * math.log1p(1 / above)))

    log_delta = _least(bound, math.log((epsilon - rho) / (2 * rho)))
    return min(1.0, max(math.exp(min(0.0, log_delta)) * _UP, math.ulp(0.0)))


def rho_of_zcdp_epsilon(epsilon: float, delta: float) -> float:
    """The largest rho for which `zcdp_epsilon` is at most epsilon, rounded down.

    >>> round(rho_of_zcdp_epsilon(1.0, 1e-6), 4)
    0.0244
    """
    check_epsilon(epsilon)
    check_delta(delta)
    if epsilon == math.inf:
        return math.inf
    low, high = 0.0, max(epsilon, 1e-300)  # zcdp_epsilon(rho) is above rho unless delta is large
    while zcdp_epsilon(high, delta) <= epsilon:
        low, high = high, high * 2
    while high - low > 1e-13 * high:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if zcdp_epsilon(middle, delta) <= epsilon else (low, middle)
    return low


def _mu(rho: float) -> float:
    _check_rho(rho)
    return math.sqrt(2 * rho) * _UP


def _check_rho(rho: float) -> None:
    if not rho >= 0:
        raise ConfigError(f"rho is {rho!r}; it must be at least 0")


def _sum_above(parts: Iterable[float]) -> float:
    """A sum, raised by more than the rounding of its parts."""
    found = tuple(parts)
    return math.fsum(found) + 1e-14 * math.fsum(map(abs, found))


def _least(bound: Callable[[float], float], guess: float) -> float:
    """The least value found near a guess of log(alpha - 1), by golden section."""
    low, high = max(-690.0, min(guess, 600.0) - 20), min(690.0, max(guess, -600.0) + 20)
    inner, outer = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_inner, at_outer = bound(inner), bound(outer)
    for _ in range(120):
        if at_inner < at_outer:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - _GOLDEN * (high - low)
            at_inner = bound(inner)
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + _GOLDEN * (high - low)
            at_outer = bound(outer)
    return min(at_inner, at_outer)
