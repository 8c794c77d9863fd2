"""The server of `fuzz_server.py`, a process of its own, and what is sent to it over sockets.

The process is the command `hushrec serve` with three stops put in: before a sum is made, before uploads are erased and
before a result is published it waits for as long as a file lies in its folder. So messages can meet states that last a
moment. Nothing else of the product is changed.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_messages import Message, Sent

__all__ = ["STOPS", "Answer", "Running", "running"]

STOPS = ("summed", "noised", "erased")
"""States in which the process can be made to wait, and names of the files that make it."""

CONNECTIONS = 8
PATIENCE_S = 120.0  # a busy machine


@dataclass(frozen=True)
class Answer:
    """What came back; status 0: the connection was closed without an answer."""

    status: int
    body: bytes = b""


class Running:
    """A started server.

    Args:
        process: It.
        port: Where it listens.
        folder: Of the stops.
    """

    def __init__(self, process: "subprocess.Popen[str]", port: int, folder: Path) -> None:
        self.process, self._port, self._folder = process, port, folder

    def hold(self) -> None:
        """Let the process wait at every stop."""
        for state in STOPS:
            (self._folder / state).touch()

    def go_on(self, state: str) -> None:
        """Take a stop away."""
        (self._folder / state).unlink()

    def ask(self, sent: Sent) -> Answer:
        """One right request over a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)) as connection:
            connection.request(sent.method, sent.path, sent.body or None, sent.headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())

    def send(self, messages: Sequence[Message]) -> list[int]:
        """Send messages over several kept connections at once; their statuses."""
        return asyncio.run(_send_all(self._port, messages))

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        for state in STOPS:
            (self._folder / state).unlink(missing_ok=True)
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(folder: Path, database: str) -> Iterator[Running]:
    """Start the server over a prepared folder; its log is `server.log`, killed at the end if it still runs.

    Args:
        folder: Of `server_process.prepare`.
        database: Its address; empty: SQLite in the data folder.
    """
    (folder / "stops").mkdir()
    command = [sys.executable, __file__, folder / "stops", "serve", "--config", folder / "hushrec.toml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HUSHREC_DATABASE": database}
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(
            [*map(str, command), "--plan", str(folder / "plan.json"), "--json"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the server did not start: {(folder / 'server.log').read_text()[-2_000:]}")
            yield Running(process, int(json.loads(line)["url"].rpartition(":")[2]), folder / "stops")
        finally:
            process.kill()


async def _send_all(port: int, messages: Sequence[Message]) -> list[int]:
    statuses, places = [0] * len(messages), iter(range(len(messages)))

    async def one() -> None:
        streams: _Streams | None = None
        for place in places:
            kept = streams is not None
            status, streams = await _exchange(port, streams, messages[place].sent)
            if status == 0 and kept:  # perhaps the connection was closed after what was sent before
                status, streams = await _exchange(port, None, messages[place].sent)
            statuses[place] = status
        if streams is not None:
            streams[1].close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return statuses


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _exchange(port: int, streams: "_Streams | None", sent: Sent) -> "tuple[int, _Streams | None]":
    """Send one request; its status, and the connection if it can be used again."""
    reader, writer = streams or await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(_bytes(sent))
            if sent.is_cut:
                writer.write_eof()
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
        return 0, None
    if sent.is_cut or re.search(rb"connection: close", head, re.IGNORECASE):
        writer.close()
        return int(head[9:12]), None
    return int(head[9:12]), (reader, writer)


def _bytes(sent: Sent) -> bytes:
    if not sent.method:
        return sent.body
    headers = {"host": "x", "content-length": str(len(sent.body)), **{k.lower(): v for k, v in sent.headers.items()}}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        f"{sent.method} ".encode()
        + sent.path.encode()
        + b" HTTP/1.1\r\n"
        + lines.encode("latin-1")
        + b"\r\n"
        + sent.body
    )


def _put_stops(folder: Path) -> None:
    from hushrec_server.publishing import StoredResults
    from hushrec_server.rounds.finishing import Finishing
    from hushrec_server.rounds.secagg import SecAggPlus

    def stopping(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def stopped(*arguments: Any, **named: Any) -> Any:
            while (folder / name).exists():
                time.sleep(0.01)
            return call(*arguments, **named)

        return stopped

    SecAggPlus.finish = stopping(STOPS[0], SecAggPlus.finish)  # type: ignore[method-assign]
    Finishing.erase = stopping(STOPS[1], Finishing.erase)  # type: ignore[method-assign]
    StoredResults.publish = stopping(STOPS[2], StoredResults.publish)  # type: ignore[method-assign]


if __name__ == "__main__":
    from hushrec_cli.main import run

    _put_stops(Path(sys.argv[1]))
    sys.argv = ["hushrec", *sys.argv[2:]]
    run()
