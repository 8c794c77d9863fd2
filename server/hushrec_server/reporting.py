"""What the shop is shown of its plans, rounds and counts: plain values for JSON, nothing of any device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from hushrec_privacy.accounting.guarantee import number
from hushrec_privacy.encoding.sums import decode_sum, noise_deviation, rounding_deviation, split_segments
from hushrec_privacy.ledger import PlanTotals
from hushrec_privacy.ledger.openings import guarantee_after
from sqlalchemy import Connection, select

from hushrec_server.plans import SignedPlan
from hushrec_server.rounds.states import State
from hushrec_server.rounds.store import Round
from hushrec_server.schema import RESULT, ROUND

__all__ = ["counts_report", "plan_report", "round_report"]

RESULTS_SHOWN = 100


def plan_report(signed: SignedPlan, spent: PlanTotals, states: Mapping[str, int]) -> dict[str, Any]:
    """A plan: what it is for, how far it is, what it has spent.

    Args:
        signed: The plan.
        spent: What the ledger counts.
        states: How many rounds are in each state.
    """
    reached = guarantee_after(spent.opened, spent.rounds, spent.last)
    return {
        "plan": signed.plan_id,
        "purpose": signed.plan.purpose,
        "status": signed.status.value,
        "demo": signed.plan.demo,
        "cohort": signed.plan.cohort,
        "rounds": dict(states),
        "rounds_spent": spent.rounds,
        "rounds_planned": signed.plan.rounds,
        "epsilon_spent": number(reached.epsilon),
        "epsilon_planned": float(signed.plan.epsilon),
        "delta": float(signed.plan.delta),
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
    """The newest results that are published and kept: sums over devices by segment, and how far noise moves each.

    A sum is the mean over the cohort times the cohort, in the segment's unit.
    """
    plan = signed.plan
    same = RESULT.c.plan == ROUND.c.plan, RESULT.c.number == ROUND.c.number
    wanted = select(RESULT.c.number, RESULT.c.noised, RESULT.c.survivors, RESULT.c.noised_at).where(
        *same, RESULT.c.plan == signed.plan_id, ROUND.c.state == State.PUBLISHED, RESULT.c.noised.is_not(None)
    )
    rounds = []
    for found in connection.execute(wanted.order_by(RESULT.c.number.desc()).limit(RESULTS_SHOWN)):
        parts = split_segments(plan, decode_sum(plan, np.frombuffer(found.noised, "<i8").astype(np.int64)))
        noise, rounding = noise_deviation(plan), rounding_deviation(plan, found.survivors)
        segments = {
            name: {
                "sum": (plan.cohort * values).tolist(),
                "noise_deviation": plan.cohort * noise[name],
                "rounding_deviation": plan.cohort * rounding[name],
            }
            for name, values in parts.items()
        }
        rounds.append({"round": found.number, "at": found.noised_at, "devices": found.survivors, "segments": segments})
    return {"plan": signed.plan_id, "purpose": plan.purpose, "cohort": plan.cohort, "rounds": rounds}
