"""The Transformer on the device: from a history of item indexes to a score for every item.

Runs the bundle's graphs in ONNX Runtime on one thread. Buffers are kept between calls, results are not. Knows nothing
of ids, counts or rules, which are `hushrec.ranking`'s. One engine serves one thread at a time.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hushrec_privacy.checks import at_least, one_of
from hushrec_privacy.errors import BundleError, ConfigError
from numpy.typing import NDArray

from hushrec import ort
from hushrec.batch import BatchScorer, Histories
from hushrec.history_buffer import HistoryBuffer, TableFile
from hushrec.huge_pages import huge_pages
from hushrec.manifest import Manifest
from hushrec.scorer import GraphScorer, PlainScorer, Scorer, ScorerName, block_views, fastest, open_product
from hushrec.tables import WIDTH, items_layout
from hushrec.topk import top_k

__all__ = ["Engine", "EngineBundle", "Memory"]

Indexes = NDArray[np.int64]
Scores = NDArray[np.float32]

_FITS = 131_072  # rows; a larger table leaves the caches, and "product" is slower then than "blocks" everywhere seen
_SEED = 20


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
        memory: Remembers which scorer is the fastest one on this machine; None: measured each time.
        scorer: The one to use, whichever is faster: scores of different ones differ by rounding. None: the fastest.

    Raises:
        BundleError: ONNX Runtime cannot open a graph.
        ConfigError: There is no scorer of that name.

    Attributes:
        scorer: Which scorer this machine uses: "product", "blocks" or "plain".
    """

    def __init__(self, bundle: EngineBundle, memory: Memory | None = None, *, scorer: ScorerName | None = None) -> None:
        model = bundle.manifest.model
        self._bundle, self._items, self._filter_seen = bundle, model.items, model.filter_seen
        self._scores = np.zeros((1, model.capacity), np.float32)
        self._history = HistoryBuffer(model)
        self._batch: BatchScorer | None = None
        ways: dict[ScorerName, Callable[[], Scorer]] = {
            "plain": self._plain,
            "product": self._product,
            "blocks": self._blocks,
        }
        if scorer:
            one_of(tuple(ways), scorer=scorer)
        self.scorer, self._scorer = (scorer, ways[scorer]()) if scorer else self._choose(ways, memory)

    def scores(self, items: Indexes, behaviors: Indexes | None = None) -> Scores:
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
        self._history.hold(items, behaviors)
        self._scorer.score()
        scores: Scores = self._scores[0]
        return scores

    def scores_many(self, histories: Histories, *, threads: int | None = None) -> Iterator[tuple[int, Scores]]:
        """Score all rows of the item table after each of many histories, many at a time.

        For a server or for work offline: less time a history, more memory. The order is that of their lengths.

        Args:
            histories: Pairs of item and behaviour indexes, each as for `scores`; behaviours may be None.
            threads: How many work on it; None: as many as this process may use.

        Yields:
            The position of a history, and its scores, as `scores` gives them up to rounding.

        Raises:
            ConfigError: As for `scores`, or `threads` is below 1.
        """
        if self._batch is None:
            self._batch = BatchScorer(self._bundle, self.scores)
        return self._batch.scores(histories, threads)

    def recommend_many(
        self,
        histories: Sequence[Indexes],
        k: int = 10,
        *,
        behaviors: Sequence[Indexes] | None = None,
        exclude_seen: bool | None = None,
        threads: int | None = None,
    ) -> tuple[Indexes, Scores]:
        """Give the best items for many histories, by the Transformer alone; `Ranking.rank_many` blends counts, too.

        Args:
            histories: N histories of item indexes, each as for `scores`.
            k: How many items for each, at least 0.
            behaviors: Their behaviours, aligned; None: all 0.
            exclude_seen: Leave out the items of the history; None: as the bundle says.
            threads: See `scores_many`.

        Returns:
            Item indexes, shape (N, K), best first, 0 where there are no more; and scores, float32, minus infinity
            there. K is k, or the size of the catalogue if that is less.

        Raises:
            ConfigError: As for `scores`; or `k` is no number of items, or behaviours are of another number of
                histories.
        """
        at_least(0, k=k)
        if behaviors is not None and len(behaviors) != len(histories):
            raise ConfigError(f"{len(histories)} histories but behaviours of {len(behaviors)}; give each its own")
        pairs = [(items, None if behaviors is None else behaviors[at]) for at, items in enumerate(histories)]
        hide = self._filter_seen if exclude_seen is None else exclude_seen
        shape = len(pairs), min(k, self._items)
        best, values = np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32)
        for at, scores in self.scores_many(pairs, threads=threads):
            scores[0] = scores[self._items + 1 :] = -np.inf
            if hide:
                seen = np.asarray(histories[at])
                scores[seen[(seen > 0) & (seen <= self._items)]] = -np.inf
            found, reached = top_k(scores, k)
            best[at, : len(found)], values[at, : len(found)] = found, reached
        return best, values

    def _choose(
        self, ways: Mapping[ScorerName, Callable[[], Scorer]], memory: Memory | None
    ) -> tuple[ScorerName, Scorer]:
        """The fastest scorer, measured if none is remembered."""
        capacity = self._scores.shape[1]
        key = f"scorer/{capacity}/onnxruntime-{ort.version()}"
        known = (memory.get(key) or b"").decode("ascii", "replace") if memory else ""
        for name, make in ways.items():
            if name == known:
                with contextlib.suppress(BundleError):  # measured with another ONNX Runtime of this version
                    return name, make()
        left_out = {"product"} if capacity > _FITS else set()
        self._history.hold(np.random.default_rng(_SEED).integers(1, self._items + 1, 50))
        name, scorer = fastest({name: make for name, make in ways.items() if name not in left_out}, self._scores)
        if name != "blocks":
            self._history.use_table(None)
        if memory:
            memory.put(key, name.encode())
        return name, scorer

    def _plain(self) -> Scorer:
        codes, scale = self._bundle.array("items.codes"), float(self._bundle.array("items.scale")[0])
        user = np.zeros((1, WIDTH), np.float32)
        session = ort.open_session(self._bundle.path("encoder.onnx"))
        return PlainScorer(GraphScorer(session, self._history, {"user": user}), user, codes, scale, self._scores)

    def _product(self) -> Scorer:
        session = open_product(self._bundle.path("scorer.onnx"))
        return GraphScorer(session, self._history, {"scores": self._scores})

    def _blocks(self) -> Scorer:
        layout = items_layout(self._scores.shape[1])
        self._history.use_table(TableFile(self._bundle.path("items.bin"), layout.codes_offset))
        with huge_pages():
            session = ort.open_session(self._bundle.path("blocks.onnx"))
        return GraphScorer(session, self._history, block_views(session.get_outputs(), self._scores))
