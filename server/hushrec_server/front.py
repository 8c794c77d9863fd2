"""What every request handler works with, and how handlers get it: one object in the application's state.

Nothing that blocks runs on the event loop: handlers pass it to `Front.run`, which has a fixed number of threads.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from hushrec_privacy.errors import FleetError
from litestar import Request
from litestar.datastructures import State

from hushrec_server.device_requests import DeviceRequest, DeviceRequests
from hushrec_server.fleet import Fleet
from hushrec_server.grouping import Grouped
from hushrec_server.metrics import Metrics
from hushrec_server.rates import address_key
from hushrec_server.readiness import Readiness
from hushrec_server.slow_clients import BodyRoom

__all__ = ["THREADS", "AdminToken", "Asked", "Front", "address_of", "body_length", "front_of", "in_path", "read_body"]

THREADS = 8
"""Of one process, for the database and for cryptography: enough to keep one processor busy while some of them wait."""

CHECK_INS_AT_ONCE = 32
"""In one transaction: a synced commit is paid once for all of them, and none waits long for the others."""

Asked = Request[Any, Any, State]
"""A request as Litestar hands it over."""

_Result = TypeVar("_Result")


class AdminToken:
    """The administrator's token; only its hash is kept, and compared in constant time."""

    def __init__(self, token: bytes) -> None:
        self._sha256 = hashlib.sha256(token).digest()

    def check(self, header: str | None) -> None:
        """Let whoever sends the token pass.

        Raises:
            FleetError: The header is missing, or holds another token.
        """
        kind, _, given = (header or "").partition(" ")
        found = hashlib.sha256(given.strip().encode()).digest()
        if not (hmac.compare_digest(found, self._sha256) and kind.lower() == "bearer"):
            raise FleetError("this needs the administrator's token: Authorization: Bearer …", reason="unauthorized")

    def __repr__(self) -> str:
        """Nothing of the token."""
        return "AdminToken()"

    def __reduce__(self) -> NoReturn:
        """A secret is not copied by accident."""
        raise TypeError("an AdminToken cannot be copied or pickled")


@dataclass(frozen=True)
class Front:
    """The parts of the HTTP side.

    Attributes:
        fleet: The inside.
        requests: Opens and authenticates what devices send.
        metrics: Counters.
        ready: The checks behind /readyz.
        room: Bytes of bodies held at once.
        admin: The administrator's token.
        releases: Folder of the release repository; None: none is served.
        expires_at: When what is signed runs out, by name, seconds since 1970-01-01 UTC.
    """

    fleet: Fleet
    requests: DeviceRequests
    metrics: Metrics
    ready: Readiness
    room: BodyRoom
    admin: AdminToken
    releases: Path | None = None
    expires_at: Callable[[], Mapping[str, float]] = dict
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="request"), repr=False
    )
    check_ins: Grouped[DeviceRequest, bytes] = field(default_factory=lambda: Grouped(CHECK_INS_AT_ONCE), repr=False)

    async def run(self, call: Callable[..., _Result], *arguments: object) -> _Result:
        """Run a blocking call in a thread and wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, partial(call, *arguments))


def front_of(request: Asked) -> Front:
    """The parts that this request's application was made with."""
    front = request.app.state.front
    assert isinstance(front, Front)
    return front


def in_path(request: Asked, name: str) -> str:
    """A value of the path. Untrusted."""
    return str(request.path_params[name])


def address_of(request: Asked) -> str:
    """What counts as the address that a request comes from."""
    return address_key(request.client.host) if request.client else ""


async def read_body(request: Asked, most: int) -> bytes:
    """Read a body that says how long it is, without ever holding more than that.

    Args:
        request: Its `receive` has an end: see `slow_clients`.
        most: Bytes.

    Raises:
        FleetError: It does not say its length, or is longer than allowed.
    """
    length = body_length(request)
    if length > most:
        raise FleetError(f"the body has {length} bytes; this path takes at most {most}", reason="too-large")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise FleetError(f"the body has more than {most} bytes", reason="too-large")
    return bytes(body)


def body_length(request: Asked) -> int:
    """What a request says that its body is long.

    Raises:
        FleetError: It does not say.
    """
    said = request.headers.get("content-length", "")
    if not (said.isascii() and said.isdigit() and len(said) < 19):
        raise FleetError("the request must say how long its body is: Content-Length", reason="length-required")
    return int(said)
