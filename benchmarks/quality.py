"""Ranking quality of int8 bundles on public data, with `hushrec train` and `hushrec quantize` at their defaults.

    python benchmarks/quality.py [--sets beauty,ml-1m,...] [--seeds 0,1,2] [--jobs N] [--work DIR]

For every set and seed: train, quantize and evaluate, each as its own `hushrec` process. Several go side by side, which
gains more than several threads for one. What a step printed is kept beside its folder in DIR and not run again, so an
interrupted benchmark goes on. Prints one table with the mean and the
range over seeds, one for int8 against float, and one with every baseline. The sets are read from HUSHREC_EVAL_DATA
(see datasets.py); the licences of most do not allow them in the repository.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from datasets import Prepared, prepare

SETS = ("beauty", "ml-1m", "retailrocket", "eshop", "online_retail")
METRICS = ("hr@10", "ndcg@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", default="train,quantize,evaluate")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side; one for each core")
    parser.add_argument("--work", type=Path, default=Path("runs/quality"))
    options = parser.parse_args()
    names, seeds = options.sets.split(","), [int(seed) for seed in options.seeds.split(",")]
    steps = options.steps.split(",")
    files = {name: prepare(name, options.work / name) for name in names}
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    with ThreadPoolExecutor(options.jobs) as pool:
        begun = [
            pool.submit(run, name, seed, files[name], options.work / name, steps, threads)
            for seed in seeds
            for name in names
        ]
        results = [found.result() for found in begun]
    report([found for found in results if "evaluate" in found])


def run(name: str, seed: int, files: Prepared, work: Path, steps: Sequence[str], threads: str) -> dict[str, Any]:
    """One set with one seed, from its files to the evaluated bundle; what each step printed, and its seconds."""
    folder, bundle = work / f"run-{seed}", work / f"seed-{seed}.hush"
    items = ["--items", str(files.items)] if files.items else []
    commands = {
        "train": [str(files.events), *items, "--out", str(folder), "--seed", str(seed), *files.train_options],
        "quantize": [str(folder), "--out", str(bundle)],
        "evaluate": [str(bundle), str(files.events), "--parts"],
    }
    result: dict[str, Any] = {"set": name, "seconds": {}}
    for step in steps:
        kept = work / f"{step}-{seed}.json"
        if not kept.exists():
            print(f"{name}, seed {seed}: {step}", file=sys.stderr, flush=True)
            kept.write_text(json.dumps(hushrec([step, *commands[step]], threads)))
        result[step], result["seconds"][step] = json.loads(kept.read_text())
    return result


def hushrec(arguments: list[str], threads: str = "") -> tuple[dict[str, Any], float]:
    """Run one command with --json; what it printed, and how long it took in seconds."""
    began = time.monotonic()
    command = [str(Path(sys.executable).with_name("hushrec")), *arguments, "--json"]
    environment = {**os.environ, **({"OMP_NUM_THREADS": threads} if threads else {})}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    return json.loads(done.stdout), time.monotonic() - began


def report(results: list[dict[str, Any]]) -> None:
    """Print the tables as Markdown."""
    head("set", "seeds", "int8 HR@10", "int8 NDCG@10", "Transformer alone, float32", "train", "quantize")
    for name, rows in grouped(results):
        scores = (("evaluate", "hr@10"), ("evaluate", "ndcg@10"))
        alone = spread(rows, "train", "test", "model", "ndcg@10")
        seconds = [f"{mean(rows, 'seconds', step):.0f} s" for step in ("train", "quantize")]
        line(name, str(len(rows)), *(spread(rows, *path) for path in scores), alone, *seconds)
    print()
    head(
        "set", "overlap alone", "overlap blend", "NDCG lost alone", "NDCG lost blend", "encoder bytes", "bytes an item"
    )
    for name, rows in grouped(results):
        found = [mean(rows, "quantize", "verification", key) for key in ("model_overlap", "blend_overlap")]
        lost = [mean(rows, "quantize", "verification", key) for key in ("model_lost", "blend_lost")]
        size = [f"{mean(rows, 'quantize', 'encoder_bytes'):,.0f}", f"{mean(rows, 'quantize', 'item_bytes'):.1f}"]
        line(name, *(f"{value:.4f}" for value in found), *(f"{value:+.2%}" for value in lost), *size)
    print()
    head("set", "ranked by", "HR@10", "NDCG@10")
    for name, rows in grouped(results):
        line(name, "**int8 bundle**", *(f"{mean(rows, 'evaluate', metric):.4f}" for metric in METRICS))
        for group, what in (("parts", " alone"), ("without", " left out of the blend"), ("baselines", "")):
            for key in dict.fromkeys(key for row in rows for key in row["evaluate"][group]):
                having = [row for row in rows if row["evaluate"][group].get(key)]
                line(
                    "",
                    f"{key}{what}{'' if len(having) == len(rows) else f' ({len(having)} seeds)'}",
                    *(f"{mean(having, 'evaluate', group, key, m):.4f}" for m in METRICS),
                )


def head(*cells: str) -> None:
    """Print the head of a table."""
    line(*cells)
    line(*("---" for _ in cells))


def line(*cells: str) -> None:
    """Print one row of a table."""
    print(f"| {' | '.join(cells)} |")


def grouped(results: list[dict[str, Any]]) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """Results by set, in the order of first appearance."""
    for name in dict.fromkeys(found["set"] for found in results):
        yield name, [found for found in results if found["set"] == name]


def values(rows: list[dict[str, Any]], *path: str) -> list[float]:
    """One number of every row."""
    found: list[Any] = rows
    for key in path:
        found = [row[key] for row in found]
    return found


def mean(rows: list[dict[str, Any]], *path: str) -> float:
    """Mean over seeds."""
    return statistics.fmean(values(rows, *path)) if rows else float("nan")


def spread(rows: list[dict[str, Any]], *path: str) -> str:
    """Mean, and the range over seeds."""
    found = values(rows, *path)
    return f"{statistics.fmean(found):.4f} ({min(found):.4f} to {max(found):.4f})"


if __name__ == "__main__":
    main()
