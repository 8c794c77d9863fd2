"""The Transformer on the device: from a history of item indexes to a score for every item.

Runs the bundle's graphs in ONNX Runtime on one thread. Buffers are kept between calls, results are not. Knows nothing
of ids, counts or rules, which are `hushrec.ranking`'s. One engine serves one thread at a time.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hushrec_privacy.errors import BundleError, ConfigError
from numpy.typing import NDArray

from hushrec import ort
from hushrec.manifest import Manifest, ModelInfo
from hushrec.scorer import PackedScorer, PlainScorer, Scorer, ScorerName, choose_scorer

__all__ = ["Engine", "EngineBundle", "Memory"]

Indexes = NDArray[np.int64]
Vectors = NDArray[np.float32]


class EngineBundle(Protocol):
    """What an engine needs of a bundle; `hushrec.bundle.Bundle` is one."""

    @property
    def manifest(self) -> Manifest:
        """Its `model` is read."""

    def path(self, name: str) -> Path:
        """Path of a file of the bundle."""

    def array(self, name: str) -> NDArray[Any]:
        """A read-only view of an array of the bundle."""


class Memory(Protocol):
    """Keeps small values of this machine between runs; `hushrec.profile.Profile` is one."""

    def get(self, key: str) -> bytes | None:
        """Value of a key, None if there is none."""

    def put(self, key: str, value: bytes) -> None:
        """Set the value of a key."""


class Engine:
    """Encoder and scorer of one bundle.

    Args:
        bundle: An opened bundle.
        memory: Remembers which scorer is the faster one on this machine; None: measured each time.

    Raises:
        BundleError: ONNX Runtime cannot open a graph.

    Attributes:
        scorer: Which scorer this machine uses, "packed" or "plain".
    """

    def __init__(self, bundle: EngineBundle, memory: Memory | None = None) -> None:
        model = bundle.manifest.model
        self._user = np.zeros((1, model.width), np.float32)
        self._scores = np.zeros((1, model.capacity), np.float32)
        encoder = ort.open_aside(bundle.path("encoder.onnx"))
        try:
            scorers = _open_scorers(bundle, memory, self._user, self._scores)
        finally:
            session = encoder()
        self._encoder = _Encoder(session, model, self._user)
        self.scorer = _choose(scorers, memory, self._user, self._scores)
        self._scorer = scorers[self.scorer]

    def scores(self, items: Indexes, behaviors: Indexes | None = None) -> Vectors:
        """Score all rows of the item table after a history.

        Args:
            items: Item indexes, oldest first, shape (L,), L at least 1; the last Lmax count. An index outside the
                table counts as 0, an unknown item.
            behaviors: Their behaviour indexes, shape (L,); None: all 0. Not read if the bundle has one behaviour.

        Returns:
            Shape (capacity,); a buffer that the next call overwrites, the caller may change it until then. Row 0 and
            the spare rows hold no item: leave them out.

        Raises:
            ConfigError: The history is empty, the two have different lengths, or a behaviour does not exist.
        """
        self._encoder.encode(items, behaviors)
        self._scorer.score()
        scores: Vectors = self._scores[0]
        return scores


class _Encoder:
    """`encoder.onnx` over fixed buffers: for every length one view of the same input buffer, made when first needed."""

    def __init__(self, session: Any, model: ModelInfo, user: Vectors) -> None:
        max_history, behaviors = model.max_history, len(model.behaviors)
        self._session = session
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_output("user", ort.shared_value(user))
        self._max_history = max_history
        self._capacity = model.capacity
        self._items = np.zeros(max_history, np.int64)
        self._behaviors = np.zeros(max_history, np.int64) if behaviors > 1 else None
        self._behavior_count = behaviors
        self._views: dict[int, tuple[Any, Any]] = {}
        self._length = 0

    def encode(self, items: Indexes, behaviors: Indexes | None) -> None:
        """Write the user vector after a history into the buffer given at the start."""
        length = min(len(items), self._max_history)
        if not length:
            raise ConfigError("the history is empty; without events there is nothing to encode")
        self._items[:length] = items[-length:]
        # Older versions of ONNX Runtime refuse an index outside the table; seen as unsigned, negative ones are large.
        np.putmask(self._items[:length], self._items[:length].view(np.uint64) >= self._capacity, 0)
        if self._behaviors is not None:
            self._behaviors[:length] = 0 if behaviors is None else self._checked(items, behaviors)[-length:]
        if length != self._length:
            self._bind(length)
        self._session.run_with_iobinding(self._binding)

    def _checked(self, items: Indexes, behaviors: Indexes) -> Indexes:
        if len(behaviors) != len(items):
            raise ConfigError(f"{len(items)} items but {len(behaviors)} behaviours; every event has one of each")
        if behaviors.min() < 0 or behaviors.max() >= self._behavior_count:
            raise ConfigError(f"a behaviour index is not among the bundle's {self._behavior_count} behaviours")
        return behaviors

    def _bind(self, length: int) -> None:
        if length not in self._views:
            behaviors = None if self._behaviors is None else ort.shared_value(self._behaviors[None, :length])
            self._views[length] = ort.shared_value(self._items[None, :length]), behaviors
        items, behaviors = self._views[length]
        self._binding.bind_ortvalue_input("items", items)
        if behaviors is not None:
            self._binding.bind_ortvalue_input("behaviors", behaviors)
        self._length = length


def _open_scorers(
    bundle: EngineBundle, memory: Memory | None, user: Vectors, scores: Vectors
) -> dict[ScorerName, Scorer]:
    """The scorers that work here, but only one if memory knows it to be the faster."""
    scorers: dict[ScorerName, Scorer] = {}
    known = memory.get(_memory_key()) if memory else None
    if known != b"plain":
        with contextlib.suppress(BundleError):  # an older ONNX Runtime without these operators still has the table
            scorers["packed"] = PackedScorer(bundle.path("scorer.onnx"), user, scores)
    if known != b"packed" or not scorers:
        scorers["plain"] = PlainScorer(bundle.array("items.codes"), bundle.array("items.scales"), user, scores)
    return scorers


def _choose(scorers: Mapping[ScorerName, Scorer], memory: Memory | None, user: Vectors, scores: Vectors) -> ScorerName:
    """The faster one, measured if there are two, and remembered then."""
    if len(scorers) == 1:
        return next(iter(scorers))
    name = choose_scorer(scorers["packed"], scorers["plain"], user, scores)
    if memory:
        memory.put(_memory_key(), name.encode())
    return name


def _memory_key() -> str:
    return f"scorer/onnxruntime-{ort.version()}"
