"""One HTTP request: bytes there, at most so many bytes back, within a time; nothing is followed, stored or told.

No redirects, no cookies, no proxies from the environment, no compression, no retries (see `backoff`), and a User-Agent
that is the same on every device. Only https, with the system's certificates, but for a server on this machine.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from hushrec_privacy.errors import FleetError

from hushrec.addresses import checked_url

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
    """Requests to one server over one socket. Opens none before the first. Not for several threads at once.

    A timeout of the socket bounds only the wait for the next byte, and a server that sends one now and then would hold
    a device for days: a watchdog shuts the socket down when the whole time of a request is over.
    """

    def __init__(self, url: str) -> None:
        """Take an address.

        Args:
            url: See `checked_url`.

        Raises:
            ConfigError: It is no address that a device speaks to.
        """
        self._url = urlsplit(checked_url(url))
        self._kept: Any = None
        self._tls: Any = None

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
        from http.client import HTTPException

        from urllib3.exceptions import HTTPError

        fixed = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", "Accept": "*/*"}
        try:
            connection = self._connected()
            with _watched(connection.sock) as over:
                connection.request(
                    method,
                    self._url.path + path,
                    body or None,
                    {**headers, **fixed},
                    preload_content=False,
                    decode_content=False,
                )
                reply = _read(connection.getresponse(), largest)
            if over.is_set():
                raise TimeoutError  # half a head may look like a whole answer
            return reply
        except FleetError:
            self.close()
            raise
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            self.close()
            raise FleetError(
                f"the server cannot be reached at {self._url.netloc}; this device tries again later",
                reason="unreachable",
                retry_after_s=0,
            ) from error

    def close(self) -> None:
        """Let go of the socket."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _connected(self) -> Any:
        from urllib3.connection import HTTPConnection, HTTPSConnection

        if self._kept is not None and self._kept.is_connected:
            return self._kept
        self.close()
        host = self._url.hostname or ""
        if self._url.scheme == "http":
            self._kept = HTTPConnection(host, self._url.port, timeout=CONNECT_S)
        else:
            import ssl

            if self._tls is None:
                self._tls = ssl.create_default_context()  # reads all authorities of this machine: once
            self._kept = HTTPSConnection(
                host, self._url.port, timeout=CONNECT_S, cert_reqs="CERT_REQUIRED", ssl_context=self._tls
            )
        self._kept.connect()
        self._kept.timeout = READ_S  # what urllib3 gives the socket at every request
        return self._kept


@contextlib.contextmanager
def _watched(connected: socket.socket) -> Iterator[threading.Event]:
    """Shut a socket down when the time of one request is over, and say whether it was."""
    over = threading.Event()

    def cut() -> None:
        over.set()
        with contextlib.suppress(OSError):  # closed in the same moment
            socket.socket.shutdown(connected, socket.SHUT_RDWR)

    timer = threading.Timer(WHOLE_S, cut)
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()


def _read(answer: Any, largest: int) -> Reply:
    most = largest if answer.status < 300 else LARGEST_PROBLEM_BYTES
    body = bytearray()
    while len(body) <= most and (part := answer.read(min(_CHUNK, most + 1 - len(body)))):
        body += part
    if len(body) > most:
        raise FleetError("the server's answer is larger than it may be", reason="bad-answer")
    if 300 <= answer.status < 400:
        raise FleetError("the server points elsewhere, and a device follows nobody", reason="bad-answer")
    after = str(answer.headers.get("Retry-After", ""))
    return Reply(answer.status, bytes(body), float(after) if after.isascii() and after.isdigit() else None)
