"""The catalogue of a bundle: what is known of each item, read from catalog.sqlite, which is never written to.

Opening reads nothing but the file's header, so that it takes as long for a million items as for ten. Lookups are cached
in bounds.
"""

import functools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from hushrec_privacy.checks import nearest
from hushrec_privacy.errors import BundleError, CatalogError, ConfigError
from numpy.typing import NDArray

if TYPE_CHECKING:
    import sqlite3

__all__ = ["BASE_COLUMNS", "Catalog", "Item", "write_catalog"]

BASE_COLUMNS = ("item", "title", "price")
"""Columns that every catalogue has; all others are attributes."""

CACHED_ITEMS = 16_384
CACHED_MASKS = 16
MAX_PARAMETERS = 500
"""Values in one SQL statement; SQLite's own limit was 999 for long."""

SCHEMA = """
CREATE TABLE items(idx INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT, price REAL);
CREATE TABLE columns(column_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE terms(term_id INTEGER PRIMARY KEY, column_id INTEGER NOT NULL, value TEXT NOT NULL,
    UNIQUE(column_id, value));
CREATE TABLE item_terms(idx INTEGER, position INTEGER, term_id INTEGER NOT NULL,
    PRIMARY KEY(idx, position)) WITHOUT ROWID;
CREATE INDEX items_by_term ON item_terms(term_id, idx);
CREATE VIEW attributes AS SELECT idx, name AS column, value
    FROM item_terms JOIN terms USING(term_id) JOIN columns USING(column_id);
PRAGMA user_version = 1;
"""


class Item(msgspec.Struct, frozen=True):
    """One item as the shopper sees it.

    Attributes:
        item: The shop's id.
        title: None if the shop gave none, as for the next three.
        category: The first one, if there are several.
        brand: The first one.
        price: In the shop's currency.
        attributes: All values of every column that this item has, category and brand included.
    """

    item: str
    title: str | None
    category: str | None
    brand: str | None
    price: float | None
    attributes: Mapping[str, tuple[str, ...]]


