"""Metrics of ranked lists, one value a query: hit, NDCG and reciprocal rank of the targets among the items listed.

A list holds distinct items, best first; 0 says that there are no more. A query has one target or several; target 0 is
outside the catalogue and never hit, but counts as one that should have been.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["coverage", "hit_rate", "hits", "ndcg", "reciprocal_rank"]


def hits(ranked: NDArray[np.int32], target: NDArray[np.int32], target_offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which of the listed items are targets of their query.

    Args:
        ranked: Item lists, shape (B, K).
        target: Targets of all queries end to end, shape (T,).
        target_offsets: Query b has the targets [target_offsets[b], target_offsets[b + 1]), shape (B + 1,).

    Returns:
        Shape (B, K).

    >>> hits(np.array([[5, 2, 9], [1, 0, 0]]), np.array([9, 5, 3]), np.array([0, 2, 3]))
    array([[ True, False,  True],
           [False, False, False]])
    """
    query = np.repeat(np.arange(len(ranked), dtype=np.int64), np.diff(target_offsets))
    width = 1 + max(int(ranked.max(initial=0)), int(target.max(initial=0)))
    listed = np.arange(len(ranked), dtype=np.int64)[:, None] * width + ranked
    return np.isin(listed, (query * width + target)[target > 0])


def hit_rate(hit: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """HR@k: 1 where any target is among the first k, else 0.

    Args:
        hit: Which listed items are targets, shape (B, K).
        k: How many items of each list count.

    Returns:
        Shape (B,).

    >>> hit_rate(np.array([[False, True, False], [False, False, True]]), 2)
    array([1., 0.])
    """
    return np.asarray(hit[:, :k].any(axis=1), np.float64)


def ndcg(hit: NDArray[np.bool_], targets: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """NDCG@k with gains of 0 and 1: DCG@k / ideal DCG@k.

    DCG@k is the sum of 1 / log2(1 + r) over the ranks r <= k of targets; the ideal has all targets first, so it is that
    sum over r = 1 to min(k, number of targets). One target at rank r gives 1 / log2(1 + r).

    Args:
        hit: Which listed items are targets, shape (B, K).
        targets: How many targets each query has, at least 1, shape (B,).
        k: How many items of each list count.

    Returns:
        Shape (B,).

    Two targets at ranks 1 and 3: (1 + 1/2) / (1 + 1/log2(3)); one target at rank 3: 1/2.

    >>> ndcg(np.array([[True, False, True], [False, False, True]]), np.array([2, 1]), 3).round(4)
    array([0.9197, 0.5   ])
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.cumsum(discount)[np.minimum(targets, k) - 1]
    return np.asarray((hit[:, :k] * discount[: hit.shape[1]]).sum(axis=1) / best)


def reciprocal_rank(hit: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 / rank of the first target in the whole list, 0 if it holds none.

    Args:
        hit: Which listed items are targets, shape (B, K).

    Returns:
        Shape (B,).

    >>> reciprocal_rank(np.array([[False, True, True], [False, False, False]]))
    array([0.5, 0. ])
    """
    return np.where(hit.any(axis=1), 1 / (1.0 + hit.argmax(axis=1)), 0.0)


def coverage(shown: NDArray[np.bool_], items: int) -> float:
    """Share of the catalogue that occurs in any list.

    Args:
        shown: Whether each item does, shape (V + 1,); entry 0 is no item.
        items: V.

    >>> coverage(np.array([True, True, False, False, True]), 4)
    0.5
    """
    return float(shown[1:].sum()) / items
