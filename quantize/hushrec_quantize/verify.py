"""How much a step of quantizing changed: overlap of top tens, NDCG@10, and the time of one answer.

Everything is measured on validation queries, never on the test.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hushrec import ort
from hushrec.topk import top_k
from hushrec_model.evaluate import Scorer, evaluate
from hushrec_model.splits import Queries
from hushrec_privacy.errors import ToleranceError
from numpy.typing import NDArray

from hushrec_quantize.graphs import Graphs

__all__ = ["Measured", "Tolerance", "Verification", "answer_time_us", "check", "measure", "overlap", "ranking_time_us"]

_WARM_UP, _ANSWERS = 20, 200


@dataclass(frozen=True)
class Tolerance:
    """What a bundle may lose before it is not written. Every bound gets a margin for few queries.

    Attributes:
        overlap: Least share of the float model's ten best items that the int8 model also has.
        int8: Greatest share of NDCG@10 lost by int8 alone.
        total: Greatest share of NDCG@10 lost by pruning and int8 together.
    """

    overlap: float = 0.97
    int8: float = 0.01
    total: float = 0.03


@dataclass(frozen=True)
class Measured:
    """One scorer on the validation sample.

    Attributes:
        lists: Its ten best items a query, shape (Q, 10).
        ndcg: NDCG@10.
    """

    lists: NDArray[np.int32]
    ndcg: float


@dataclass(frozen=True)
class Verification:
    """Int8 against float of the same weights, and both against the unpruned model.

    Attributes:
        queries: Validation queries asked.
        model_overlap: Share of top tens kept by int8, Transformer alone.
        blend_overlap: The same for the blend.
        model_lost: Share of NDCG@10 lost by int8, Transformer alone; below 0 is a gain.
        blend_lost: The same for the blend.
        total_lost: Share of NDCG@10 lost from the trained to the pruned int8 Transformer.
    """

    queries: int
    model_overlap: float
    blend_overlap: float
    model_lost: float
    blend_lost: float
    total_lost: float


def measure(scorer: Scorer, queries: Queries, items: int, index: NDArray[np.int64]) -> Measured:
    """Rank some queries.

    Args:
        scorer: Who ranks.
        queries: Validation queries.
        items: V.
        index: Which queries, shape (Q,).
    """
    kept = _Keeping(scorer)
    ndcg = evaluate(kept, queries, items, index=index).ndcg
    return Measured(np.concatenate(kept.lists), ndcg)


class _Keeping:
    """Passes questions on and keeps the first ten of every answer."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self.lists = scorer, list[NDArray[np.int32]]()

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        found = self._scorer.top(queries, index, k)
        self.lists.append(found[:, :10])
        return found


def overlap(one: NDArray[np.int32], other: NDArray[np.int32]) -> float:
    """Mean share of each list of `one` that is also in the same list of `other`.

    Args:
        one: Item lists, shape (Q, K); 0 is no item.
        other: Shape (Q, K).

    >>> overlap(np.array([[1, 2]], np.int32), np.array([[2, 3]], np.int32))
    0.5
    """
    common = ((one[:, :, None] == other[:, None, :]) & (one[:, :, None] > 0)).any(2).sum(1)
    return float((common / np.maximum((one > 0).sum(1), 1)).mean())


def check(found: Verification, tolerance: Tolerance) -> None:
    """Refuse a bundle that lost too much.

    Raises:
        ToleranceError: Names every figure that is outside, its bound, and what to do.
    """
    margin = found.queries**-0.5
    kept, int8 = tolerance.overlap - 0.1 * margin, tolerance.int8 + 0.1 * margin
    least = (
        ("top-10 overlap of the Transformer", found.model_overlap, kept),
        ("top-10 overlap of the blend", found.blend_overlap, kept),
    )
    most = (
        ("NDCG@10 lost by int8", found.model_lost, int8),
        ("NDCG@10 lost by int8 in the blend", found.blend_lost, int8),
        ("NDCG@10 lost in all", found.total_lost, tolerance.total + margin),
    )
    broken = [f"{what} is {value:.4f}, allowed >= {bound:.4f}" for what, value, bound in least if value < bound]
    broken += [f"{what} is {value:.4f}, allowed <= {bound:.4f}" for what, value, bound in most if value > bound]
    if broken:
        raise ToleranceError(
            f"the bundle was not written: {'; '.join(broken)} ({found.queries:,} validation queries). "
            "Prune less (--prune 0.1), or train longer"
        )


def answer_time_us(
    graphs: Graphs, queries: Queries, index: NDArray[np.int64], max_history: int, behaviors: int
) -> float:
    """Median time of one answer on one thread, from item indexes to the best ten, in microseconds.

    Args:
        graphs: Of any precision.
        queries: Histories to encode.
        index: Queries to take, shape (Q,).
        max_history: Longest history that the encoder takes.
        behaviors: How many behaviours it knows.
    """
    with tempfile.TemporaryDirectory() as name:
        graphs.write(folder := Path(name))
        encoder, scorer = (ort.open_session(folder / f"{part}.onnx") for part in ("encoder", "scorer"))
        feeds = []
        for query in np.resize(index, _WARM_UP + _ANSWERS):
            span = slice(max(queries.start[query], queries.stop[query] - max_history), queries.stop[query])
            feed = {"items": queries.events.item[None, span].astype(np.int64)}
            if behaviors > 1:
                feed["behaviors"] = queries.events.behavior[None, span].astype(np.int64)
            if feed["items"].size:
                feeds.append(feed)
        times = []
        for feed in feeds:
            began = time.perf_counter_ns()
            (user,) = encoder.run(None, feed)
            (scores,) = scorer.run(None, {"user": user})
            top_k(scores[0], 10)
            times.append(time.perf_counter_ns() - began)
        del encoder, scorer
    return float(np.median(times[_WARM_UP:] or times) / 1000) if times else 0.0


def ranking_time_us(scorer: Scorer, queries: Queries, index: NDArray[np.int64]) -> float:
    """Median time of one answer of a bundle on one thread, blend and rules included, in microseconds.

    Args:
        scorer: A `BundleScorer`.
        queries: Histories to rank for.
        index: Queries to take, shape (Q,).
    """
    times = []
    for query in np.resize(index, _WARM_UP + _ANSWERS):
        asked = np.array([query])
        began = time.perf_counter_ns()
        scorer.top(queries, asked, 10)
        times.append(time.perf_counter_ns() - began)
    return float(np.median(times[_WARM_UP:]) / 1000)
