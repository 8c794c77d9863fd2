"""Which plans and rounds this device may join now: pure decisions, each refusal with a name and one line.

    signature    the plan is not signed by the shop's plan key
    plan         the plan is damaged, of a newer hushrec, or does not fit itself
    epsilon      the plan states another epsilon than its noise gives
    demo         the plan is a demonstration and protects nobody
    real-plan    this device runs with demonstration limits, the plan is real
    cohort       the plan allows rounds of fewer devices than this device demands
    times        the plan lets a device take part more often than this device allows
    lifetime     the plan costs more than is left of this device's lifetime limit
    parts        the model on this device does not have the parts that the plan trains
    authority    the plan names nobody who says which devices are real, or the round has another one
    wire         the server speaks another version of the protocol
    keys         the server's envelope keys are not the shop's, of another server, older than seen before, or over
    release      the round starts from another model than the one on this device
    candidate    the plan compares a new model with the one on this device, and there is no new one
    session      the round is not set up as the plan says
    early        the round begins before its time by the plan's clock
    number       the plan has no round of this number
    spent        this device took part in this round or a later one; rounds only increase
    near         the round is nearer to this device's last one than the plan allows
    used-up      this device took part as often as it may
    over         the plan has ended for this device

The plan's signature binds all of it, so a server can offer less than a plan says and never more. b (rounds apart) and
the start times guard against a server that is wrong; the cap and the lifetime limit against any.
"""

import math
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from hushrec_privacy.errors import BudgetError, FleetError, PlanError
from hushrec_privacy.ledger import Open, ParticipationRecord
from hushrec_privacy.ledger.device_cost import device_opening, participation_rho
from hushrec_privacy.ledger.rules import PlanTotals, Totals
from hushrec_privacy.plans.limits import DeviceLimits, UnsafeDemoLimits, check_plan
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.signing import verified_plan

if TYPE_CHECKING:
    from hushrec_privacy.secagg import Session

__all__ = ["REFUSALS", "Accepted", "accepted_plan", "check_round", "earliest_round_in_s", "refuse"]

REFUSALS = {
    "signature": "the plan is not signed by this shop; it is ignored",
    "plan": "the plan cannot be read here; a newer app may",
    "epsilon": "the plan claims a better epsilon than its noise gives; it is ignored",
    "demo": "the plan is a DEMO and protects nobody; it is ignored",
    "real-plan": "this device runs with demonstration limits and joins no real plan",
    "cohort": "the plan allows rounds of too few devices",
    "times": "the plan asks for more rounds than this device ever gives to one plan",
    "lifetime": "the plan costs more than this device may still spend in its lifetime",
    "parts": "the model on this device does not have what the plan trains; an update may bring it",
    "authority": "the plan names no authority, or the round has certificates of another one",
    "wire": "the server speaks another version of the protocol than this app; update the app",
    "keys": "the server's keys are not signed by this shop, or are out of date; nothing is sent to it",
    "release": "the round starts from another model than this device has; it updates first",
    "candidate": "there is no new model to compare now",
    "session": "the round is not set up as its plan says; it is left",
    "early": "the round begins before its time; it is left",
    "number": "the plan has no such round; it is left",
    "spent": "this device took part in this round, or a later one, already",
    "near": "the round is too near to the last one of this device",
    "used-up": "this device took part as often as it may",
    "over": "the plan is over for this device",
}
"""One line for people, by reason."""

_CLOCK_SLACK_S = 60  # a device's own clock may be so far behind


class Accepted(NamedTuple):
    """A plan that this device may take part in.

    Attributes:
        plan: Its contents; the signature was right.
        plan_id: sha256 of its bytes.
        opened: The entry of the device's own record.
    """

    plan: Plan
    plan_id: str
    opened: Open


def refuse(reason: str, *, retry_after_s: float | None = None) -> NoReturn:
    """Raise the refusal of this name.

    Raises:
        FleetError: Always.
    """
    raise FleetError(REFUSALS[reason], reason=reason, retry_after_s=retry_after_s)