class Catalog:
    """Read-only view of a catalogue; safe to use from several threads.

    Attributes:
        path: The file.
        size: V, the number of items; their indexes are 1..V.
    """

    def __init__(self, path: Path) -> None:
        """Open a catalogue.

        Args:
            path: catalog.sqlite of a bundle. It must not change while it is open.

        Raises:
            BundleError: It cannot be opened or is not a catalogue.
        """
        import sqlite3

        self.path = path
        self._lock = threading.Lock()
        self._error = sqlite3.Error
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        try:
            self._db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        except sqlite3.Error as error:
            raise BundleError(f"{path}: cannot be opened ({error})") from error
        try:
            self._query("PRAGMA trusted_schema = OFF")
            self._query("PRAGMA mmap_size = 268435456")  # pages of the file cache instead of copies on the heap
            self.size: int = self._query("SELECT coalesce(max(idx), 0) FROM items")[0][0]
        except BundleError:
            self._db.close()
            raise
        self._index = functools.lru_cache(CACHED_ITEMS)(self._find_index)
        self._id = functools.lru_cache(CACHED_ITEMS)(self._find_id)
        self._mask = functools.lru_cache(CACHED_MASKS)(self._find_mask)

    def __enter__(self) -> "Catalog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; further lookups raise BundleError. Closing twice is allowed."""
        with self._lock:
            self._db.close()

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """Names that `values` and `within` take."""
        return BASE_COLUMNS + tuple(name for (name,) in self._query("SELECT name FROM columns ORDER BY column_id"))

    def get(self, item: str) -> Item | None:
        """Look up an item by its id; None if the catalogue does not have it."""
        index = self.index(item)
        if not index:
            return None
        ((title, price),) = self._query("SELECT title, price FROM items WHERE idx = ?", (index,))
        attributes: dict[str, tuple[str, ...]] = {}
        rows = "SELECT name, value FROM item_terms JOIN terms USING(term_id) JOIN columns USING(column_id)"
        for column, value in self._query(f"{rows} WHERE idx = ? ORDER BY position", (index,)):
            attributes[column] = (*attributes.get(column, ()), value)
        category, brand = (attributes.get(column, (None,))[0] for column in ("category", "brand"))
        return Item(item, title, category, brand, price, attributes)

    def values(self, column: str) -> list[str]:
        """List the different values of a column, sorted; prices as Python writes them.

        Raises:
            CatalogError: There is no such column; names the nearest.
        """
        self._check_column(column)
        if column == "price":
            return [
                str(price)
                for (price,) in self._query("SELECT DISTINCT price FROM items WHERE price NOTNULL ORDER BY 1")
            ]
        if column in BASE_COLUMNS:
            name = {"item": "id", "title": "title"}[column]
            return [
                value for (value,) in self._query(f"SELECT DISTINCT {name} FROM items WHERE {name} NOTNULL ORDER BY 1")
            ]
        query = "SELECT value FROM terms JOIN columns USING(column_id) WHERE name = ? ORDER BY value"
        return [value for (value,) in self._query(query, (column,))]

    def index(self, item: str) -> int:
        """Give the index of an item, 1..V; 0 if the catalogue does not have it."""
        return self._index(item)

    def indexes(self, items: Iterable[str]) -> dict[str, int]:
        """Look up many ids at once, past the cache; those that the catalogue does not have are left out."""
        wanted = [item for item in set(items) if _is_text(item)]
        found: dict[str, int] = {}
        for start in range(0, len(wanted), MAX_PARAMETERS):
            part = wanted[start : start + MAX_PARAMETERS]
            found.update(self._query(f"SELECT id, idx FROM items WHERE id IN ({_marks(part)})", part))
        return found

    def ids(self, indexes: Iterable[int]) -> list[str]:
        """Give the ids of items by index, in the order given.

        Raises:
            ConfigError: An index is not one of 1..V.
        """
        return list(map(self._id, indexes))

    def described(self, indexes: Sequence[int]) -> Iterator[tuple[str | None, float | None, list[tuple[str, str]]]]:
        """Give title, price and (column, value) pairs of items by index, in the order given; for many at once.

        Raises:
            ConfigError: An index is not one of 1..V.
        """
        pairs = "SELECT idx, name, value FROM item_terms JOIN terms USING(term_id) JOIN columns USING(column_id)"
        for start in range(0, len(indexes), MAX_PARAMETERS):
            part = indexes[start : start + MAX_PARAMETERS]
            base = self._query(f"SELECT idx, title, price FROM items WHERE idx IN ({_marks(part)})", part)
            known: dict[int, tuple[str | None, float | None, list[tuple[str, str]]]]
            known = {index: (title, price, []) for index, title, price in base}
            found = self._query(f"{pairs} WHERE idx IN ({_marks(part)}) ORDER BY idx, position", part)
            for index, column, value in found:
                known[index][2].append((column, value))
            for index in part:
                if index not in known:
                    raise ConfigError(f"index {index} is not one of 1..{self.size}")
                yield known[index]

    def mask(self, within: Mapping[str, str | Sequence[str]]) -> NDArray[np.bool_]:
        """Mark the items that have one of the values in every column named.

        Args:
            within: Values by column. A list is a choice of values (an empty one matches nothing); a further column
                narrows.

        Returns:
            Read-only, shape (V + 1,); row 0 is False.

        Raises:
            CatalogError: A column does not exist; names the nearest.
            ConfigError: A value is not a string or a list of strings.
        """
        wanted = []
        for column, values in within.items():
            self._check_column(column)
            choice = {values} if isinstance(values, str) else set(values) if isinstance(values, Iterable) else {None}
            texts = sorted(value for value in choice if isinstance(value, str))
            if len(texts) < len(choice):
                raise ConfigError(f"within[{column!r}] is {values!r}; give a string or a list of strings")
            wanted.append((column, tuple(texts)))
        return self._mask(tuple(sorted(wanted)))

    def _check_column(self, column: str) -> None:
        if column not in self.columns:
            known = ", ".join(self.columns)
            raise CatalogError(f"the catalogue has no column {column!r}{nearest(column, self.columns)}; it has {known}")

    def _query(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(statement, values).fetchall()
        except self._error as error:
            raise BundleError(f"{self.path}: cannot be read as a catalogue ({error})") from error

    def _find_index(self, item: str) -> int:
        if not _is_text(item):
            return 0
        rows = self._query("SELECT idx FROM items WHERE id = ?", (item,))
        return int(rows[0][0]) if rows else 0

    def _find_id(self, index: int) -> str:
        rows = self._query("SELECT id FROM items WHERE idx = ?", (int(index),))
        if not rows:
            raise ConfigError(f"index {index} is not one of 1..{self.size}")
        return str(rows[0][0])

    def _find_mask(self, within: tuple[tuple[str, tuple[str, ...]], ...]) -> NDArray[np.bool_]:
        mask = np.ones(self.size + 1, np.bool_)
        mask[0] = False
        for column, values in within:
            matching = np.zeros(self.size + 1, np.bool_)
            for value in filter(_is_text, values):
                matching[[index for (index,) in self._query(*_match(column, value))]] = True
            mask &= matching
        mask.flags.writeable = False
        return mask


def write_catalog(
    path: Path,
    ids: Sequence[str],
    titles: Sequence[str | None],
    prices: NDArray[np.float64],
    attributes: Mapping[str, Sequence[Sequence[str]]],
) -> None:
    """Write a catalogue; the same input gives the same bytes with the same version of SQLite.

    Args:
        path: The file to make.
        ids: Id of every item, length V; `ids[i - 1]` is item i.
        titles: Length V.
        prices: Shape (V,); NaN if unknown.
        attributes: By column the values of every item, each of length V; empty for none.

    Raises:
        ConfigError: The lengths differ, an id appears twice or cannot be stored, a column has the name of a fixed one,
            or the file exists.
    """
    import sqlite3

    if not len(ids) == len(titles) == len(prices) or any(len(values) != len(ids) for values in attributes.values()):
        raise ConfigError("ids, titles, prices and every attribute column must have one entry an item")
    if set(attributes) & set(BASE_COLUMNS):
        raise ConfigError(f"attribute columns must not be called {', '.join(BASE_COLUMNS)}: rename the column")
    if path.exists():
        raise ConfigError(f"{path}: exists; a catalogue is written once: remove it first")
    database = sqlite3.connect(path, isolation_level=None)
    try:
        database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {SCHEMA}; BEGIN;")
        known_prices = (None if np.isnan(price) else float(price) for price in prices)
        rows = zip(range(1, len(ids) + 1), ids, titles, known_prices, strict=True)
        database.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
        _write_attributes(database, attributes)
        database.execute("COMMIT")
        database.execute("VACUUM")
    except (sqlite3.IntegrityError, UnicodeEncodeError) as error:
        raise ConfigError(f"{path}: an id appears twice, or a text is not valid Unicode ({error})") from error
    finally:
        database.close()


def _write_attributes(database: "sqlite3.Connection", attributes: Mapping[str, Sequence[Sequence[str]]]) -> None:
    terms: dict[tuple[int, str], int] = {}
    places: dict[int, int] = {}
    for column_id, (column, values) in enumerate(attributes.items(), 1):
        database.execute("INSERT INTO columns VALUES (?, ?)", (column_id, column))
        for index, own in enumerate(values, 1):
            for value in dict.fromkeys(own):
                term_id = terms.get((column_id, value))
                if term_id is None:
                    term_id = terms[column_id, value] = len(terms) + 1
                    database.execute("INSERT INTO terms VALUES (?, ?, ?)", (term_id, column_id, value))
                places[index] = places.get(index, 0) + 1
                database.execute("INSERT INTO item_terms VALUES (?, ?, ?)", (index, places[index], term_id))


def _match(column: str, value: str) -> tuple[str, tuple[object, ...]]:
    """The statement that finds the items with one value in one column."""
    if column == "item":
        return "SELECT idx FROM items WHERE id = ?", (value,)
    if column == "title":
        return "SELECT idx FROM items WHERE title = ?", (value,)
    if column == "price":
        try:
            return "SELECT idx FROM items WHERE price = ?", (float(value),)
        except ValueError:
            return "SELECT idx FROM items WHERE 0", ()
    terms = "SELECT term_id FROM terms JOIN columns USING(column_id) WHERE name = ? AND value = ?"
    return f"SELECT idx FROM item_terms WHERE term_id = ({terms})", (column, value)


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _is_text(item: str) -> bool:
    """Whether SQLite can hold it: lone surrogates, which no catalogue has, it cannot."""
    try:
        item.encode()
    except UnicodeEncodeError:
        return False
    return True
