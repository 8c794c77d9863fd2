"""Count tables from the training part of a log: transitions, successors, item-kNN, popularity. Scoring with them is
`hushrec.counts`.

Every table is cut to the strongest entries of a row and stored as uint8 steps of the row's largest weight, as it is
shipped. The tables come straight from the log: whatever holds one is private.
"""

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from hushrec_model.shared_pairs import shared_pairs
from hushrec_model.splits import Sequences
from hushrec_model.svd import nearby_pairs

__all__ = [
    "GAP_DECAY",
    "NEIGHBOURS",
    "REVERSE",
    "WINDOW",
    "count_tables",
    "item_knn",
    "neighbours_a_row",
    "next_items",
    "popularity",
    "recent_popularity",
    "row_scaled",
    "strongest",
    "successors",
    "transitions",
]

NEIGHBOURS = 32
"""Entries of a row at least, however large the catalogue."""

_MOST_NEIGHBOURS = 128
_TABLE_BYTES = 2_000_000  # of a table, unless that were fewer than NEIGHBOURS a row
_ENTRY_BYTES = 5
WINDOW = 20  # events that a transition spans at most
GAP_DECAY = 0.8  # weight of a pair one event further apart
REVERSE = 0.25  # share of a pair that its other direction gets
_SOON = (1.0, 0.1, 0.01)  # weight of a successor one, two and three events later
_ROW_POWER = 0.5
_KNN_HISTORY = 200  # events of a sequence that item-kNN pairs up
_KNN_ROWS = 4096  # rows of the co-occurrence matrix made at once
_RECENT = 0.1  # share of the training events that recent popularity counts

Table = dict[str, NDArray[np.generic]]


def count_tables(train: Sequences, items: int, *, min_shoppers: int = 1) -> Table:
    """All arrays that a blend can use, by the names they have in a bundle.

    Args:
        train: Training events.
        items: V.
        min_shoppers: Pairs that fewer shoppers made are left out of all tables of pairs; no privacy guarantee.

    Returns:
        `transitions.*`, `successors.*` and `item_knn.*` (items, weights, scales) and `popularity`; rows 0 to V.
    """
    tables: Table = {"popularity": popularity(train, items)}
    for name, count in (("transitions", transitions), ("successors", successors), ("item_knn", item_knn)):
        table = _without_empty_columns(count(train, items, min_shoppers=min_shoppers))
        tables |= {f"{name}.{field}": array for field, array in table.items()}
    return tables


def _without_empty_columns(table: Table) -> Table:
    """The same rows, as wide as the fullest of them, and one entry at least."""
    width = max(1, int((table["weights"] != 0).sum(1).max(initial=0)))
    return {field: array[:, :width].copy() if array.ndim > 1 else array for field, array in table.items()}


