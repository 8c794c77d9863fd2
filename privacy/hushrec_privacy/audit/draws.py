"""Tests of drawn noise: its deviation, its shape, and whether rounds share any of it.

Each takes the level of its own test and returns a `Finding`. Under a sound mechanism the three p-values are independent
up to terms of order 1/n: skewness, kurtosis and correlation do not depend on the scale.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.audit.findings import Finding
from hushrec_privacy.audit.tails import chi_square_quantile, chi_square_upper, two_sided

__all__ = ["noise_reuse", "noise_scale", "noise_shape"]

_Floats: TypeAlias = NDArray[np.float64]


def noise_scale(projected: _Floats, sigma: float, level: float) -> Finding:
    """The deviation, its mean known to be 0: n s^2 / sigma^2 is chi-square with n degrees of freedom."""
    n, total = len(projected), float(np.square(projected).sum())
    p_value = two_sided(total / sigma**2, n)
    low, high = (math.sqrt(total / chi_square_quantile(chance, n)) for chance in (1 - level / 2, level / 2))
    return Finding("noise-scale", p_value >= level, sigma, math.sqrt(total / n), (low, high), p_value)


def noise_shape(projected: _Floats, level: float) -> Finding:
    """Skewness and kurtosis of a Gaussian: Jarque and Bera 1987, chi-square with 2 degrees of freedom."""
    centred = projected - projected.mean()
    square = np.square(centred)
    variance = float(square.mean())
    if variance == 0:
        return Finding("noise-shape", False, 3.0, 0.0, (3.0, 3.0), 0.0)
    skewness = float((square * centred).mean()) / variance**1.5
    kurtosis = float(np.square(square).mean()) / variance**2
    n = len(projected)
    p_value = chi_square_upper(n * (skewness**2 / 6 + (kurtosis - 3) ** 2 / 24), 2)
    spread = math.sqrt(24 / n * chi_square_quantile(1 - level, 2))
    return Finding("noise-shape", p_value >= level, 3.0, kurtosis, (kurtosis - spread, kurtosis + spread), p_value)


def noise_reuse(whitened: _Floats, level: float) -> Finding:
    """Correlation of every two rounds: n times the sum of their squares is chi-square, one degree a pair."""
    n, rounds = whitened.shape[1], len(whitened)
    length = np.linalg.norm(whitened, axis=1, keepdims=True)
    if not length.all():
        return Finding("noise-reuse", False, 0.0, 1.0, (1.0, 1.0), 0.0)
    unit = whitened / length
    correlation = (unit @ unit.T)[np.triu_indices(rounds, 1)]
    p_value = chi_square_upper(n * float(np.square(correlation).sum()), len(correlation))
    largest = float(correlation[np.argmax(np.abs(correlation))])
    spread = math.sqrt(chi_square_quantile((1 - level) ** (1 / len(correlation)), 1) / n)
    return Finding("noise-reuse", p_value >= level, 0.0, largest, (largest - spread, largest + spread), p_value)
