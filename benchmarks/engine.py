"""The engine against its peers: a history in, ten items out, one thread, a new event before every call.

    python benchmarks/engine.py [--run FOLDER] [--items 10000 100000 1000000] [--second-env PYTHON ...]
        [--quick] [--json]

The same trained weights for all, of hushrec's demo shop or of another run; its catalogue enlarged by perturbed copies
and its own test histories (`engine_shop.py`). hushrec answers with its blend and without; the peers score alike, in
float32 or in what they offer (`engine_candidates.py`, and in other environments `engine_exported.py`). Every candidate
is a process of its own and is asked in turn with all others. "warm": blocks of calls of one, then of the next; "cold":
one call of each in turn, so that each finds the caches as another program left them. Where a setting is a choice, the
fastest is kept. The floor is the fastest of several ways to read the int8 table's bytes once.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine_candidates
import engine_exported
import numpy as np
from engine_goals import Row, check_goals, table
from engine_process import K, Kind, Peak, Process
from engine_shop import Trained, load_trained, write_shop

__all__ = ["main"]

SHOP = Path("runs/quality/online_retail/run-0")  # benchmarks/quality.py leaves it there
EXACT, BLENDED = "NumPy", "hushrec, blend on"
LEAST_CPU = 0.9  # processor time over time of calls that nothing disturbs is about 1
LARGE_BLOCK, SMALL_BLOCK, SMALL_CATALOGUE = 10, 50, 50_000  # calls in a row, up to how many items it is the small one's


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        calls: Warm calls of each candidate at 10,000 items; a quarter as many cold.
        least_calls: The same at least at larger sizes.
        choosing: Calls by which a setting is chosen.
        opens: Processes in which opening and memory are measured.
        lists: Lists that the overlap is taken over.
    """

    calls: int = 2_000
    least_calls: int = 200
    choosing: int = 30
    opens: int = 5
    lists: int = 200


QUICK = Effort(calls=300, least_calls=40, choosing=5, opens=2, lists=50)


@dataclass(frozen=True)
class Place:
    """Where a candidate runs.

    Attributes:
        kind: What it is.
        script: Script of its process.
        python: Its interpreter.
    """

    kind: Kind
    script: Path
    python: str | None = None

    def start(self, name: str, root: Path, variant: str | None) -> Process:
        """Start its process; without a variant it writes its files."""
        return Process(self.script, name, root, variant, *(() if self.python is None else (self.python,)))


@dataclass(frozen=True)
class Opened:
    """A candidate that is asked.

    Attributes:
        process: Its process.
        variant: Its setting.
        open_ms: Median over several processes.
        memory: The same.
        disk_mb: Its files.
    """

    process: Process
    variant: str
    open_ms: float
    memory: Peak
    disk_mb: float


def main() -> None:
    """Measure, print a table a size, and what of the goals is met; or all of it as one JSON object a line."""
    parser = argparse.ArgumentParser(description="The engine against its peers.")
    parser.add_argument("--run", type=Path, default=SHOP, help=f"folder of hushrec train; by default {SHOP}")
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--second-env",
        nargs="*",
        default=os.environ.get("HUSHREC_SECOND_ENV", "").split(),
        metavar="PYTHON",
        help="interpreters of environments with ExecuTorch or LiteRT; default: $HUSHREC_SECOND_ENV",
    )
    parser.add_argument("--quick", action="store_true", help="few calls")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.run.is_dir():
        first = "python benchmarks/quality.py --sets online_retail --seeds 0"
        raise SystemExit(f"{options.run}: no such folder; run {first} first, or name another with --run")
    trained, effort = load_trained(options.run), QUICK if options.quick else Effort()
    places, left_out = _places(options.second_env)
    say = _Printer(as_json=options.json)
    for why in left_out:
        say.note(why)
    rows: list[Row] = []
    for items in options.items:
        found = _measure(trained, items, places, effort, say)
        say.rows(found)
        rows += found
        if min(row.cpu_over_wall for row in found) < LEAST_CPU:
            say.note(
                "other programs took the processor meanwhile: compare CPU µs, and measure again on a quiet machine"
            )
    say.goals(rows)


class _Printer:
    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def note(self, text: str) -> None:
        print(json.dumps({"note": text}) if self._as_json else text, flush=True)

    def rows(self, rows: Sequence[Row]) -> None:
        if self._as_json:
            for row in rows:
                print(json.dumps({**row._asdict(), "memory": row.memory._asdict()}), flush=True)
        else:
            print(f"\n{table(rows)}\n", flush=True)

    def goals(self, rows: Sequence[Row]) -> None:
        for goal in check_goals(rows):
            print(json.dumps(goal._asdict()) if self._as_json else goal.line())


def _places(second: Sequence[str]) -> tuple[dict[str, Place], list[str]]:
    """Candidates that can run here, by name, and a sentence for each that cannot."""
    found, left_out = {}, []
    for name, kind in engine_candidates.KINDS.items():
        if kind.needs and importlib.util.find_spec(kind.needs) is None:
            left_out.append(f'left out, {kind.needs} is not installed (pip install -e ".[bench]"): {name}')
        else:
            found[name] = Place(kind, Path(engine_candidates.__file__))
    for name, kind in engine_exported.KINDS.items():
        pythons = [python for python in second if _has(python, kind.needs)]
        if pythons:
            found[name] = Place(kind, Path(engine_exported.__file__), pythons[0])
        else:
            left_out.append(f"left out, no --second-env has {kind.needs}: {name}")
    return found, left_out


