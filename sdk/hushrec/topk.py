"""Exact top-k of a long score vector, without sorting it.

The vector is cut into strips that are laid under each other: the k-th largest of the column maxima is a lower bound for
the k-th largest score, and hardly more than k scores reach it. Knows nothing of items: whoever calls puts minus
infinity where nothing may be shown.
"""

import numpy as np
from hushrec_privacy.checks import at_least
from numpy.typing import NDArray

__all__ = ["top_k"]

Scores = NDArray[np.float32]
Indexes = NDArray[np.int64]

_COLUMNS = 32  # columns for one of the k: then about k scores reach the bound
_STRIPS = 256  # more make the maxima slower


def top_k(scores: Scores, k: int) -> tuple[Indexes, Scores]:
    """Find the k largest scores.

    Args:
        scores: Shape (n,), without NaN.
        k: How many, at least 0.

    Returns:
        Their indexes, int64, and the scores, float32, both of shape (K,): the highest first, equal ones by index.
        Minus infinity is never returned, so K is below k where fewer than k others are left.

    Raises:
        ConfigError: `k` is no whole number of at least 0.

    >>> top_k(np.array([1, 3, -np.inf, 3], np.float32), 10)
    (array([1, 3, 0]), array([3., 3., 1.], dtype=float32))
    """
    at_least(0, k=k)
    bound = _bound(scores, k) if 0 < k < len(scores) else -np.inf
    reach = scores >= bound if bound > -np.inf else scores > bound
    found = reach.nonzero()[0]
    values = scores[found]
    order = (-values).argsort(kind="stable")[:k]  # `found` rises, so equal scores stay in the order of indexes
    return found[order], values[order]


def _bound(scores: Scores, k: int) -> float:
    """A value that at least k scores reach, and few more; the k-th largest itself if there is only one strip."""
    strips = min(max(len(scores) // (_COLUMNS * k), 1), _STRIPS)
    columns = len(scores) // strips
    maxima: Scores = np.maximum.reduce(scores[: strips * columns].reshape(strips, columns), axis=0)
    maxima.partition(columns - k)
    return float(maxima[columns - k])
