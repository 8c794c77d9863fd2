"""The square root of the prefix-sum matrix: a lower triangular Toeplitz matrix, cut to a band.

c_j = binomial(2j, j) / 4^j, the coefficients of (1 - x)^(-1/2): Fichtenberger, Henzinger and Upadhyay 2023,
arXiv:2202.11205, Theorem 1; cut to h bands: Kalinin and Lampert 2024, arXiv:2405.13763. They are positive and
non-increasing. Says nothing about sensitivity (see the accounting).
"""

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks

__all__ = ["FRACTION_BITS", "fixed_point_coefficients"]

FRACTION_BITS = 24  # of a coefficient as a whole number


def fixed_point_coefficients(bands: int) -> NDArray[np.int64]:
    """The coefficients times 2^24, rounded down, by whole numbers alone: the same on every machine.

    Rounded down they stay non-negative and non-increasing, and no column grows: the sensitivity of the true
    coefficients is an upper bound of theirs.

    Args:
        bands: h, at least 1.

    Returns:
        Shape (h,), int64.

    Raises:
        ConfigError: `bands` is no whole number of at least 1.

    >>> fixed_point_coefficients(3).tolist() == [2**24, 2**23, 3 * 2**21]
    True
    """
    checks.at_least(1, bands=bands)
    central, scaled = 1, [1 << FRACTION_BITS]
    for j in range(1, bands):
        central = central * 2 * (2 * j - 1) // j  # binomial(2j, j), exact
        scaled.append((central << FRACTION_BITS) >> 2 * j)
    return np.array(scaled, np.int64)
