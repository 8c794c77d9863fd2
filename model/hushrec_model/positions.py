"""Arithmetic on the positions of events laid end to end as sequences: bounds, marks, and the questions asked of them.

`offsets` always holds the bounds of S sequences, shape (S + 1,): sequence s is [offsets[s], offsets[s + 1]).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Positions", "Questions", "before", "bounds", "count", "first_new", "prefixes", "several", "single"]

Positions = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Questions:
    """Queries as positions; see `sequences.Queries` for the fields."""

    start: Positions
    stop: Positions
    target_offsets: Positions
    target: Positions


def bounds(group: NDArray[np.integer], groups: int) -> Positions:
    """Where each of the groups 0, 1, … begins and ends in a rising array, shape (groups + 1,)."""
    return np.searchsorted(group, np.arange(groups + 1, dtype=group.dtype)).astype(np.int64)


def before(offsets: Positions, stop: Positions) -> NDArray[np.bool_]:
    """Which events lie before the stop of their sequence, shape (N,)."""
    lengths = np.diff(offsets)
    return np.asarray(np.arange(offsets[-1]) < np.repeat(stop, lengths))


def count(offsets: Positions, mask: NDArray[np.bool_]) -> Positions:
    """How many events of each sequence are marked, shape (S,)."""
    total: Positions = np.append(np.zeros(1, np.int64), np.cumsum(mask))
    return np.asarray(total[offsets[1:]] - total[offsets[:-1]])


def single(start: Positions, target: Positions) -> Questions:
    """One target each, its history everything of the sequence before it."""
    return Questions(start, target, np.arange(len(target) + 1, dtype=np.int64), target)


def several(start: Positions, stop: Positions, end: Positions) -> Questions:
    """Targets [stop, end) each, the history everything of the sequence before them."""
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(end - stop)])
    target = np.arange(offsets[-1]) + np.repeat(stop - offsets[:-1], end - stop)
    return Questions(start, stop, offsets, target)


def prefixes(offsets: Positions, chosen: NDArray[np.bool_]) -> Questions:
    """Every event of the chosen sequences but the first is a target, its history what lies before it there."""
    lengths = np.diff(offsets)
    start = np.repeat(offsets[:-1], lengths)
    target = np.flatnonzero(np.repeat(chosen, lengths) & (np.arange(offsets[-1]) > start))
    return single(start[target], target)


def first_new(offsets: Positions, known_stop: Positions, candidate: NDArray[np.bool_]) -> Questions:
    """The first candidate of each sequence that has events before its known stop."""
    positions = np.append(np.flatnonzero(candidate), len(candidate))
    found = positions[np.searchsorted(positions[:-1], offsets[:-1])]
    asked = (found < offsets[1:]) & (known_stop > offsets[:-1])
    return single(offsets[:-1][asked], found[asked])
