"""Training sequences cut into windows and batched by length.

A window never exceeds the history that the encoder reads. Sequences longer than that are cut from their newest end,
the older pieces are windows of their own, so every event is a target once an epoch. Shapes: B windows, L padded length.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hushrec_model.splits import Sequences

__all__ = ["Batch", "Windows"]


@dataclass(frozen=True)
class Batch:
    """Windows of similar length, padded on the right.

    Attributes:
        items: Shape (B, L), int64; 0 is padding or an item outside the catalogue.
        behaviors: Shape (B, L), int64.
        positions: Flat indexes into (B, L) of the positions that have a target, shape (N,), int64.
        targets: Item index that follows each of them, shape (N,), int64, at least 1.
    """

    items: Tensor
    behaviors: Tensor
    positions: Tensor
    targets: Tensor

    def to(self, device: str) -> "Batch":
        """The same batch on a torch device."""
        return Batch(*(t.to(device) for t in (self.items, self.behaviors, self.positions, self.targets)))


class Windows:
    """The windows of all training sequences.

    Args:
        sequences: Training events.
        max_history: Longest window, in events.
    """

    def __init__(self, sequences: Sequences, max_history: int) -> None:
        self._events = sequences
        lengths = np.diff(sequences.offsets) - 1  # the last event is only a target
        pieces = np.maximum(-(-lengths // max_history), 0)
        owner = np.repeat(np.arange(len(lengths)), pieces)
        piece = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        stop = sequences.offsets[1:][owner] - 1 - piece * max_history
        self._start = np.maximum(stop - max_history, sequences.offsets[:-1][owner])
        self._length = stop - self._start
        self._next_basket = _basket_bounds(sequences) if sequences.basket is not None else None

    def plan(self, tokens: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Group windows of like length into batches of about `tokens` positions, in random order.

        Args:
            tokens: Positions a batch, padding included.
            rng: Source of order; the plan repeats with it.
        """
        order = np.argsort(self._length + rng.random(len(self._length)), kind="stable")
        groups, first = [], 0
        lengths = self._length[order]
        while first < len(order):
            last = first + 1
            while last < len(order) and (last + 1 - first) * lengths[last] <= tokens:
                last += 1
            groups.append(order[first:last])
            first = last
        rng.shuffle(groups)
        return groups

    def batches(self, tokens: int, rng: np.random.Generator) -> Iterator[Batch]:
        """One epoch of batches."""
        for group in self.plan(tokens, rng):
            batch = self.batch(group, rng)
            if len(batch.targets):
                yield batch

    def batch(self, windows: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """Gather some windows.

        Args:
            windows: Which, shape (B,).
            rng: Chooses the target where the next basket holds several items.
        """
        length = int(self._length[windows].max())
        steps = np.arange(length)
        valid = steps[None, :] < self._length[windows][:, None]
        at = np.where(valid, self._start[windows][:, None] + steps[None, :], 0)
        following = at + 1
        if self._next_basket is not None:
            first, last = self._next_basket[0][at], self._next_basket[1][at]
            following = first + (rng.random(at.shape) * (last - first)).astype(np.int64)
            valid_target = valid & (last > first)
        else:
            valid_target = valid
        targets = self._events.item[np.where(valid_target, following, 0)].astype(np.int64)
        positions = np.flatnonzero(valid_target & (targets > 0))
        return Batch(
            items=torch.from_numpy(np.where(valid, self._events.item[at], 0).astype(np.int64)),
            behaviors=torch.from_numpy(np.where(valid, self._events.behavior[at], 0).astype(np.int64)),
            positions=torch.from_numpy(positions),
            targets=torch.from_numpy(targets.ravel()[positions]),
        )


def _basket_bounds(sequences: Sequences) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each event the range [first, last) of the next basket of its sequence; empty for the last basket."""
    assert sequences.basket is not None
    count = len(sequences.item)
    owner = np.repeat(np.arange(len(sequences.offsets) - 1), np.diff(sequences.offsets))
    change = np.flatnonzero((np.diff(owner) != 0) | (np.diff(sequences.basket) != 0)) + 1
    starts = np.concatenate([[0], change])
    stops = np.concatenate([change, [count]])
    number = np.repeat(np.arange(len(starts)), stops - starts)
    following = np.minimum(number + 1, len(starts) - 1)
    same = owner[starts[following]] == owner
    last_one = number + 1 >= len(starts)
    first, last = starts[following], stops[following]
    empty = ~same | last_one
    return np.where(empty, 0, first), np.where(empty, 0, last)
