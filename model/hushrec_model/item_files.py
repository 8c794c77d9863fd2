"""Read an items file: title, price, attributes (several values in one, by `|`), and vectors from any large model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from hushrec_privacy import checks
from hushrec_privacy.errors import DataError
from numpy.typing import NDArray

from hushrec_model.columns import find_roles
from hushrec_model.event_files import UNUSABLE_PRICES, id_expression, price_expressions
from hushrec_model.findings import finding
from hushrec_model.items import Items
from hushrec_model.table_files import Table, open_table

__all__ = ["ListedItems", "read_items"]

_ROW, _ID = "\0row", "\0id"  # columns of ours: no file's column is called so


@dataclass(frozen=True, eq=False)
class ListedItems:
    """The items of a file, each once, in its order.

    Attributes:
        ids: Item ids.
        items: What is known of them.
        has_price: Whether the file has a column of prices.
        warnings: What was dropped, ignored or decided.
    """

    ids: list[str]
    items: Items
    has_price: bool
    warnings: list[str]


def read_items(path: Path, columns: Mapping[str, str], attributes: tuple[str, ...]) -> ListedItems:
    """Read an items file; see `reading.read_log` for the arguments and errors."""
    with open_table(path) as table:
        if table.per_user:
            raise DataError(f"{table.file}: an items file is CSV, Parquet or JSON lines, not text")
        names = table.schema.names()
        roles = find_roles("items", table.file, names, columns, required=("item",))
        for column in attributes:
            if column not in names:
                raise DataError(f"{table.file} has no column {column!r}{checks.nearest(column, names)}")
        of_attribute = {role: column for role, column in roles.items() if role in ("category", "brand")}
        of_attribute |= {column: column for column in attributes if column not in roles.values()}
        used = dict.fromkeys([*roles.values(), *of_attribute.values()])
        frame = table.collect(table.frame.select(list(used))).with_row_index(_ROW)
    if not len(frame):
        raise DataError(f"{table.file}: has columns but no rows")
    frame, warnings = _each_once(table, roles["item"], frame)
    price, unusable = _prices(table.file, roles, frame)
    unused = [repr(name) for name in names if name not in used]
    if unused:
        warnings.append(f"{table.file}: columns not used: {', '.join(unused)}; name them as attributes to use them")
    vectors, missing = _vectors(table.file, roles, frame)
    items = Items(
        title=frame[roles["title"]].cast(pl.String).to_list() if "title" in roles else [None] * len(frame),
        price=price,
        attributes={name: _values(frame[column]) for name, column in of_attribute.items()},
        vectors=vectors,
    )
    return ListedItems(frame[_ID].to_list(), items, "price" in roles, [*warnings, *unusable, *missing])


def _each_once(table: Table, column: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    frame = frame.with_columns(id_expression(table.file, column, frame.schema[column]).alias(_ID))
    unnamed = frame.filter(pl.col(_ID).is_null())[_ROW]
    repeated = frame.filter(pl.col(_ID).is_not_null() & ~pl.col(_ID).is_first_distinct())[_ROW]
    place = f"{table.file}, column {column!r}"
    warnings = finding(place, unnamed.to_list(), "rows without item are left out")
    warnings += finding(place, repeated.to_list(), "rows that repeat an item are left out")
    return frame.filter(pl.col(_ID).is_not_null() & pl.col(_ID).is_first_distinct()), warnings


def _prices(file: str, roles: dict[str, str], frame: pl.DataFrame) -> tuple[NDArray[np.float64], list[str]]:
    if "price" not in roles:
        return np.full(len(frame), np.nan), []
    price, unusable = price_expressions(roles["price"])
    read = frame.select(_ROW, price=price, unusable=unusable)
    rows = read[_ROW].filter(read["unusable"])
    return read["price"].to_numpy(), finding(f"{file}, column {roles['price']!r}", rows.to_list(), UNUSABLE_PRICES)


def _values(column: pl.Series) -> list[tuple[str, ...]]:
    """Split every entry at `|`; blanks around a value and repeated values go."""
    lists = column.cast(pl.List(pl.String)) if column.dtype.is_nested() else column.cast(pl.String).str.split("|")
    return [
        tuple(dict.fromkeys(value.strip() for value in values if value and value.strip())) if values is not None else ()
        for values in lists.to_list()
    ]


def _vectors(file: str, roles: dict[str, str], frame: pl.DataFrame) -> tuple[NDArray[np.float32] | None, list[str]]:
    """Vectors of one length, from lists or from text such as "[0.1, 0.2]" or "0.1 0.2"; zeros where there is none."""
    if "vector" not in roles:
        return None, []
    given, place = frame[roles["vector"]], f"{file}, column {roles['vector']!r}"
    if not given.dtype.is_nested():
        numbers = given.cast(pl.String).str.strip_chars("[] ").str.replace_all(r"[\s,;|]+", " ").str.split(" ")
        given = pl.select(pl.when(given.cast(pl.String).str.len_chars() > 0).then(numbers)).to_series()
    vectors = given.cast(pl.List(pl.Float64), strict=False)
    lengths = vectors.list.len()
    width = int(lengths.drop_nulls().mode().max() or 0)  # type: ignore[arg-type]  # an integer: the series is one
    if not width:
        return None, finding(place, frame[_ROW].to_list(), "items have no vector; the column is not used")
    finite = vectors.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    wrong = frame[_ROW].filter(lengths.is_not_null() & ((lengths != width) | ~finite))
    if len(wrong):
        raise DataError(*finding(place, wrong.to_list(), f"vectors are not {width} finite numbers like the others"))
    out = np.zeros((len(frame), width), np.float32)
    out[lengths.is_not_null().to_numpy()] = vectors.drop_nulls().explode().to_numpy().reshape(-1, width)
    missing = frame[_ROW].filter(lengths.is_null()).to_list()
    return out, finding(place, missing, "items have no vector and get one of zeros")
