"""The time of one answer of several models, measured in turn, so that what else the machine does falls on all alike.

Only ratios of one measurement mean something; `benchmarks/engine.py` is the careful one.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from hushrec import ort
from hushrec.topk import top_k
from hushrec_model.evaluate import Scorer
from hushrec_model.splits import Queries
from numpy.typing import NDArray

from hushrec_quantize.graphs import Graphs

__all__ = ["Answer", "graph_answer", "in_turn_us", "scorer_answer"]

Answer = Callable[[int], object]
"""Answers one query, given by its number."""

_BLOCK, _ROUNDS = 20, 10  # calls of one model before the next one's turn, and turns; the first turn warms up


def graph_answer(graphs: Graphs, folder: Path, queries: Queries, max_history: int, behaviors: int) -> Answer:
    """From item indexes to the best ten through a graph of any precision, one thread.

    Args:
        graphs: What to run.
        folder: An empty folder that outlives the answers.
        queries: Histories to encode; none that is asked for may be empty.
        max_history: Longest history that the encoder takes.
        behaviors: How many behaviours it knows.
    """
    graphs.write(folder)
    session = ort.open_session(folder / "scorer.onnx")

    def answer(query: int) -> object:
        span = slice(max(queries.start[query], queries.stop[query] - max_history), queries.stop[query])
        feed = {"items": queries.events.item[None, span].astype(np.int64)}
        if behaviors > 1:
            feed["behaviors"] = queries.events.behavior[None, span].astype(np.int64)
        (scores,) = session.run(["scores"], feed)
        return top_k(scores[0], 10)

    return answer


def scorer_answer(scorer: Scorer, queries: Queries) -> Answer:
    """The best ten of any scorer."""
    return lambda query: scorer.top(queries, np.array([query]), 10)


def in_turn_us(answers: Sequence[Answer], queries: Queries, index: NDArray[np.int64]) -> list[float]:
    """Median time of one answer of each model, in microseconds.

    Args:
        answers: The models.
        queries: Where the histories are.
        index: Queries to ask, shape (Q,); those without events are passed over.

    Returns:
        One time a model; zeros if no query has events.
    """
    asked = index[queries.stop[index] > queries.start[index]]
    if not len(asked):
        return [0.0] * len(answers)
    times: list[list[int]] = [[] for _ in answers]
    for block in np.resize(asked, _BLOCK * (_ROUNDS + 1)).reshape(-1, _BLOCK).tolist():
        for answer, taken in zip(answers, times, strict=True):
            for query in block:
                began = time.perf_counter_ns()
                answer(query)
                taken.append(time.perf_counter_ns() - began)
    return [float(np.median(taken[_BLOCK:])) / 1000 for taken in times]
