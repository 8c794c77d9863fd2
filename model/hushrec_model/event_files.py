"""Read an events file into numbers: who touched which item, how and when, row by row.

Ids become numbers by first appearance. What cannot be used is counted and named; only a time that cannot be read ends
the reading, because the order of all events hangs on it. Memory: about 100 bytes an event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from hushrec.behaviors import DEFAULT_BEHAVIOR, canonical_behavior
from hushrec_privacy.errors import DataError
from numpy.typing import NDArray

from hushrec_model.columns import find_roles
from hushrec_model.findings import finding
from hushrec_model.table_files import Table, open_table
from hushrec_model.times import any_time, usual_time

__all__ = ["UNUSABLE_PRICES", "RawEvents", "id_expression", "price_expressions", "read_events"]

UNUSABLE_PRICES = "prices are no number of at least 0 and count as unknown"
_TIMES = "write times like 2024-05-31T14:00:00+00:00 or as seconds since 1970"
_MOST_BEHAVIORS = 100
_SAMPLE = 1000  # values that the spelling of times is judged by


@dataclass(frozen=True, eq=False)
class RawEvents:
    """The events of a file in its order, N of them.

    Attributes:
        users: User ids, by first appearance. Private: they never leave `reading.py`.
        items: Item ids, by first appearance.
        behaviors: Names of behaviours, by first appearance.
        user: Index into `users`, shape (N,).
        item: Index into `items`, shape (N,).
        behavior: Index into `behaviors`, shape (N,).
        time: Microseconds since 1970-01-01 UTC, shape (N,), or None.
        session: Number of the session's name, shape (N,), or None.
        price: NaN where unknown, shape (N,), or None.
        row: Row in the file from 0, shape (N,).
        item_column: Name of the column that items came from, for messages.
        warnings: What was dropped, ignored or decided.
    """

    users: list[str]
    items: list[str]
    behaviors: tuple[str, ...]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    behavior: NDArray[np.int8]
    time: NDArray[np.int64] | None
    session: NDArray[np.int32] | None
    price: NDArray[np.float64] | None
    row: NDArray[np.int64]
    item_column: str
    warnings: list[str]


def read_events(path: Path, columns: Mapping[str, str]) -> RawEvents:
    """Read an events file; see `reading.read_log` for the arguments and errors."""
    with open_table(path) as table:
        names = table.schema.names()
        roles = find_roles("events", table.file, names, columns, required=("user", "item"))
        frame = table.collect(table.frame.select(_selected(table, roles)))
        if not len(frame):
            raise DataError(f"{table.file}: has columns but no rows")
        warnings = _lines_without_events(table) if table.per_user else []
        frame = frame.with_row_index("row")
        frame, dropped = _without_nobody(table, roles, frame)
        if "time" in frame.columns and frame["time"].null_count():
            frame = _with_times_of_any_spelling(table, roles, frame)
        prices = _unusable_prices(table.file, roles, frame)
    users, user = _numbers(frame["user"])
    items, item = _numbers(frame["item"])
    behaviors, behavior, unnamed = _behaviors(table.file, roles, frame)
    ignored = [f"{table.file}, column {roles['quantity']!r}: not used"] if "quantity" in roles else []
    return RawEvents(
        users,
        items,
        behaviors,
        user,
        item,
        behavior,
        time=frame["time"].to_numpy() if "time" in frame.columns else None,
        session=_numbers(frame["session"].fill_null(""))[1] if "session" in frame.columns else None,
        price=frame["price"].to_numpy() if "price" in frame.columns else None,
        row=frame["row"].to_numpy().astype(np.int64),
        item_column=roles["item"],
        warnings=[*warnings, *dropped, *prices, *unnamed, *ignored],
    )


def id_expression(file: str, column: str, dtype: pl.DataType) -> pl.Expr:
    """Read a column as ids: text; whole numbers without a decimal point; null where empty.

    Raises:
        DataError: The column holds lists.
    """
    if dtype.is_nested():
        raise DataError(f"{file}, column {column!r}: holds lists, not ids")
    values = pl.col(column)
    text = values.cast(pl.String)
    if dtype.is_float():  # pandas makes floats of whole numbers with gaps: 17850.0
        whole = values.is_finite() & (values == values.round())
        text = (
            pl.when(whole)
            .then(values.cast(pl.Int64, strict=False).cast(pl.String))
            .when(values.is_not_nan())
            .then(text)
        )
    return pl.when(text != "").then(text)


def price_expressions(column: str) -> tuple[pl.Expr, pl.Expr]:
    """Read a column as prices, NaN where unknown; and tell which values are there but no price."""
    number = pl.col(column).cast(pl.Float64, strict=False)
    usable = (number.is_finite() & (number >= 0)).fill_null(False)
    return pl.when(usable).then(number).otherwise(float("nan")), pl.col(column).is_not_null() & ~usable


def _selected(table: Table, roles: dict[str, str]) -> list[pl.Expr]:
    """The columns of the roles found, as small as they get: ids as categories, four bytes each."""
    selected = [
        id_expression(table.file, roles[role], table.schema[roles[role]]).cast(pl.Categorical).alias(role)
        for role in ("user", "item", "behavior", "session")
        if role in roles
    ]
    if "time" in roles:
        column = roles["time"]
        sample = table.collect(table.frame.select(column).drop_nulls().head(_SAMPLE)).to_series()
        selected.append(usual_time(column, table.schema[column], sample).alias("time"))
    if "price" in roles:
        price, unusable = price_expressions(roles["price"])
        selected += [price.alias("price"), unusable.alias("unusable price")]
    return selected


def _lines_without_events(table: Table) -> list[str]:
    with table.path.open("rb") as lines:
        short = [number for number, line in enumerate(lines) if len(line.split()) < 2]
    return finding(table.file, short, "lines without items are left out", unit="line")


def _without_nobody(table: Table, roles: dict[str, str], frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Leave out the rows without a user or item, and say how many."""
    warnings = []
    for role in ("user", "item"):
        missing = frame["row"].filter(frame[role].is_null())
        warnings += finding(_place(table.file, roles[role]), missing.to_list(), f"rows without {role} are left out")
    if warnings:
        frame = frame.filter(pl.col("user").is_not_null() & pl.col("item").is_not_null())
    if not len(frame):
        raise DataError(f"{table.file}: no row has both a user and an item; " + "; ".join(warnings))
    return frame, warnings


