"""Scores from counts: what the shopper did before, and what the fleet's shoppers did next.

The one implementation of count-table scoring, used by the device and by the baselines of training alike. A source
turns a history into counts x of a few items; the blend adds weight · log1p(x / epsilon) of every source to the scores
of the Transformer. Item index 0 is padding and keeps whatever falls on it: nobody reads it. Not thread-safe: each
object owns one buffer of V + 1 floats.

Shapes: V items, K neighbours a row, n events of a history (oldest first).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from hushrec_privacy.errors import BundleError, ConfigError
from numpy.typing import NDArray

__all__ = ["Blend", "CountSource", "Neighbours", "Own", "Part", "Popularity", "count_sources", "fading"]

NEIGHBOUR_PARTS = ("transitions", "successors", "item_knn", "similar")
FIXED_PARTS = ("popularity", "unseen")


class Part(Protocol):
    """How one source enters the blend (see `hushrec.manifest.BlendPart`)."""

    @property
    def name(self) -> str:
        """Which source: own, transitions, successors, item_knn, similar, popularity or unseen."""

    @property
    def weight(self) -> float:
        """In units of the Transformer's scores."""

    @property
    def epsilon(self) -> float:
        """Count at which the logarithm starts to bend."""

    @property
    def decay(self) -> float:
        """Weight of an event against the next younger one."""

    @property
    def window(self) -> int:
        """How many of the last events count; 0: all."""


class CountSource(Protocol):
    """Turns a history into counts of items."""

    def add(self, total: NDArray[np.float32], history: NDArray[np.int64]) -> NDArray[np.integer]:
        """Add the counts of a history to `total`, shape (at least V + 1,), in place.

        Args:
            total: Counts so far.
            history: Item indexes, oldest first, shape (n,).

        Returns:
            The indexes that were added to; some may repeat.
        """


class Own:
    """The shopper's own events: each adds decay^age to its item.

    Args:
        decay: Weight of an event against the next younger one; 1 counts all alike.
        window: How many of the last events count; 0: all.

    >>> total = np.zeros(5, np.float32)
    >>> _ = Own(0.5, 0).add(total, np.array([3, 4, 3]))
    >>> total.tolist()
    [0.0, 0.0, 0.0, 1.25, 0.5]
    """

    def __init__(self, decay: float, window: int) -> None:
        self._decay, self._window = decay, window

    def add(self, total: NDArray[np.float32], history: NDArray[np.int64]) -> NDArray[np.integer]:
        """See `CountSource.add`."""
        recent = history[-self._window :]
        np.add.at(total, recent, fading(self._decay, len(recent)))
        return recent


