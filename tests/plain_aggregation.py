"""Sums without secrecy, in the shape of secure aggregation: for tests of what happens around it. Protects nobody."""

import json
import os
from collections.abc import Iterable

import numpy as np
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.plans.plan import Plan
from hushrec_server.rounds.aggregation import Closed, Outcome
from numpy.typing import NDArray

__all__ = ["PlainAggregation", "PlainDevice"]

MASK = 4


class PlainAggregation:
    """Six phases whose messages name the phase; the fourth is the vector itself."""

    def session(self, plan: Plan, round_number: int) -> bytes:
        if plan.min_cohort < 2:
            raise SecAggError("nobody can hide alone")
        facts = {"round": round_number, "least": plan.min_cohort, "d": plan.coordinates, "attempt": os.urandom(4).hex()}
        return json.dumps(facts).encode()

    def message_size(self, session: bytes, phase: int) -> int:
        return int(8 * json.loads(session)["d"] if phase == MASK else 64)

    def pseudonym(self, session: bytes, message: bytes) -> str:
        del session
        return message.decode().partition(" ")[2]

    def accept(self, session: bytes, phase: int, state: bytes, place: int, message: bytes) -> None:
        if phase == MASK:
            right = len(message) == self.message_size(session, phase)
        else:
            right = message.startswith(f"{phase} ".encode())
        if phase > 1 and place not in json.loads(state):
            right = False
        if not right:
            raise SecAggError("no message of this phase")

    def close(self, session: bytes, phase: int, state: bytes, messages: Iterable[tuple[int, bytes]]) -> Closed:
        del state
        total, places = np.zeros(json.loads(session)["d"], np.uint64), []
        for place, message in messages:
            places.append(place)
            if phase == MASK:
                total += np.frombuffer(message, np.int64).astype(np.uint64)
        self._enough(session, places)
        text = json.dumps(places).encode()
        replies = {place: b"%d closed" % phase + (b" for %d" % place if phase > 1 else b"") for place in places}
        return Closed(text, replies, total if phase == MASK else None)

    def finish(
        self, session: bytes, state: bytes, total: NDArray[np.uint64], reveals: Iterable[tuple[int, bytes]]
    ) -> Outcome:
        self._enough(session, [place for place, _ in reveals])
        return Outcome(total.astype(np.int64), tuple(json.loads(state)))

    def _enough(self, session: bytes, places: list[int]) -> None:
        if len(places) < json.loads(session)["least"]:
            raise SecAggError("too few")


class PlainDevice:
    """What a device sends in each phase."""

    def __init__(self, pseudonym: str, vector: NDArray[np.int64]) -> None:
        self.pseudonym, self.vector = pseudonym, vector

    def message(self, phase: int) -> bytes:
        return self.vector.tobytes() if phase == MASK else f"{phase} {self.pseudonym}".encode()
