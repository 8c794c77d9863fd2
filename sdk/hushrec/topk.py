"""Exact top-k of a long score vector, without sorting it.

The vector is cut into strips laid under each other; the k-th largest of the column maxima is a lower bound for the k-th
largest score, so only columns that reach it are looked at. Knows nothing of items: whoever calls puts minus infinity
where nothing may be shown.
"""

import math

import numpy as np
from hushrec_privacy.checks import at_least
from numpy.typing import NDArray

__all__ = ["top_k"]

Scores = NDArray[np.float32]
Indexes = NDArray[np.int64]

_SMALL = 512  # below this many scores looking at all of them is cheaper than cutting strips


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
    found = _candidates(scores, k) if k else np.empty(0, np.int64)
    values = scores[found]
    if len(found) > k:
        found, values = _cut(found, values, k)
    order = np.argsort(-values, kind="stable")  # `found` rises, so equal scores stay in the order of indexes
    return found[order], values[order]


def _candidates(scores: Scores, k: int) -> Indexes:
    """Indexes, rising, of all scores that may be among the k largest; no minus infinity."""
    count = len(scores)
    strips = math.isqrt(count // k)
    if strips < 2 or count < _SMALL:
        return np.flatnonzero(scores > -np.inf)
    length = count // strips
    cut = strips * length
    grid = scores[:cut].reshape(strips, length)
    maxima = grid.max(axis=0)
    bound = np.partition(maxima, length - k)[length - k]
    columns = np.flatnonzero(_reaches(maxima, bound))
    rows, places = np.nonzero(_reaches(grid[:, columns], bound))
    found = rows * length + columns[places]
    if cut == count:
        return found
    return np.concatenate([found, cut + np.flatnonzero(_reaches(scores[cut:], bound))])


def _reaches(values: Scores, bound: np.float32) -> NDArray[np.bool_]:
    return values >= bound if bound > -np.inf else values > bound


def _cut(found: Indexes, values: Scores, k: int) -> tuple[Indexes, Scores]:
    """Keep k: all above the k-th largest value, and of those equal to it the ones with the lowest indexes."""
    last = np.partition(values, len(values) - k)[len(values) - k]
    keep = values > last
    ties = np.flatnonzero(values == last)
    keep[ties[: k - np.count_nonzero(keep)]] = True
    return found[keep], values[keep]
