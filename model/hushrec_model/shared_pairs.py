"""Which pairs of items enough different shoppers made: what `--min-shoppers` lets into the fleet's tables.

It keeps what a single shopper did out of a bundle's pairs. It is no differential privacy, and no guarantee for anyone.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from hushrec_model.sequences import Sequences

__all__ = ["shared_pairs"]

_PAIRS_AT_ONCE = 20_000_000

Numbers = NDArray[np.int64]


def shared_pairs(train: Sequences, items: int, window: int, least: int) -> "sparse.csr_matrix":
    """Find the pairs of items that stand near each other, in either order, in sequences of enough shoppers.

    Args:
        train: Events, and whose sequence each is; without that every sequence counts as a shopper's only one.
        items: V.
        window: How many events a pair lies apart at most.
        least: Shoppers, at least 1; several sequences of one shopper count once.

    Returns:
        Symmetric, entries 1, shape (V + 1, V + 1); an item pairs with itself where shoppers returned to it.
    """
    sequence = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    shopper = sequence if train.shopper is None else train.shopper[sequence].astype(np.int64)
    order = np.lexsort((sequence, shopper))  # stable: events of a sequence stay in order
    item, sequence, shopper = train.item[order].astype(np.int64), sequence[order], shopper[order]
    made = sparse.csr_matrix((items + 1, items + 1), dtype=np.int64)
    for block in _blocks(shopper, max(1, _PAIRS_AT_ONCE // window)):
        low, high = _pairs(item[block], sequence[block], shopper[block], items, window)
        ones = np.ones(len(low), np.int64)
        made = made + sparse.coo_matrix((ones, (low, high)), shape=made.shape).tocsr()
    made.data = (made.data >= least).astype(np.float64)
    made.eliminate_zeros()
    return (made + sparse.triu(made, k=1).T).tocsr()


def _blocks(shopper: Numbers, size: int) -> Iterator[slice]:
    """Cut sorted events into slices of about `size`, never through one shopper."""
    ends = np.append(np.flatnonzero(np.diff(shopper)) + 1, len(shopper))
    begin = 0
    while begin < len(shopper):
        end = int(ends[min(int(np.searchsorted(ends, begin + size)), len(ends) - 1)])
        yield slice(begin, end)
        begin = end


def _pairs(item: Numbers, sequence: Numbers, shopper: Numbers, items: int, window: int) -> tuple[Numbers, Numbers]:
    """Every pair (smaller item, larger item) as often as different shoppers made it."""
    keys, width = [np.zeros(0, np.int64)], items + 1
    shopper = np.cumsum(np.diff(shopper, prepend=shopper[0]) > 0)  # small numbers: the key must stay below 2**63
    for gap in range(1, min(window, len(item) - 1) + 1):
        earlier, later = item[:-gap], item[gap:]
        near = (sequence[:-gap] == sequence[gap:]) & (earlier > 0) & (later > 0)
        if not near.any():
            break
        low, high = np.minimum(earlier, later)[near], np.maximum(earlier, later)[near]
        keys.append((shopper[gap:][near] * width + low) * width + high)
    every = np.sort(np.concatenate(keys))  # np.unique would hash, several times slower
    pair = every[np.diff(every, prepend=-1) > 0] % width**2
    return pair // width, pair % width
