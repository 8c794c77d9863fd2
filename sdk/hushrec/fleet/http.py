"""One HTTP request: bytes there, at most so many bytes back, within a time; nothing is followed, stored or told.

No redirects, no cookies, no proxies from the environment, no compression, no retries (see `backoff`), and a User-Agent
that is the same on every device. Only https, with the system's certificates, but for a server on this machine.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from hushrec_privacy.errors import FleetError

from hushrec.fleet.addresses import checked_url

__all__ = ["Connection", "HttpConnection", "Reply"]

USER_AGENT = "hushrec"
CONNECT_S, READ_S, WHOLE_S = 10.0, 30.0, 300.0
LARGEST_PROBLEM_BYTES = 8_192
_CHUNK = 1 << 16


class Reply(NamedTuple):
    """What a server answered.

    Attributes:
        status: HTTP status.
        body: At most as many bytes as were allowed.
        retry_after_s: The header Retry-After, in seconds; None: none, or not a whole number.
    """

    status: int
    body: bytes
    retry_after_s: float | None


class Connection(Protocol):
    """What can send one request: `HttpConnection`, or a test's."""

    def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, largest: int) -> Reply:
        """See `HttpConnection.request`."""

    def close(self) -> None:
        """Let go of all sockets."""


class HttpConnection:
    """Requests to one server; safe to use from several threads. Opens no socket before the first request."""

    def __init__(self, url: str) -> None:
        """Take an address.

        Args:
            url: See `checked_url`.

        Raises:
            ConfigError: It is no address that a device speaks to.
        """
        parts = urlsplit(checked_url(url))
        self._prefix = parts.path
        self._host = f"{parts.scheme}://{parts.netloc}"
        self._pool: Any = None

    def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, largest: int) -> Reply:
        """Send a request and read the answer.

        Args:
            method: GET or POST.
            path: From the address on, with a slash first.
            body: Empty for none.
            headers: Beside those that are the same always.
            largest: Bytes of a good answer at most.

        Raises:
            FleetError: Nobody answered, too slowly, with too much, or with a redirect; `reason` is "unreachable" or
                "bad-answer".
        """
        import urllib3

        if self._pool is None:
            timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
            self._pool = urllib3.PoolManager(num_pools=1, maxsize=1, timeout=timeout, retries=False)
        fixed = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"}
        try:
            answer = self._pool.request(
                method,
                self._host + self._prefix + path,
                body=body or None,
                headers={**headers, **fixed},
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                return _read(answer, largest)
            finally:
                answer.close()  # of a whole answer: only hands the connection back
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise FleetError(
                "the server cannot be reached; this device tries again later", reason="unreachable", retry_after_s=0
            ) from error

    def close(self) -> None:
        """Let go of all sockets."""
        if self._pool is not None:
            self._pool.clear()
            self._pool = None


def _read(answer: Any, largest: int) -> Reply:
    most = largest if answer.status < 300 else LARGEST_PROBLEM_BYTES
    until = time.monotonic() + WHOLE_S  # for a server that sends a byte now and then; no decision hangs on this clock
    body = bytearray()
    while len(body) <= most:
        part = answer.read(min(_CHUNK, most + 1 - len(body)))
        body += part
        if not part:
            break
        if time.monotonic() > until:
            raise FleetError("the server answers too slowly", reason="unreachable", retry_after_s=0)
    if len(body) > most:
        raise FleetError("the server's answer is larger than it may be", reason="bad-answer")
    if 300 <= answer.status < 400:
        raise FleetError("the server points elsewhere, and a device follows nobody", reason="bad-answer")
    after = str(answer.headers.get("Retry-After", ""))
    return Reply(answer.status, bytes(body), float(after) if after.isascii() and after.isdigit() else None)
