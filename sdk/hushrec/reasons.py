"""Why an item was recommended: a code out of a closed list and the shopper's own items behind it.

Computed for the few items that are shown, from the same tables that scored them. Speaks of items by index, which
`Recommender` turns into ids. Texts come from `TEMPLATES`, so that later work adds codes, not fields.
"""

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hushrec.counts import NEIGHBOUR_PARTS, _fading
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
        self._codes, self._scales = arrays["items.codes"], arrays["items.scales"]
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
        shares = self._shares(shown, own)
        causes: list[Cause | None] = []
        for index, before in zip(indexes, again, strict=True):
            if before:
                causes.append(Cause(ReasonCode.AGAIN, (index,)))
            elif index in shares:
                share = shares[index]
                strongest = sorted(share, key=share.__getitem__, reverse=True)[:MAX_CAUSES]
                causes.append(Cause(ReasonCode.BECAUSE_OF, tuple(strongest)))
            else:
                causes.append(None)
        nearest = self._nearest([index for index, cause in zip(indexes, causes, strict=True) if cause is None], own)
        return [cause or Cause(ReasonCode.SIMILAR, (next(nearest),)) for cause in causes]

    def _shares(self, shown: NDArray[np.int64], own: NDArray[np.int64]) -> dict[int, dict[int, float]]:
        """For items that the tables gave something: each own item's share of it, in units of the score."""
        shares: dict[int, dict[int, float]] = {}
        self._shown[shown] = True
        for part, items, weights, scales in self._tables:
            recent = own[-part.window :]
            near = items[recent]
            hits = self._shown[near].ravel().nonzero()[0]
            if not len(hits):
                continue
            events = hits // near.shape[1]
            steps = weights[recent].ravel()[hits] * (scales[recent] * _fading(part.decay, len(recent)))[events]
            counts: dict[int, dict[int, float]] = {}
            for item, event, step in zip(
                near.ravel()[hits].tolist(), recent[events].tolist(), steps.tolist(), strict=True
            ):
                count = counts.setdefault(item, {})
                count[event] = count.get(event, 0.0) + step
            for item, count in counts.items():
                _share_gain(part, count, shares.setdefault(item, {}))
        self._shown[shown] = False
        return shares

    def _nearest(self, shown: list[int], own: NDArray[np.int64]) -> Iterator[int]:
        """The own item whose vector is nearest, for each item."""
        if not shown:
            return iter(())
        recent = own[-self._history :]
        vectors = dequantize_rows(self._codes[recent], self._scales[recent])
        wanted = dequantize_rows(self._codes[shown], self._scales[shown])
        best: list[int] = recent[(wanted @ vectors.T).argmax(axis=1)].tolist()
        return iter(best)


def _share_gain(part: BlendPart, count: dict[int, float], share: dict[int, float]) -> None:
    """Split weight · log1p(x / epsilon) among the events in proportion to what each added to x."""
    total = sum(count.values())
    if total <= 0:
        return
    gain = part.weight * math.log1p(total / part.epsilon) / total
    for event, step in count.items():
        share[event] = share.get(event, 0.0) + gain * step
