"""How the shared table of routes becomes paths, media types and JSON answers of Litestar."""

import re

import msgspec
from hushrec.messages import ROUTES
from hushrec_privacy.errors import FleetError

__all__ = ["BINARY", "JSON", "MSGPACK", "json_bytes", "litestar_path", "round_number"]

JSON, MSGPACK, BINARY = "application/json", "application/msgpack", "application/octet-stream"

_LAST_ROUND = 2**31 - 1


def litestar_path(name: str) -> str:
    """The path of a route as Litestar writes it.

    >>> litestar_path("check-in")
    '/v1/plans/{plan:str}/check-in'
    """
    return re.sub(r"\{(\w+)\}", r"{\1:str}", ROUTES[name].path)


def json_bytes(value: object) -> bytes:
    """A value as JSON; bytes as base64."""
    return msgspec.json.encode(value)


def round_number(text: str) -> int:
    """The number of a round in a path.

    Raises:
        FleetError: It is none.

    >>> round_number("7")
    7
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= _LAST_ROUND):
        raise FleetError("there is no round of this number", reason="not-found")
    return int(text)
