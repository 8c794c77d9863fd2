"""Which rows of the feature tables the vector of an item is summed from, read from the bundle's catalogue.

Titles, prices and attributes are in the catalogue already, so a bundle holds no second list of them. A vector is the
mean of the rows of its attributes, plus the mean of those of its title's words, plus the row of its price.
"""

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.words import word_buckets

__all__ = ["Content"]

Floats = NDArray[np.float32]


class _Entries(NamedTuple):
    """Entry i says: row `row[i]` of a table goes into the vector of the item at `place[i]` with `share[i]`."""

    place: NDArray[np.int64]
    row: NDArray[np.int64]
    share: Floats


class Content:
    """The sums of some items, as sparse maps from tables to item vectors.

    Args:
        bundle: Its catalogue and `features.*` arrays are read.
        items: Which items, 1 to V, shape (n,).

    Raises:
        BundleError: The catalogue cannot be read.
    """

    def __init__(self, bundle: Bundle, items: NDArray[np.int64]) -> None:
        self._count = len(items)
        found: dict[str, list[tuple[int, int, float]]] = {name: [] for name in _tables(bundle)}
        if found:
            reader = _Reader(bundle)
            with Catalog(bundle.path("catalog.sqlite")) as catalog:
                for place, known in enumerate(catalog.described(items.tolist())):
                    for name in found:
                        rows = reader.rows(name, *known)
                        found[name] += [(place, row, 1 / len(rows)) for row in rows]
        self._maps = {name: _entries(listed) for name, listed in found.items()}

    @classmethod
    def whole(cls, bundle: Bundle) -> "Content":
        """The sums of all V items, as `Master.apply` needs them."""
        return cls(bundle, np.arange(1, bundle.manifest.model.items + 1))

    def vectors(self, tables: Mapping[str, Floats]) -> Floats:
        """Sum vectors from tables.

        Args:
            tables: Some of the feature tables by name, (n, 64) each.

        Returns:
            Shape (items, 64).
        """
        total = np.zeros((self._count, 64), np.float32)
        for name, entries in self._maps.items():
            if name in tables:
                np.add.at(total, entries.place, tables[name][entries.row] * entries.share[:, None])
        return total

    def gradients(self, name: str, vectors: Floats, rows: int) -> Floats:
        """Carry gradients of the vectors, shape (items, 64), to a table of `rows` rows: the transposed map."""
        total = np.zeros((rows, 64), np.float32)
        entries = self._maps[name]
        np.add.at(total, entries.row, vectors[entries.place] * entries.share[:, None])
        return total


class _Reader:
    """From what is known of an item to rows of the tables, as training numbered them."""

    def __init__(self, bundle: Bundle) -> None:
        names = json.loads(bundle.array("features.attribute_names").tobytes())
        self._attributes = {(column, value): row for row, (column, value) in enumerate(names)}
        has_prices = "features.price_edges" in bundle.manifest.arrays
        self._edges = bundle.array("features.price_edges") if has_prices else np.zeros(0, np.float32)

    def rows(self, table: str, title: str | None, price: float | None, attributes: list[tuple[str, str]]) -> list[int]:
        if table == "features.attributes":
            return [self._attributes[pair] for pair in attributes if pair in self._attributes]
        if table == "features.words":
            return word_buckets(title) if title else []
        known = price is not None and np.isfinite(np.float32(price))
        return [1 + int(np.searchsorted(self._edges, np.float32(price or 0.0), side="left")) if known else 0]


def _tables(bundle: Bundle) -> Iterator[str]:
    for name in ("features.attributes", "features.prices", "features.words"):
        if name in bundle.manifest.arrays:
            yield name


def _entries(listed: list[tuple[int, int, float]]) -> _Entries:
    place, row, share = zip(*listed, strict=True) if listed else ((), (), ())
    return _Entries(np.array(place, np.int64), np.array(row, np.int64), np.array(share, np.float32))
