"""From a history to the items to show: a fixed chain of stages, each from a score an item to a score an item.

    candidates   the Transformer's scores, or popularity if nothing is known of the shopper
    blend        adds the counts
    rules        takes out what must not be shown

and then the best k. A new feature is a stage in `Ranking`, never a branch in a caller. Scores are one array of the
item table's capacity; minus infinity takes an item out.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from hushrec_privacy.errors import BundleError, ConfigError
from numpy.typing import NDArray

from hushrec.batch import Histories
from hushrec.bundle import Bundle
from hushrec.counts import Blend
from hushrec.manifest import BlendPart, ModelInfo
from hushrec.topk import top_k

__all__ = [
    "BlendCounts",
    "Candidates",
    "Ranked",
    "Ranking",
    "Request",
    "Rules",
    "Scorer",
    "Scores",
    "Stage",
    "bundle_ranking",
    "ranking_arrays",
]

Scores = NDArray[np.float32]


class Scorer(Protocol):
    """The Transformer, as ranking needs it; `hushrec.engine.Engine` is one."""

    def scores(self, items: NDArray[np.int64], behaviors: NDArray[np.int64]) -> Scores:
        """Score all items, shape (capacity,); the caller may change the array until the next call."""

    def scores_many(self, histories: Histories, *, threads: int | None = None) -> Iterator[tuple[int, Scores]]:
        """Yield the position of each history and its scores, in any order; each array as that of `scores`."""


class Request(NamedTuple):
    """What to rank for.

    Attributes:
        items: Item indexes of the shopper's known events, oldest first, shape (n,).
        behaviors: Their behaviour indexes, shape (n,).
        k: How many items, at least 0.
        hidden: Items that must not be shown, shape (m,).
        allowed: Items that may be shown, shape (V + 1,); None: all.
    """

    items: NDArray[np.int64]
    behaviors: NDArray[np.int64]
    k: int
    hidden: NDArray[np.int64] | None = None
    allowed: NDArray[np.bool_] | None = None


class Ranked(NamedTuple):
    """The best items, best first.

    Attributes:
        items: Different item indexes, shape (K,), K at most k.
        scores: Falling, shape (K,).
    """

    items: NDArray[np.int64]
    scores: Scores


class Stage(Protocol):
    """One step of the chain; may change the scores it is given."""

    def __call__(self, request: Request, scores: Scores, /) -> Scores:
        """Give the scores after this step, shape (capacity,)."""


class Candidates:
    """Scores of the Transformer; popularity for a shopper of whom nothing is known.

    Args:
        scorer: The Transformer.
        popularity: How often shoppers took each item, shape (V + 1,).
        model: Its capacity is the length of the scores.
    """

    def __init__(self, scorer: Scorer, popularity: Scores, model: ModelInfo) -> None:
        self._scorer, self._popularity, self._capacity = scorer, popularity, model.capacity

    def one(self, request: Request) -> Scores:
        """Scores for one request, shape (capacity,)."""
        if not len(request.items):
            return self._popular()
        return self._scorer.scores(request.items, request.behaviors)

    def many(self, requests: Sequence[Request], threads: int | None) -> Iterator[tuple[int, Scores]]:
        """Yield the position of each request and its scores, in any order; an array lasts until the next."""
        known = [at for at, request in enumerate(requests) if len(request.items)]
        histories = [(requests[at].items, requests[at].behaviors) for at in known]
        for place, scores in self._scorer.scores_many(histories, threads=threads):
            yield known[place], scores
        for at, request in enumerate(requests):
            if not len(request.items):
                yield at, self._popular()

    def _popular(self) -> Scores:
        scores = np.full(self._capacity, -np.inf, np.float32)
        scores[: len(self._popularity)] = self._popularity
        return scores


class BlendCounts:
    """Adds the counts of the shopper and of the fleet.

    Args:
        blend: Counts and their weights.
    """

    def __init__(self, blend: Blend) -> None:
        self._blend = blend

    def __call__(self, request: Request, scores: Scores) -> Scores:
        """See `Stage`."""
        self._blend.add_to(scores, request.items)
        return scores


class Rules:
    """Takes out padding, spare rows, hidden items, and all that is not allowed.

    Args:
        items: V, the number of items.
    """

    def __init__(self, items: int) -> None:
        self._items = items

    def __call__(self, request: Request, scores: Scores) -> Scores:
        """See `Stage`."""
        scores[0] = -np.inf
        scores[self._items + 1 :] = -np.inf
        if request.hidden is not None:
            scores[request.hidden] = -np.inf
        if request.allowed is not None:
            np.copyto(scores[: self._items + 1], -np.inf, where=~request.allowed)
        return scores


class Ranking:
    """The chain. Not thread-safe: scorer and blend reuse their arrays.

    Args:
        candidates: Where it begins.
        stages: What follows, in order.
    """

    def __init__(self, candidates: Candidates, stages: tuple[Stage, ...]) -> None:
        self._candidates, self._stages = candidates, stages

    def rank(self, request: Request) -> Ranked:
        """Give the best `request.k` items, fewer if fewer may be shown; equal scores by index."""
        return self._finish(request, self._candidates.one(request))

    def rank_many(self, requests: Sequence[Request], *, threads: int | None = None) -> list[Ranked]:
        """Rank many requests in less time than one by one, as on a server or in an evaluation.

        Args:
            requests: Each as for `rank`.
            threads: How many score; None: as many as this process may use.

        Returns:
            One list a request; scores differ from those of `rank` by rounding only.
        """
        ranked: dict[int, Ranked] = {}
        for at, scores in self._candidates.many(requests, threads):
            ranked[at] = self._finish(requests[at], scores)
        return [ranked[at] for at in range(len(requests))]

    def _finish(self, request: Request, scores: Scores) -> Ranked:
        for stage in self._stages:
            scores = stage(request, scores)
        return Ranked(*top_k(scores, request.k))


def ranking_arrays(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """Map the arrays of a bundle that ranking and its reasons read: all but those for items that arrive later."""
    return {name: bundle.array(name) for name in bundle.manifest.arrays if not name.startswith("features.")}


def bundle_ranking(bundle: Bundle, scorer: Scorer, blend: Sequence[BlendPart] | None = None) -> Ranking:
    """Build the chain that a bundle is used with, on the device and when it is evaluated.

    Args:
        bundle: An opened bundle.
        scorer: Its engine.
        blend: Parts of the blend; None: the bundle's own; empty: the Transformer alone.

    Raises:
        BundleError: The blend names a part or a table that the bundle does not have.
    """
    model, parts = bundle.manifest.model, bundle.manifest.blend if blend is None else blend
    arrays = ranking_arrays(bundle)
    try:
        counts = Blend(parts, arrays)
    except ConfigError as error:
        raise BundleError(f"{bundle.root}: {error.message}; fetch the bundle again or update hushrec") from error
    return Ranking(Candidates(scorer, arrays["popularity"], model), (BlendCounts(counts), Rules(model.items)))
