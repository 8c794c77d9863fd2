"""A score for every item from one user vector: two ways over the same mapped int8 table.

The packed scorer is `scorer.onnx`: int8 products, fast where the processor has them (VNNI, dot-product instructions);
it keeps a repacked copy of the table. The plain scorer turns blocks of the table into float32 in NumPy: no copy, any
processor. `choose_scorer` measures which one this machine should use.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hushrec import ort
from hushrec.tables import WIDTH, ZERO_POINT

__all__ = ["PackedScorer", "PlainScorer", "Scorer", "ScorerName", "choose_scorer"]

Vector = NDArray[np.float32]
ScorerName = Literal["packed", "plain"]

_BLOCK = 1024  # rows; their float32 copy (256 KiB) stays in the cache
_REPEATS = 5
_COMPARED = 10_000  # scores, spread over the table
_TOLERANCE = 0.02  # of the largest score: rounding the user vector to int8 moves scores by less than half of that
_SEED = 20


class Scorer(Protocol):
    """Scores all rows of the table."""

    def score(self) -> None:
        """Read the user vector that the scorer was made with, and write the scores that it was made with."""


class PackedScorer:
    """Scores by `scorer.onnx`.

    Args:
        graph: Path of `scorer.onnx`.
        user: Where user vectors will be, float32, shape (1, 64).
        scores: Where scores go, float32, shape (1, capacity).

    Raises:
        BundleError: ONNX Runtime cannot open the graph.
    """

    def __init__(self, graph: Path, user: Vector, scores: Vector) -> None:
        self._session = ort.open_session(graph)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("user", ort.shared_value(user))
        self._binding.bind_ortvalue_output("scores", ort.shared_value(scores))

    def score(self) -> None:
        """See `Scorer`."""
        self._session.run_with_iobinding(self._binding)


class PlainScorer:
    """Scores by NumPy, block by block.

    Args:
        codes: Codes of the table, uint8, shape (capacity, 64).
        scales: Its scales, float32, shape (capacity,).
        user: Where user vectors will be, float32, shape (1, 64).
        scores: Where scores go, float32, shape (1, capacity).
    """

    def __init__(self, codes: NDArray[np.uint8], scales: Vector, user: Vector, scores: Vector) -> None:
        self._codes, self._scales, self._user, self._scores = codes, scales, user[0], scores[0]
        self._rows = np.empty((min(_BLOCK, len(codes)), WIDTH), np.float32)

    def score(self) -> None:
        """See `Scorer`."""
        for start in range(0, len(self._codes), _BLOCK):
            codes = self._codes[start : start + _BLOCK]
            rows = self._rows[: len(codes)]
            np.copyto(rows, codes)
            np.dot(rows, self._user, out=self._scores[start : start + _BLOCK])
        self._scores -= ZERO_POINT * self._user.sum()
        self._scores *= self._scales


def choose_scorer(
    packed: Scorer, plain: Scorer, user: Vector, scores: Vector, clock: Callable[[], float] = time.perf_counter
) -> ScorerName:
    """Time both scorers and name the faster one; the packed one only if its scores are right.

    Takes a few milliseconds at 10,000 items. The answer holds for a machine and a version of ONNX Runtime; whoever
    calls keeps it.

    Args:
        packed: A scorer over `user` and `scores`.
        plain: The other one, over the same arrays; its scores are taken as right.
        user: The user vector that both read, shape (1, 64); overwritten.
        scores: The scores that both write, shape (1, capacity); overwritten.
        clock: Gives seconds.
    """
    user[0] = np.random.default_rng(_SEED).standard_normal(WIDTH)
    compared = scores[0, :: scores.shape[1] // _COMPARED + 1]  # a copy of all would be felt at a million items
    plain_s = _best_time(plain, clock)
    expected = compared.copy()
    packed_s = _best_time(packed, clock)
    right = float(np.abs(compared - expected).max()) <= _TOLERANCE * float(np.abs(expected).max())  # False for NaN
    return "packed" if right and packed_s <= plain_s else "plain"


def _best_time(scorer: Scorer, clock: Callable[[], float]) -> float:
    """Best of a few runs, in seconds; the first one warms up and does not count."""
    scorer.score()
    times = []
    for _ in range(_REPEATS):
        start = clock()
        scorer.score()
        times.append(clock() - start)
    return min(times)
