"""Who gets a place in a round: whoever comes in its time, until the cohort is full.

Never more than the cohort: its ring holds the sum of so many, and the sum is divided by it. A place whose device says
nothing for the time of one message goes to the next one that comes. Whoever is refused is told when to come back, at
a time of its own, so that a fleet does not come all at once.
"""

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from hushrec_privacy.errors import FleetError, HushrecError
from sqlalchemy import Connection

from hushrec_server.database import Database
from hushrec_server.plans import Plans, PlanStatus, SignedPlan
from hushrec_server.refusals import Reason, refusal
from hushrec_server.rounds import store
from hushrec_server.rounds.aggregation import Aggregation
from hushrec_server.rounds.schedule import Schedule
from hushrec_server.rounds.states import State
from hushrec_server.rounds.store import Device, Key, Round

__all__ = ["Admission", "Answer", "CheckIn"]


@dataclass(frozen=True)
class CheckIn:
    """A place in a round.

    Attributes:
        round_number: Of the round.
        index: The place, from 0.
        session: What secure aggregation starts from.
        release: Bundle that the round trains from.
        deadline_at: When the phase that is open closes at the latest, seconds since 1970-01-01 UTC.
    """

    round_number: int
    index: int
    session: bytes
    release: str
    deadline_at: int


Answer = CheckIn | HushrecError
"""What a device gets: a place, or the reason why it gets none."""


