"""Evaluate any scorer by full ranking: histories in, the best items out, compared with what came next.

One protocol for the model, the blend, its parts, every baseline and the device runtime. Scorers rank the whole
catalogue; nothing is sampled.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError, DataError
from numpy.typing import NDArray

from hushrec_model import metrics
from hushrec_model.sequences import Queries
from hushrec_model.splits import Split

__all__ = ["LIST_LENGTH", "Metrics", "Scorer", "cold_items", "evaluate"]

LIST_LENGTH = 100  # items asked of a scorer; a target beyond counts as not found
_BATCH = 4096  # queries at once: bounds the memory of the lists, scorers bound their own


class Scorer(Protocol):
    """What can be evaluated."""

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """The k best items of some queries.

        Args:
            queries: Histories; the targets are not for the scorer to look at.
            index: Which of them, shape (B,).
            k: How many items.

        Returns:
            Distinct items, 1 to V, best first, shape (B, k); 0 where there are no more.
        """
        ...


@dataclass(frozen=True)
class Metrics:
    """Means over queries.

    Attributes:
        queries: How many: one a user, or one a prefix of a session.
        items: V, the items that were ranked.
        k: Length of the lists that hr, ndcg and coverage look at.
        hr: HR@k, the share of queries with a target among the first k.
        ndcg: NDCG@k.
        mrr: Mean reciprocal rank, 0 beyond rank 100.
        coverage: Share of the catalogue in any list of k.
        cold_queries: Queries with a target that is known but never occurs in training.
        cold_hr: HR@k over those queries, counting such targets only; NaN if there are none.
        cold_ndcg: NDCG@k likewise.
    """

    queries: int
    items: int
    k: int
    hr: float
    ndcg: float
    mrr: float
    coverage: float
    cold_queries: int
    cold_hr: float
    cold_ndcg: float

    def to_dict(self) -> dict[str, float | int | None]:
        """The numbers by their names in reports; None for what no query asked for.

        >>> Metrics(1, 2, 10, 1.0, 0.5, 0.25, 0.1, 0, float("nan"), float("nan")).to_dict()["ndcg@10"]
        0.5
        """
        cold = {f"cold_hr@{self.k}": self.cold_hr, f"cold_ndcg@{self.k}": self.cold_ndcg}
        return {
            "users": self.queries,
            "items": self.items,
            f"hr@{self.k}": self.hr,
            f"ndcg@{self.k}": self.ndcg,
            "mrr": self.mrr,
            f"coverage@{self.k}": self.coverage,
            "cold_queries": self.cold_queries,
            **{name: value if self.cold_queries else None for name, value in cold.items()},
        }


def cold_items(split: Split) -> NDArray[np.bool_]:
    """Which items of the catalogue never occur in training, shape (V + 1,); entry 0 is no item."""
    cold = np.ones(len(split.items) + 1, bool)
    cold[split.train.item] = False
    cold[0] = False
    return cold


def evaluate(
    scorer: Scorer,
    queries: Queries,
    items: int,
    k: int = 10,
    *,
    index: NDArray[np.int64] | None = None,
    cold: NDArray[np.bool_] | None = None,
) -> Metrics:
    """Ask a scorer every query and compare its lists with the targets.

    Args:
        scorer: What is evaluated.
        queries: Histories and targets.
        items: V, the size of the catalogue.
        k: How many items of each list count, at most 100.
        index: Which queries to ask, shape (Q,); None: all.
        cold: `cold_items` of the split; None: the cold slice is left out.

    Returns:
        Means over the queries asked.

    Raises:
        ConfigError: `k` is not 1 to 100.
        DataError: There are no queries.

    A scorer that always lists the items 2 and 1, asked for 1 and then for 3: one hit at rank 2.

    >>> from hushrec_model.sequences import Sequences
    >>> class Always:
    ...     def top(self, queries, index, k):
    ...         return np.tile(np.array([2, 1] + [0] * (k - 2)), (len(index), 1))
    >>> events = Sequences(np.array([0, 2]), np.array([3, 2]), np.zeros(2, np.int8), None, None)
    >>> asked = Queries(events, np.array([0, 0]), np.array([1, 2]), np.array([0, 1, 2]), np.array([1, 3]))
    >>> found = evaluate(Always(), asked, 3)
    >>> found.hr, found.mrr, round(found.coverage, 3)
    (0.5, 0.25, 0.667)
    """
    checks.at_least(1, k=k, items=items)
    if k > LIST_LENGTH:
        raise ConfigError(f"k is {k}; scorers are asked for {LIST_LENGTH} items, so it must be at most that")
    asked = np.arange(len(queries), dtype=np.int64) if index is None else index
    if not len(asked):
        raise DataError("there is no query to evaluate")
    shown = np.zeros(items + 1, bool)
    cold = np.zeros(items + 1, bool) if cold is None else cold
    totals = _Totals()
    for first in range(0, len(asked), _BATCH):
        batch = asked[first : first + _BATCH]
        ranked = scorer.top(queries, batch, LIST_LENGTH)
        shown[ranked[:, :k]] = True
        offsets, target = _targets(queries, batch)
        totals.add(ranked, offsets, target, k)
        totals.add_cold(ranked, *_only(offsets, target, cold[target]), k)
    return totals.metrics(len(asked), items, k, metrics.coverage(shown, items))


class _Totals:
    """Sums over batches."""

    def __init__(self) -> None:
        self.hr = self.ndcg = self.mrr = self.cold_hr = self.cold_ndcg = 0.0
        self.cold_queries = 0

    def add(self, ranked: NDArray[np.int32], offsets: NDArray[np.int64], target: NDArray[np.int32], k: int) -> None:
        hit = metrics.hits(ranked, target, offsets)
        self.hr += float(metrics.hit_rate(hit, k).sum())
        self.ndcg += float(metrics.ndcg(hit, np.diff(offsets), k).sum())
        self.mrr += float(metrics.reciprocal_rank(hit).sum())

    def add_cold(
        self, ranked: NDArray[np.int32], offsets: NDArray[np.int64], target: NDArray[np.int32], k: int
    ) -> None:
        counts = np.diff(offsets)
        with_cold = counts > 0
        hit = metrics.hits(ranked, target, offsets)[with_cold]
        self.cold_queries += int(with_cold.sum())
        self.cold_hr += float(metrics.hit_rate(hit, k).sum())
        self.cold_ndcg += float(metrics.ndcg(hit, counts[with_cold], k).sum())

    def metrics(self, queries: int, items: int, k: int, coverage: float) -> Metrics:
        cold = self.cold_queries
        return Metrics(
            queries=queries,
            items=items,
            k=k,
            hr=self.hr / queries,
            ndcg=self.ndcg / queries,
            mrr=self.mrr / queries,
            coverage=coverage,
            cold_queries=cold,
            cold_hr=self.cold_hr / cold if cold else float("nan"),
            cold_ndcg=self.cold_ndcg / cold if cold else float("nan"),
        )


def _targets(queries: Queries, batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The targets of some queries end to end: their bounds, shape (B + 1,), and the items, shape (T,)."""
    start, stop = queries.target_offsets[batch], queries.target_offsets[batch + 1]
    offsets = np.append(np.zeros(1, np.int64), np.cumsum(stop - start))
    at = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], stop - start)
    return offsets, queries.target[at]


def _only(
    offsets: NDArray[np.int64], target: NDArray[np.int32], kept: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Leave out some targets; a query may be left with none."""
    before = np.append(np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64))
    return np.asarray(before[offsets], np.int64), target[kept]
