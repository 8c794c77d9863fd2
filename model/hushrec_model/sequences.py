"""Sequences of events and the questions asked of them, as flat arrays: what training and evaluation walk over."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Queries", "Sequences"]


@dataclass(frozen=True, eq=False)
class Sequences:
    """S sequences of events laid end to end; sequence s is [offsets[s], offsets[s + 1]), oldest event first.

    Attributes:
        offsets: Shape (S + 1,), from 0 to N.
        item: Item of every event, 1 to V, 0 outside the catalogue, shape (N,).
        behavior: Index into the log's behaviours, shape (N,).
        time: Microseconds since 1970-01-01 UTC, shape (N,); None without times.
        basket: Number of the event's basket inside its sequence, from 0, shape (N,); None without baskets.
        shopper: Number of the user of each sequence, shape (S,); None: every sequence is another user's.
    """

    offsets: NDArray[np.int64]
    item: NDArray[np.int32]
    behavior: NDArray[np.int8]
    time: NDArray[np.int64] | None
    basket: NDArray[np.int32] | None
    shopper: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.offsets) - 1


@dataclass(frozen=True, eq=False)
class Queries:
    """Q questions "what comes after this history?" with their answers.

    The history of query q is `events.item[start[q]:stop[q]]`, oldest first and whole: readers cut it to the last L.
    Its targets are `target[target_offsets[q]:target_offsets[q + 1]]`: one, or a basket of several.

    Attributes:
        events: The arrays that the histories lie in.
        start: First event of each history, shape (Q,).
        stop: One past its last event, shape (Q,).
        target_offsets: Shape (Q + 1,).
        target: Items, 1 to V; 0 is a target outside the catalogue, which nobody can hit.
    """

    events: Sequences
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    target_offsets: NDArray[np.int64]
    target: NDArray[np.int32]

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.start)

    def history(self, query: int) -> NDArray[np.int32]:
        """The items of one history, oldest first, shape (stop - start,)."""
        return self.events.item[self.start[query] : self.stop[query]]

    def targets(self, query: int) -> NDArray[np.int32]:
        """The items that answer one query, shape (targets,)."""
        return self.target[self.target_offsets[query] : self.target_offsets[query + 1]]
