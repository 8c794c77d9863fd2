"""Bound what one device can add to a round: flat L2 clipping of a whole update.

Abadi et al. 2016, arXiv:1607.00133, Algorithm 1, "Clip gradient". Adds no noise (see `discrete_gaussian.py`) and does
not round (see `rounding.py`).
"""

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks

__all__ = ["clip_update"]


def clip_update(update: NDArray[np.float32], *, clip_norm: float) -> NDArray[np.float32]:
    """Scale `update` down until its L2 norm is at most `clip_norm`.

    Guarantee:
        Zeroing, adding or removing one device moves a sum of outputs by at most `clip_norm` in L2, to 1e-6 relative
        (float32 rounding), for every input, NaN and infinity included, and every `clip_norm` of 1e-30 or more.

    Args:
        update: Weight change of one local run, shape (P,), in units of the weights. Private.
        clip_norm: The bound C > 0, in the same unit. Public configuration.

    Returns:
        A new array, shape (P,), float32; all zeros if `update` is not finite. An update within the bound is unchanged.

    Raises:
        ConfigError: `clip_norm` is not a finite number above 0. Never depends on `update`.

    >>> clip_update(np.array([3.0, 4.0], np.float32), clip_norm=1.0)
    array([0.6, 0.8], dtype=float32)
    """
    checks.positive(clip_norm=clip_norm)
    wide = np.asarray(update, np.float64)  # the square of a float32 overflows float32
    norm = float(np.linalg.norm(wide))
    if not np.isfinite(norm):
        return np.zeros(wide.shape, np.float32)
    return (wide * min(1.0, clip_norm / norm) if norm else wide).astype(np.float32)
