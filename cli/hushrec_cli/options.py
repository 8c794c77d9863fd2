"""Options that several commands share, and how their text is read."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Columns", "Events", "Json", "Protocol", "TestFrom", "VaultKey", "column_roles", "comma_list", "parse_time"]


class Protocol(StrEnum):
    """How a log is divided into training, validation and test; `hushrec_model.protocols` has one function for each."""

    LEAVE_ONE_OUT = "leave-one-out"
    TEMPORAL = "temporal"
    SESSIONS = "sessions"
    BASKETS = "baskets"


def parse_time(text: str | None) -> datetime | None:
    """Read a date or time in ISO form; without a zone it is UTC, as times in event files are.

    Raises:
        typer.BadParameter: It is neither.

    >>> parse_time("2008-08-01")
    datetime.datetime(2008, 8, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a time; write 2008-08-01 or 2008-08-01T12:00:00+02:00") from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def comma_list(text: str | None) -> tuple[str, ...]:
    """Split at commas; blanks around a value are dropped, empty values too.

    >>> comma_list("22423, 85123A,")
    ('22423', '85123A')
    """
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def column_roles(given: list[str] | None) -> dict[str, str]:
    """Split every ROLE=NAME.

    Raises:
        typer.BadParameter: One has no equals sign, or names a role twice.

    >>> column_roles(["user=Customer ID", "items.price=rrp"])
    {'user': 'Customer ID', 'items.price': 'rrp'}
    """
    roles: dict[str, str] = {}
    for text in given or []:
        role, equals, name = text.partition("=")
        if not equals or not role or not name or role in roles:
            raise typer.BadParameter(f"{text!r}: write each role once, as --column user=NAME")
        roles[role] = name
    return roles


Events = Annotated[
    Path, typer.Argument(metavar="EVENTS", help="Event log: CSV, Parquet, JSONL, or one line of items a user.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="ROLE=NAME",
        help="Name of the column for a role whose name does not say it: --column user=buyer. Can be repeated.",
    ),
]
TestFrom = Annotated[
    str | None,
    typer.Option(
        "--test-from",
        metavar="TIME",
        help="Where the test begins (temporal, sessions): 2008-08-01, UTC without a zone.",
    ),
]
VaultKey = Annotated[
    Path | None,
    typer.Option(
        "--vault-key", metavar="FILE", help="For a device's vault: its key. Default: the system's keyring has it."
    ),
]
