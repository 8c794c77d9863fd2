"""What integer noise is worth against the Gaussian curve, with the loss stated and proved.

The discrete Gaussian N_Z(0, s^2) is s^2/2-concentrated like the Gaussian (Canonne, Kamath, Steinke 2020,
arXiv:2004.00010, theorem 4), but its exact curve is another one. It is nearly a post-processing of Gaussian noise, so
that the exact Gaussian curve can be used for vectors of whole numbers:

Let X ~ N(m, s^2 - r^2) and Z, given X, fall on n with weight exp(-(n - X)^2 / (2 r^2)). By Poisson summation those
weights sum to r sqrt(2 pi) (1 +- g), g = 2 sum_{k>=1} exp(-2 pi^2 r^2 k^2), whatever X is, so that Z has the density of
N_Z(m, s^2) up to a factor within (1 +- g)^2, for every whole m. The factors of d coordinates multiply: with
L = d log((1 + g) / (1 - g)), noise that is (epsilon, delta)-DP before is (epsilon + 2 L, exp(L) delta)-DP after. With
r = 2.5, g is below 1e-53: at d = 10^12 draws it vanishes, and the only loss is s^2 -> s^2 - 6.25.
"""

import math

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError

__all__ = ["MOST_DRAWS", "ROUNDING_VARIANCE", "equivalent_gaussian_deviation"]

ROUNDING_VARIANCE = 6.25
"""r^2 above: what the variance of integer noise is taken to be smaller by."""

MOST_DRAWS = 2**60
"""Coordinates times rounds up to which the factor exp(2 L) is below 1 + 1e-34."""


def equivalent_gaussian_deviation(deviation: float, draws: int) -> float:
    """The standard deviation of the Gaussian noise that discrete Gaussian noise is at least as private as.

    Args:
        deviation: s of the discrete Gaussian noise, in steps of the lattice; above 2.5.
        draws: Numbers drawn in all: coordinates times rounds.

    Returns:
        sqrt(s^2 - 6.25), rounded down.

    Raises:
        ConfigError: The noise is too narrow, or there are too many draws, for the bound to hold.

    >>> equivalent_gaussian_deviation(65536.0, 500_000 * 2000) / 65536 > 1 - 1e-9
    True
    """
    checks.positive(deviation=deviation)
    checks.at_least(1, draws=draws)
    if deviation * deviation <= ROUNDING_VARIANCE:
        raise ConfigError(f"deviation is {deviation!r} lattice steps; the bound needs over 2.5: use a finer lattice")
    if draws > MOST_DRAWS:
        raise ConfigError(f"{draws} draws; the bound is proved for at most 2^60")
    return math.sqrt(deviation * deviation - ROUNDING_VARIANCE) * (1 - 2.0**-50)
