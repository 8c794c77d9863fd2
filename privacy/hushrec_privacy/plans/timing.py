"""When the rounds of a plan are, for people: a plan that comes too late is found before anybody waits for it."""

from datetime import UTC, datetime

from hushrec_privacy.errors import PlanError
from hushrec_privacy.plans.plan import Plan

__all__ = ["check_not_over", "utc_text", "when"]

_LAST_S = 253_402_300_799  # end of the year 9999: later times cannot be written


def check_not_over(plan: Plan, at_s: int) -> None:
    """Refuse a plan that has no round to come.

    Args:
        plan: Its times are fixed: a round whose time is over is lost.
        at_s: Now, seconds since 1970-01-01 UTC.

    Raises:
        PlanError: The time of its last round is over.
    """
    if _rounds_over(plan, at_s) == plan.rounds:
        began, end = plan.first_round_at, plan.first_round_at + plan.rounds * plan.round_seconds
        raise PlanError(
            f"all {plan.rounds} rounds of the plan are over: the first one began at {utc_text(began)}, the last one "
            f"ended at {utc_text(end)}; plan anew with a --first-round that is to come"
        )


def when(plan: Plan, at_s: int) -> str:
    """One line on how far a plan is by the clock.

    Args:
        plan: The plan.
        at_s: Now, seconds since 1970-01-01 UTC.
    """
    if at_s < plan.first_round_at:
        return f"the first round begins at {utc_text(plan.first_round_at)}"
    began = f"the first round began at {utc_text(plan.first_round_at)}"
    over = _rounds_over(plan, at_s)
    if over == plan.rounds:
        return f"{began}, and all rounds are over"
    return f"{began}, and {over} of {plan.rounds} rounds are over" if over else f"{began} and is on"


def utc_text(at_s: int) -> str:
    """A time for people.

    >>> utc_text(1_801_382_400)
    '2027-01-31 08:00 UTC'
    """
    return datetime.fromtimestamp(min(at_s, _LAST_S), UTC).strftime("%Y-%m-%d %H:%M UTC")


def _rounds_over(plan: Plan, at_s: int) -> int:
    return min(plan.rounds, max(0, at_s - plan.first_round_at) // plan.round_seconds)
