"""Time and memory of the engine: a history in, ten items out, one thread, a new event before every call.

    python benchmarks/engine.py [--items 10000 100000 1000000] [--lengths 50 10] [--json]

Weights and items are random: time does not depend on them, overlap does (benchmarks/quality.py has that of trained
models). Beside int8 run three float32 exports of the same weights (`float_peers.py`), called the same way: by
torch.onnx, by hand, and hushrec's own rearranged graph in float32. "warm": fifty calls of one, then of the next, caches
full of its own weights. "cold": one call of each in turn, so that each finds the caches as another program left them.
Memory is that of a process of its own that opens the int8 model and answers, watched every millisecond.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from float_peers import FloatPeer, best_of, plain_files, rearranged_files, torch_file
from hushrec import ort
from hushrec.engine import Engine
from hushrec.topk import top_k
from hushrec_quantize.graphs import build_graphs
from numpy.typing import NDArray
from random_model import Folder, random_rows, random_weights

__all__ = ["main"]

SEED, K, BLOCK, MAX_HISTORY = 0, 10, 50, 50
SHAPE = {"layers": 2, "heads": 2, "channels": 132}  # a quarter of the channels pruned
PEERS: dict[str, Callable[..., list[Path]]] = {
    "float32, torch.onnx": torch_file,
    "float32, by hand": plain_files,
    "float32, rearranged": rearranged_files,
}


class Scorer(Protocol):
    """Anything that scores all rows after a history."""

    def scores(self, items: NDArray[np.int64]) -> NDArray[np.float32]:
        """Shape (capacity,), may be written to."""


def main() -> None:
    """Measure and print, as a table or as one JSON object a line."""
    parser = argparse.ArgumentParser(description="Time and memory of the engine.")
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 10])
    parser.add_argument("--calls", type=int, default=2_000, help="per model and mode, at 10,000 items")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--watched", nargs=3, metavar=("FOLDER", "ITEMS", "CAPACITY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watched:
        _answer_watched(Path(options.watched[0]), *map(int, options.watched[1:]))
        return
    for items in options.items:
        with tempfile.TemporaryDirectory() as name:
            for line in _measure(Path(name), items, options.lengths, max(options.calls * 10_000 // items, 100)):
                print(json.dumps(line) if options.json else _text(line), flush=True)


def _measure(root: Path, items: int, lengths: list[int], calls: int) -> list[dict[str, Any]]:
    weights, rows = random_weights(SEED, max_history=MAX_HISTORY, **SHAPE), random_rows(items, SEED)
    graphs = build_graphs(weights, rows)
    (folder := root / "int8").mkdir()
    graphs.write(folder)
    lines: list[dict[str, Any]] = [{"items": items, "memory": _memory(folder, items, graphs.capacity)}]
    ort.load()
    began = time.perf_counter()
    models: dict[str, Scorer] = {"int8": Engine(Folder(folder, items, graphs.capacity, weights))}
    open_ms = {"int8": (time.perf_counter() - began) * 1e3}
    history = np.random.default_rng(SEED).integers(1, items + 1, 20_000)
    for name, write in PEERS.items():
        files = write(root / name, weights, rows, graphs.capacity)
        open_one = partial(FloatPeer, files, graphs.capacity, MAX_HISTORY)
        level, models[name] = best_of(open_one, history[: lengths[0]])
        began = time.perf_counter()
        open_one(level)
        open_ms[name] = (time.perf_counter() - began) * 1e3
    for length in lengths:
        times = {"warm": _times(models, history, length, items, calls, BLOCK)}
        times["cold"] = _times(models, history, length, items, calls, 1)
        kept = {name: _overlap(models[name], models["float32, by hand"], history, length, items) for name in models}
        lines.extend(
            {
                "items": items,
                "length": length,
                "model": name,
                "open_ms": round(open_ms[name], 1),
                "overlap": round(kept[name], 4),
                **{
                    f"{mode}_{q}_us": round(_percentile(times[mode][name], q), 1)
                    for mode in times
                    for q in ("p50", "p99")
                },
                **{f"{mode}_ratio": round(_ratio(times[mode], name), 3) for mode in times},
            }
            for name in models
        )
    return lines


def _answer(model: Scorer, history: NDArray[np.int64], items: int) -> NDArray[np.int64]:
    scores = model.scores(history)
    scores[0] = -np.inf
    scores[items + 1 :] = -np.inf
    return top_k(scores, K)[0]


def _times(
    models: Mapping[str, Scorer], history: NDArray[np.int64], length: int, items: int, calls: int, block: int
) -> dict[str, list[float]]:
    """Seconds of each call; the first of a block only warms up, if a block has more than one."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for start in range(0, calls, block):
        for name, model in models.items():
            for call in range(start, start + block):
                recent = history[call % 10_000 : call % 10_000 + length]
                began = time.perf_counter()
                _answer(model, recent, items)
                if call > start or block == 1:
                    times[name].append(time.perf_counter() - began)
    return times


