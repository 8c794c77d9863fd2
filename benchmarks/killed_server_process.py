"""A process of `killed_server.py`: `hushrec serve` with marks in it.

    python benchmarks/killed_server_process.py FOLDER

A mark is a name for what a thread is doing, such as a durable step. Within it every SQL statement, every commit and
every change to the releases' files is a moment, and so is its end. A file, `aim`, names a moment: the first process
that comes to it says so and stands still, or goes on; it ends by SIGKILL. Nothing of the product is changed but that,
its clock, the time between two looks at what is due, and two notes for the check: each sum before its noise, and what
is handed to the publisher.
"""

import functools
import hashlib
import io
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hushrec_cli.serve import serve
from hushrec_privacy.secagg import Session
from hushrec_server import assembly
from hushrec_server.candidates import Candidates
from hushrec_server.model_releases import ModelReleases
from hushrec_server.publishing import RoundResult, Verdict
from hushrec_server.rounds import progress
from hushrec_server.rounds.admission import Admission
from hushrec_server.rounds.finishing import Finishing
from hushrec_server.rounds.mailbox import Mailbox
from hushrec_server.rounds.progress import Progress
from hushrec_server.rounds.secagg import SecAggPlus
from hushrec_server.rounds.states import PHASES, state_of
from sqlalchemy import Engine, event

__all__ = ["NOTES", "OFFERS", "STEPS", "SharedClock"]

STEPS = ("1 ledger", "2 noise", "3 erase", "4 publish")
OFFERS = ("4 stage", "4 decide")
"""Parts of the last step where devices compare a model before it goes out."""

NOTES = ("sums", "published")


class SharedClock:
    """Whole seconds in a file that all processes have mapped; only the devices' process turns it, and only forward."""

    def __init__(self, folder: Path) -> None:
        with (folder / "clock").open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)
        self._lock = threading.Lock()

    @classmethod
    def create(cls, folder: Path, now: int) -> "SharedClock":
        """Make the file."""
        (folder / "clock").write_bytes(now.to_bytes(8, "little"))
        return cls(folder)

    def __call__(self) -> int:
        return int.from_bytes(self._map[:], "little")

    def set(self, now: int) -> None:
        """Turn it, if it is not so late already."""
        with self._lock:
            if now > self():
                self._map[:] = now.to_bytes(8, "little")


def _serve(folder: Path) -> None:
    assembly.assemble = functools.partial(assembly.assemble, clock=SharedClock(folder))
    progress.BUSY_S = progress.IDLE_S = 0.0  # the shortest wait between two ticks follows
    _mark(_Marks(folder / "aim", folder / "data"))
    _note(folder)
    serve(folder / "hushrec.toml")


class _Marks:
    """What each thread of this process is doing, and the moment at which it is to stop."""

    def __init__(self, aim: Path, data: Path) -> None:
        self._aim, self._here, self._passed = aim, threading.local(), ""
        below = tuple(str(data / name) for name in ("releases", "masters"))
        changes = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"}

        def watch(name: str, arguments: tuple[Any, ...]) -> None:
            writes = name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (writes or name in changes) and str(arguments[0]).startswith(below):
                self.reach()

        sys.addaudithook(watch)
        for each in ("before_cursor_execute", "commit"):
            event.listen(Engine, each, lambda *_: self.reach())

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread does this now."""
        marks: list[tuple[str, list[int]]] = self._here.__dict__.setdefault("marks", [])
        marks.append((name, [0]))
        try:
            yield
            self.reach(last=True)
        finally:
            marks.pop()
            if self._passed == name:
                _say("left")

    def reach(self, *, last: bool = False) -> None:
        """A moment; the last one of a mark is taken if those before it were too few."""
        marks = getattr(self._here, "marks", ())
        for _, count in marks:
            count[0] += 1
        if not marks:
            return
        try:
            target, wanted, how = self._aim.read_text().split("\t")
        except FileNotFoundError:
            return
        ended = len(marks) - last  # from the last moment on all of that mark is done
        for place, (name, count) in enumerate(marks):
            if name == target and (count[0] >= int(wanted) or place == ended):
                self._hit(name, how, count[0], ",".join(each for each, _ in marks[:ended]))

    def _hit(self, name: str, how: str, count: int, names: str) -> None:
        try:
            self._aim.rename(self._aim.with_name(f"aim-{os.getpid()}"))
        except FileNotFoundError:  # another process was faster
            return
        _say("\t".join((how, name, str(count), names)))
        if how == "stop":
            threading.Event().wait()
        self._passed = name


def _mark(marks: _Marks) -> None:
    def marked(owner: type, method: str, name: Callable[..., str]) -> None:
        original = getattr(owner, method)

        @functools.wraps(original)
        def call(self: object, *arguments: Any, **named: Any) -> Any:
            with marks.inside(name(*arguments)):
                return original(self, *arguments, **named)

        setattr(owner, method, call)

    marked(Admission, "check_in", lambda *_: "admit")
    marked(Mailbox, "upload", lambda _key, phase, *_: f"take {state_of(phase)}")
    marked(
        Progress, "_step", lambda round_, _: f"close {round_.state}" if round_.state in PHASES else str(round_.state)
    )
    marked(Progress, "abort", lambda *_: "aborted")
    for step, method in zip(STEPS, ("_spend", "_add_noise", "erase", "publish"), strict=True):
        marked(Finishing, method, lambda *_, step=step: step)
    marked(Candidates, "stage", lambda *_, **__: OFFERS[0])
    marked(Candidates, "decide", lambda *_: OFFERS[1])


def _note(folder: Path) -> None:
    finish, publish = SecAggPlus.finish, ModelReleases.publish

    def noted_finish(self: SecAggPlus, session: bytes, *rest: Any) -> Any:
        found = finish(self, session, *rest)
        np.savez(data := io.BytesIO(), sum=found.sum, survivors=np.array(found.survivors))
        _write(folder / NOTES[0], Session.decode(session).round_number, data.getvalue())
        return found

    def noted_publish(self: ModelReleases, result: RoundResult) -> Verdict:
        _write(folder / NOTES[1], result.number, result.noised.astype("<i8", copy=False).tobytes())
        return publish(self, result)

    setattr(SecAggPlus, "finish", noted_finish)  # noqa: B010  notes for the check, and no option of the product
    setattr(ModelReleases, "publish", noted_publish)  # noqa: B010


def _write(folder: Path, number: int, data: bytes) -> None:
    """Write under the hash: two values of one round are two files."""
    part = folder / f"{os.getpid()}.{threading.get_ident()}.part"
    part.write_bytes(data)
    part.rename(folder / f"{number:08}-{hashlib.sha256(data).hexdigest()}.note")


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
