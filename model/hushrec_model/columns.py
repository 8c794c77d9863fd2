"""Which column of a file plays which role: as told, or guessed from its name where that is obvious."""

import re
from collections.abc import Iterable, Mapping, Sequence

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError, DataError

__all__ = ["EVENT_ROLES", "ITEM_ROLES", "check_roles", "find_roles", "user_columns"]

# Roles and the column names taken for them, compared without case and punctuation.
EVENT_ROLES: dict[str, tuple[str, ...]] = {
    "user": (
        "user",
        "userid",
        "customer",
        "customerid",
        "visitor",
        "visitorid",
        "userpseudoid",
        "shopper",
        "householdid",
    ),
    "item": ("item", "itemid", "product", "productid", "sku", "stockcode", "asin", "articleid", "movieid"),
    "time": (
        "time",
        "timestamp",
        "datetime",
        "date",
        "eventtime",
        "eventtimestamp",
        "invoicetime",
        "invoicedate",
        "ts",
    ),
    "behavior": ("behavior", "behaviour", "event", "eventtype", "eventname", "action"),
    "price": ("price", "unitprice"),
    "quantity": ("quantity", "qty"),
    "session": ("session", "sessionid", "gasessionid", "visitid"),
}
ITEM_ROLES: dict[str, tuple[str, ...]] = {
    "item": (*EVENT_ROLES["item"], "id"),
    "title": ("title", "name", "producttitle", "productname", "itemname", "itemtitle"),
    "category": ("category", "categories", "productcategory", "itemcategory", "genres"),
    "brand": ("brand", "itembrand", "productbrand"),
    "price": EVENT_ROLES["price"],
    "vector": ("vector", "embedding"),
}
_KINDS = {"events": EVENT_ROLES, "items": ITEM_ROLES}


def user_columns(names: Iterable[str], columns: Mapping[str, str]) -> list[str]:
    """The columns that are named like one of users, or as the column of users was told to be.

    Args:
        names: A file's columns.
        columns: Column by role, as told.

    >>> user_columns(["Customer ID", "title", "client"], {"user": "client"})
    ['Customer ID', 'client']
    """
    told = (columns.get("user"), columns.get("events.user"))
    return [name for name in names if name in told or _plain(name) in EVENT_ROLES["user"]]


def check_roles(columns: Mapping[str, str]) -> None:
    """Require that every key names a role: `time`, or with its file in front where both files have one, `items.price`.

    Raises:
        ConfigError: One does not; the nearest role is named.

    >>> check_roles({"user": "customer", "items.price": "rrp"})
    """
    roles = {**EVENT_ROLES, **ITEM_ROLES}
    known = [*roles, *(f"{kind}.{role}" for kind, of_kind in _KINDS.items() for role in of_kind)]
    for role in columns:
        if role not in known:
            raise ConfigError(
                f"{role!r} is no role of a column; roles are {', '.join(roles)}{checks.nearest(role, known)}"
            )


def find_roles(
    kind: str, file: str, names: Sequence[str], columns: Mapping[str, str], *, required: Iterable[str]
) -> dict[str, str]:
    """Find the column of every role that a file has.

    Args:
        kind: "events" or "items".
        file: Name of the file, for errors.
        names: The file's columns.
        columns: Column by role, as told; a role of both files counts for the files that have the column.
        required: Roles that must be there.

    Returns:
        Column by role.

    Raises:
        DataError: A column that was named is not there, a required role has none, or two columns may be meant.

    >>> find_roles("events", "log.csv", ["Customer ID", "sku", "country"], {}, required=("user", "item"))
    {'user': 'Customer ID', 'item': 'sku'}
    """
    found = {}
    for role, aliases in _KINDS[kind].items():
        column = _told(kind, file, role, names, columns) or _guessed(file, role, aliases, names)
        if column is not None:
            found[role] = column
        elif role in required:
            raise DataError(
                f"{file} has no column that is obviously the {role}; its columns are {', '.join(names)}. "
                f"Say which one: {role}=COLUMN"
            )
    return found


def _told(kind: str, file: str, role: str, names: Sequence[str], columns: Mapping[str, str]) -> str | None:
    column = columns.get(f"{kind}.{role}") or columns.get(role)
    if column is None or column in names:
        return column
    shared = role in EVENT_ROLES and role in ITEM_ROLES
    if shared and f"{kind}.{role}" not in columns:
        return None  # the name is the other file's
    raise DataError(f"{file} has no column {column!r} for the {role}{checks.nearest(column, names)}")


def _guessed(file: str, role: str, aliases: tuple[str, ...], names: Sequence[str]) -> str | None:
    if role in names:
        return role
    matches = [name for name in names if _plain(name) in aliases]
    if len(matches) > 1:
        raise DataError(f"{file}: columns {', '.join(map(repr, matches))} may each be the {role}; say {role}=COLUMN")
    return matches[0] if matches else None


def _plain(name: str) -> str:
    """A column's name without case and punctuation."""
    return re.sub(r"[\W_]", "", name.lower())
