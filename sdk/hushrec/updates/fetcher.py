"""HTTP for updates: one request at a time, each with a deadline that no server can stretch.

A timeout of the socket alone bounds the wait for the next byte, and a server that sends one now and then would hold a
device for days. Here a watchdog shuts the socket down at the deadline, whatever it is waiting for. Only the look-up of
the host's name is left to the operating system. Follows no redirect, uses no proxy and no cache.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Iterator
from http.client import HTTPException
from urllib.parse import SplitResult, urlsplit

import urllib3
from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface
from urllib3.connection import HTTPConnection, HTTPSConnection

__all__ = ["BoundedFetcher"]

QUIET_S = 10.0
"""Longest wait for the connection, and for the next byte."""

CHUNK_BYTES = 1 << 16


class BoundedFetcher(FetcherInterface):
    """Fetches for python-tuf's client, and parts of files for resumed downloads.

    Args:
        clock: Seconds, monotonic.

    Attributes:
        deadline: When whatever is being fetched ends, by that clock.
        stop: Asked before each request; once it says so, none is made.
        received: Bytes of bodies received so far.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tls: ssl.SSLContext | None = None
        self.deadline = clock()
        self.stop: Callable[[], bool] = lambda: False
        self.received = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self.fetch_from(url, 0)[1]

    def fetch_from(self, url: str, offset: int) -> tuple[int, Generator[bytes, None, None]]:
        """Fetch a file from some byte on.

        Args:
            url: As `hushrec.addresses.checked_url` accepts it, and a path.
            offset: Bytes that are here already.

        Returns:
            Where the server begins, which is 0 if it does not know ranges, and the bytes from there.

        Raises:
            DownloadError: Of python-tuf: not reachable, refused, or too slow; also while the bytes are read.
        """
        parts, left, over = urlsplit(url), self.deadline - self._clock(), threading.Event()
        if self.stop():
            raise DownloadError("whoever uses this asked to stop")
        if left <= 0:
            raise SlowRetrievalError("no time is left")
        connection = self._connection(parts, min(QUIET_S, left))
        with contextlib.ExitStack() as opened:  # closed here only if something fails
            opened.callback(connection.close)
            opened.callback(over.set)
            with self._translated():
                connection.connect()
                self._guard(connection.sock, over)
                headers = {"User-Agent": "hushrec", "Accept-Encoding": "identity"}
                headers |= {"Range": f"bytes={offset}-"} if offset else {}
                connection.request("GET", parts.path, headers=headers, preload_content=False, decode_content=False)
                response = connection.getresponse()
                opened.callback(response.close)
                begin = _begin(response, offset)
            return begin, self._body(response, opened.pop_all())

    def _body(self, response: urllib3.HTTPResponse, opened: contextlib.ExitStack) -> Generator[bytes, None, None]:
        with opened, self._translated():
            while chunk := response.read1(CHUNK_BYTES, decode_content=False):
                self.received += len(chunk)
                yield chunk
                self._check_time()
            self._check_time()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (urllib3.exceptions.TimeoutError, TimeoutError) as error:
            raise SlowRetrievalError("the server is too slow") from error
        except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:  # ValueError: bad headers
            self._check_time()  # what the watchdog cut off looks like a broken connection
            raise DownloadError(f"the connection failed ({type(error).__name__})") from error

    def _connection(self, url: SplitResult, quiet_s: float) -> HTTPConnection:
        host = url.hostname or ""
        if url.scheme == "http":
            return HTTPConnection(host, url.port, timeout=quiet_s)
        if self._tls is None:
            self._tls = ssl.create_default_context()  # reads all authorities of this machine: once
        return HTTPSConnection(host, url.port, timeout=quiet_s, cert_reqs="CERT_REQUIRED", ssl_context=self._tls)

    def _check_time(self) -> None:
        if self._clock() >= self.deadline:
            raise SlowRetrievalError("the server did not finish in time")

    def _guard(self, connected: socket.socket, over: threading.Event) -> None:
        """Shut the socket down at the deadline, unless it is over before."""

        def watch() -> None:
            if not over.wait(max(0.0, self.deadline - self._clock())):
                with contextlib.suppress(OSError):  # closed in the same moment
                    socket.socket.shutdown(connected, socket.SHUT_RDWR)

        threading.Thread(target=watch, name="hushrec-deadline", daemon=True).start()


def _begin(response: urllib3.BaseHTTPResponse, offset: int) -> int:
    """Where the body begins."""
    if response.status == 200:
        return 0
    told = response.headers.get("Content-Range", "")
    if response.status == 206 and offset and told.startswith(f"bytes {offset}-"):
        return offset
    raise DownloadHTTPError(f"the server answered with status {response.status}", response.status)
