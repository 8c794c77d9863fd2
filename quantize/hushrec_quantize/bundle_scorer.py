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
        self._ranking = bundle_ranking(bundle, Engine(bundle, scorer="product"), blend)  # no race decides what is found
        self._filter_seen, self._items = filter_seen, model.items

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """The k best items of some queries, shape (B, k), int32, best first; 0 where there are no more."""
        result = np.zeros((len(index), k), np.int32)
        if len(index) == 1:
            ranked = [self._ranking.rank(self._request(queries, index[0], k))]
        else:
            ranked = self._ranking.rank_many([self._request(queries, query, k) for query in index], threads=1)
        for row, found in zip(result, ranked, strict=True):
            row[: len(found.items)] = found.items
        return result

    def _request(self, queries: Queries, query: np.int64, k: int) -> Request:
        span = slice(queries.start[query], queries.stop[query])
        items = queries.events.item[span].astype(np.int64)
        behaviors = queries.events.behavior[span].astype(np.int64)
        known = (items > 0) & (items <= self._items)
        items, behaviors = items[known], behaviors[known]
        return Request(items, behaviors, k, hidden=items if self._filter_seen else None)
