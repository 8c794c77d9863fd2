"""Scores for many histories: `scorer.onnx` over small batches of one length, on several threads.

Histories are never padded, so those of one length share a batch; batches are small, because the encoder's arrays should
stay in a core's cache. What comes out is checked against the engine's own scores once: where it differs, or the graph
cannot be opened, every history is scored by itself.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from hushrec_privacy.checks import at_least
from hushrec_privacy.errors import BundleError
from numpy.typing import NDArray

from hushrec import ort
from hushrec.history_buffer import HistoryBuffer
from hushrec.manifest import Manifest
from hushrec.scorer import open_product

__all__ = ["BatchScorer", "Histories"]

Indexes = NDArray[np.int64]
Scores = NDArray[np.float32]
Histories = Iterable[tuple[Indexes, Indexes | None]]
Single = Callable[[Indexes, Indexes | None], Scores]

_SCORES = 1 << 22  # of one batch: 16 MiB
_MOST = 8  # histories in one batch
_TOLERANCE = 0.02  # of the largest score, as between the scorers of one history


class _Held(NamedTuple):
    at: int
    items: Indexes
    behaviors: Indexes | None


class _Bundle(Protocol):
    @property
    def manifest(self) -> Manifest: ...

    def path(self, name: str) -> Path: ...


class BatchScorer:
    """Scores batches of histories of one bundle.

    Args:
        bundle: An opened bundle.
        single: Scores one history, as `Engine.scores`.
    """

    def __init__(self, bundle: _Bundle, single: Single) -> None:
        self._model, self._single, self._checked = bundle.manifest.model, single, False
        self._session: Any = None
        try:
            self._session = open_product(bundle.path("scorer.onnx"))
        except BundleError:  # an older ONNX Runtime without its operators, or a processor without VNNI
            self._checked = True

    def scores(self, histories: Histories, threads: int | None = None) -> Iterator[tuple[int, Scores]]:
        """Yield the position of each history and its scores; see `Engine.scores_many`."""
        threads = _usable() if threads is None else threads
        at_least(1, threads=threads)
        step = min(max(_SCORES // self._model.capacity, 1), _MOST)
        batches = _batches(self._held(histories), step)
        if not self._checked and batches:
            self._check(batches[0][0])
        if self._session is None:
            return ((one.at, self._single(one.items, one.behaviors)) for batch in batches for one in batch)
        return self._run_all(batches, threads)

    def _held(self, histories: Histories) -> list[_Held]:
        buffer, held = HistoryBuffer(self._model), []
        for at, (items, behaviors) in enumerate(histories):
            buffer.hold(items, behaviors)
            held.append(_Held(at, *buffer.held()))
        return held

    def _check(self, one: _Held) -> None:
        """Give the session up if it does not say what the engine says."""
        found, own = self._run([one], np.zeros((1, self._model.capacity), np.float32)), self._single(*one[1:])
        self._checked = True
        if not float(np.abs(found[0] - own).max()) <= _TOLERANCE * float(np.abs(own).max()):  # so if NaN
            self._session = None

    def _run_all(self, batches: list[list[_Held]], threads: int) -> Iterator[tuple[int, Scores]]:
        """Run batches ahead, as many as there are threads; an array is used again when its batch was read."""
        longest = max((len(batch) for batch in batches), default=0)
        free = [np.zeros((longest, self._model.capacity), np.float32) for _ in range(threads + 1)]
        running: deque[tuple[list[_Held], Scores, Future[Scores]]] = deque()
        with ThreadPoolExecutor(threads, "hushrec-batch") as pool:
            waiting = deque(batches)
            while waiting or running:
                while waiting and free:
                    batch, array = waiting.popleft(), free.pop()
                    running.append((batch, array, pool.submit(self._run, batch, array[: len(batch)])))
                batch, array, future = running.popleft()
                yield from zip((one.at for one in batch), future.result(), strict=True)
                free.append(array)

    def _run(self, batch: list[_Held], scores: Scores) -> Scores:
        """Scores of histories of one length, written into an array of their number."""
        binding = self._session.io_binding()
        binding.bind_cpu_input("items", np.stack([one.items for one in batch]))
        behaviors = [one.behaviors for one in batch if one.behaviors is not None]
        if behaviors:
            binding.bind_cpu_input("behaviors", np.stack(behaviors))
        binding.bind_ortvalue_output("scores", ort.shared_value(scores))
        self._session.run_with_iobinding(binding)
        return scores


def _batches(held: list[_Held], most: int) -> list[list[_Held]]:
    """Group histories of one length, at most so many together, the shortest first."""
    batches = []
    for _, group in groupby(sorted(held, key=lambda one: len(one.items)), key=lambda one: len(one.items)):
        same = list(group)
        batches += [same[start : start + most] for start in range(0, len(same), most)]
    return batches


def _usable() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
