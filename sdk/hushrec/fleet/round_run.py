"""One round of one device: a small state machine over secure aggregation's six messages, one thing a step.

    for each phase:  make the message ► send it ► [after SHARE: the work] ► wait for the reply

The work comes after SHARE, since the server leaves time for it before MASK, and too little in the phases before: who is
still training when the roster is there holds up everybody, or is left behind. How long it takes depends on what the
shopper did, and the server would see it by the next request: that comes no sooner than a fixed time after SHARE.

The participation is spent in the device's own record, durably, after the masked vector was made and before its first
byte leaves. Nothing of a round is ever written to disk beside that: a killed device has left the round, and its record
refuses the round from then on if it was spent. What a device does when it may not send: see `conditions`.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
from hushrec_privacy.errors import FleetError, HushrecError
from numpy.typing import NDArray

from hushrec.fleet.gate import CONDITIONS
from hushrec.fleet.pacing import Pace

__all__ = ["NotYet", "Outcome", "RoundDevice", "RoundRun", "RoundWire", "Stage", "Work"]

DONE, OVER, WORK_STOPPED = "done", "round-over", "work-stopped"
ADVERTISE, CHOOSE, SHARE, MASK, AGREE, REVEAL = range(1, 7)
_NOTHING = np.zeros(0, np.int64)


class NotYet(NamedTuple):
    """A phase is not closed yet.

    Attributes:
        retry_after_s: When to ask again, if the server said so.
    """

    retry_after_s: float | None = None


class RoundWire(Protocol):
    """The server as one round of one device sees it. Every call checks consent and conditions first."""

    def upload(self, phase: int, message: bytes) -> None:
        """Send a phase's message; the same bytes again do no harm.

        Raises:
            FleetError: It was not taken, or may not be sent.
        """

    def reply(self, phase: int) -> bytes | NotYet:
        """What the server answers once the phase is closed.

        Raises:
            FleetError: The round is over, or nothing may be sent.
        """


class RoundDevice(Protocol):
    """The six messages, each made once and in order: `hushrec_privacy.secagg.SecAggDevice`."""

    def advertise(self) -> bytes:
        """The first message."""

    def choose(self, roster: bytes) -> bytes:
        """The second, from the first reply."""

    def share(self, neighbours: bytes) -> bytes:
        """The third."""

    def mask(self, shares: bytes, vector: NDArray[np.int64]) -> bytes:
        """The fourth: the masked vector."""

    def agree(self, survivors: bytes) -> bytes:
        """The fifth."""

    def reveal(self, agreement: bytes) -> bytes:
        """The last."""


Work = Callable[[Callable[[], bool]], NDArray[np.int64] | None]
"""Makes the vector to be sent, shape (d,); asks at every batch whether to stop, and then gives None."""


class Stage(StrEnum):
    """What the next step does."""

    SEND = "send"
    WORK = "work"
    WAIT = "wait"
    OVER = "over"


class Outcome(NamedTuple):
    """How a round ended for this device.

    Attributes:
        reason: "done", or why it left.
        spent: Whether a participation is spent.
        text: For people.
    """

    reason: str
    spent: bool
    text: str


class RoundRun:
    """A round from ADVERTISE to its end. Not for several threads at once.

    Attributes:
        stage: What the next `step` does.
        phase: Of secure aggregation, 1 to 6.
        outcome: None while it runs.
    """

    def __init__(
        self,
        wire: RoundWire,
        device: RoundDevice,
        *,
        work: Work,
        spend: Callable[[], object],
        pace: Pace,
        clock: Callable[[], float],
    ) -> None:
        """Begin a round that gave this device a place.

        Args:
            wire: The way to the server.
            device: Secure aggregation's side of this round.
            work: Makes the vector.
            spend: Writes the participation down, durably, or raises.
            pace: Of the plan.
            clock: Seconds that only rise, whatever is done to the device's clock.
        """
        self._wire, self._device, self._work, self._spend, self._clock = wire, device, work, spend, clock
        self._polls, self._retries = pace.polls(), pace.retries()
        self._longest_poll_s, self._until = pace.poll_s[1], clock() + pace.patience_s
        self._message: bytes | None = None
        self._reply = b""
        self._vector = _NOTHING
        self._spent = False
        self._work_s, self._silent_until = pace.work_s, 0.0
        self.stage, self.phase = Stage.SEND, ADVERTISE
        self.outcome: Outcome | None = None

    def step(self, stop: Callable[[], str | None]) -> float:
        """Do one thing.

        Args:
            stop: Why this device should not go on, or None; asked at every batch of training and before anything is
                spent.

        Returns:
            Seconds until the next step makes sense; 0 at once, and when the round is over.

        Raises:
            LedgerError: The participation could not be written; nothing left the device.
        """
        if self.outcome is not None:
            return 0.0
        if self._clock() > self._until:
            return self._leave(OVER, "the round did not end in time")
        try:
            if self.stage is Stage.WORK:
                return self._do_work(stop)
            return self._send(stop) if self.stage is Stage.SEND else self._wait()
        except FleetError as error:
            return self._refused(error)
        except HushrecError as error:
            self._leave(error.code, error.message)
            if error.code == "ledger":
                raise
            return 0.0

    @property
    def spent(self) -> bool:
        """Whether a participation is spent."""
        return self._spent

    def leave(self, reason: str, text: str) -> None:
        """End it from this side; a second time changes nothing."""
        if self.outcome is None:
            self._leave(reason, text)

    def _send(self, stop: Callable[[], str | None]) -> float:
        if self._message is None:
            self._message = self._made()
        if self.phase == MASK and not self._spent:
            reason = stop()
            if reason is not None:
                return self._leave(reason, "the round was left before anything was spent")
            self._spend()  # durable from here on, whatever follows
            self._spent = True
        self._wire.upload(self.phase, self._message)
        self._message = None
        self._retries.succeeded()
        self._polls.succeeded()
        if self.phase == REVEAL:
            return self._leave(DONE, "the round is done for this device")
        if self.phase == SHARE:
            self.stage, self._silent_until = Stage.WORK, self._clock() + self._work_s
        else:
            self.stage = Stage.WAIT
        return 0.0

    def _made(self) -> bytes:
        if self.phase == ADVERTISE:
            return self._device.advertise()
        if self.phase == MASK:
            return self._device.mask(self._reply, self._vector)
        make = {
            CHOOSE: self._device.choose,
            SHARE: self._device.share,
            AGREE: self._device.agree,
            REVEAL: self._device.reveal,
        }
        return make[self.phase](self._reply)

    def _do_work(self, stop: Callable[[], str | None]) -> float:
        why: list[str] = []

        def stopping() -> bool:
            reason = OVER if self._clock() > self._until else stop()
            if reason is not None:
                why.append(reason)
            return bool(why)

        vector = self._work(stopping)
        if vector is None:
            return self._leave(why[0] if why else WORK_STOPPED, "the work was stopped; nothing was sent")
        self._vector, self.stage = vector, Stage.WAIT
        return 0.0

    def _wait(self) -> float:
        early = self._silent_until - self._clock()
        if early > 0:
            return early
        found = self._wire.reply(self.phase)
        self._retries.succeeded()
        if isinstance(found, NotYet):  # the plan says how long a phase lasts: no longer wait than it leaves room for
            return self._polls.wait_s(min(found.retry_after_s or 0.0, self._longest_poll_s))
        self._reply, self.phase, self.stage = found, self.phase + 1, Stage.SEND
        self._polls.succeeded()
        return 0.0

    def _refused(self, error: FleetError) -> float:
        if error.reason == CONDITIONS and self._spent:
            return self._polls.wait_s()  # a message that others depend on: wait for the conditions
        if error.retry_after_s is None:
            return self._leave(error.reason, error.message)
        return self._retries.wait_s(error.retry_after_s)

    def _leave(self, reason: str, text: str) -> float:
        self.outcome = Outcome(reason, self._spent, text)
        self.stage, self._message, self._vector, self._reply = Stage.OVER, None, _NOTHING, b""
        return 0.0
