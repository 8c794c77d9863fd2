"""What is known of each item, as integers: attribute values, price bucket and hashed title words.

The vocabulary made here travels in the bundle, so that a device can place an item that arrives later among the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hushrec.words import word_buckets
from numpy.typing import NDArray

__all__ = ["Bags", "ItemFeatures", "item_features"]

_PRICE_BUCKETS = 16


@dataclass(frozen=True)
class Bags:
    """Zero or more small integers for each item: item i has values[offsets[i]:offsets[i + 1]].

    Attributes:
        offsets: Shape (V + 1,), int64.
        values: Shape (N,), int64.
    """

    offsets: NDArray[np.int64]
    values: NDArray[np.int64]

    @classmethod
    def pack(cls, rows: Sequence[Sequence[int]]) -> "Bags":
        """Flatten one list an item.

        >>> Bags.pack([[3], [], [1, 2]]).offsets.tolist()
        [0, 1, 1, 3]
        """
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(offsets, np.array([value for row in rows for value in row], np.int64))


@dataclass(frozen=True)
class ItemFeatures:
    """Content of the V items of a catalogue; item index i of the model is row i - 1 here.

    Attributes:
        attributes: Indexes into `attribute_names`.
        attribute_names: Every (column, value) that occurs.
        price_bucket: Shape (V,), int64; 0 is an unknown price.
        price_edges: Upper edges between the buckets, ascending, in the shop's currency; float32, as they ship, and
            compared with float32 prices, so that a device finds the same bucket.
        words: Hashed title words.
        vectors: Precomputed vectors, shape (V, M), float32, or None.
    """

    attributes: Bags
    attribute_names: tuple[tuple[str, str], ...]
    price_bucket: NDArray[np.int64]
    price_edges: NDArray[np.float32]
    words: Bags
    vectors: NDArray[np.float32] | None


def item_features(
    titles: Sequence[str | None],
    prices: NDArray[np.float64],
    attributes: dict[str, list[tuple[str, ...]]],
    vectors: NDArray[np.float32] | None = None,
) -> ItemFeatures:
    """Number the content of V items.

    Args:
        titles: Title of each item or None.
        prices: Price of each item, shape (V,), NaN where unknown.
        attributes: Values of each item, by column.
        vectors: Precomputed vectors, shape (V, M).

    Returns:
        The numbered content; the price edges split the known prices into up to 16 buckets of equal count.
    """
    numbers: dict[tuple[str, str], int] = {}
    rows: list[list[int]] = [[] for _ in titles]
    for column, values in attributes.items():
        for row, item_values in zip(rows, values, strict=True):
            row.extend(numbers.setdefault((column, value), len(numbers)) for value in dict.fromkeys(item_values))
    prices = prices.astype(np.float32)
    finite = np.isfinite(prices)
    between = np.linspace(0, 1, _PRICE_BUCKETS + 1)[1:-1]
    quantiles = np.quantile(prices[finite], between) if finite.any() else np.zeros(0)
    edges: NDArray[np.float32] = np.unique(quantiles.astype(np.float32))
    bucket = np.where(finite, 1 + np.searchsorted(edges, np.where(finite, prices, 0), side="left"), 0)
    return ItemFeatures(
        attributes=Bags.pack(rows),
        attribute_names=tuple(numbers),
        price_bucket=bucket.astype(np.int64),
        price_edges=edges,
        words=Bags.pack([word_buckets(title) if title else [] for title in titles]),
        vectors=vectors,
    )
