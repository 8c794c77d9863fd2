"""Read a shop's event and item files into a `Log` and `Items`: the only place that ever sees a real user id."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray

from hushrec_model.columns import check_roles
from hushrec_model.event_files import RawEvents, read_events
from hushrec_model.findings import finding
from hushrec_model.item_files import ListedItems, read_items
from hushrec_model.items import Items
from hushrec_model.log import Log
from hushrec_model.pseudonyms import pseudonym

__all__ = ["read_log"]


def read_log(
    events: Path,
    items: Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    attributes: tuple[str, ...] = (),
    key: bytes,
) -> tuple[Log, Items, list[str]]:
    """Read events, and what is known of the items.

    Formats: CSV, Parquet, JSON lines, and for events text with one line a user. Counted are rows without a user or an
    item (left out), rows that repeat another (kept), and items that the items file lacks (kept, without description).

    Args:
        events: Events file: user, item; optional time, behavior, price, quantity, session.
        items: Items file: item; optional title, category, brand, price, vector.
        columns: Column by role where it is not obvious, such as {"user": "customer_no", "items.price": "rrp"}.
        attributes: Further columns of the items file that describe items.
        key: Key of the users' pseudonyms. Private.

    Returns:
        The log, the items in the log's order, and sentences on what was dropped, kept in spite of doubts, or decided.

    Raises:
        ConfigError: `columns` names something that is no role, or attributes are named without an items file.
        DataError: A file is missing, empty or of an unknown kind, is not UTF-8, lacks a column, or holds a time or a
            vector that cannot be read. Names file, row and column.

    >>> from hushrec_model.boxed import boxed_events, boxed_items
    >>> shop = "eshop_clothing_2008"
    >>> log, items, _ = read_log(boxed_events(shop), boxed_items(shop), attributes=("colour",), key=b"key of the docs")
    >>> len(log), len(log.users), len(items), items.attributes["colour"][0]
    (165474, 24026, 217, ('navy blue',))
    """
    columns = columns or {}
    check_roles(columns)
    if attributes and items is None:
        raise ConfigError(f"attributes {', '.join(attributes)} are columns of an items file, and none is given")
    listed = read_items(items, columns, attributes) if items else _nothing_listed()
    raw = read_events(events, columns)
    ids, number = _numbered(listed.ids, raw)
    order = np.lexsort((raw.user,) if raw.time is None else (raw.time, raw.user))  # stable: ties keep their order
    log = Log(
        users=[pseudonym(user, key) for user in raw.users],
        items=ids,
        listed=len(listed.ids),
        behaviors=raw.behaviors,
        user=raw.user[order],
        item=number[raw.item[order]],
        behavior=raw.behavior[order],
        time=None if raw.time is None else raw.time[order],
        session=None if raw.session is None else raw.session[order],
        row=raw.row[order],
    )
    warnings = [*raw.warnings, *listed.warnings, *_repeated(str(events), log), *_lonely(str(events), log)]
    if items:
        warnings += _unlisted(str(events), raw.item_column, str(items), log)
    return log, _extended(listed, log, raw, number), warnings


def _nothing_listed() -> ListedItems:
    return ListedItems([], Items([], np.zeros(0), {}, None), has_price=False, warnings=[])


def _numbered(listed: list[str], raw: RawEvents) -> tuple[list[str], NDArray[np.int32]]:
    """All item ids, listed ones first; and the number (from 1) of each of the events' items."""
    number = {item: i for i, item in enumerate(listed, start=1)}
    for item in raw.items:
        number.setdefault(item, len(number) + 1)
    return list(number), np.array([number[item] for item in raw.items], np.int32)


def _extended(listed: ListedItems, log: Log, raw: RawEvents, number: NDArray[np.int32]) -> Items:
    """The listed items' descriptions, with empty ones for the others.

    Without a column of prices in the items file, an item's price is that of its earliest event with one: never later
    than the first event that could be trained on.
    """
    known, more = listed.items, len(log.items) - log.listed
    price = np.append(known.price, np.full(more, np.nan))
    if raw.price is not None and not listed.has_price:
        priced = np.flatnonzero(~np.isnan(raw.price))
        if raw.time is not None:
            priced = priced[np.argsort(raw.time[priced], kind="stable")]
        price[number[raw.item[priced[::-1]]] - 1] = raw.price[priced[::-1]]  # the last to be written is the earliest
    vectors = known.vectors
    if vectors is not None:
        vectors = np.concatenate([vectors, np.zeros((more, vectors.shape[1]), np.float32)])
    return Items(
        title=[*known.title, *[None] * more],
        price=price,
        attributes={column: [*values, *[()] * more] for column, values in known.attributes.items()},
        vectors=vectors,
        price_from_events=raw.price is not None and not listed.has_price,
    )


def _repeated(file: str, log: Log) -> list[str]:
    """Count the rows equal to an earlier one in user, item, behaviour and time."""
    moment = log.user.astype(np.int64)
    if log.time is not None:
        moment = np.append(0, np.cumsum((log.user[1:] != log.user[:-1]) | (log.time[1:] != log.time[:-1])))
    event = (moment * (len(log.items) + 1) + log.item) * len(log.behaviors) + log.behavior
    ordered = np.argsort(event, kind="stable")
    rows = np.sort(log.row[ordered[1:][event[ordered[1:]] == event[ordered[:-1]]]])
    what = "rows equal an earlier one in user, item, time and behaviour, and are kept"
    return finding(file, rows.tolist(), what)


def _lonely(file: str, log: Log) -> list[str]:
    bounds = log.bounds()
    rows = np.sort(log.row[bounds[:-1][np.diff(bounds) == 1]])
    return finding(file, rows.tolist(), "users have one event")


def _unlisted(events_file: str, column: str, items_file: str, log: Log) -> list[str]:
    rows = np.sort(log.row[log.item > log.listed])
    unlisted = log.items[log.listed :]
    some = ", ".join(repr(item) for item in unlisted[:3])
    what = f"events are on {len(unlisted)} items that {items_file} lacks, such as {some}; kept, without description"
    return finding(f"{events_file}, column {column!r}", rows.tolist(), what)
