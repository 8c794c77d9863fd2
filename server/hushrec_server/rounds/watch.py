"""Whether plans get anywhere: rounds in a row that came to nothing, and budget that was spent on them.

A round that is given up in time costs the shop nothing but time, so a plan goes on, and the operator is told. A round
that was spent in the ledger and then aborted, such as one whose release was refused, has cost privacy for nothing:
after some of those in a row the plan is halted, until somebody has looked at it and resumes it.
"""

from collections.abc import Callable

from sqlalchemy import Connection, func, select

from hushrec_server.database import Database
from hushrec_server.logs import log_event
from hushrec_server.plans import Plans, PlanStatus, SignedPlan
from hushrec_server.rounds.schedule import Schedule
from hushrec_server.rounds.states import State
from hushrec_server.schema import LEDGER, PLAN, ROUND

__all__ = ["TOLD_ROUNDS", "VAIN_ROUNDS", "Watch"]

TOLD_ROUNDS = 5
"""Rounds in a row without a result after which the log says so, once."""

VAIN_ROUNDS = 5
"""Rounds in a row, spent and aborted, after which a plan is halted; as many again after each time it is resumed."""

_EVERY_S = 10


class Watch:
    """Looks at the open plans of one database. One thread at a time; any number of processes."""

    def __init__(self, database: Database, plans: Plans, clock: Callable[[], int]) -> None:
        self._database, self._plans, self._clock = database, plans, clock
        self._looked_at = -_EVERY_S
        self._told: set[str] = set()
        self._vain: dict[str, int] = {}

    def look(self) -> None:
        """Tell of plans that get nowhere, and halt those that spend budget for nothing; at most every ten seconds.

        Raises:
            StorageError: The database cannot be used.
        """
        now = self._clock()
        if 0 <= now - self._looked_at < _EVERY_S:
            return
        self._looked_at = now
        for plan_id, count in self.without_result().items():
            if count < TOLD_ROUNDS:
                self._told.discard(plan_id)
            elif plan_id not in self._told:
                self._told.add(plan_id)
                log_event("plan gets nowhere", plan=plan_id, rounds=count)
        for signed in self._open():
            self._halt_in_vain(signed.plan_id)

    def without_result(self) -> dict[str, int]:
        """How many rounds of each open plan are over since the last one that was published, or since it came here.

        Rounds that were aborted and those to which nobody came count alike; of a plan that compares only the former:
        nobody comes while there is no candidate.

        Raises:
            StorageError: The database cannot be used.
        """
        now, found = self._clock(), {}
        for signed in self._open():
            schedule = Schedule(signed.plan)
            with self._database.reading() as connection:
                wanted = select(PLAN.c.added_at).where(PLAN.c.plan == signed.plan_id)
                came = schedule.number_at(connection.execute(wanted).scalar_one())
                last = _last_published(connection, signed.plan_id)
                if signed.plan.compares:
                    found[signed.plan_id] = _aborted_after(connection, signed.plan_id, max(last, came - 1))
                    continue
            over = min(schedule.number_at(now) - 1, signed.plan.rounds)
            found[signed.plan_id] = max(0, over - max(last, came - 1))
        return found

    def _open(self) -> list[SignedPlan]:
        return [signed for signed in self._plans.all() if signed.status is PlanStatus.OPEN]

    def _halt_in_vain(self, plan_id: str) -> None:
        with self._database.reading() as connection:
            count = _spent_in_vain(connection, plan_id)
        before = self._vain.get(plan_id, count)  # what was before this process is left as somebody may have resumed it
        self._vain[plan_id] = count
        if count // VAIN_ROUNDS > before // VAIN_ROUNDS:
            reason = f"{count} rounds in a row were spent and came to nothing; see docs/runbook.md, A plan gets nowhere"
            with self._database.transaction() as connection:
                self._plans.change(connection, plan_id, PlanStatus.HALTED, reason)
            log_event("plan halted", plan=plan_id, reason="in vain", rounds=count)


def _last_published(connection: Connection, plan_id: str) -> int:
    wanted = select(func.max(ROUND.c.number)).where(ROUND.c.plan == plan_id, ROUND.c.state == State.PUBLISHED)
    return connection.execute(wanted).scalar_one() or 0


def _aborted_after(connection: Connection, plan_id: str, number: int) -> int:
    wanted = select(func.count()).select_from(ROUND).where(ROUND.c.plan == plan_id, ROUND.c.number > number)
    return connection.execute(wanted.where(ROUND.c.state == State.ABORTED)).scalar_one()


def _spent_in_vain(connection: Connection, plan_id: str) -> int:
    """Rounds since the last published one that are in the ledger and were aborted."""
    same = LEDGER.c.plan == ROUND.c.plan, LEDGER.c.first == ROUND.c.number
    wanted = select(func.count()).select_from(ROUND).join(LEDGER, same[0] & same[1])
    since = ROUND.c.plan == plan_id, ROUND.c.number > _last_published(connection, plan_id)
    return connection.execute(wanted.where(*since, ROUND.c.state == State.ABORTED)).scalar_one()
