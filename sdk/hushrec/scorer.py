"""From a history to a score for every item: three ways over the same mapped int8 table.

"product" is `scorer.onnx`, one int8 product: fastest while the table fits into the processor's caches, and only where
sums of such products are exact. "blocks" is `blocks.onnx`, the same block by block with another operator: fastest
above. Both keep a repacked copy of the table. "plain" turns blocks of the table into float32 in NumPy: no copy, any
processor. `fastest` measures which one this machine should use.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from hushrec_privacy.errors import BundleError
from numpy.typing import NDArray

from hushrec import ort
from hushrec.history_buffer import HistoryBuffer
from hushrec.tables import WIDTH, ZERO_POINT

__all__ = ["GraphScorer", "PlainScorer", "Scorer", "ScorerName", "block_views", "fastest", "open_product"]

Floats = NDArray[np.float32]
ScorerName = Literal["product", "blocks", "plain"]

_BLOCK = 1024  # rows; their float32 copy (256 KiB) stays in the cache
_REPEATS = 5
_COMPARED = 10_000  # scores, spread over the table
_CLEARLY = 0.9  # of the time of the best before: what is as fast by chance should not change with the day
_LARGEST_SUM = 64 * 255 * 127  # of products of the largest codes of a user and an item
_TOLERANCE = 0.02  # of the largest score: rounding the user vector to int8 moves scores by less than half of that


class Scorer(Protocol):
    """Scores all rows of the table."""

    def score(self) -> None:
        """Read the history buffer that the scorer was made with, and write the scores that it was made with."""


class GraphScorer:
    """Runs one graph of the bundle over fixed arrays.

    Args:
        session: From `ort.open_session`.
        history: What it reads.
        outputs: What it writes, by name: C-contiguous float32 arrays with a first axis of one.
    """

    def __init__(self, session: Any, history: HistoryBuffer, outputs: Mapping[str, Floats]) -> None:
        self._session, self._history = session, history
        self._binding = session.io_binding()
        for name, array in outputs.items():
            self._binding.bind_ortvalue_output(name, ort.shared_value(array))
        self._inputs = [found.name for found in session.get_inputs()]
        self._length = 0

    def score(self) -> None:
        """See `Scorer`."""
        history = self._history
        if history.length != self._length:
            values = history.values()
            for name in self._inputs:
                self._binding.bind_ortvalue_input(name, values[name])
            self._length = history.length
        self._session.run_with_iobinding(self._binding)


class PlainScorer:
    """Scores by NumPy, block by block.

    Args:
        encoder: Writes the user vector.
        user: Where, float32, shape (1, 64).
        codes: Codes of the table, uint8, shape (capacity, 64).
        scale: Its step.
        scores: Where scores go, float32, shape (1, capacity).
    """

    def __init__(self, encoder: Scorer, user: Floats, codes: NDArray[np.uint8], scale: float, scores: Floats) -> None:
        self._encoder, self._user, self._codes, self._scores = encoder, user[0], codes, scores[0]
        self._scale = np.float32(scale)
        self._rows = np.empty((min(_BLOCK, len(codes)), WIDTH), np.float32)

    def score(self) -> None:
        """See `Scorer`."""
        self._encoder.score()
        user = self._user * self._scale
        for start in range(0, len(self._codes), _BLOCK):
            codes = self._codes[start : start + _BLOCK]
            rows = self._rows[: len(codes)]
            np.copyto(rows, codes)
            np.dot(rows, user, out=self._scores[start : start + _BLOCK])
        self._scores -= ZERO_POINT * user.sum()


def open_product(graph: Path) -> Any:
    """Open `scorer.onnx`, unless this processor cannot add up its products.

    Args:
        graph: Its path.

    Raises:
        BundleError: ONNX Runtime cannot open it; it lacks the output `largest_sum`; or the processor lacks VNNI and
            cuts sums of two products of an unsigned and a signed byte down to 16 bits.
    """
    session = ort.open_session(graph)
    if "largest_sum" not in {found.name for found in session.get_outputs()}:
        raise BundleError(f"{graph}: has no output largest_sum; make the bundle again")
    nothing = {found.name: np.zeros((1, 1), np.int64) for found in session.get_inputs()}
    (sums,) = session.run(["largest_sum"], nothing)  # a constant, made when the graph was opened
    if not (sums == _LARGEST_SUM).all():
        raise BundleError(f"{graph}: this processor's int8 products overflow; scores come from another graph here")
    return session


def block_views(graph_outputs: Sequence[Any], scores: Floats) -> dict[str, Floats]:
    """Cut a score array into the consecutive outputs of `blocks.onnx`.

    Args:
        graph_outputs: What the session says of its outputs.
        scores: Shape (1, capacity).

    Returns:
        Views by name of the output.
    """
    views, start = {}, 0
    for output in graph_outputs:
        rows = int(output.shape[1])
        views[output.name] = scores[:, start : start + rows]
        start += rows
    return views


def fastest(
    scorers: Mapping[ScorerName, Callable[[], Scorer]],
    scores: Floats,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[ScorerName, Scorer]:
    """Time scorers and give the fastest one whose scores are right; a later one only if it is clearly faster.

    One after the other is made, and only the best so far is kept. Takes some tens of milliseconds at 10,000 items. The
    answer holds for a machine, a size of table and a version of ONNX Runtime; whoever calls keeps it.

    Args:
        scorers: How each is made, over one history buffer that holds a history. The first one's scores are right.
        scores: What they all write, shape (1, capacity); overwritten.
        clock: Gives seconds.

    Raises:
        BundleError: The first one cannot be made.
    """
    compared = scores[0, :: scores.shape[1] // _COMPARED + 1]  # a copy of all would be felt at a million items
    best: tuple[float, ScorerName, Scorer] | None = None
    expected = compared
    for name, make in scorers.items():
        try:
            scorer = make()
        except BundleError:  # an older ONNX Runtime without its operators; the first one needs none of these
            if best is None:
                raise
            continue
        taken = _best_time(scorer, clock)
        if best is None:
            best, expected = (taken, name, scorer), compared.copy()
            continue
        right = float(np.abs(compared - expected).max()) <= _TOLERANCE * float(np.abs(expected).max())  # no for NaN
        if right and taken <= _CLEARLY * best[0]:
            best = taken, name, scorer
    assert best is not None
    return best[1], best[2]


def _best_time(scorer: Scorer, clock: Callable[[], float]) -> float:
    """Best of a few runs, in seconds; the first one warms up and does not count."""
    scorer.score()
    times = []
    for _ in range(_REPEATS):
        start = clock()
        scorer.score()
        times.append(clock() - start)
    return min(times)
