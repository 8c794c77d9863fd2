"""Around the whole application: refuses whoever asks too often and whoever comes when there are too many, counts every
answer, and logs one line for those that are limited."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from hushrec_privacy.errors import FleetError

from hushrec_server.logs import log_request
from hushrec_server.metrics import Metrics
from hushrec_server.problems import REFUSAL, problem_answer, refusal_reason
from hushrec_server.rates import TokenBuckets, address_key
from hushrec_server.slow_clients import FULL

if TYPE_CHECKING:
    from hushrec_server.slow_clients import App, Message, Receive, Send

__all__ = ["Observed"]

_UNLIMITED = "/healthz"  # costs nothing, and whoever watches this process must not be refused
_BUSY_S = 2


class Observed:
    """ASGI middleware.

    Args:
        app: What is observed.
        metrics: Counters.
        rates: How often one address may ask.
        clock: Seconds from any start, never backwards.
    """

    def __init__(self, app: "App", metrics: Metrics, *, rates: TokenBuckets, clock: Callable[[], float]) -> None:
        self._app, self._metrics, self._rates, self._clock = app, metrics, rates, clock

    async def __call__(self, scope: "Message", receive: "Receive", send: "Send") -> None:
        """Run the application on one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._clock(), 0

        async def watching_send(message: "Message") -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            refused = self._refused(scope)
            if refused is None:
                await self._app(scope, receive, watching_send)
            else:
                await _refuse(scope, refused, watching_send)
        finally:
            self._record(scope, status, self._clock() - began)

    def _refused(self, scope: "Message") -> FleetError | None:
        if scope.get("state", {}).get(FULL):
            text = "the server has as many connections as it can; send again"
            return FleetError(text, reason="busy", retry_after_s=_BUSY_S)
        wait = 0.0 if scope["path"] == _UNLIMITED else self._rates.take(_address(scope))
        if not wait:
            return None
        return FleetError("too many requests from this address", reason="rate-limited", retry_after_s=wait)

    def _record(self, scope: "Message", status: int, taken_s: float) -> None:
        handler = scope.get("route_handler")
        route = getattr(handler, "name", None) or "none"
        self._metrics.count("hushrec_requests_total", route=route, status=str(status))
        self._metrics.count("hushrec_request_seconds_total", max(0.0, taken_s), route=route)
        if REFUSAL in scope:
            self._metrics.count("hushrec_refusals_total", reason=scope[REFUSAL])
        if _is_logged(scope):
            log_request(route, status, taken_s * 1e3)


def _is_logged(scope: "Message") -> bool:
    """Not what anybody can send without end: a flood must not fill the disk. It is counted all the same."""
    return scope["path"] != _UNLIMITED and scope.get(REFUSAL) not in ("rate-limited", "busy")


def _address(scope: "Message") -> str:
    client = scope.get("client")
    return address_key(client[0]) if client else ""


async def _refuse(scope: "Message", error: FleetError, send: "Send") -> None:
    scope[REFUSAL] = refusal_reason(error)
    status, headers, body = problem_answer(error)
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
