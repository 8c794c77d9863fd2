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

_COLUMNS = 16  # columns for one of the k: then about k scores reach the bound
_STRIPS = 256  # more make the maxima slower
_MANY = 65_536  # scores; below, comparing all of them takes less time than picking columns


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
    if type(k) is not int or k < 0:  # the check by name takes a twentieth of a small catalogue's time
        at_least(0, k=k)
    found = _candidates(scores, k)
    values = scores[found]
    order = (-values).argsort(kind="stable")[:k]  # `found` rises, so equal scores stay in the order of indexes
    return found[order], values[order]


def _candidates(scores: Scores, k: int) -> Indexes:
    """Indexes of the k largest scores and a few more, rising."""
    if not 0 < k < len(scores):
        return _where(scores > -np.inf)
    strips = min(max(len(scores) // (_COLUMNS * k), 1), _STRIPS)
    columns = len(scores) // strips
    grid = scores[: strips * columns].reshape(strips, columns)
    maxima: Scores = np.maximum.reduce(grid)
    sorted_maxima = maxima.copy()
    sorted_maxima.partition(columns - k)
    bound = sorted_maxima[columns - k]
    if bound == -np.inf:
        return _where(scores > bound)
    if len(scores) < _MANY:
        return _where(scores >= bound)
    high = _where(maxima >= bound)  # what reaches the bound lies in these columns, or after the last strip
    strip, column = (grid[:, high] >= bound).nonzero()
    rest = _where(scores[strips * columns :] >= bound)
    return np.concatenate([strip * columns + high[column], rest + strips * columns])


def _where(mask: NDArray[np.bool_]) -> Indexes:
    """`np.flatnonzero` without what it does for other shapes."""
    found: Indexes = mask.nonzero()[0]
    return found
