"""Why a device is refused: one stable name each, which is what devices branch on and what the wire carries.

`not-now`, `round-full` and `plan-halted` come with a time to come back at. All others are for good, for this round.
"""

from enum import StrEnum

from hushrec_privacy.errors import FleetError

__all__ = ["Reason", "refusal"]


class Reason(StrEnum):
    """Why a device was refused."""

    UNKNOWN_PLAN = "unknown-plan"
    PLAN_ENDED = "plan-ended"
    PLAN_HALTED = "plan-halted"
    NOT_NOW = "not-now"
    ROUND_FULL = "round-full"
    NOT_IN_ROUND = "not-in-round"
    NOT_OPEN = "not-open"
    PHASE_CLOSED = "phase-closed"
    ALREADY_COUNTED = "already-counted"
    BAD_MESSAGE = "bad-message"
    DROPPED_OUT = "dropped-out"
    ROUND_ABORTED = "round-aborted"
    ROUND_OVER = "round-over"
    UNKNOWN_FEATURE = "unknown-feature"
    TOO_LATE = "too-late"


_TEXTS = {
    Reason.UNKNOWN_PLAN: "this server has no such plan; fetch the list of plans again",
    Reason.PLAN_ENDED: "the plan has ended: it has no rounds left",
    Reason.PLAN_HALTED: "the shop has halted the plan; ask again later",
    Reason.NOT_NOW: "no round takes devices in now; come back when told",
    Reason.ROUND_FULL: "the round has all the devices it needs; come back when told",
    Reason.NOT_IN_ROUND: "this device has no place in that round; check in first",
    Reason.NOT_OPEN: "that phase of the round has not begun; wait for the reply before it",
    Reason.PHASE_CLOSED: "the message came after its phase was closed; it does not count",
    Reason.ALREADY_COUNTED: "another message of this device is kept for that phase; it stays",
    Reason.BAD_MESSAGE: "the message is not what the phase asks for; it does not count",
    Reason.DROPPED_OUT: "the round went on without this device; nothing more is expected of it",
    Reason.ROUND_ABORTED: "the round was given up; its uploads are erased",
    Reason.ROUND_OVER: "the round is over; its uploads are erased",
    Reason.UNKNOWN_FEATURE: "the plan has no payload of that name",
    Reason.TOO_LATE: "the round has ended, or its sum has its noise and will be published",
}


def refusal(reason: Reason, retry_after_s: int | None = None) -> FleetError:
    """The error of a refusal.

    Args:
        reason: Why.
        retry_after_s: Seconds until asking again makes sense; None: never for this request.

    >>> refusal(Reason.ROUND_FULL, 40).reason
    'round-full'
    """
    return FleetError(_TEXTS[reason], reason=reason.value, retry_after_s=retry_after_s)
