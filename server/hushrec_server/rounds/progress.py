"""Whatever is due, done by whichever process comes first.

A process claims a round for the length of a lease, so that heavy work is not done three times; a killed one's lease
runs out. The lease saves work and decides nothing: every step computes the same from what is stored, and commits only
if the round is still where the step began. So a lease that runs out too early costs time, not correctness.
"""

import threading
from collections.abc import Callable

from hushrec_privacy.errors import BudgetError, HushrecError, NoiseStateError, SecAggError
from hushrec_privacy.plans.plan import Plan

from hushrec_server.database import Database
from hushrec_server.logs import log_event, log_progress
from hushrec_server.plans import Plans, PlanStatus
from hushrec_server.rounds import store
from hushrec_server.rounds.closing import Closing, is_complete
from hushrec_server.rounds.finishing import Finishing
from hushrec_server.rounds.schedule import Schedule
from hushrec_server.rounds.states import PHASES, State
from hushrec_server.rounds.store import Key, Round

__all__ = ["Progress"]

BUSY_S, IDLE_S = 0.25, 2.0
"""Until the next look: while a round runs, and while none does (another process may open one)."""

_CAN_ABORT = (*PHASES, State.SUMMED)


class Progress:
    """Moves rounds on. Safe to use from several threads and processes."""

    def __init__(
        self, database: Database, plans: Plans, closing: Closing, finishing: Finishing, clock: Callable[[], int]
    ) -> None:
        self._database, self._plans, self._clock = database, plans, clock
        self._closing, self._finishing = closing, finishing
        self._working = threading.Lock()

    def tick(self) -> float:
        """Do all that is due; seconds until the next call makes sense.

        A round whose step fails is left to the next lease and logged; the others go on.

        Raises:
            StorageError: The database cannot be used.
            Exception: A fault that nobody foresaw, after all other rounds have gone on.
        """
        if not self._working.acquire(blocking=False):
            return BUSY_S
        try:
            with self._database.reading() as connection:
                found = store.running(connection)
            faults = [fault for round_ in found if (fault := self._fault(round_.key)) is not None]
            self._end_plans({round_.plan for round_ in found})
            if faults:
                raise faults[0]
            return BUSY_S if any(not _rests(round_, self._clock()) for round_ in found) else IDLE_S
        finally:
            self._working.release()

    def abort(self, key: Key, reason: str, *, seen: State | None = None) -> bool:
        """Give a round up, and erase what its devices sent. What was spent stays spent.

        Args:
            key: Which round.
            reason: For the operator.
            seen: Only if it is still in this state: a process that was held up for long knows nothing of later ones.

        Returns:
            Whether it was given up; False: it has ended or gone on, or its sum has its noise and will be published.
        """
        with self._database.transaction() as connection:
            found = store.locked(connection, key)
            if found is None or found.state not in _CAN_ABORT or seen not in (None, found.state):
                return False
            lease = self._clock() + Schedule(self._plans.get(connection, key.plan).plan).lease_s
            values = {"state": State.ABORTED, "reason": reason[:200], "closing": False, "lease_until": lease}
            store.change(connection, key, **values)
        self._erase_aborted(key)
        log_event("round aborted", plan=key.plan, round=key.number, reason=reason)
        return True

    def _fault(self, key: Key) -> Exception | None:
        """Move a round on; what went wrong that no step foresees, such as a full disk, must not hold up the others."""
        try:
            self._move(key)
        except Exception as error:  # noqa: BLE001  raised by `tick` when the others are done
            return error
        return None

    def _move(self, key: Key) -> None:
        """All steps of a round that are due."""
        while (claimed := self._claim(key)) is not None:
            round_, plan = claimed
            named: dict[str, str | int] = {"plan": key.plan, "round": key.number, "state": round_.state.value}
            try:
                if not self._step(round_, plan):
                    return
                log_progress("round advanced", **named)
            except SecAggError as error:
                self.abort(key, error.message, seen=round_.state)
            except (BudgetError, NoiseStateError) as error:
                if self.abort(key, error.code, seen=round_.state):
                    self._halt(key, error)
            except HushrecError as error:
                log_event("round is stuck", **named, reason=error.code)
                self._give_up_late(round_, error.code)
                return
            except Exception:
                self._give_up_late(round_, "fault")
                raise

    def _give_up_late(self, round_: Round, reason: str) -> None:
        """Abort a round whose sum could not be made for so long that the next one waits for it."""
        if round_.state is State.SUMMED and self._clock() >= round_.deadline_at:
            self.abort(round_.key, reason, seen=State.SUMMED)

    def _halt(self, key: Key, error: HushrecError) -> None:
        with self._database.transaction() as connection:
            self._plans.change(connection, key.plan, PlanStatus.HALTED, error.message)
        log_event("plan halted", plan=key.plan, round=key.number, reason=error.code)

    def _claim(self, key: Key) -> tuple[Round, Plan] | None:
        """The round, if something is due and nobody else is at it."""
        now = self._clock()
        with self._database.reading() as connection:
            seen = store.read(connection, key)
            if seen is None or not self._is_due(seen, store.counted(connection, key, seen.state.phase or 0), now):
                return None
        with self._database.transaction() as connection:
            round_ = store.locked(connection, key, skip=True)
            if round_ is None:
                return None
            count = store.counted(connection, key, round_.state.phase or 0)
            if not self._is_due(round_, count, now):
                return None
            plan = self._plans.get(connection, key.plan).plan
            closing = round_.state in PHASES
            store.change(connection, key, closing=closing, lease_until=now + Schedule(plan).lease_s)
            return round_._replace(closing=closing), plan

    def _is_due(self, round_: Round, count: int, now: int) -> bool:
        if round_.ended_at is not None or round_.lease_until > now:
            return False
        return round_.state not in PHASES or is_complete(round_, count, now)

    def _step(self, round_: Round, plan: Plan) -> bool:
        """Take a step; whether the round has gone on: the next lease asks again for one whose result waits."""
        if round_.state in PHASES:
            self._closing.close(round_, plan)
        elif round_.state is State.SUMMED:
            self._finishing.spend_and_noise(round_, plan)
        elif round_.state is State.NOISED:
            self._finishing.erase(round_)
        elif round_.state is State.ERASED:
            verdict = self._finishing.publish(round_, plan)
            if verdict.waiting:
                self._wait(round_, verdict.waiting)
                return False
            if verdict.refused:
                log_event("release refused", plan=round_.plan, round=round_.number, reason=verdict.refused)
            else:
                log_progress("round published", plan=round_.plan, round=round_.number)
        else:
            self._erase_aborted(round_.key)
        return True

    def _wait(self, round_: Round, waiting: str) -> None:
        """Tell the operator, once, why a round is not published."""
        if not any(signed.plan.compares and signed.status is PlanStatus.OPEN for signed in self._plans.all()):
            waiting += "; no plan that compares is open: add one"
        if waiting == round_.reason:
            return
        with self._database.transaction() as connection:
            found = store.locked(connection, round_.key)
            if found is not None and found.state is round_.state:
                store.change(connection, round_.key, reason=waiting[:200])
        log_event("release waits", plan=round_.plan, round=round_.number, reason=waiting)

    def _erase_aborted(self, key: Key) -> None:
        store.erase(self._database, key)
        self._database.forget()
        with self._database.transaction() as connection:
            store.change(connection, key, ended_at=self._clock())

    def _end_plans(self, busy: set[str]) -> None:
        """Close plans whose last round's time is over, and delete what is left of their noise."""
        for signed in self._plans.all():
            over = self._clock() >= Schedule(signed.plan).end()
            if over and signed.plan_id not in busy and signed.status is not PlanStatus.ENDED:
                self._finishing.end(signed.plan)
                with self._database.transaction() as connection:
                    self._plans.change(connection, signed.plan_id, PlanStatus.ENDED)
                log_progress("plan ended", plan=signed.plan_id)


def _rests(round_: Round, now: int) -> bool:
    """Whether nothing is left to do for a round but to ask again whether its result is decided."""
    return round_.state is State.ERASED and round_.lease_until > now
