"""How much a step of quantizing changed: overlap of top tens and NDCG@10.

Everything is measured on validation queries, never on the test.
"""

from dataclasses import dataclass

import numpy as np
from hushrec_model.evaluate import Scorer, evaluate
from hushrec_model.splits import Queries
from hushrec_privacy.errors import ToleranceError
from numpy.typing import NDArray

__all__ = ["Measured", "Tolerance", "Verification", "check", "measure", "overlap"]


@dataclass(frozen=True)
class Tolerance:
    """What a bundle may lose before it is not written. Every bound gets a margin for few queries.

    Attributes:
        overlap: Least share of the float model's ten best items that the int8 model also has.
        int8: Greatest share of NDCG@10 lost by int8 alone.
        total: Greatest share of NDCG@10 lost by pruning and int8 together.
    """

    overlap: float = 0.97
    int8: float = 0.01
    total: float = 0.03


@dataclass(frozen=True)
class Measured:
    """One scorer on the validation sample.

    Attributes:
        lists: Its ten best items a query, shape (Q, 10).
        ndcg: NDCG@10.
    """

    lists: NDArray[np.int32]
    ndcg: float


@dataclass(frozen=True)
class Verification:
    """Int8 against float of the same weights, and both against the unpruned model.

    Attributes:
        queries: Validation queries asked.
        model_overlap: Share of top tens kept by int8, Transformer alone.
        blend_overlap: The same for the blend.
        model_lost: Share of NDCG@10 lost by int8, Transformer alone; below 0 is a gain.
        blend_lost: The same for the blend.
        total_lost: Share of NDCG@10 lost from the trained to the pruned int8 Transformer.
    """

    queries: int
    model_overlap: float
    blend_overlap: float
    model_lost: float
    blend_lost: float
    total_lost: float


def measure(scorer: Scorer, queries: Queries, items: int, index: NDArray[np.int64]) -> Measured:
    """Rank some queries.

    Args:
        scorer: Who ranks.
        queries: Validation queries.
        items: V.
        index: Which queries, shape (Q,).
    """
    kept = _Keeping(scorer)
    ndcg = evaluate(kept, queries, items, index=index).ndcg
    return Measured(np.concatenate(kept.lists), ndcg)


class _Keeping:
    """Passes questions on and keeps the first ten of every answer."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self.lists = scorer, list[NDArray[np.int32]]()

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        found = self._scorer.top(queries, index, k)
        self.lists.append(found[:, :10])
        return found


def overlap(one: NDArray[np.int32], other: NDArray[np.int32]) -> float:
    """Mean share of each list of `one` that is also in the same list of `other`.

    Args:
        one: Item lists, shape (Q, K); 0 is no item.
        other: Shape (Q, K).

    >>> overlap(np.array([[1, 2]], np.int32), np.array([[2, 3]], np.int32))
    0.5
    """
    common = ((one[:, :, None] == other[:, None, :]) & (one[:, :, None] > 0)).any(2).sum(1)
    return float((common / np.maximum((one > 0).sum(1), 1)).mean())


def check(found: Verification, tolerance: Tolerance) -> None:
    """Refuse a bundle that lost too much.

    Raises:
        ToleranceError: Names every figure that is outside, its bound, and what to do.
    """
    margin = found.queries**-0.5
    kept, int8 = tolerance.overlap - 0.1 * margin, tolerance.int8 + 0.1 * margin
    least = (
        ("top-10 overlap of the Transformer", found.model_overlap, kept),
        ("top-10 overlap of the blend", found.blend_overlap, kept),
    )
    most = (
        ("NDCG@10 lost by int8", found.model_lost, int8),
        ("NDCG@10 lost by int8 in the blend", found.blend_lost, int8),
        ("NDCG@10 lost in all", found.total_lost, tolerance.total + margin),
    )
    broken = [f"{what} is {value:.4f}, allowed >= {bound:.4f}" for what, value, bound in least if value < bound]
    broken += [f"{what} is {value:.4f}, allowed <= {bound:.4f}" for what, value, bound in most if value > bound]
    if broken:
        raise ToleranceError(
            f"the bundle was not written: {'; '.join(broken)} ({found.queries:,} validation queries). "
            "Train longer, or prune less if --prune was given"
        )
