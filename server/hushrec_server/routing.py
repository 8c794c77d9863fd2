"""How the shared table of routes becomes paths, media types and JSON answers of Litestar."""

import re

import msgspec
from hushrec.messages import ROUTES

__all__ = ["BINARY", "JSON", "MSGPACK", "json_bytes", "litestar_path"]

JSON, MSGPACK, BINARY = "application/json", "application/msgpack", "application/octet-stream"


def litestar_path(name: str) -> str:
    """The path of a route as Litestar writes it.

    >>> litestar_path("check-in")
    '/v1/plans/{plan:str}/check-in'
    """
    return re.sub(r"\{(\w+)\}", r"{\1:str}", ROUTES[name].path)


def json_bytes(value: object) -> bytes:
    """A value as JSON; bytes as base64."""
    return msgspec.json.encode(value)
