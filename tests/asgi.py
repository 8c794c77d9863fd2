"""Call an ASGI application without a server: one request, one answer."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Answer", "ask", "asks"]


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


async def asks(
    app: Any,
    method: str,
    path: str,
    *,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    client: str = "127.0.0.1",
    pieces: Sequence[bytes] | None = None,
) -> Answer:
    """One request; `pieces` instead of `body`: what of the body arrives, and then no more."""
    sent: dict[str, str] = {"host": "testserver"}
    if body or method == "POST":
        sent["content-length"] = str(len(body))
    sent |= {name.lower(): value for name, value in (headers or {}).items()}
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "scheme": "http",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()],
        "client": (client, 1),
        "server": ("testserver", 80),
        "state": {},
    }
    done = asyncio.Event()
    coming = list(pieces if pieces is not None else [body])
    found: dict[str, Any] = {"status": 0, "headers": {}, "body": b""}

    async def receive() -> dict[str, Any]:
        if not coming:
            await done.wait()
            return {"type": "http.disconnect"}
        piece = coming.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(coming) or pieces is not None}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            found["status"] = message["status"]
            found["headers"] = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            found["body"] += message.get("body", b"")
            if not message.get("more_body", False):
                done.set()

    await app(scope, receive, send)
    return Answer(found["status"], found["headers"], found["body"])


def ask(app: Any, method: str, path: str, **more: Any) -> Answer:
    """The same, from outside an event loop."""
    return asyncio.run(asks(app, method, path, **more))