def _percentile(times: list[float], which: str) -> float:
    return float(np.percentile(times, int(which[1:]))) * 1e6


def _ratio(times: Mapping[str, list[float]], name: str) -> float:
    """Median of int8 over that of another."""
    return float(np.median(times["int8"]) / np.median(times[name]))


def _overlap(model: Scorer, exact: Scorer, history: NDArray[np.int64], length: int, items: int) -> float:
    kept = 0
    for start in range(0, 100 * length, length):
        recent = history[start : start + length]
        kept += len({*_answer(model, recent, items)} & {*_answer(exact, recent, items)})
    return kept / (100 * K)


def _memory(folder: Path, items: int, capacity: int) -> dict[str, float]:
    """Peak RssAnon and RssFile of a process that opens the model and answers, and of its imports alone, in MB."""
    command = [sys.executable, __file__, "--watched", str(folder), str(items), str(capacity)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    peak = {"RssAnon": 0.0, "RssFile": 0.0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()  # has imported
        before = _resident(child.pid)
        child.stdin.write("go\n")
        child.stdin.flush()
        while child.poll() is None:
            now = _resident(child.pid)
            peak = {key: max(peak[key], now.get(key, 0.0)) for key in peak}
            time.sleep(0.001)
    table = (folder / "items.bin").stat().st_size / 1e6
    return {
        "imports_anon_mb": round(before["RssAnon"], 1),
        "peak_anon_mb": round(peak["RssAnon"], 1),
        "peak_file_mb": round(peak["RssFile"], 1),
        "table_mb": round(table, 1),
        "anon_over_table": round((peak["RssAnon"] - before["RssAnon"]) / table, 3),
    }


def _resident(pid: int) -> dict[str, float]:
    """MB of anonymous and of file-mapped pages of a process; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) / 1e3 for line in lines if line.startswith(("RssAnon", "RssFile"))}


def _answer_watched(folder: Path, items: int, capacity: int) -> None:
    """Be the watched process."""
    ort.load()
    weights = random_weights(SEED, max_history=MAX_HISTORY, **SHAPE)
    print("imported", flush=True)
    sys.stdin.readline()
    engine = Engine(Folder(folder, items, capacity, weights))
    history = np.random.default_rng(SEED).integers(1, items + 1, 200)
    for start in range(100):
        _answer(engine, history[start : start + MAX_HISTORY], items)


def _text(line: dict[str, Any]) -> str:
    if "memory" in line:
        return f"{line['items']:,} items: " + ", ".join(f"{key} {value}" for key, value in line["memory"].items())
    return (
        f"{line['items']:>9,} items  L={line['length']:<3} {line['model']:<20} "
        f"warm p50 {line['warm_p50_us']:8.1f} p99 {line['warm_p99_us']:8.1f} µs  int8 takes {line['warm_ratio']:5.3f}  "
        f"cold p50 {line['cold_p50_us']:8.1f} p99 {line['cold_p99_us']:8.1f} µs  int8 takes {line['cold_ratio']:5.3f}  "
        f"overlap {line['overlap']:.3f}  open {line['open_ms']:.1f} ms"
    )


if __name__ == "__main__":
    main()
