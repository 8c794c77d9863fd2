"""Run an application until SIGTERM: one process, one socket, requests that have begun are finished.

TLS is a reverse proxy's business; the default address is loopback.
"""

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from hushrec_privacy.errors import ConfigError
from uvicorn import Config as UvicornConfig
from uvicorn import Server

from hushrec_server.config import LimitSettings
from hushrec_server.slow_clients import timely_protocol

if TYPE_CHECKING:
    from hushrec_server.slow_clients import App

__all__ = ["bound_socket", "run_server", "server_config"]

_KEEP_ALIVE_S = 30
_WRITE_S = 30.0
_FINISH_S = 30
_BACKLOG = 512
_HEAD_BYTES = 16_384
_OTHER_FILES = 256  # the database's, releases that are read, libraries
_REASONS = {
    errno.EADDRINUSE: "another program listens there; stop it, or choose another port",
    errno.EACCES: "not allowed to listen there; choose a port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


def bound_socket(host: str, port: int) -> socket.socket:
    """Take an address.

    Args:
        host: Name or address.
        port: 0 for any free one.

    Raises:
        ConfigError: It cannot be taken; says why.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"{host!r} is no address of this machine: {error.strerror}") from error
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(_BACKLOG)
    except OSError as error:
        taken.close()
        raise ConfigError(f"{host}:{port}: {_REASONS.get(error.errno or 0, error.strerror)}") from error
    return taken


def run_server(
    app: "App",
    taken: socket.socket,
    limits: LimitSettings,
    *,
    proxies: tuple[str, ...] = (),
    ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        app: The application.
        taken: From `bound_socket`; closed at the end.
        limits: What one client may take.
        proxies: Addresses whose X-Forwarded-For is believed.
        ready: Called with the URL once requests are answered.
    """
    config = server_config(app, limits, proxies)
    with contextlib.closing(taken), _quiet_signals():
        asyncio.run(_Telling(config, lambda: ready(_url(taken))).serve(sockets=[taken]))


def server_config(app: "App", limits: LimitSettings, proxies: tuple[str, ...] = ()) -> UvicornConfig:
    """How uvicorn serves an application: the arguments are those of `run_server`."""
    protocol = timely_protocol(
        head_s=limits.head_seconds,
        write_s=_WRITE_S,
        per_address=0 if proxies else limits.connections_per_address,
        most=limits.connections,
        kept=_kept(limits.connections),
    )
    return UvicornConfig(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies) or None,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_FINISH_S,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )


def _kept(connections: int) -> int:
    """How many connections may be open: as many again as are served, to be told so, if the system gives files for them.

    Without a file for a connection none is accepted, and asyncio logs that some hundred times a second.
    """
    if os.name != "posix":
        return 2 * connections
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return 2 * connections if soft == resource.RLIM_INFINITY else max(1, min(2 * connections, soft - _OTHER_FILES))


class _Telling(Server):
    """Tells when it answers."""

    def __init__(self, config: UvicornConfig, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell."""
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._ready()


@contextlib.contextmanager
def _quiet_signals() -> Iterator[None]:
    """uvicorn raises the signal that ended it once more: here that is no failure."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _url(taken: socket.socket) -> str:
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