def _with_times_of_any_spelling(table: Table, roles: dict[str, str], frame: pl.DataFrame) -> pl.DataFrame:
    column = roles["time"]
    given = table.collect(table.frame.select(column)).to_series()
    missing = frame.filter(pl.col("time").is_null())["row"]
    texts = given.gather(missing).cast(pl.String).to_frame(column)
    times = texts.select(any_time(column)).to_series()
    if times.null_count():
        wrong = missing.filter(times.is_null())
        shown = ", ".join("nothing" if text is None else repr(text) for text in given.gather(wrong.head(3)).to_list())
        (text,) = finding(_place(table.file, column), wrong.to_list(), f"times cannot be read: {shown}")
        raise DataError(f"{text}; {_TIMES}, and remove rows that have none")
    read = pl.DataFrame({"row": missing, "read": times})
    return frame.join(read, on="row", how="left", maintain_order="left").with_columns(time=pl.coalesce("time", "read"))


def _unusable_prices(file: str, roles: dict[str, str], frame: pl.DataFrame) -> list[str]:
    if "price" not in roles:
        return []
    rows = frame["row"].filter(frame["unusable price"])
    return finding(_place(file, roles["price"]), rows.to_list(), UNUSABLE_PRICES)


def _behaviors(
    file: str, roles: dict[str, str], frame: pl.DataFrame
) -> tuple[tuple[str, ...], NDArray[np.int8], list[str]]:
    if "behavior" not in roles:
        return (DEFAULT_BEHAVIOR,), np.zeros(len(frame), np.int8), []
    unnamed = frame["row"].filter(frame["behavior"].is_null()).to_list()
    names, number = _numbers(frame["behavior"].fill_null(DEFAULT_BEHAVIOR) if unnamed else frame["behavior"])
    ours = [canonical_behavior(name) for name in names]
    distinct = list(dict.fromkeys(ours))
    place = _place(file, roles["behavior"])
    if len(distinct) > _MOST_BEHAVIORS:
        raise DataError(
            f"{place}: {len(distinct)} different behaviours ({', '.join(distinct[:3])}, …), at most {_MOST_BEHAVIORS} "
            "are possible; name another column: behavior=COLUMN"
        )
    merged = np.array([distinct.index(name) for name in ours], np.int8)
    warnings = finding(place, unnamed, f"rows without a behaviour count as {DEFAULT_BEHAVIOR!r}")
    return tuple(distinct), merged[number], warnings


def _place(file: str, column: str) -> str:
    return f"{file}, column {column!r}"


def _numbers(names: pl.Series) -> tuple[list[str], NDArray[np.int32]]:
    """Number the values of a categorical column by first appearance: the values, and the number of each row."""
    code = names.cast(pl.Categorical).to_physical().to_numpy()
    first = np.full(int(code.max()) + 1, len(code), np.int64)
    first[code[::-1]] = np.arange(len(code) - 1, -1, -1)  # the last to be written is the first row
    present = np.sort(first[first < len(code)])
    rank = np.empty(len(first), np.int32)
    rank[code[present]] = np.arange(len(present), dtype=np.int32)
    return names.gather(present).cast(pl.String).to_list(), rank[code]
