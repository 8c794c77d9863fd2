"""One sample a user, as user-level privacy needs it: the newest events of one sequence, whatever else the user did.

Where a log names several sequences of one shopper (sessions), only the newest one with a target is used. Events outside
the catalogue are passed over. Shapes: B users, L positions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hushrec_model.sequences import Sequences

__all__ = ["UserBatch", "UserSequences"]


@dataclass(frozen=True)
class UserBatch:
    """Sequences of some users, padded on the right with 0. The item at position l + 1 is the target of position l.

    Attributes:
        items: Shape (B, L + 1), int64.
        behaviors: Shape (B, L), int64.
        asked: Which positions have a target, shape (B, L), bool.
    """

    items: Tensor
    behaviors: Tensor
    asked: Tensor


class UserSequences:
    """The samples of all users.

    Args:
        train: Training events.
        max_history: L at most; with the last target a sample is one event longer.

    Attributes:
        length: Events of each user's sample, shape (N,), at least 2.
    """

    def __init__(self, train: Sequences, max_history: int) -> None:
        known = train.item > 0
        bounds = np.append(0, np.cumsum(known))[train.offsets]
        self._item = train.item[known].astype(np.int64)
        self._behavior = train.behavior[known].astype(np.int64)
        self._basket = None if train.basket is None else train.basket[known]
        stop = bounds[1:]
        length = np.minimum(np.diff(bounds), max_history + 1)
        chosen = np.flatnonzero(length >= 2)
        if train.shopper is not None:  # the last of each shopper's sequences: of a reversed array, the first
            _, newest = np.unique(train.shopper[chosen][::-1], return_index=True)
            chosen = np.sort(chosen[len(chosen) - 1 - newest])
        self._stop, self.length = stop[chosen], length[chosen]

    def __len__(self) -> int:
        """N, the users with at least one target."""
        return len(self.length)

    def batch(self, users: NDArray[np.int64]) -> UserBatch:
        """Gather some users' samples, shape (B,).

        In a basket the events have no order: a target inside its own basket is not asked for.
        """
        lengths = self.length[users]
        steps = np.arange(int(lengths.max()))
        valid = steps < lengths[:, None]
        at = np.where(valid, (self._stop[users] - lengths)[:, None] + steps, 0)
        asked = valid[:, 1:]
        if self._basket is not None:
            asked = asked & (self._basket[at[:, 1:]] != self._basket[at[:, :-1]])
        return UserBatch(
            items=torch.from_numpy(np.where(valid, self._item[at], 0)),
            behaviors=torch.from_numpy(np.where(valid, self._behavior[at], 0)[:, :-1]),
            asked=torch.from_numpy(asked),
        )
