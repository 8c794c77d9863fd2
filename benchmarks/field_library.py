"""A library of the field beside hushrec, on the very same splits: RecTools' SASRec, trained and ranked here.

    python benchmarks/field_library.py [--second-env PYTHON] [--sets beauty,ml-1m,...] [--models default,d64]
        [--work DIR] [--quality DIR]

For every set: the library gets our training events, stops on our validation queries and ranks the whole catalogue for
our test histories; its lists of ten are counted by the code that counts ours. "default" is the library as it comes;
"d64" is as wide as hushrec's model and reads as long a history. Of each there are two rows: after the library's default
number of epochs, and stopped early as its guide recommends (`field_sasrec.py`). The protocol's hash is that of
`hushrec evaluate`: equal hashes, the same test. Training is one process with one thread; validating is not counted.
Above them are the rows of hushrec, of what `quality.py` kept in its own folder, if it was run.

The library has an environment of its own. What is done is kept in DIR and not run again, so an interrupted benchmark
goes on with the model it was at. The sets are read from HUSHREC_EVAL_DATA (see datasets.py).
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from datasets import prepare
from hushrec_cli.options import comma_list, parse_time
from hushrec_model.evaluate import evaluate
from hushrec_model.reading import read_log
from hushrec_model.sequences import Queries
from hushrec_model.settings import decide
from hushrec_model.splits import Split, split_log
from hushrec_model.training import validation_sample
from numpy.typing import NDArray
from quality import METRICS, SETS, head, line, mean

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
MODELS = {"default": (), "d64": ("--width", "64")}
NO_ENVIRONMENT = """RecTools is not there: it needs an environment of its own. Make one, and name its interpreter:
  python -m venv .venv-field
  .venv-field/bin/pip install "rectools[torch]"
  python benchmarks/field_library.py --second-env .venv-field/bin/python"""


class Lists:
    """Answers queries from lists that were made before.

    Args:
        lists: Items of every query, best first, shape (Q, 10); 0 where there are no more.
    """

    def __init__(self, lists: NDArray[np.int32]) -> None:
        self._lists = lists

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """The lists of some queries, shape (B, k); 0 from the eleventh item on."""
        if len(self._lists) != len(queries):
            raise ValueError(f"{len(self._lists)} lists for {len(queries)} queries: they are of another split")
        width = self._lists.shape[1]
        return np.pad(self._lists[index], ((0, 0), (0, k - width)))


def main() -> None:
    """Run what is missing and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--second-env",
        nargs="*",
        default=os.environ.get("HUSHREC_SECOND_ENV", "").split(),
        metavar="PYTHON",
        help="interpreters, of which one has RecTools; default: $HUSHREC_SECOND_ENV",
    )
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--work", type=Path, default=Path("runs/field_library"))
    parser.add_argument("--quality", type=Path, default=Path("runs/quality"), help="what quality.py kept, for our rows")
    options = parser.parse_args()
    pythons = [python for python in options.second_env if has_rectools(python)]
    if not pythons:
        parser.exit(2, NO_ENVIRONMENT + "\n")
    rows = [row for name in comma_list(options.sets) for row in run(name, options, pythons[0])]
    head("set", "protocol", "model", "epochs", "HR@10", "NDCG@10", "parameters", "MB", "training, s", "CPU s")
    for row in rows:
        line(*row)


def has_rectools(python: str) -> bool:
    """Whether an interpreter is there and finds the library."""
    code = "import importlib.util; raise SystemExit(importlib.util.find_spec('rectools') is None)"
    try:
        return subprocess.run([python, "-c", code], check=False).returncode == 0
    except OSError:
        return False


def run(name: str, options: argparse.Namespace, python: str) -> list[tuple[str, ...]]:
    """All rows of one set: hushrec's, then two of each model."""
    split, history = read_split(name, options.work / name)
    file = options.work / name / "split.npz"
    save(file, exported(split, history))
    rows = ours(options.quality / name, split.protocol_sha256)
    for model in comma_list(options.models):
        out = options.work / name / model
        facts = trained(file, out, python, MODELS[model])
        which = f"{facts['library']} SASRec, d={facts['width']}, history {facts['history']}"
        size = (f"{facts['parameters']:,}", f"{facts['bytes'] / 1e6:.1f}")
        last, best = len(facts["epochs"]), facts["best_epoch"]
        for lists, epochs, which_epochs in (
            ("default.npy", facts["default_epochs"], f"{facts['default_epochs']}"),
            ("stopped.npy", last, f"{best} of {last}"),
        ):
            found = evaluate(Lists(np.load(out / lists)), split.test, len(split.items))
            done = facts["epochs"][:epochs]
            took = [f"{sum(epoch[key] for epoch in done):,.0f}" for key in ("seconds", "cpu_seconds")]
            rows.append((which, which_epochs, f"{found.hr:.4f}", f"{found.ndcg:.4f}", *size, *took))
    return [(name, split.protocol_sha256[:16], *row) for row in rows]


