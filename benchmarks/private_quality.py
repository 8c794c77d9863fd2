"""Ranking quality against epsilon: int8 bundles of `hushrec train --epsilon` at its defaults, tested on public data.

    python benchmarks/private_quality.py [--sets ml-1m,beauty,eshop] [--epsilons 1,2,4,8] [--runs 1] [--work DIR]

Each epsilon is one `hushrec train`, `quantize` and `evaluate`; what was found is kept in DIR and not run again. Delta
is the default, N^-1.1 cut to one digit. The unit is a user; on eshop, whose log has no users, it is a session. Beside
the bundles, on the same test: the private tables with the whole budget and without training; private popularity, which
is the bundle's own and costs an epsilon of about a third; the plain popularity. The last column is the same method
without noise, in float32: clipping, sampling and everything else stay. Private noise cannot be seeded, so a second run
gives other figures: `--runs 3` prints mean and range.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import prepare
from hushrec.counts import Blend
from hushrec_model.blend import BlendScorer
from hushrec_model.evaluate import evaluate
from hushrec_model.model import ModelScorer
from hushrec_model.private_counts import COUNTS_NOISE, Counts, release_counts, transitions_deviation
from hushrec_model.private_pipeline import default_settings
from hushrec_model.private_training import train_private
from hushrec_model.run_folder import Run, load_run
from hushrec_model.splits import Queries
from hushrec_model.user_sequences import UserSequences
from hushrec_privacy.accounting import gaussian_mu
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray
from quality import head, hushrec, line

SETS = ("ml-1m", "beauty", "eshop")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--epsilons", default="1,2,4,8")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/private_quality"))
    options = parser.parse_args()
    epsilons, repeats = options.epsilons.split(","), range(options.runs)
    found = {name: measure(name, epsilons, repeats, options.work / name) for name in options.sets.split(",")}
    head("set", "ranked by", *(f"ε {epsilon}" for epsilon in epsilons), "no noise")
    for name, rows in found.items():
        for number, (title, columns) in enumerate(rows.items()):
            line("" if number else name, title, *(spread(column) for column in columns))


def measure(name: str, epsilons: Sequence[str], repeats: Sequence[int], work: Path) -> dict[str, list[list[float]]]:
    """Run what is missing of one set: test NDCG@10 of every repeat, by epsilon and without noise, by what ranked."""
    bundles = [[bundle(name, epsilon, repeat, work) for repeat in repeats] for epsilon in epsilons]
    run = load_run(work / f"run-{epsilons[0]}-0")
    tables = [
        [kept(work / f"tables-{e}-{repeat}.json", counts_alone, run, float(e)) for repeat in repeats] for e in epsilons
    ]
    first = bundles[0][0]
    plain = first["baselines"]["popularity"]["ndcg@10"]
    return {
        f"**int8 bundle**, {first['users']:,} queries": [
            *([found["ndcg@10"] for found in row] for row in bundles),
            [kept(work / "noiseless.json", without_noise, run)],
        ],
        "tables alone, no training": [*tables, [kept(work / "tables-inf.json", counts_alone, run, math.inf)]],
        "private popularity": [*([f["parts"]["popularity"]["ndcg@10"] for f in row] for row in bundles), []],
        "popularity, not private": [*([] for _ in bundles), [plain]],
    }


def bundle(name: str, epsilon: str, repeat: int, work: Path) -> dict[str, Any]:
    """Train, quantize and evaluate one bundle, each as its own process; what `hushrec evaluate` printed."""
    folder, packed = work / f"run-{epsilon}-{repeat}", work / f"{epsilon}-{repeat}.hush"

    def made() -> dict[str, Any]:
        files = prepare(name, work)
        train = ["train", str(files.events), "--items", str(files.items), "--out", str(folder), *files.train_options]
        if not (folder / "run.json").exists():  # a finished private run is not trained again
            hushrec([*train, "--epsilon", epsilon])
        if not packed.exists():
            hushrec(["quantize", str(folder), "--out", str(packed)])
        return hushrec(["evaluate", str(packed), str(files.events), "--parts"])[0]

    found: dict[str, Any] = kept(work / f"{epsilon}-{repeat}.json", made)
    return found


def kept(path: Path, make: Callable[..., Any], *given: Any) -> Any:
    """What is in `path`, or what is made now and put there."""
    if not path.exists():
        print(path.with_suffix(""), file=sys.stderr, flush=True)
        made = make(*given)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made))
    return json.loads(path.read_text())


def counts_alone(run: Run, epsilon: float) -> float:
    """The product's tables under the whole budget, ranked by without a model. Infinite: with next to no noise."""
    return ndcg(run, counts_of(run, epsilon), NoModel(len(run.split.items)))


def without_noise(run: Run) -> float:
    """The product's method with next to no noise on the tables and none on the steps."""
    counts, users = counts_of(run, math.inf), len(UserSequences(run.split.train, run.settings.shape.max_history))
    prior = np.log1p(counts.popularity / np.float32(COUNTS_NOISE)).astype(np.float32)
    trained = train_private(
        run.split, run.features, default_settings(0.0, users), spend=lambda _first, _steps: None, prior=prior
    )
    return ndcg(run, counts, ModelScorer(trained.model, filter_seen=counts.filter_seen))


def counts_of(run: Run, epsilon: float) -> Counts:
    """Tables that cost `epsilon` together at the run's delta."""
    deviation, items = 1, len(run.split.items)
    if epsilon < math.inf:
        left = gaussian_mu(epsilon, run.facts["privacy"]["delta"]) ** 2 - 2 / COUNTS_NOISE**2
        deviation = transitions_deviation(math.sqrt(left), items)
    return release_counts(run.split.train, items, deviation, OsRandom(), run.split.protocol)


class NoModel:
    """A Transformer that scores everything alike."""

    def __init__(self, items: int) -> None:
        self._items = items

    def score_blocks(
        self,
        queries: Queries,  # noqa: ARG002
        index: NDArray[np.int64],
    ) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        """As `ModelScorer.score_blocks`."""
        for rows in np.array_split(np.arange(len(index)), -(-len(index) // 256)):
            yield rows, torch.zeros(len(rows), self._items + 1)


def ndcg(run: Run, counts: Counts, model: Any) -> float:
    """Test NDCG@10 of a model with released counts, as a bundle blends them."""
    blend = Blend(counts.parts(), counts.arrays())
    scorer = BlendScorer(model, blend, filter_seen=counts.filter_seen)
    return evaluate(scorer, run.split.test, len(run.split.items)).ndcg


def spread(values: Sequence[float]) -> str:
    """Mean, and the range if there are several."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    main()