def accepted_plan(data: bytes, signature: bytes, plan_key: bytes, *, limits: DeviceLimits, totals: Totals) -> Accepted:
    """Decide on a plan that a server offers.

    Args:
        data: The plan's bytes. Untrusted.
        signature: 64 bytes. Untrusted.
        plan_key: Public half of the shop's plan key, from the fleet file.
        limits: Of this device.
        totals: Of its participation record.

    Raises:
        FleetError: It is refused; `reason` is one of `REFUSALS`.
    """
    plan = _signed_plan(data, signature, plan_key)
    plan_id = plan.plan_id
    kept = totals.plans.get(plan_id)
    elsewhere = totals.spent - (kept.spent if kept else Decimal(0))
    try:
        check_plan(plan, limits, spent_rho=float(elsewhere))
        opened = device_opening(plan, limits)
    except PlanError as error:
        raise _named(_why(plan, limits)) from error
    if kept is not None and not kept.rounds_left:
        refuse("over" if kept.rounds < (opened.limits.cap or math.inf) else "used-up")
    return Accepted(plan, plan_id, opened)


def check_round(
    accepted: Accepted, session: "Session", *, record: ParticipationRecord, at_s: float, round_number: int
) -> str:
    """Decide on a round that gives this device a place, before anything of it is sent.

    Args:
        accepted: The plan.
        session: What the server set up. Untrusted.
        record: Of this device; the plan is joined.
        at_s: Now by the device's own clock, seconds since 1970-01-01 UTC.
        round_number: That the server said beside the session.

    Returns:
        The ρ of the participation, for `ParticipationRecord.participate`.

    Raises:
        FleetError: The round is refused; `reason` is one of `REFUSALS`.
        LedgerError: The record cannot be read.
    """
    plan = accepted.plan
    if session.authority != bytes.fromhex(plan.authority):
        refuse("authority")
    if not _set_up(accepted, session) or session.round_number != round_number:
        refuse("session")
    if not 1 <= round_number <= plan.rounds:
        refuse("number")
    if at_s + _CLOCK_SLACK_S < _begins_at(plan, round_number):
        refuse("early")
    spent = record.totals().plans[accepted.plan_id]
    try:
        rho = participation_rho(accepted.opened, spent.rounds)
        record.participate(accepted.plan_id, round_number, rho=rho, dry_run=True)
    except BudgetError as error:
        raise _named(_why_not(spent, round_number)) from error
    return rho


def earliest_round_in_s(accepted: Accepted, totals: Totals, *, at_s: float) -> float:
    """Seconds until a round may begin that this device can join; 0: now; infinite: never.

    Round numbers never run ahead of the plan's clock, so a device need not ask before.

    Args:
        accepted: The plan.
        totals: Of the device's record.
        at_s: Now by the device's own clock.
    """
    plan, spent = accepted.plan, totals.plans.get(accepted.plan_id)
    first = spent.last + plan.min_separation if spent is not None and spent.last else 1
    if first > plan.rounds:
        return math.inf
    return max(0.0, _begins_at(plan, first) - at_s)


def _signed_plan(data: bytes, signature: bytes, plan_key: bytes) -> Plan:
    from cryptography.exceptions import InvalidSignature

    try:
        return verified_plan(data, signature, plan_key)
    except PlanError as error:
        raise _named("signature" if isinstance(error.__cause__, InvalidSignature) else "plan") from error


def _why(plan: Plan, limits: DeviceLimits) -> str:
    """The reason of what `check_plan` refused, in its own order."""
    if plan.demo != isinstance(limits, UnsafeDemoLimits):
        return "demo" if plan.demo else "real-plan"
    if not plan.authority:
        return "authority"
    try:
        plan.check_epsilon()
    except PlanError:
        return "epsilon"
    if plan.min_cohort < limits.cohort_floor:
        return "cohort"
    return "times" if plan.participations > limits.participations else "lifetime"


def _why_not(spent: PlanTotals, round_number: int) -> str:
    """The reason of what the record refused, in its own order."""
    limits = spent.opened.limits
    if round_number <= spent.last:
        return "spent"
    if spent.last and round_number - spent.last < limits.separation:
        return "near"
    return "used-up" if limits.cap is not None and spent.rounds >= limits.cap else "lifetime"


def _set_up(accepted: Accepted, session: "Session") -> bool:
    plan = accepted.plan
    return (
        session.plan_id == accepted.plan_id
        and session.coordinates == plan.coordinates
        and session.ring_bits == plan.ring_bits
        and session.setting == plan.secagg
        and session.min_devices >= plan.min_cohort
    )


def _begins_at(plan: Plan, round_number: int) -> int:
    return plan.first_round_at + (round_number - 1) * plan.round_seconds


def _named(reason: str) -> FleetError:
    return FleetError(REFUSALS[reason], reason=reason)
