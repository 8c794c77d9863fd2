"""How long a vector can be after conditional rounding; loads no NumPy, so that a plan is read without it.

Kairouz, Liu and Steinke 2021, arXiv:2102.06387, equations 18 and 19. Rounds nothing (see `rounding.py`).
"""

import math

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError

__all__ = ["BETA", "rounded_norm_bound"]

BETA = math.exp(-0.5)  # the paper's choice: the bound is nearly the smallest, a vector is drawn 2.5 times at most
_MAX_NORM = 2.0**30  # then the sum of squares fits 63 bits


def rounded_norm_bound(clip_norm: float, dimension: int, beta: float = BETA) -> float:
    """The L2 norm that a rounded vector never exceeds, in lattice steps.

    min(C + sqrt(d), sqrt(C^2 + d/4 + sqrt(2 ln(1/beta)) (C + sqrt(d)/2))), equations 18 and 19, rounded up. A draw
    passes it with chance at most `beta`.

    Args:
        clip_norm: C, the norm before rounding, in lattice steps, up to 2^30.
        dimension: d, at least 1 and at most 2^40.
        beta: Chance that a draw must be repeated, at least 0 (only C + sqrt(d) remains) and below 1.

    Raises:
        ConfigError: An argument is outside its range.

    >>> round(rounded_norm_bound(1000.0, 10_000), 3)
    1001.773
    """
    checks.positive(clip_norm=clip_norm)
    checks.at_least(1, dimension=dimension)
    checks.share(beta=beta)
    if clip_norm > _MAX_NORM or dimension > 2**40:
        raise ConfigError(f"clip_norm {clip_norm!r} or dimension {dimension} is too large: at most 2^30 and 2^40")
    root = math.sqrt(dimension)
    bound = clip_norm + root
    if beta > 0:
        excess = math.sqrt(2 * math.log(1 / beta)) * (clip_norm + root / 2)
        bound = min(bound, math.sqrt(clip_norm * clip_norm + dimension / 4 + excess))
    return bound * (1 + 2.0**-48)  # ten roundings of 2^-53 at most