def neighbours_a_row(items: int) -> int:
    """Entries that a row of a table keeps at most: 2 MB for the table, but 32 to 128 a row.

    >>> [neighbours_a_row(items) for items in (3_416, 12_101, 36_968)]
    [117, 33, 32]
    """
    return int(np.clip(_TABLE_BYTES // (_ENTRY_BYTES * (items + 1)), NEIGHBOURS, _MOST_NEIGHBOURS))


def popularity(train: Sequences, items: int) -> NDArray[np.float32]:
    """Training events of each item, shape (V + 1,); 0 at index 0."""
    counts = np.bincount(train.item, minlength=items + 1).astype(np.float32)
    counts[0] = 0
    return counts


def recent_popularity(train: Sequences, items: int) -> NDArray[np.float32] | None:
    """Events of each item among the latest tenth of the training events, shape (V + 1,); None without times."""
    if train.time is None or not len(train.time):
        return None
    since = np.partition(train.time, int(len(train.time) * (1 - _RECENT)))[int(len(train.time) * (1 - _RECENT))]
    counts = np.bincount(train.item[train.time >= since], minlength=items + 1).astype(np.float32)
    counts[0] = 0
    return counts


def transitions(train: Sequences, items: int, *, min_shoppers: int = 1) -> Table:
    """Decayed transitions: a pair g events apart adds 0.8^(g-1), a quarter of it backwards; divided by the root of the
    row sum. An item may follow itself: in shops where shoppers return that is the strongest pair of many rows."""
    weights = np.power(GAP_DECAY, np.arange(WINDOW), dtype=np.float64)
    counts = nearby_pairs(train, items, weights, reverse=REVERSE, repeats=True)
    if min_shoppers > 1:
        counts = counts.multiply(shared_pairs(train, items, WINDOW, min_shoppers)).tocsr()
    return strongest(row_scaled(counts), neighbours_a_row(items))


def successors(train: Sequences, items: int, *, min_shoppers: int = 1) -> Table:
    """What follows soon after, in that order only: the next event counts 1, the one after it .1, the third .01; divided
    by the root of the row sum. Where the order of items matters, `transitions` blur it."""
    counts = nearby_pairs(train, items, np.array(_SOON), reverse=0.0, repeats=True)
    if min_shoppers > 1:
        counts = counts.multiply(shared_pairs(train, items, len(_SOON), min_shoppers)).tocsr()
    return strongest(row_scaled(counts), neighbours_a_row(items))


def row_scaled(counts: "sparse.csr_matrix") -> "sparse.csr_matrix":
    """Each row over the root of its sum."""
    sums = np.asarray(counts.sum(1)).ravel()
    return (sparse.diags(np.where(sums > 0, 1 / np.maximum(sums, 1e-12) ** _ROW_POWER, 0)) @ counts).tocsr()


def next_items(train: Sequences, items: int) -> Table:
    """Plain first-order transitions: how often one item directly followed another, or itself."""
    return strongest(nearby_pairs(train, items, np.ones(1), reverse=0.0, repeats=True))


def item_knn(train: Sequences, items: int, *, min_shoppers: int = 1) -> Table:
    """Cosine of co-occurrence: sequences with both items over the root of the product of sequences with each.

    Sarwar et al. 2001, "Item-based collaborative filtering recommendation algorithms", equation 1 on binary vectors.
    """
    owner = np.repeat(np.arange(len(train.offsets) - 1), np.diff(train.offsets))
    age = train.offsets[1:][owner] - np.arange(len(owner))
    recent = age <= _KNN_HISTORY
    use = recent & (train.item > 0)
    kept = shared_pairs(_only(train, recent), items, _KNN_HISTORY, min_shoppers) if min_shoppers > 1 else None
    shape = (len(train.offsets) - 1, items + 1)
    has = sparse.coo_matrix((np.ones(int(use.sum()), np.float32), (owner[use], train.item[use])), shape=shape).tocsr()
    has.data[:] = 1
    norm = np.sqrt(np.maximum(np.asarray(has.sum(0)).ravel(), 1))
    has = (has @ sparse.diags((1 / norm).astype(np.float32))).tocsr()
    columns = has.T.tocsr()
    blocks = []
    for first in range(0, items + 1, _KNN_ROWS):
        rows = _without_self(columns[first : first + _KNN_ROWS] @ has, first)
        shared = rows if kept is None else rows.multiply(kept[first : first + _KNN_ROWS])
        blocks.append(strongest(shared, neighbours_a_row(items)))
    return {field: np.concatenate([block[field] for block in blocks]) for field in blocks[0]}


def _only(train: Sequences, use: NDArray[np.bool_]) -> Sequences:
    """The same sequences with some of their events."""
    kept = np.append(0, np.cumsum(use))[train.offsets]
    return Sequences(kept, train.item[use], train.behavior[use], None, None, train.shopper)


def _without_self(rows: "sparse.csr_matrix", first: int) -> "sparse.csr_matrix":
    """The rows from `first` on of a square matrix, without its diagonal."""
    coo = rows.tocoo()
    keep = coo.row + first != coo.col
    return sparse.csr_matrix((coo.data[keep], (coo.row[keep], coo.col[keep])), shape=rows.shape)


def strongest(counts: "sparse.csr_matrix", neighbours: int = NEIGHBOURS) -> Table:
    """Keep the strongest entries of each row of a matrix (V + 1, V + 1); ties go to the lower item.

    Args:
        counts: At least 0.
        neighbours: K, how many of a row to keep.

    Returns:
        `items`, `weights` and `scales`, as `hushrec.counts.Neighbours` takes them.
    """
    coo = counts.tocoo()
    keep = coo.data > 0
    row, column, value = coo.row[keep].astype(np.int64), coo.col[keep], coo.data[keep].astype(np.float32)
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    first = np.searchsorted(row, np.arange(counts.shape[0]))
    rank = np.arange(len(row)) - first[row]
    row, column, value, rank = (a[rank < neighbours] for a in (row, column, value, rank))
    scales = np.zeros(counts.shape[0], np.float32)
    np.maximum.at(scales, row, value / 255)
    near = np.zeros((counts.shape[0], neighbours), np.uint32)
    weights = np.zeros((counts.shape[0], neighbours), np.uint8)
    near[row, rank] = column
    weights[row, rank] = np.maximum(np.rint(value / scales[row]), 1)
    return {"items": near, "weights": weights, "scales": scales}
