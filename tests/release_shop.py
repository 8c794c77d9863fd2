"""A shop with a release repository behind a small web server on loopback, which can be made to lie in every way."""

import contextlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from hushrec.bundle import Bundle, write_bundle
from hushrec.releases import Release
from hushrec.updates import Updater
from hushrec_server.releases import Lifetimes, ReleaseKeys, ReleaseRepository

from tests.tiny_bundle import tiny_bundle

DAY_S = 24 * 3600
NOON = 1_800_000_000

Answer = Callable[["Handler", bytes], bytes | None]
"""Takes the content of the file that was asked for, gives what to send instead; None: it answered itself."""


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the repository's files, ranges too."""

    server: "Server"

    def do_GET(self) -> None:
        """Answer as the file is, or as the server was told to."""
        self.server.asked.append(self.path)
        path = self.server.folder / self.path.lstrip("/")
        data = path.read_bytes() if path.is_file() else None
        if self.server.answer is not None and data is not None:
            data = self.server.answer(self, data)
            if data is None:
                return
        if data is None:
            self.send_error(404)
            return
        begin = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1]) if self.server.ranges else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[begin:])
        self.server.sent += len(data) - begin

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """Remembers what was asked for and how many bytes of bodies it sent."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.answer: Answer | None = None
        self.asked: list[str] = []
        self.sent = 0
        self.ranges = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""

    @property
    def url(self) -> str:
        """Address of the repository."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder until the body ends."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Shop:
    """Keys, repository and bundles below one folder."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    lifetimes: Lifetimes = field(default_factory=Lifetimes)

    def __post_init__(self) -> None:
        self.keys = ReleaseKeys.create(self.folder / "safe", self.folder / "online")
        self.repository = ReleaseRepository.create(
            self.folder / "repository", self.keys, clock=self.clock, lifetimes=self.lifetimes
        )
        self.root = self.repository.root_bytes()
        self.first = tiny_bundle(self.folder)

    def bundle(self, version: int, seed: int | None = None) -> Path:
        """The same bundle under another version, with one .bin changed if a seed is given."""
        opened = Bundle.open(self.first)
        files: dict[str, bytes | Path] = {name: opened.path(name) for name in opened.manifest.files}
        if seed is not None:
            neighbours = bytearray(opened.path("neighbours.bin").read_bytes())
            neighbours[-1] = seed  # a mantissa's bit of the last popularity
            neighbours[-4] = seed
            files["neighbours.bin"] = bytes(neighbours)
        manifest = msgspec.structs.replace(opened.manifest, model_version=version)
        origins = {name: info.origin for name, info in opened.manifest.files.items()}
        return write_bundle(self.folder / f"{version}-{seed}.hush", manifest, files, origins).root

    def publish(self, version: int, *, seed: int | None = None, demo: bool = False) -> Release:
        """Publish that bundle."""
        return self.repository.publish(self.bundle(version, seed), ledger_head=None, demo=demo)

    def stage(self, version: int, *, seed: int | None = None, demo: bool = False) -> Release:
        """Make that bundle the candidate."""
        return self.repository.stage(self.bundle(version, seed), ledger_head=None, demo=demo)

    def updater(self, url: str, folder: str = "device", **options: object) -> Updater:
        """A device of this shop."""
        given = {"clock": self.clock, **options}
        return Updater(url, self.folder / folder, self.root, **given)  # type: ignore[arg-type]


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that another thread or process does."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)
