"""Sensitivity and error of banded square-root Toeplitz noise under (k, b)-participation.

Noise that is correlated over rounds: round t adds row t of C^-1 Z, where C is lower triangular Toeplitz with the first
h coefficients of (1 - x)^(-1/2), c_0 = 1, c_j = c_{j-1} (2j - 1) / (2j) (Henzinger, Upadhyay, Upadhyay 2022,
arXiv:2202.11205; banded: Kalinin, Lampert 2024, arXiv:2405.13763). One device that takes part at most k times, at
least b rounds apart, moves C X by at most the norm of the sum of the columns 0, b, ..., (k - 1) b of C (Kalinin,
Lampert, theorem 2): the coefficients are non-negative and do not increase. So the mechanism separates neighbours by
that norm over the noise of Z, whatever the later updates depend on (Denisov et al. 2022, arXiv:2202.08312, theorem
2.1). T is fixed beforehand.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "MOST_STEPS",
    "most_participations",
    "prefix_error",
    "round_error",
    "sensitivity_squared",
    "square_root_coefficients",
    "toeplitz_sensitivity_squared",
]

MOST_STEPS = 20_000_000
"""Coefficients that one computation walks over at most; about ten seconds."""

_UP = 1 + 1e-12


def square_root_coefficients(bands: int) -> list[float]:
    """c_0 = 1, c_j = c_{j-1} (2j - 1) / (2j), the first `bands` of them.

    >>> square_root_coefficients(4)
    [1.0, 0.5, 0.375, 0.3125]
    """
    checks.at_least(1, bands=bands)
    found = [1.0]
    for j in range(1, bands):
        found.append(found[-1] * (2 * j - 1) / (2 * j))
    return found


def most_participations(rounds: int, min_separation: int) -> int:
    """How often one device can take part in T rounds, b apart: ceil(T / b).

    >>> most_participations(2000, 200), most_participations(2001, 200)
    (10, 11)
    """
    checks.at_least(1, rounds=rounds, min_separation=min_separation)
    return -(-rounds // min_separation)


def sensitivity_squared(rounds: int, bands: int, min_separation: int, participations: int) -> float:
    """Squared L2 sensitivity of C X for updates of norm at most 1, rounded up.

    Args:
        rounds: T, fixed beforehand.
        bands: h, coefficients of C; those from T on never matter.
        min_separation: b, rounds from one participation to the next.
        participations: k, at most ceil(T / b); 0 gives 0.

    Raises:
        ConfigError: An argument is not a whole number in its range, k does not fit into T, or the sum would take
            longer than `MOST_STEPS` steps.

    >>> round(sensitivity_squared(2000, 200, 200, 10), 7)
    27.5238497
    """
    checks.at_least(1, rounds=rounds, bands=bands, min_separation=min_separation)
    checks.at_least(0, participations=participations)
    most = most_participations(rounds, min_separation)
    if participations > most:
        raise ConfigError(
            f"participations is {participations}, but {rounds} rounds hold at most {most} that are "
            f"{min_separation} apart; lower one or raise the rounds"
        )
    if not participations:
        return 0.0
    kept = min(bands, rounds)
    if min(rounds, kept + (participations - 1) * min_separation) > MOST_STEPS:
        raise ConfigError(f"{rounds} rounds with {bands} bands are too many to sum up; use fewer bands or rounds")
    return toeplitz_sensitivity_squared(square_root_coefficients(kept), rounds, min_separation, participations)


def toeplitz_sensitivity_squared(
    coefficients: Sequence[float], rounds: int, min_separation: int, participations: int
) -> float:
    """The same for any banded Toeplitz matrix whose coefficients are non-negative and never increase.

    Args:
        coefficients: First column of C, the rest being 0.
        rounds: T.
        min_separation: b.
        participations: k, at least 1 and at most ceil(T / b).

    Raises:
        ConfigError: The coefficients are not as the theorem needs them.

    >>> toeplitz_sensitivity_squared([1.0, 0.5], rounds=3, min_separation=1, participations=3) <= 5.5 * (1 + 1e-11)
    True
    """
    if not all(a >= b >= 0 for a, b in zip(coefficients, [*coefficients[1:], 0.0], strict=True)):
        raise ConfigError("coefficients must be non-negative and must not increase; the bound holds for no others")
    bands, reach = len(coefficients), participations * min_separation
    if bands <= min_separation:  # columns do not overlap; only the last one can be cut off by T
        squares = [c * c for c in coefficients]
        last = squares[: rounds - (participations - 1) * min_separation]
        return ((participations - 1) * math.fsum(squares) + math.fsum(last)) * _UP
    column = [0.0] * min(rounds, bands + reach - min_separation)
    for t in range(len(column)):
        value = coefficients[t] if t < bands else 0.0
        if t >= min_separation:
            value += column[t - min_separation]
        if reach <= t < reach + bands:
            value -= coefficients[t - reach]
        column[t] = value
    return math.fsum(value * value for value in column) * _UP


def prefix_error(rounds: int, bands: int) -> float:
    """Root mean square, over the T rounds, of the noise in a prefix sum, for noise Z of standard deviation 1.

    The noise of the first t rounds' sum is row t of A C^-1 Z, A being the matrix of prefix sums. With bands = 1 the
    noise is independent and this is sqrt((T + 1) / 2).

    Args:
        rounds: T.
        bands: h.

    Raises:
        ConfigError: An argument is not a whole number of at least 1, or the sum takes more than `MOST_STEPS` * 100
            products.

    >>> round(prefix_error(2000, 200) * 27.5238497**0.5, 3), round(prefix_error(2000, 1) * 10**0.5, 3)
    (12.853, 100.025)
    """
    import numpy as np  # not needed for an epsilon

    prefix = np.cumsum(_inverse(rounds, bands))
    return float(np.sqrt(np.mean(np.cumsum(prefix * prefix))))


def round_error(rounds: int, bands: int) -> float:
    """Root mean square, over the T rounds, of the noise of one round, for noise Z of standard deviation 1.

    Args:
        rounds: T.
        bands: h.

    Raises:
        ConfigError: As for `prefix_error`.

    >>> round_error(10, 1), round_error(2, 2) == (1.125) ** 0.5
    (1.0, True)
    """
    import numpy as np

    row = _inverse(rounds, bands)
    return float(np.sqrt(np.mean(np.cumsum(row * row))))


def _inverse(rounds: int, bands: int) -> "NDArray[np.float64]":
    """First column of C^-1."""
    import numpy as np

    checks.at_least(1, rounds=rounds, bands=bands)
    kept = min(rounds, bands)
    if rounds * kept > MOST_STEPS * 100:
        raise ConfigError(f"the error of {rounds} rounds with {bands} bands takes too long; use fewer bands or rounds")
    backwards = np.array(square_root_coefficients(kept)[:0:-1])  # c_{h-1} ... c_1
    inverse = np.zeros(rounds + kept - 1)  # after h - 1 zeros: first column of C^-1
    inverse[kept - 1] = 1.0
    for t in range(1, rounds):
        inverse[kept - 1 + t] = -np.dot(backwards, inverse[t : t + kept - 1])
    return inverse[kept - 1 :]
