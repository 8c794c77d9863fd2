"""A candidate of the engine benchmark in a process of its own: what runs in it, and how it is asked.

One line of JSON answers one line of text, so that candidates can be asked in turn while nothing of one touches the
memory, the threads or the libraries of another. Knows NumPy only: candidates of other environments use it, too.
"""

import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["Candidate", "K", "Kind", "Peak", "Process", "serve", "shop_size"]

Indexes = NDArray[np.int64]

K = 10
_WATCH_S = 0.002
_ROOT = Path(__file__).resolve().parents[1]
_TOP_K = [str(_ROOT / folder) for folder in ("sdk", "privacy")]  # other environments use hushrec's top-k, too
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Candidate(Protocol):
    """Answers histories by the best items.

    Attributes:
        imports: Modules that answering needs, in order; they are imported before memory and time of opening count.
    """

    imports: tuple[str, ...]

    def write(self, root: Path) -> None:
        """Write its own files into the folder of a shop."""

    def open(self, root: Path, variant: str) -> Sequence[Path]:
        """Open the model with one of its settings; gives the files that it needs."""

    def answer(self, history: Indexes) -> Indexes:
        """The K best items after a history, best first."""


class Kind(NamedTuple):
    """What the benchmark knows of a candidate before it runs.

    Attributes:
        make: Makes it.
        role: "ours", "exact", "rounded" or "floor"; a "reference" only gives lists to compare with.
        variants: Settings, of which the fastest is kept.
        needs: Package that has to be installed, "" for none beyond hushrec's own.
        family: What a goal calls it, "" if no goal names it.
    """

    make: Callable[[], Candidate]
    role: str
    variants: tuple[str, ...] = ("",)
    needs: str = ""
    family: str = ""


class Peak(NamedTuple):
    """Resident memory of a process, in MB.

    Attributes:
        anon: Most anonymous memory seen.
        file: Most file-mapped memory seen.
        total: Most of both at once.
        above_imports: Of `total`, what was not there after the imports.
    """

    anon: float
    file: float
    total: float
    above_imports: float


class Process:
    """A running candidate.

    Args:
        script: The script that calls `serve`.
        name: Of the candidate.
        root: Folder of the shop.
        variant: Its setting; None: only write its files.
        python: Interpreter; that of this process by default.
    """

    def __init__(self, script: Path, name: str, root: Path, variant: str | None, python: str = sys.executable) -> None:
        self.name = name
        self._log = root / "stderr.log"
        command = [python, str(script), name, str(root), *(() if variant is None else (variant,))]
        environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), "ORT_DISABLE_TELEMETRY": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([*_TOP_K, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        with self._log.open("w", encoding="utf-8") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        self.first = self._reply()

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._send(command)
        return self._reply()

    def watch(self, command: str) -> tuple[dict[str, Any], Peak]:
        """The same, looking every other millisecond at the process' memory."""
        seen = [_resident(self._child.pid)]
        self._send(command)
        assert self._child.stdout is not None
        while not select.select([self._child.stdout], [], [], _WATCH_S)[0]:
            seen.append(_resident(self._child.pid))
        seen.append(_resident(self._child.pid))
        anon, file = (max(now.get(key, 0.0) for now in seen) for key in ("RssAnon", "RssFile"))
        total = max(now.get("VmHWM", 0.0) for now in seen)  # the kernel's own count of the peak misses nothing
        imports = seen[0]["RssAnon"] + seen[0]["RssFile"]
        return self._reply(), Peak(anon, file, total, total - imports)

    def end(self) -> None:
        """Let it end."""
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()

    def _send(self, command: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(command + "\n")
        self._child.stdin.flush()

    def _reply(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            told = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RuntimeError(
                f"{self.name} ended with {self._child.wait()}: {told[-1] if told else 'it said nothing'}"
            )
        reply: dict[str, Any] = json.loads(line)
        return reply


def shop_size(root: Path) -> tuple[int, int]:
    """Items of a shop, and its longest history; reads nothing large, since opening is timed."""
    size = json.loads((root / "shop.json").read_text(encoding="utf-8"))
    return size["items"], size["max_history"]


def serve(kinds: Mapping[str, Kind]) -> None:
    """Be the process of a candidate: `NAME ROOT [VARIANT]`; without a variant it only writes its files."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries that print must not disturb the answers
    name, root, *variant = sys.argv[1:]
    candidate, folder = kinds[name].make(), Path(root)
    if not variant:
        candidate.write(folder)
        print("{}", file=answers, flush=True)
        return
    with np.load(folder / "histories.npz") as saved:
        histories = np.split(saved["item"], saved["stop"][:-1])
    for module in candidate.imports:
        importlib.import_module(module)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        _say(answers, _do(candidate, line.split(), folder, variant[0], histories))


def _do(
    candidate: Candidate, command: Sequence[str], root: Path, variant: str, histories: Sequence[Indexes]
) -> dict[str, Any]:
    if command[0] == "open":  # to the first answer: what is mapped or made late counts
        began = time.perf_counter()
        files = candidate.open(root, variant)
        candidate.answer(histories[0])
        taken = time.perf_counter() - began
        for history in histories[:100]:
            candidate.answer(history)
        return {"open_ms": taken * 1e3, "bytes": sum(file.stat().st_size for file in files)}
    if command[0] == "lists":
        return {"lists": [candidate.answer(history).tolist() for history in histories[: int(command[1])]]}
    start, count, warm_up = (int(word) for word in command[1:])
    asked = [histories[(start + call) % len(histories)] for call in range(count)]
    if warm_up:
        candidate.answer(histories[start - 1])
    times, cpu = [], time.process_time()
    for history in asked:
        began = time.perf_counter()
        candidate.answer(history)
        times.append(time.perf_counter() - began)
    return {"s": times, "cpu_s": time.process_time() - cpu}


def _say(answers: TextIO, reply: dict[str, Any]) -> None:
    print(json.dumps(reply), file=answers, flush=True)


def _resident(pid: int) -> dict[str, float]:
    """MB of anonymous and of file-mapped pages of a process, and the most of both so far; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    told = (line.split() for line in lines if line.startswith(("RssAnon", "RssFile", "VmHWM")))
    return {name.rstrip(":"): int(kilobytes) * 1.024e-3 for name, kilobytes, _ in told}