def ours(folder: Path, sha256: str) -> list[tuple[str, ...]]:
    """What quality.py kept of a set, mean over its seeds: the int8 bundle, and its Transformer alone."""
    found = [json.loads(file.read_text(encoding="utf-8"))[0] for file in sorted(folder.glob("evaluate-*.json"))]
    if any(one["protocol_sha256"] != sha256 for one in found):
        raise SystemExit(f"{folder}: holds results of another test; run quality.py anew, or name another --quality")
    trained_in = [json.loads(file.read_text(encoding="utf-8"))[0]["seconds"] for file in folder.glob("train-*.json")]
    if not found:
        return []
    took = f"{sum(trained_in) / len(trained_in):,.0f}"
    alone = [one["parts"]["transformer"] for one in found]
    rows: list[tuple[str, ...]] = []
    for what, scored in (("int8 bundle", found), ("its Transformer alone", alone)):
        scores = [f"{mean(scored, metric):.4f}" for metric in METRICS]
        rows.append((f"hushrec, {what}, {len(found)} seeds", "", *scores, "", "", took, ""))
    return rows


def read_split(name: str, work: Path) -> tuple[Split, int]:
    """The split that `hushrec train` makes of a set, and how many events of a history its model reads."""
    files = prepare(name, work)
    given = dict(zip(files.train_options[::2], files.train_options[1::2], strict=True))
    log, _, _ = read_log(files.events, files.items, attributes=comma_list(given.get("--attributes")), key=bytes(32))
    until = parse_time(given.get("--test-from"))
    split = split_log(log, given.get("--protocol", "leave-one-out"), test_from=until)
    return split, decide(split, len(log.behaviors))[0].shape.max_history


def exported(split: Split, history: int) -> dict[str, NDArray[Any]]:
    """What the library is given of a split; of the test the histories only."""
    chosen, everything = validation_sample(split.valid), np.arange(len(split.test))
    valid_offsets, valid_item = histories(split.valid, chosen)
    test_offsets, test_item = histories(split.test, everything)
    targets = [split.valid.targets(query) for query in chosen.tolist()]
    return {
        "train_offsets": split.train.offsets,
        "train_item": split.train.item,
        "valid_offsets": valid_offsets,
        "valid_item": valid_item,
        "valid_target_offsets": np.cumsum([0, *map(len, targets)]),
        "valid_target": np.concatenate(targets),
        "test_offsets": test_offsets,
        "test_item": test_item,
        "filter_seen": np.array(split.filter_seen),
        "history": np.array(history),
    }


def save(file: Path, told: dict[str, NDArray[Any]]) -> None:
    """Write what the library is told, unless results are kept that it was told otherwise for."""
    if file.exists():
        with np.load(file) as before:
            if not all(np.array_equal(before[part], values) for part, values in told.items()):
                raise SystemExit(f"{file.parent}: holds results of another split; remove it, or name another --work")
    np.savez(file, allow_pickle=False, **told)


def histories(queries: Queries, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Whole histories of some queries end to end: their bounds, shape (B + 1,), and the items."""
    found = [queries.history(query) for query in index.tolist()]
    return np.cumsum([0, *map(len, found)]), np.concatenate(found)


def trained(split: Path, out: Path, python: str, sizes: tuple[str, ...]) -> dict[str, Any]:
    """Train one model unless it was; what its process found out."""
    facts = out / "facts.json"
    if not (facts.exists() and json.loads(facts.read_text(encoding="utf-8"))["finished"]):
        print(f"{out.parent.name}: {out.name}", file=sys.stderr, flush=True)
        out.mkdir(parents=True, exist_ok=True)
        alone = {"PYTHONPATH": str(HERE.parent / "model"), "OMP_NUM_THREADS": "1"}
        command = [python, str(HERE / "field_sasrec.py"), str(split), str(out), *sizes]
        subprocess.run(command, env=os.environ | alone, check=True)
    result: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
    return result


if __name__ == "__main__":
    main()
