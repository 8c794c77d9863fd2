"""Tails of the chi-square and binomial distributions, in plain Python: no SciPy.

Chi-square: the incomplete gamma function by its series and continued fraction (DLMF 8.11.4 and 8.9.2), to about 1e-9
relative for up to 10^6 degrees of freedom. Not meant for tails below 1e-300.
"""

import math

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError

__all__ = ["binomial_masses", "chi_square_lower", "chi_square_quantile", "chi_square_upper", "two_sided"]

_SMALL = 1e-300


def chi_square_lower(x: float, freedom: int) -> float:
    """P(X <= x) for a chi-square X.

    Args:
        x: At least 0.
        freedom: Degrees of freedom, at least 1.

    >>> round(chi_square_lower(3.841459, 1), 6)
    0.95
    """
    return _gamma_tails(x, freedom)[0]


def chi_square_upper(x: float, freedom: int) -> float:
    """P(X >= x) for a chi-square X; arguments as in `chi_square_lower`.

    >>> round(chi_square_upper(18.307038, 10), 6)
    0.05
    """
    return _gamma_tails(x, freedom)[1]


def two_sided(x: float, freedom: int) -> float:
    """Twice the smaller tail of a chi-square at x: the p-value of a dispersion that may be too small or too large."""
    return min(1.0, 2 * min(_gamma_tails(x, freedom)))


def chi_square_quantile(chance: float, freedom: int) -> float:
    """The x below which a chi-square falls with this chance, by bisection.

    Args:
        chance: Above 0 and below 1.
        freedom: Degrees of freedom, at least 1.

    >>> round(chi_square_quantile(0.95, 1), 6)
    3.841459
    """
    if not 0 < chance < 1:
        raise ConfigError(f"chance is {chance!r}; it must be above 0 and below 1")
    spread = 10 * math.sqrt(2 * freedom)
    low, high = max(0.0, freedom - spread), freedom + spread
    low = low if chi_square_lower(low, freedom) < chance else 0.0
    while chi_square_lower(high, freedom) < chance:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if chi_square_lower(middle, freedom) < chance:
            low = middle
        else:
            high = middle
        if high - low <= 1e-13 * high:
            break
    return (low + high) / 2


def binomial_masses(trials: int, chance: float) -> NDArray[np.float64]:
    """P(X = v) for v from 0 to `trials`.

    Args:
        trials: At least 0.
        chance: Of one success, above 0 and below 1.

    Returns:
        Shape (trials + 1,), to about 1e-10 relative for up to 10^5 trials.

    >>> binomial_masses(2, 0.5)
    array([0.25, 0.5 , 0.25])
    """
    checks.at_least(0, trials=trials)
    if not 0 < chance < 1:
        raise ConfigError(f"chance is {chance!r}; it must be above 0 and below 1")
    logs = np.array([math.lgamma(v + 1) for v in range(trials + 1)])
    v = np.arange(trials + 1)
    masses: NDArray[np.float64] = np.exp(
        logs[-1] - logs - logs[::-1] + v * math.log(chance) + (trials - v) * math.log1p(-chance)
    )
    return masses


def _gamma_tails(x: float, freedom: int) -> tuple[float, float]:
    """Both regularised incomplete gamma functions, the smaller one worked out and the other its complement."""
    checks.at_least(1, freedom=freedom)
    if not x >= 0:
        raise ConfigError(f"x is {x!r}; it must be at least 0")
    a, half = freedom / 2, x / 2
    if half == 0 or math.isinf(half):
        return (0.0, 1.0) if half == 0 else (1.0, 0.0)
    front = math.exp(a * math.log(half) - half - math.lgamma(a))
    if half < a + 1:
        lower = min(1.0, front * _series(a, half))
        return lower, 1 - lower
    upper = min(1.0, front * _fraction(a, half))
    return 1 - upper, upper


def _series(a: float, x: float) -> float:
    term = total = 1 / a
    while term > total * 1e-17:
        a += 1
        term *= x / a
        total += term
    return total


def _fraction(a: float, x: float) -> float:
    """The continued fraction by Lentz's method."""
    b = x + 1 - a
    c, d = 1 / _SMALL, 1 / b
    value, n = d, 0
    while True:
        n += 1
        b += 2
        step = n * (a - n)
        d = 1 / (step * d + b or _SMALL)
        c = b + step / c or _SMALL
        value *= c * d
        if abs(c * d - 1) < 1e-15 or n > 1_000_000:
            return value