def _has(python: str, package: str) -> bool:
    code = f"import importlib.util; raise SystemExit(importlib.util.find_spec({package!r}) is None)"
    try:
        return subprocess.run([python, "-c", code], check=False).returncode == 0
    except OSError as error:
        advice = "name interpreters, with spaces between"
        raise SystemExit(f"{python}: cannot be run ({error.strerror}); {advice}") from error


def _measure(trained: Trained, items: int, places: dict[str, Place], effort: Effort, say: _Printer) -> list[Row]:
    """All candidates at one size."""
    with tempfile.TemporaryDirectory() as folder:
        root, opened = Path(folder), dict[str, Opened]()
        facts = write_shop(root, trained, items)
        say.note(
            f"{items:,} items: the catalogue {facts['copies']:.1f} times, a copy's cosine with its item "
            f"{facts['cosine']:.2f}; median history {facts['median_history']:.0f} events"
        )
        try:
            for name, place in places.items():
                try:
                    opened[name] = _open(name, place, root, effort)
                except RuntimeError as error:
                    say.note(f"left out at {items:,} items: {error}")
            overlaps = _overlaps(root, opened, effort.lists)
            calls = max(effort.calls * 10_000 // items, effort.least_calls)
            block = SMALL_BLOCK if items <= SMALL_CATALOGUE else LARGE_BLOCK
            warm = _times(opened, calls, block)
            cold = _times(opened, calls // 4, 1)
        finally:
            for one in opened.values():
                one.process.end()
    return [
        _row(items, name, places[name].kind, opened[name], warm[name], cold[name], overlaps.get(name, 1.0))
        for name in opened
    ]


def _open(name: str, place: Place, root: Path, effort: Effort) -> Opened:
    """Write its files, choose its setting, and open it several times; the last process is kept."""
    place.start(name, root, None).end()
    variants = place.kind.variants
    if len(variants) > 1:
        taken = {}
        for variant in variants:
            process = place.start(name, root, variant)
            process.ask("open")
            taken[variant] = float(np.median(process.ask(f"calls 200 {effort.choosing} 1")["s"]))
            process.end()
        variants = (min(taken, key=lambda variant: taken[variant]),)
    replies, peaks = [], []
    opens = 1 if place.kind.role == "floor" else effort.opens
    for number in range(opens):
        process = place.start(name, root, variants[0])
        reply, peak = process.watch("open")
        replies.append(reply)
        peaks.append(peak)
        if number < opens - 1:
            process.end()
    open_ms = float(np.median([reply["open_ms"] for reply in replies]))
    memory = Peak(*np.median(peaks, axis=0).round(1).tolist())
    return Opened(process, variants[0], open_ms, memory, replies[0]["bytes"] / 1e6)


def _overlaps(root: Path, opened: dict[str, Opened], lists: int) -> dict[str, float]:
    """Share of the ten best of exact float32 scores that each candidate finds; with the blend, of float32 and blend."""
    ((name, kind),) = engine_candidates.REFERENCES.items()
    process = Process(Path(engine_candidates.__file__), name, root, kind.variants[0])
    process.ask("open")
    blended = process.ask(f"lists {lists}")["lists"]
    process.end()
    found = {
        name: one.process.ask(f"lists {lists}")["lists"] for name, one in opened.items() if not name.startswith("floor")
    }
    return {name: _overlap(answers, blended if name == BLENDED else found[EXACT]) for name, answers in found.items()}


def _overlap(answers: Sequence[Sequence[int]], exact: Sequence[Sequence[int]]) -> float:
    return sum(len({*one} & {*other}) for one, other in zip(answers, exact, strict=True)) / (K * len(exact))


def _times(opened: dict[str, Opened], calls: int, block: int) -> dict[str, tuple[list[float], float]]:
    """Seconds of each call, and processor seconds of all; the first of a block only warms up, if it has several."""
    times: dict[str, list[float]] = {name: [] for name in opened}
    cpu = dict.fromkeys(opened, 0.0)
    for start in range(0, calls, block):
        for name, one in opened.items():
            reply: dict[str, Any] = one.process.ask(f"calls {start + 1} {block} {int(block > 1)}")
            times[name] += reply["s"]
            cpu[name] += reply["cpu_s"]
    return {name: (times[name], cpu[name]) for name in opened}


def _row(
    items: int,
    name: str,
    kind: Kind,
    one: Opened,
    warm: tuple[list[float], float],
    cold: tuple[list[float], float],
    overlap: float,
) -> Row:
    p50, p99, cold_p50, cold_p99 = (
        round(float(np.percentile(times, q)) * 1e6, 1) for times, _ in (warm, cold) for q in (50, 99)
    )
    times, cpu_s = warm
    return Row(
        items=items,
        name=name,
        role=kind.role,
        family=kind.family,
        setting=one.variant,
        p50_us=p50,
        p99_us=p99,
        cold_p50_us=cold_p50,
        cold_p99_us=cold_p99,
        cpu_us=round(cpu_s / len(times) * 1e6, 1),
        cpu_over_wall=round(cpu_s / sum(times), 3),
        open_ms=round(one.open_ms, 1),
        memory=one.memory,
        disk_mb=round(one.disk_mb, 2),
        overlap=round(overlap, 4),
    )


if __name__ == "__main__":
    main()
