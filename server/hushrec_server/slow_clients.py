"""Time and room that one client may take: for the head of a request, its body, the answer, and connections.

uvicorn limits how long an idle connection is kept after an answer, but waits without end for the first bytes and for a
head or body that trickles in; this module adds those ends. It also marks what comes while there are too many
connections, for `observed` to refuse: uvicorn's own refusal is no problem+json, and is not counted.
"""

import asyncio
from collections import Counter
from collections.abc import MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from hushrec_privacy.errors import FleetError
from uvicorn.protocols.http.h11_impl import H11Protocol

from hushrec_server.rates import address_key

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport
    from collections.abc import Awaitable, Callable, Iterator

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

__all__ = ["FULL", "BodyRoom", "SlowClientLimits", "TimelyProtocol", "timely_protocol"]

FULL = "hushrec.full"
"""Key of a scope's state: whether there were as many connections as allowed when the request came."""

_CLOSE = (b"connection", b"close")
_SHARES = 8  # addresses that together can hold all room for bodies


class SlowClientLimits:
    """ASGI middleware: a body has to arrive within a time.

    Args:
        app: What is guarded.
        body_s: Seconds from the head of a request to the last byte of its body.
    """

    def __init__(self, app: "App", *, body_s: float) -> None:
        self._app, self._body_s = app, body_s

    async def __call__(self, scope: "Message", receive: "Receive", send: "Send") -> None:
        """Run the application on a request that cannot last for ever."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._body_s
        waiting = _has_body(scope)

        async def timely_receive() -> "Message":
            nonlocal waiting
            if not waiting:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise FleetError("the body took too long to arrive", reason="too-slow") from error
            waiting = bool(message.get("more_body", False))
            return message

        async def closing_send(message: "Message") -> None:
            if waiting and message["type"] == "http.response.start":
                # Nobody reads the rest of the body: the connection cannot be used again.
                message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
            await send(message)

        await self._app(scope, timely_receive, closing_send)


def _has_body(scope: "Message") -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


class BodyRoom:
    """How many bytes of bodies this process holds at once, over all requests, and how many of one address.

    Whoever has a place in a round can begin many uploads and send them slowly; one address must not hold all room so.

    >>> room = BodyRoom(800)
    >>> with room.taken(60, "192.0.2.7"):
    ...     room.free
    740
    """

    def __init__(self, most: int) -> None:
        self.free = most
        self._most_of_one = most // _SHARES
        self._held: Counter[str] = Counter()

    @contextmanager
    def taken(self, size: int, address: str) -> "Iterator[None]":
        """Hold room for a body while the block runs; the first one of an address has room if there is any.

        Args:
            size: Bytes.
            address: From `address_key`.

        Raises:
            FleetError: There is none at the moment.
        """
        held = self._held[address]
        if size > self.free or (held and held + size > self._most_of_one):
            raise FleetError("the server holds as many uploads as it can; send again", reason="busy", retry_after_s=2)
        self.free -= size
        self._held[address] += size
        try:
            yield
        finally:
            self.free += size
            self._held[address] -= size
            if not self._held[address]:
                del self._held[address]


class TimelyProtocol(H11Protocol):
    """Closes a connection whose next head does not come whole in time, or that does not take its answer.

    Its limits are attributes of a subclass: see `timely_protocol`.
    """

    head_s: ClassVar[float]
    write_s: ClassVar[float]
    per_address: ClassVar[int]
    most: ClassVar[int]
    kept: ClassVar[int]
    held: ClassVar[Counter[str]]

    _head_timer: "TimerHandle | None" = None
    _write_timer: "TimerHandle | None" = None
    _address: str | None = None

    def connection_made(self, transport: "Transport") -> None:  # type: ignore[override]
        """Count the connection, and start waiting for the first head."""
        super().connection_made(transport)
        address = address_key(self.client[0] if self.client else "")
        too_many = len(self.connections) > self.kept or (self.per_address and self.held[address] >= self.per_address)
        if too_many:
            transport.abort()
            return
        self._address = address
        self.held[address] += 1
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Stop waiting when a head is whole; start again with the first byte of the next."""
        full = max(len(self.connections), len(self.tasks)) > self.most
        self.app_state = {**self.app_state, FULL: full}  # each request's scope gets a copy
        super().data_received(data)
        # Nothing of a request's head is known to h11 until all of it is there: IDLE.
        if self.conn.their_state.__name__ != "IDLE":
            self._stop_waiting()
        elif self._head_timer is None and not self.transport.is_closing():
            self._wait_for_head()

    def pause_writing(self) -> None:
        """Give a reader that is too slow some time."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """The reader goes on; one that has the end of its last answer still to read keeps its time."""
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def on_response_complete(self) -> None:
        """An answer is written, and the connection may be closing: what is left of it must be read in time."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._wait_for_reader()

    def timeout_keep_alive_handler(self) -> None:
        """No further request came: the same."""
        super().timeout_keep_alive_handler()
        self._wait_for_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        if self._write_timer is not None:
            self._write_timer.cancel()
        if self._address is not None:
            self.held[self._address] -= 1
            if not self.held[self._address]:
                del self.held[self._address]
            self._address = None
        super().connection_lost(exc)

    def _wait_for_reader(self) -> None:
        """uvicorn waits without end for a buffer that is less than full, or whose connection is closing."""
        self._write_timer = self._write_timer or self.loop.call_later(self.write_s, self.transport.abort)

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def timely_protocol(*, head_s: float, write_s: float, per_address: int, most: int, kept: int) -> type[TimelyProtocol]:
    """uvicorn's HTTP protocol with an end to every waiting, and limits on connections.

    Args:
        head_s: Seconds from a connection's start, or from the first byte of a later request, to the end of its head.
        write_s: Seconds that a full send buffer (64 KiB) has to drain.
        per_address: Connections that one address may hold; 0: any number, for behind a proxy.
        most: Connections of all, and requests that are worked on; a request beyond that is refused.
        kept: Connections beyond which one is closed before it says anything.
    """
    limits = {"head_s": head_s, "write_s": write_s, "per_address": per_address, "held": Counter()}
    limits |= {"most": most, "kept": kept}
    return type("LimitedProtocol", (TimelyProtocol,), limits)
