"""Evaluates a bundle through the very ranking that a device runs: the same engine, counts, rules and top-k."""

from collections.abc import Sequence

import numpy as np
from hushrec.bundle import Bundle
from hushrec.engine import Engine
from hushrec.manifest import BlendPart
from hushrec.ranking import Request, bundle_ranking
from hushrec_model.splits import Queries
from numpy.typing import NDArray

__all__ = ["BundleScorer"]


class BundleScorer:
    """Ranks the catalogue of a bundle; items and behaviours of the queries have the bundle's indexes.

    Args:
        bundle: An opened bundle.
        filter_seen: Leave out the items of the history.
        blend: Parts of the blend; None: the bundle's own; empty: the Transformer alone.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        filter_seen: bool,
        blend: Sequence[BlendPart] | None = None,
    ) -> None:
        model = bundle.manifest.model
        self._ranking = bundle_ranking(bundle, Engine(bundle, _PackedIsFaster()), blend)
        self._filter_seen, self._items = filter_seen, model.items

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """The k best items of some queries, shape (B, k), int32, best first; 0 where there are no more."""
        result = np.zeros((len(index), k), np.int32)
        for row, query in enumerate(index):
            span = slice(queries.start[query], queries.stop[query])
            items = queries.events.item[span].astype(np.int64)
            behaviors = queries.events.behavior[span].astype(np.int64)
            known = (items > 0) & (items <= self._items)
            items, behaviors = items[known], behaviors[known]
            request = Request(items, behaviors, k, hidden=items if self._filter_seen else None)
            found = self._ranking.rank(request).items
            result[row, : len(found)] = found
        return result


class _PackedIsFaster:
    """The engine's memory of a machine on which the packed scorer won: its rounding is not the plain one's, and a race
    of the two must not decide what an evaluation finds."""

    def get(self, key: str) -> bytes | None:  # noqa: ARG002
        return b"packed"

    def put(self, key: str, value: bytes) -> None:
        """Nothing is measured, so nothing comes."""