class Neighbours:
    """The fleet's tables: each event adds decay^age times the weights of its item's neighbours.

    Args:
        items: Neighbours of each item, shape (V + 1, K), uint32; 0 fills short rows.
        weights: Their weights in steps of the row's scale, shape (V + 1, K), uint8.
        scales: Weight of one step, shape (V + 1,), float32.
        decay: Weight of an event against the next younger one.
        window: How many of the last events count; 0: all.
    """

    def __init__(
        self,
        items: NDArray[np.uint32],
        weights: NDArray[np.uint8],
        scales: NDArray[np.float32],
        decay: float,
        window: int,
    ) -> None:
        self._items, self._weights, self._scales = items, weights, scales
        self._decay, self._window = decay, window

    @classmethod
    def named(cls, arrays: Mapping[str, NDArray[np.generic]], name: str, decay: float, window: int) -> "Neighbours":
        """Take the table from `NAME.items`, `NAME.weights` and `NAME.scales`.

        Raises:
            KeyError: One of them is missing.
        """
        items: Any = arrays[f"{name}.items"]
        weights: Any = arrays[f"{name}.weights"]
        scales: Any = arrays[f"{name}.scales"]
        return cls(items, weights, scales, decay, window)

    def add(self, total: NDArray[np.float32], history: NDArray[np.int64]) -> NDArray[np.integer]:
        """See `CountSource.add`."""
        recent = history[-self._window :]
        near = self._items.take(recent, axis=0).ravel().astype(np.intp)
        factor = self._scales.take(recent) * fading(self._decay, len(recent))
        np.add.at(total, near, (self._weights.take(recent, axis=0) * factor[:, None]).ravel())
        return near

    def of(self, event: int) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Neighbours of one item and their weights, both of shape (K,)."""
        return self._items[event], self._weights[event] * self._scales[event]


class Popularity:
    """The same count of each item whatever the history: how often all shoppers took it, or whether it is unseen.

    Args:
        counts: Shape (V + 1,), float32.
    """

    def __init__(self, counts: NDArray[np.float32]) -> None:
        self._counts = counts
        self._all = np.arange(len(counts))

    def add(self, total: NDArray[np.float32], history: NDArray[np.int64]) -> NDArray[np.integer]:  # noqa: ARG002
        """See `CountSource.add`."""
        total[: len(self._counts)] += self._counts
        return self._all


def count_sources(parts: Sequence[Part], arrays: Mapping[str, NDArray[np.generic]]) -> list[CountSource]:
    """The source of every part.

    Args:
        parts: Parts of a blend.
        arrays: `popularity`, `unseen` if a part uses it, and `NAME.items`, `NAME.weights`, `NAME.scales` for each
            neighbour table.

    Raises:
        ConfigError: A part has an unknown name or its table is missing.
    """
    return [_source(part, arrays) for part in parts]


class Blend:
    """Adds the counts to the scores of the Transformer.

    Args:
        parts: What enters, and with which weight.
        arrays: See `count_sources`.

    Raises:
        ConfigError: A part has an unknown name or its table is missing.
    """

    def __init__(self, parts: Sequence[Part], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self.parts = tuple(parts)
        self.sources = count_sources(self.parts, arrays)
        self._total = np.zeros(len(arrays["popularity"]), np.float32)
        fixed: Any = arrays  # of float32 where a part reads them whole
        always = [_gain(part, fixed[part.name]) for part in self.parts if part.name in FIXED_PARTS]
        self._fixed = np.sum(always, axis=0, dtype=np.float32) if always else None  # the same whatever the history
        counted: dict[tuple[str, float, int], tuple[CountSource, list[Part]]] = {}
        for part, source in zip(self.parts, self.sources, strict=True):
            if part.name not in FIXED_PARTS:
                counted.setdefault((part.name, part.decay, part.window), (source, []))[1].append(part)
        self._counted = list(counted.values())  # parts that differ only in epsilon are counted once

    def add_to(self, scores: NDArray[np.float32], history: NDArray[np.int64]) -> None:
        """Add every part to the scores in place.

        Args:
            scores: Shape (at least V + 1,); index 0 is left undefined.
            history: Known item indexes, oldest first, shape (n,).

        Raises:
            BundleError: A table names an item outside the catalogue.
        """
        if not len(history):
            return
        total = self._total
        if self._fixed is not None:
            scores[: len(total)] += self._fixed
        for source, parts in self._counted:
            try:
                touched = source.add(total, history)
            except IndexError as error:
                total[:] = 0  # the next call must not find half of this one
                raise BundleError(
                    f"the table {parts[0].name!r} names items that do not exist; fetch the bundle again"
                ) from error
            counts = total.take(touched)
            gained = scores.take(touched)
            for part in parts:
                gained += _gain(part, counts)
            scores[touched] = gained  # repeated indexes write the same value
            total[touched] = 0

    def touched(self, source: int, history: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The distinct items that one source counts for a history, and their counts x, both of shape (n,)."""
        items = np.unique(self.sources[source].add(self._total, history)).astype(np.int64)
        found = self._total[items]
        self._total[items] = 0
        return items[items > 0], found[items > 0]

    def values(self, source: int, history: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
        """The counts x that one source gives some items, shape of `items`; what the fit of the weights reads."""
        touched = self.sources[source].add(self._total, history)
        found = self._total[items]
        self._total[touched] = 0
        return found


def _gain(part: Part, counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """What counts add to the scores."""
    gain = counts * np.float32(1 / part.epsilon)
    np.log1p(gain, out=gain)
    gain *= np.float32(part.weight)
    return gain


def _source(part: Part, arrays: Mapping[str, NDArray[np.generic]]) -> CountSource:
    if part.name == "own":
        return Own(part.decay, part.window)
    try:
        if part.name in FIXED_PARTS:
            return Popularity(arrays[part.name])  # type: ignore[arg-type]
        if part.name in NEIGHBOUR_PARTS:
            return Neighbours.named(arrays, part.name, part.decay, part.window)
    except KeyError as error:
        raise ConfigError(f"the blend uses {part.name!r}, but the array {error.args[0]!r} is missing") from error
    raise ConfigError(f"unknown part of a blend: {part.name!r}")


_POWERS: dict[float, NDArray[np.float32]] = {}


def fading(decay: float, count: int) -> NDArray[np.float32]:
    """decay^age for `count` events, oldest first.

    >>> fading(0.5, 3).tolist()
    [0.25, 0.5, 1.0]
    """
    powers = _POWERS.get(decay)
    if powers is None or len(powers) < count:
        ages = np.arange(max(256, count) - 1, -1, -1)
        powers = _POWERS[decay] = np.power(decay, ages).astype(np.float32)
    return powers[len(powers) - count :]
