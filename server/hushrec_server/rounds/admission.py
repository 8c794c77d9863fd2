"""Who gets a place in a round: whoever comes in its time, until the cohort is full.

Never more than the cohort: its ring holds the sum of so many, and the sum is divided by it. A place whose device says
nothing for the time of one message goes to the next one that comes. Whoever is refused is told when to come back, at
a time of its own, so that a fleet does not come all at once.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from hushrec_server.database import Database
from hushrec_server.plans import Plans, PlanStatus, SignedPlan
from hushrec_server.refusals import Reason, refusal
from hushrec_server.rounds import store
from hushrec_server.rounds.aggregation import Aggregation
from hushrec_server.rounds.schedule import Schedule
from hushrec_server.rounds.states import State
from hushrec_server.rounds.store import Device, Key, Round

__all__ = ["Admission", "CheckIn"]


@dataclass(frozen=True)
class CheckIn:
    """A place in a round.

    Attributes:
        round_number: Of the round.
        index: The place, from 0.
        session: What secure aggregation starts from.
        release: Bundle that the round trains from; of a plan that compares, the candidate.
        deadline_at: When the phase that is open closes at the latest, seconds since 1970-01-01 UTC.
    """

    round_number: int
    index: int
    session: bytes
    release: str
    deadline_at: int


class Admission:
    """Gives out places."""

    def __init__(self, database: Database, plans: Plans, aggregation: Aggregation, clock: Callable[[], int]) -> None:
        self._database, self._plans, self._aggregation, self._clock = database, plans, aggregation, clock
        self._full: tuple[Key, int] | None = None  # round and second in which no place was found: most ask in vain

    def check_in(self, plan_id: str, pseudonym: str, identity: bytes, release: Callable[[], str]) -> CheckIn:
        """Give a device a place; the same one when it asks again.

        Args:
            plan_id: Of which plan. Untrusted.
            pseudonym: From a certificate that was checked.
            identity: Public key, from the same certificate.
            release: Gives the bundle that a new round starts from, or of a plan that compares, the candidate; empty:
                there is none.

        Raises:
            FleetError: It gets none.
            StorageError: The database cannot be used.
        """
        now = self._clock()
        with self._database.reading() as connection:  # most are refused here, and wait for no lock
            signed = self._plans.get(connection, plan_id)
            found = self._look(connection, signed, pseudonym, now)
        if found is not None:
            return found
        new = self._new_round(signed, now, release())
        if signed.plan.compares and not new.release:
            raise refusal(Reason.NOT_NOW, _ask_again_s(Schedule(signed.plan), new.number, now))
        with self._database.transaction() as connection:
            self._plans.get(connection, plan_id, lock=True)
            return self._admit(connection, signed, Device(-1, pseudonym, identity), now, new)

    def _look(self, connection: Connection, signed: SignedPlan, pseudonym: str, now: int) -> CheckIn | None:
        """The place that the device has; None: it may get one; or the refusal."""
        schedule = Schedule(signed.plan)
        number = schedule.number_at(now)
        latest = next(iter(store.newest(connection, signed.plan_id, 1)), None)
        if latest is not None and not latest.ended:
            device = store.device(connection, latest.key, pseudonym)
            if device is not None:
                return _answer(latest, device.place)
        if signed.status is PlanStatus.ENDED or number > signed.plan.rounds:
            raise refusal(Reason.PLAN_ENDED)
        if signed.status is PlanStatus.HALTED:
            raise refusal(Reason.PLAN_HALTED, signed.plan.round_seconds)
        if not _open_for(latest, number, now, schedule):
            raise refusal(Reason.NOT_NOW, _come_back_s(schedule, number, now))
        if latest is not None and latest.number == number and self._place(connection, latest, schedule, now) is None:
            raise refusal(Reason.ROUND_FULL, _come_back_s(schedule, number, now))
        return None

    def _admit(self, connection: Connection, signed: SignedPlan, new: Device, now: int, opened: Round) -> CheckIn:
        """The same once more with nobody beside us, and the place."""
        known = self._look(connection, signed, new.pseudonym, now)
        if known is not None:
            return known
        round_ = store.locked(connection, opened.key)
        if round_ is None:
            store.open_round(connection, opened)
            round_ = opened
        schedule = Schedule(signed.plan)
        if signed.plan.compares and round_.release != opened.release:  # what it compares is no candidate any more
            raise refusal(Reason.NOT_NOW, _come_back_s(schedule, round_.number, now))
        place = self._place(connection, round_, schedule, now)
        if place is None or not _open_for(round_, round_.number, now, schedule):
            raise refusal(Reason.ROUND_FULL, _come_back_s(schedule, round_.number, now))
        is_new = place == round_.admitted
        store.add_device(connection, round_.key, new._replace(place=place), now, instead=not is_new)
        if is_new:
            store.change(connection, round_.key, admitted=place + 1)
        return _answer(round_, place)

    def _place(self, connection: Connection, round_: Round, schedule: Schedule, now: int) -> int | None:
        if round_.admitted < schedule.plan.cohort:
            return round_.admitted
        if self._full == (round_.key, now):
            return None
        place = store.silent(connection, round_.key, now - schedule.answer_s)
        if place is None:
            self._full = (round_.key, now)
        return place

    def _new_round(self, signed: SignedPlan, now: int, release: str) -> Round:
        schedule = Schedule(signed.plan)
        number = schedule.number_at(now)
        return Round(
            plan=signed.plan_id,
            number=number,
            state=State.ADVERTISE,
            closing=False,
            opened_at=now,
            deadline_at=schedule.advertise_until(number),
            lease_until=0,
            session=self._aggregation.session(signed.plan, number),
            release=release,
            admitted=0,
            expected=signed.plan.cohort,
            reason="",
            ended_at=None,
        )


def _open_for(latest: Round | None, number: int, now: int, schedule: Schedule) -> bool:
    """Whether a round takes devices in: this round's time is now, and no earlier one is still running."""
    if number < 1 or now >= schedule.admit_until(number):
        return False
    if latest is None or latest.number < number:
        return latest is None or latest.ended
    return latest.number == number and latest.state is State.ADVERTISE and not latest.closing


def _come_back_s(schedule: Schedule, number: int, now: int) -> int:
    """Some time in the first quarter of the next round's admission."""
    wait = schedule.start(number + 1) - now
    quarter = (schedule.admit_until(number + 1) - schedule.start(number + 1)) // 4
    return wait + secrets.randbelow(max(1, quarter))


def _ask_again_s(schedule: Schedule, number: int, now: int) -> int:
    """Some time before this round's admission is half over from now on; the next round, if it is over soon."""
    left = schedule.admit_until(number) - now
    if left <= schedule.answer_s:
        return _come_back_s(schedule, number, now)
    return max(1, left // 4 + secrets.randbelow(max(1, left // 4)))


def _answer(round_: Round, place: int) -> CheckIn:
    return CheckIn(round_.number, place, round_.session, round_.release, round_.deadline_at)
