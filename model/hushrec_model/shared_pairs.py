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

    Memory grows with the number of different pairs, about 50 bytes each.

    Args:
        train: Events, and whose sequence each is; without that every sequence counts as a shopper's only one.
        items: V.
        window: How many events a pair lies apart at most.
        least: Shoppers, at least 1; several sequences of one shopper count once.

    Returns:
        Symmetric, entries 1 (int8), shape (V + 1, V + 1); an item pairs with itself where shoppers returned to it.
    """
    sequence = np.repeat(np.arange(len(train)), np.diff(train.offsets))
    shopper = sequence if train.shopper is None else train.shopper[sequence].astype(np.int64)
    order = np.lexsort((sequence, shopper))  # stable: events of a sequence stay in order
    item, sequence, shopper = train.item[order].astype(np.int64), sequence[order], shopper[order]
    made = sparse.csr_matrix((items + 1, items + 1), dtype=np.int32)
    size = max(1, min(_PAIRS_AT_ONCE // window, 2**62 // (items + 1) ** 2))  # the keys below stay under 2**63
    for block in _blocks(shopper, size):
        low, high = _pairs(item[block], sequence[block], shopper[block], items + 1, window)
        made = made + sparse.coo_matrix((np.ones(len(low), np.int32), (low, high)), shape=made.shape).tocsr()
    enough = sparse.csr_matrix(((made.data >= least).astype(np.int8), made.indices, made.indptr), shape=made.shape)
    enough.eliminate_zeros()
    return (enough + sparse.triu(enough, k=1).T).tocsr()


def _blocks(shopper: Numbers, size: int) -> Iterator[slice]:
    """Cut sorted events into slices of about `size`, never through one shopper."""
    ends = np.append(np.flatnonzero(np.diff(shopper)) + 1, len(shopper))
    begin = 0
    while begin < len(shopper):
        end = int(ends[min(int(np.searchsorted(ends, begin + size)), len(ends) - 1)])
        yield slice(begin, end)
        begin = end


def _pairs(item: Numbers, sequence: Numbers, shopper: Numbers, width: int, window: int) -> tuple[Numbers, Numbers]:
    """Every pair (smaller item, larger item) as often as different shoppers made it."""
    keys, loose, waiting = np.zeros(0, np.int64), list[Numbers](), 0
    shopper = np.cumsum(np.diff(shopper, prepend=shopper[0]) > 0)  # from 0: fewer than there are events
    for gap in range(1, min(window, len(item) - 1) + 1):
        together = sequence[:-gap] == sequence[gap:]
        if not together.any():
            break
        near = together & (item[:-gap] > 0) & (item[gap:] > 0)
        earlier, later = item[:-gap][near], item[gap:][near]
        low, high = np.minimum(earlier, later), np.maximum(earlier, later)
        loose.append((shopper[gap:][near] * width + low) * width + high)
        waiting += len(low)
        if waiting > _PAIRS_AT_ONCE:
            keys, loose, waiting = _different([keys, *loose]), [], 0
    pair = _different([keys, *loose]) % width**2
    return pair // width, pair % width


def _different(keys: list[Numbers]) -> Numbers:
    """The different ones among all, rising; np.unique would hash, several times slower."""
    every = np.sort(np.concatenate(keys))
    return every[np.diff(every, prepend=-1) > 0]
