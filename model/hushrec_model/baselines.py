"""Rankings by counts alone, beside which every model is reported.

Each is a source of `hushrec.counts` over tables of the training part; what a source does not tell apart is ordered by
popularity.
"""

from collections.abc import Mapping

import numpy as np
from hushrec.counts import CountSource, Neighbours, Own, Popularity
from numpy.typing import NDArray

from hushrec_model.counting import next_items, recent_popularity
from hushrec_model.evaluate import evaluate
from hushrec_model.splits import Queries, Split

__all__ = ["CountScorer", "baseline_scorers"]

_MARKOV_DECAYS = (0.3, 0.6, 0.8, 0.95)
_CHOOSE_BY = 2_000  # validation queries


class CountScorer:
    """Ranks a catalogue by one count source.

    Args:
        source: Turns a history into counts.
        popularity: Orders what the source leaves equal, shape (V + 1,); equal ones go by index.
        filter_seen: Leave out the items of the history.
    """

    def __init__(self, source: CountSource, popularity: NDArray[np.float32], *, filter_seen: bool) -> None:
        self._source, self._filter_seen = source, filter_seen
        self._order = np.argsort(-popularity, kind="stable")
        self._place = np.argsort(self._order)

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """The k best items of some queries, shape (B, k), int32, best first; 0 where there are no more."""
        result = np.zeros((len(index), k), np.int32)
        total = np.zeros(len(self._order), np.float32)
        for row, query in enumerate(index):
            total[:] = 0
            history = queries.history(query).astype(np.int64)
            self._source.add(total, history[history > 0])
            total[0] = -np.inf
            if self._filter_seen:
                total[history] = -np.inf
            found = self._best(total, k)
            result[row, : len(found)] = found
        return result

    def _best(self, total: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """The k items with the highest counts; minus infinity takes an item out. Most counts are 0 for most sources."""
        found = np.flatnonzero(total > 0)
        if len(found) > k:
            counts = total[found]
            found = found[counts >= np.partition(counts, -k)[-k]]
        found = found[np.lexsort((self._place[found], -total[found]))][:k]
        rest = self._order[total[self._order] == 0] if len(found) < k else found[:0]
        return np.concatenate([found, rest[: k - len(found)]])


def baseline_scorers(split: Split, tables: Mapping[str, NDArray[np.generic]]) -> dict[str, CountScorer | None]:
    """Every baseline by its name in reports; recent_popularity is None without times.

    Args:
        split: Training part for the tables, validation to choose the decay of `markov`.
        tables: `hushrec_model.counting.count_tables` of the split.
    """
    items = len(split.items)
    popular: NDArray[np.float32] = tables["popularity"]  # type: ignore[assignment]
    recent = recent_popularity(split.train, items)
    last = {f"last.{field}": array for field, array in next_items(split.train, items).items()}

    def scorer(source: CountSource) -> CountScorer:
        return CountScorer(source, popular, filter_seen=split.filter_seen)

    def neighbours(name: str, decay: float, window: int) -> CountScorer:
        return scorer(Neighbours.named(tables, name, decay, window))

    markov = [neighbours("transitions", decay, 20) for decay in _MARKOV_DECAYS]
    sample = np.linspace(0, len(split.valid) - 1, min(_CHOOSE_BY, len(split.valid))).astype(np.int64)
    return {
        "popularity": scorer(Popularity(popular)),
        "recent_popularity": scorer(Popularity(recent)) if recent is not None else None,
        "markov": max(markov, key=lambda s: evaluate(s, split.valid, items, index=sample).ndcg),
        "last_item": scorer(Neighbours.named(last, "last", 1.0, 1)),
        "item_knn": neighbours("item_knn", 0.95, 50),
        "personal_frequency": scorer(Own(1.0, 0)),
    }
