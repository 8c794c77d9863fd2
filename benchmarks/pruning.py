"""What pruning costs and what it saves: the curve behind the default of `hushrec quantize --prune`.

    python benchmarks/pruning.py [--sets beauty,online_retail] [--seed 0] [--work DIR]

Takes the runs that `quality.py` trained in DIR. Each share of the encoder's weights is pruned and fine-tuned as
`hushrec quantize` does it; what is left of heads, channels and layers follows from their importance. Prints for every
share: shape, weights, bytes of the int8 encoder, NDCG@10 of the Transformer on validation before and after fine-tuning,
and the median time of one int8 encoding on one thread, all shapes in turn. Test queries are not asked.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hushrec import ort
from hushrec_model.evaluate import evaluate
from hushrec_model.model import Model, ModelScorer
from hushrec_model.run_folder import Run, load_run
from hushrec_model.splits import Queries
from hushrec_model.training import validation_sample
from hushrec_quantize.convert import encoder_weights
from hushrec_quantize.graphs import build_graphs
from hushrec_quantize.latency import Answer, in_turn_us
from hushrec_quantize.pipeline import fine_tuned
from hushrec_quantize.prune import encoder_parameters, prune

SHARES = (0.0, 0.1, 0.25, 0.4, 0.6, 0.8)
SAMPLE = 20_000  # validation queries


@dataclass
class Pruned:
    """One point of the curve."""

    share: float
    model: Model
    before: float
    after: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="beauty,online_retail")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/quality"))
    options = parser.parse_args()
    head = (
        "set",
        "pruned",
        "heads",
        "channels",
        "weights",
        "bytes",
        "NDCG@10 at once",
        "fine-tuned",
        "of all",
        "µs",
        "of all",
    )
    print(f"| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    for name in options.sets.split(","):
        run = load_run(options.work / name / f"run-{options.seed}")
        report(name, run, [point(run, share) for share in SHARES])


def point(run: Run, share: float) -> Pruned:
    """Prune and fine-tune one share."""
    if not share:
        found = ndcg(run, run.model)
        return Pruned(share, run.model, found, found)
    model = prune(run.model, run.split, share, seed=run.settings.seed)
    before = ndcg(run, model)
    tuned = fine_tuned(run, model)
    return Pruned(share, tuned, before, ndcg(run, tuned))


def ndcg(run: Run, model: Model) -> float:
    """NDCG@10 of a Transformer alone on validation."""
    scorer = ModelScorer(model, filter_seen=run.split.filter_seen)
    return evaluate(
        scorer, run.split.valid, len(run.split.items), index=validation_sample(run.split.valid, SAMPLE)
    ).ndcg


def report(name: str, run: Run, points: list[Pruned]) -> None:
    """Print one line a share."""
    valid = run.split.valid
    with tempfile.TemporaryDirectory() as folder:
        answers, sizes = [], []
        for number, found in enumerate(points):
            (place := Path(folder) / str(number)).mkdir()
            graphs = build_graphs(encoder_weights(found.model), found.model.table().numpy(), precision="int8")
            graphs.write(place)
            sizes.append(len(graphs.encoder_onnx) + len(graphs.encoder_bin))
            answers.append(encoding(place, valid, found.model))
        times = in_turn_us(answers, valid, validation_sample(valid, 200))
        answers.clear()  # closes the graphs before their files go
    for found, size, us in zip(points, sizes, times, strict=True):
        shape = found.model.encoder.shape
        cells = [name, f"{found.share:.2f}", *("+".join(map(str, kept)) for kept in (shape.heads, shape.channels))]
        cells += [f"{encoder_parameters(found.model.encoder):,}", f"{size:,}"]
        cells += [f"{found.before:.4f}", f"{found.after:.4f}", f"{found.after / points[0].after:.3f}"]
        print(f"| {' | '.join([*cells, f'{us:.0f}', f'{us / times[0]:.2f}'])} |", flush=True)


def encoding(folder: Path, queries: Queries, model: Model) -> Answer:
    """Encode one history through the int8 graph in a folder."""
    session, shape = ort.open_session(folder / "encoder.onnx"), model.encoder.shape

    def answer(query: int) -> object:
        span = slice(max(queries.start[query], queries.stop[query] - shape.max_history), queries.stop[query])
        feed = {"items": queries.events.item[None, span].astype(np.int64)}
        if shape.behaviors > 1:
            feed["behaviors"] = queries.events.behavior[None, span].astype(np.int64)
        return session.run(None, feed)

    return answer


if __name__ == "__main__":
    main()
