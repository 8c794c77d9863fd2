"""Why an item was recommended: a code out of a closed list and the shopper's own items behind it.

Computed for the few items that are shown, from the same tables that scored them. Speaks of items by index, which
`Recommender` turns into ids. Texts come from `TEMPLATES`, so that later work adds codes, not fields.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hushrec.counts import NEIGHBOUR_PARTS, fading
from hushrec.manifest import BlendPart
from hushrec.tables import dequantize_rows

__all__ = ["TEMPLATES", "Cause", "Explainer", "Reason", "ReasonCode"]

MAX_CAUSES = 3


class ReasonCode(enum.StrEnum):
    """Kind of reason; the first that fits is given."""

    AGAIN = "again"
    """The shopper had it before."""
    BECAUSE_OF = "because-of"
    """Shoppers of what this one had went on to it, or had both."""
    SIMILAR = "similar"
    """Nearest to something the shopper had."""
    POPULAR = "popular"
    """Nothing is known of the shopper yet."""
    NEW = "new"
    """It came to the catalogue after training."""


TEMPLATES: Mapping[ReasonCode, str] = {
    ReasonCode.AGAIN: "you had it before",
    ReasonCode.BECAUSE_OF: "because of {items}",
    ReasonCode.SIMILAR: "similar to {items}",
    ReasonCode.POPULAR: "popular in this shop",
    ReasonCode.NEW: "new in this shop",
}
"""English texts; `{items}` stands for the titles of the reason's items."""


class Reason(msgspec.Struct, frozen=True):
    """Why an item was recommended.

    Attributes:
        code: The kind of reason.
        items: Ids of the shopper's own items behind it, the strongest first; empty if there are none.
    """

    code: ReasonCode
    items: tuple[str, ...] = ()


class Cause(NamedTuple):
    """A reason in item indexes."""

    code: ReasonCode
    items: tuple[int, ...]


class _Table(NamedTuple):
    part: BlendPart
    items: NDArray[np.uint32]
    weights: NDArray[np.uint8]
    scales: NDArray[np.float32]


class Explainer:
    """Finds the reasons of recommended items. Not thread-safe.

    Args:
        parts: Parts of the blend.
        arrays: Arrays of the bundle by name.
        history: How many of the last events an item may be similar to.
    """

    def __init__(self, parts: Sequence[BlendPart], arrays: Mapping[str, NDArray[Any]], history: int) -> None:
        self._history = history
        self._codes, self._scale = arrays["items.codes"], float(arrays["items.scale"][0])
        self._tables = [
            _Table(part, *(arrays[f"{part.name}.{field}"] for field in ("items", "weights", "scales")))
            for part in parts
            if part.name in NEIGHBOUR_PARTS and part.weight > 0
        ]
        self._shown = np.zeros(len(arrays["popularity"]), np.bool_)

    def explain(self, shown: NDArray[np.int64], own: NDArray[np.int64], again: Sequence[bool]) -> list[Cause]:
        """Give one reason for every item shown.

        Args:
            shown: Different item indexes, shape (K,).
            own: Items of the shopper's known events, oldest first, shape (n,).
            again: For every item shown whether the shopper had it before, length K.

        Returns:
            K reasons in the order of `shown`.
        """
        if not len(own):
            return [Cause(ReasonCode.POPULAR, ())] * len(shown)
        indexes: list[int] = shown.tolist()
        fresh = [index for index, before in zip(indexes, again, strict=True) if not before]
        shares = self._shares(fresh, own) if fresh else {}
        far = [index for index in fresh if index not in shares]
        nearest = dict(zip(far, self._nearest(far, own), strict=True)) if far else {}
        causes = []
        for index, before in zip(indexes, again, strict=True):
            if before:
                causes.append(Cause(ReasonCode.AGAIN, (index,)))
            elif index in nearest:
                causes.append(Cause(ReasonCode.SIMILAR, (nearest[index],)))
            else:
                causes.append(Cause(ReasonCode.BECAUSE_OF, _strongest(shares[index])))
        return causes

    def _shares(self, shown: list[int], own: NDArray[np.int64]) -> dict[int, dict[int, float]]:
        """For items that the tables gave something: what each own item gave, in units of the score."""
        shares: dict[int, dict[int, float]] = {}
        self._shown[shown] = True
        for part, items, weights, scales in self._tables:
            recent = own[-part.window :]
            near = items.take(recent, axis=0)
            hits = self._shown.take(near).ravel().nonzero()[0]
            if not len(hits):
                continue
            events = hits // near.shape[1]
            steps = (
                weights.take(recent, axis=0).ravel()[hits] * (scales[recent] * fading(part.decay, len(recent)))[events]
            )
            counts: dict[int, dict[int, float]] = {}
            for item, event, step in zip(
                near.ravel()[hits].tolist(), recent[events].tolist(), steps.tolist(), strict=True
            ):
                count = counts.get(item)
                if count is None:
                    counts[item] = {event: step}
                else:
                    count[event] = count.get(event, 0.0) + step
            _share_gains(part, counts, shares)
        self._shown[shown] = False
        return shares

    def _nearest(self, shown: list[int], own: NDArray[np.int64]) -> list[int]:
        """The own item whose vector is nearest, for each item."""
        recent = own[-self._history :]
        both = np.concatenate([recent, shown])
        vectors = dequantize_rows(self._codes.take(both, axis=0), self._scale)
        nearness = vectors[len(recent) :] @ vectors[: len(recent)].T
        nearest: list[int] = recent[nearness.argmax(axis=1)].tolist()
        return nearest


def _share_gains(part: BlendPart, counts: dict[int, dict[int, float]], shares: dict[int, dict[int, float]]) -> None:
    """Split weight · log1p(x / epsilon) of every item among the events, in proportion to what each added to x."""
    for item, count in counts.items():
        total = sum(count.values())
        if total <= 0:
            continue
        gain = part.weight * math.log1p(total / part.epsilon) / total
        share = shares.setdefault(item, {})
        for event, step in count.items():
            share[event] = share.get(event, 0.0) + gain * step


def _strongest(share: dict[int, float]) -> tuple[int, ...]:
    if len(share) == 1:
        return tuple(share)
    return tuple(sorted(share, key=share.__getitem__, reverse=True)[:MAX_CAUSES])
