"""Secure aggregation as the rounds use it: bytes and numbers in, bytes and numbers out, the same in every process."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
from hushrec_privacy.plans.plan import Plan
from numpy.typing import NDArray

__all__ = ["Aggregation", "Closed", "Outcome"]


class Closed(NamedTuple):
    """A phase of which it is fixed what counts.

    Attributes:
        state: What the next phases need.
        replies: The answer of each device that is still in, by its place.
        total: The masked sum, shape (d,), uint64; only of the phase of masked vectors.
    """

    state: bytes
    replies: dict[int, bytes]
    total: NDArray[np.uint64] | None


class Outcome(NamedTuple):
    """What a round comes to.

    Attributes:
        sum: Exact sum of the survivors' vectors, shape (d,), int64, ring steps. As secret as a device's vector is not.
        survivors: Their places.
    """

    sum: NDArray[np.int64]
    survivors: tuple[int, ...]


class Aggregation(Protocol):
    """A protocol of six phases, numbered from 1. Deterministic; keeps nothing between two calls."""

    def session(self, plan: Plan, round_number: int) -> bytes:
        """What a new round's devices are told at check-in; different each time."""

    def message_size(self, session: bytes, phase: int) -> int:
        """Bytes of a device's message, at most."""

    def pseudonym(self, session: bytes, message: bytes) -> str:
        """Whom the message of phase 1 names."""

    def accept(self, session: bytes, phase: int, state: bytes, place: int, message: bytes) -> None:
        """Check one message by itself; `SecAggError` if it is not right. `state` is of the phase before."""

    def close(self, session: bytes, phase: int, state: bytes, messages: Iterable[tuple[int, bytes]]) -> Closed:
        """Close phase 1 to 5; `SecAggError` if too few devices are left."""

    def finish(
        self, session: bytes, state: bytes, total: NDArray[np.uint64], reveals: Iterable[tuple[int, bytes]]
    ) -> Outcome:
        """Unmask the sum; `SecAggError` if too few devices helped."""