class Admission:
    """Gives out places, to many devices in one transaction: they would wait for the same lock anyway."""

    def __init__(self, database: Database, plans: Plans, aggregation: Aggregation, clock: Callable[[], int]) -> None:
        self._database, self._plans, self._aggregation, self._clock = database, plans, aggregation, clock
        self._full: tuple[Key, int] | None = None  # round and second in which no place was found: most ask in vain

    def refused(self, plan_id: str, pseudonyms: Collection[str]) -> dict[str, FleetError]:
        """Which of these devices get no place now, by pseudonym, whoever they are.

        Args:
            plan_id: Of which plan. Untrusted.
            pseudonyms: Of anyone, 32 hexadecimal digits each.

        Raises:
            FleetError: The plan is unknown.
            StorageError: The database cannot be used.
        """
        found = self._seen(plan_id, pseudonyms)
        return {pseudonym: answer for pseudonym, answer in found.items() if isinstance(answer, FleetError)}

    def check_in(self, plan_id: str, devices: Mapping[str, bytes], release: Callable[[], str]) -> dict[str, Answer]:
        """Give devices places, the same ones when they ask again, or the reason why they get none; durable on return.

        Args:
            plan_id: Of which plan. Untrusted.
            devices: Public keys by pseudonym, both from certificates that were checked. Places go in their order.
            release: Gives the bundle that a new round starts from, or of a plan that compares, the candidate; empty:
                there is none. What it raises is the answer of all that have no place yet.

        Raises:
            FleetError: The plan is unknown.
            StorageError: The database cannot be used. Who asks again gets the place that may have been given.
        """
        found = self._seen(plan_id, devices)
        if len(found) == len(devices):
            return found
        try:
            bundle = release()  # reads files: not while others wait
        except HushrecError as error:
            return {pseudonym: found.get(pseudonym, error) for pseudonym in devices}
        plan, now = self._plans.known(plan_id), self._clock()
        if plan.compares and not bundle:
            left = [pseudonym for pseudonym in devices if pseudonym not in found]
            return found | {name: refusal(Reason.NOT_NOW, _ask_again_s(Schedule(plan), now)) for name in left}
        with self._database.transaction() as connection:
            signed = self._plans.get(connection, plan_id, lock=True)
            return self._give(connection, signed, devices, bundle)

    def _seen(self, plan_id: str, pseudonyms: Collection[str]) -> dict[str, Answer]:
        """What can be answered without a lock: most are refused, and wait for nobody."""
        with self._database.reading() as connection:
            signed = self._plans.get(connection, plan_id)
            return self._look(connection, signed, store.latest(connection, plan_id), pseudonyms, self._clock())

    def _look(
        self, connection: Connection, signed: SignedPlan, latest: Round | None, pseudonyms: Collection[str], now: int
    ) -> dict[str, Answer]:
        """By pseudonym the place that a device has, or its refusal. Whoever is missing may get a place."""
        found: dict[str, Answer] = {}
        if latest is not None and not latest.ended:
            places = store.places(connection, latest.key, pseudonyms)
            found |= {pseudonym: _answer(latest, place) for pseudonym, place in places.items()}
        reason = self._closed(connection, signed, latest, now)
        if reason is not None:
            found |= {name: _refusal(reason, signed, now) for name in pseudonyms if name not in found}
        return found

    def _closed(self, connection: Connection, signed: SignedPlan, latest: Round | None, now: int) -> Reason | None:
        """Why nobody gets a place; None: somebody may."""
        schedule = Schedule(signed.plan)
        number = schedule.number_at(now)
        if signed.status is PlanStatus.ENDED or number > signed.plan.rounds:
            return Reason.PLAN_ENDED
        if signed.status is PlanStatus.HALTED:
            return Reason.PLAN_HALTED
        if not _open_for(latest, number, now, schedule):
            return Reason.NOT_NOW
        if latest is not None and latest.number == number and not self._free(connection, latest, schedule, now, 1):
            return Reason.ROUND_FULL
        return None

    def _give(
        self, connection: Connection, signed: SignedPlan, devices: Mapping[str, bytes], bundle: str
    ) -> dict[str, Answer]:
        """The same once more with nobody beside us, and places for as many as there are."""
        now, schedule = self._clock(), Schedule(signed.plan)
        round_ = store.latest(connection, signed.plan_id, lock=True)
        found = self._look(connection, signed, round_, devices, now)
        left = [pseudonym for pseudonym in devices if pseudonym not in found]
        if not left:
            return found
        if round_ is None or round_.number < schedule.number_at(now):
            round_ = self._new_round(signed, now, bundle)
            store.open_round(connection, round_)
        if signed.plan.compares and round_.release != bundle:  # what it compares is no candidate any more
            return found | {name: _refusal(Reason.NOT_NOW, signed, now) for name in left}
        kept = {each.index for each in found.values() if isinstance(each, CheckIn)}  # who asks again is not silent
        free = [place for place in self._free(connection, round_, schedule, now, len(devices)) if place not in kept]
        given = [Device(place, name, devices[name]) for name, place in zip(left, free, strict=False)]
        again = [device.place for device in given if device.place < round_.admitted]
        if again:
            store.free_places(connection, round_.key, again)
        if given:
            store.add_devices(connection, round_.key, given, now)
            store.change(connection, round_.key, admitted=round_.admitted + len(given) - len(again))
        found |= {device.pseudonym: _answer(round_, device.place) for device in given}
        return found | {name: _refusal(Reason.ROUND_FULL, signed, now) for name in left[len(given) :]}

    def _free(self, connection: Connection, round_: Round, schedule: Schedule, now: int, count: int) -> list[int]:
        """Places that may be given, at most so many: new ones, then those whose devices have said nothing."""
        free = list(range(round_.admitted, min(round_.admitted + count, schedule.plan.cohort)))
        if len(free) < count and self._full != (round_.key, now):
            free += store.silent(connection, round_.key, now - schedule.answer_s, count - len(free))
            if not free:
                self._full = (round_.key, now)
        return free

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


def _refusal(reason: Reason, signed: SignedPlan, now: int) -> FleetError:
    """With the time to come back at that belongs to it, another one each time."""
    if reason is Reason.PLAN_ENDED:
        return refusal(reason)
    wait = signed.plan.round_seconds if reason is Reason.PLAN_HALTED else _come_back_s(Schedule(signed.plan), now)
    return refusal(reason, wait)


def _come_back_s(schedule: Schedule, now: int) -> int:
    """Some time in the first quarter of the next round's admission."""
    number = schedule.number_at(now)
    wait = schedule.start(number + 1) - now
    quarter = (schedule.admit_until(number + 1) - schedule.start(number + 1)) // 4
    return wait + secrets.randbelow(max(1, quarter))


def _ask_again_s(schedule: Schedule, now: int) -> int:
    """Some time before this round's admission is half over from now on; the next round, if it is over soon."""
    left = schedule.admit_until(schedule.number_at(now)) - now
    if left <= schedule.answer_s:
        return _come_back_s(schedule, now)
    return max(1, left // 4 + secrets.randbelow(max(1, left // 4)))


def _answer(round_: Round, place: int) -> CheckIn:
    return CheckIn(round_.number, place, round_.session, round_.release, round_.deadline_at)
