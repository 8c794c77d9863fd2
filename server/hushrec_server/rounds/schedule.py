"""When a plan's rounds begin, and how long each phase may take: all of it shares of the plan's seconds of one round.

Round n begins at first_round_at + (n - 1) round_seconds and not before. Four settings, each a share; nothing waits
without one. Knows no storage and reads no clock.
"""

from dataclasses import dataclass

from hushrec_privacy.plans.plan import Plan

from hushrec_server.rounds.states import State

__all__ = ["Schedule"]

ADMISSION = 0.50
"""From the round's start until the first phase closes at the latest."""

ANSWER = 0.06
"""For one small message of every device; also how long a place is kept for a device that says nothing."""

UPLOAD = 0.20
"""For local training and the masked vector."""

LEASE = 0.02
"""How long a process keeps others from doing what it does; a killed one's lease runs out after that."""


@dataclass(frozen=True)
class Schedule:
    """The times of one plan.

    Attributes:
        plan: Its plan.

    >>> from hushrec_server.rounds.states import PHASES
    >>> sum((ADMISSION, *(UPLOAD if state is State.MASK else ANSWER for state in PHASES[1:]))) < 1
    True
    """

    plan: Plan

    def number_at(self, now: int) -> int:
        """The round whose time it is; 0 before the first, above `plan.rounds` after the last."""
        return max(0, (now - self.plan.first_round_at) // self.plan.round_seconds + 1)

    def start(self, number: int) -> int:
        """When a round begins, seconds since 1970-01-01 UTC."""
        return self.plan.first_round_at + (number - 1) * self.plan.round_seconds

    def end(self) -> int:
        """When the last round's time is over."""
        return self.start(self.plan.rounds + 1)

    def advertise_until(self, number: int) -> int:
        """When the first phase closes at the latest."""
        return self.start(number) + self._seconds(ADMISSION)

    def admit_until(self, number: int) -> int:
        """Until when places are given: whoever gets the last one still has time to use it."""
        return self.advertise_until(number) - self.answer_s

    def seconds(self, state: State) -> int:
        """How long a state after the first may last."""
        if state.phase is None:
            return self.plan.round_seconds
        return self._seconds(UPLOAD if state is State.MASK else ANSWER)

    @property
    def answer_s(self) -> int:
        """Time for one small message."""
        return self._seconds(ANSWER)

    @property
    def lease_s(self) -> int:
        """How long a process keeps others away."""
        return self._seconds(LEASE)

    def _seconds(self, share: float) -> int:
        return max(1, int(share * self.plan.round_seconds))
