"""What the shop is shown of its plans, rounds and counts: plain values for JSON, nothing of any device."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hushrec_privacy.accounting.guarantee import number
from hushrec_privacy.encoding.readings import read_counts, read_evaluation, read_gain
from hushrec_privacy.encoding.sums import decode_sum
from hushrec_privacy.ledger import PlanTotals
from hushrec_privacy.ledger.openings import guarantee_after
from hushrec_privacy.plans.schema import UPDATE
from sqlalchemy import Connection, Select, select

from hushrec_server.plans import PlanStatus, SignedPlan
from hushrec_server.publishing import Newest
from hushrec_server.rounds.states import State
from hushrec_server.rounds.store import Round
from hushrec_server.schema import RESULT, ROUND

__all__ = ["candidate_report", "counts_report", "plan_report", "round_report"]

RESULTS_SHOWN = 100


def plan_report(
    signed: SignedPlan, spent: PlanTotals, states: Mapping[str, int], without_result: int
) -> dict[str, Any]:
    """A plan: what it is for, how far it is, what it has spent.

    Args:
        signed: The plan.
        spent: What the ledger counts.
        states: How many rounds are in each state.
        without_result: How many rounds are over since the last one that was published; 0 if it is not open.
    """
    reached = guarantee_after(spent.opened, spent.rounds, spent.last)
    return {
        "plan": signed.plan_id,
        "purpose": signed.plan.purpose,
        "status": signed.status.value,
        "reason": signed.reason,
        "demo": signed.plan.demo,
        "cohort": signed.plan.cohort,
        "rounds": dict(states),
        "rounds_without_result": without_result,
        "rounds_spent": spent.rounds,
        "rounds_planned": signed.plan.rounds,
        "epsilon_spent": number(reached.epsilon),
        "epsilon_planned": float(signed.plan.epsilon),
        "delta": float(signed.plan.delta),
    }


def candidate_report(candidate: Newest, plans: Sequence[SignedPlan]) -> dict[str, Any] | None:
    """What is not out before devices have compared it, and whose rounds it waits for; None: nothing waits.

    Args:
        candidate: Of the publisher.
        plans: All of them.
    """
    if not candidate.version:
        return None
    comparing = [signed.plan_id for signed in plans if signed.plan.compares and signed.status is PlanStatus.OPEN]
    return {
        "model_version": candidate.version,
        "bundle": candidate.bundle,
        "waits_for": f"a round of {' or '.join(comparing)}" if comparing else "a plan that compares: none is open",
    }


def round_report(round_: Round) -> dict[str, Any]:
    """A round: where it is, and how many devices it has or had."""
    return {
        "round": round_.number,
        "state": round_.state.value,
        "opened_at": round_.opened_at,
        "deadline_at": round_.deadline_at,
        "admitted": round_.admitted,
        "expected": round_.expected,
        "release": round_.release,
        "reason": round_.reason,
        "ended_at": round_.ended_at,
    }


def counts_report(connection: Connection, signed: SignedPlan) -> dict[str, Any]:
    """The newest results that are published and kept: sums over devices by segment, and how far noise moves each."""
    plan = signed.plan
    rounds = []
    for found in connection.execute(_kept_results(signed.plan_id)) if plan.purpose != UPDATE else ():
        decoded = decode_sum(plan, np.frombuffer(found.noised, "<i8").astype(np.int64))
        readings = read_counts(plan, decoded)
        evaluation, gain = read_evaluation(readings), read_gain(readings)
        rounds.append(
            {
                "round": found.number,
                "at": found.noised_at,
                "devices": found.survivors,
                "segments": {
                    name: {"values": reading.values.tolist(), "deviation": reading.deviation}
                    for name, reading in readings.items()
                },
                **({} if evaluation is None else {"evaluation": evaluation._asdict()}),
                **({} if gain is None else {"gain": gain._asdict()}),
            }
        )
    return {"plan": signed.plan_id, "purpose": plan.purpose, "cohort": plan.cohort, "rounds": rounds}


def _kept_results(plan_id: str) -> "Select[tuple[int, bytes, int, int]]":
    """The newest ones of a plan; not those of rounds that are not over."""
    same = RESULT.c.plan == ROUND.c.plan, RESULT.c.number == ROUND.c.number
    wanted = select(RESULT.c.number, RESULT.c.noised, RESULT.c.survivors, RESULT.c.noised_at).where(
        *same, RESULT.c.plan == plan_id, ROUND.c.state == State.PUBLISHED, RESULT.c.noised.is_not(None)
    )
    return wanted.order_by(RESULT.c.number.desc()).limit(RESULTS_SHOWN)
