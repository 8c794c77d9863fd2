"""A small fleet for tests of the server: a signed plan, an authority, devices without a network, a clock of our own."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.mechanisms.noise_store import PlanState
from hushrec_privacy.mechanisms.seal import RowPlace, SealKey, open_row
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.database import Database
from hushrec_server.noise_rows import DatabaseNoiseStore
from hushrec_server.publishing import Publisher
from hushrec_server.rounds.aggregation import Aggregation
from hushrec_server.service import FleetService, FleetSettings
from numpy.typing import NDArray

from tests.plain_aggregation import PlainAggregation, PlainDevice

__all__ = ["Clock", "SmallFleet", "raw_sum"]

START, ROUND_S = 1_800_000_000, 1_000


@dataclass
class Clock:
    """Stands still until it is told otherwise."""

    now: int = START

    def __call__(self) -> int:
        return self.now


@dataclass
class SmallFleet:
    """Keys, plan and devices; `service` opens a server over them, as often as one likes."""

    folder: Path
    url: str
    cohort: int = 5
    rounds: int = 50
    clock: Clock = field(default_factory=Clock)
    aggregation: Aggregation | None = field(default_factory=PlainAggregation)

    def __post_init__(self) -> None:
        self.plan_key, self.authority, self.seal_key = PlanKey(b"p" * 32), AuthorityKey(b"a" * 32), SealKey(b"s" * 32)
        self.plan: Plan = made_plan(self.cohort, self.rounds, self.authority.public().hex())

    def service(
        self, publisher: Publisher | None = None, *, add_plan: bool = True, clock: Clock | None = None
    ) -> FleetService:
        """A server process, as it were."""
        settings = FleetSettings("shop", self.plan_key.public(), self.seal_key)
        database = Database.open(self.url)
        settings = FleetSettings("shop", self.plan_key.public(), self.seal_key)
        try:
            service = FleetService(
                database, settings, publisher=publisher, aggregation=self.aggregation, clock=clock or self.clock
            )
        except BaseException:
            database.close()
            raise
        if add_plan:
            service.add_plan(self.plan.encode(), self.plan_key.sign(self.plan))
        return service

    def with_plan(self, **changed: Any) -> "SmallFleet":
        """The same with another plan."""
        self.plan = replace(self.plan, **changed)
        return self

    def pseudonym(self, number: int) -> str:
        return hashlib.sha256(b"%d" % number).hexdigest()[:32]

    def identity(self, number: int) -> Identity:
        return Identity(hashlib.sha256(b"identity %d" % number).digest())

    def certificate(self, number: int) -> bytes:
        return self.authority.certify(self.plan.plan_id, self.pseudonym(number), self.identity(number).public())

    def vector(self, number: int) -> NDArray[np.int64]:
        """A device's own: its number's place holds 1, the last place a mark."""
        vector = np.zeros(self.plan.coordinates, np.int64)
        vector[number % (self.plan.coordinates - 1)] = 1
        vector[-1] = -1
        return vector

    def device(self, number: int) -> PlainDevice:
        return PlainDevice(self.pseudonym(number), self.vector(number))

    def check_in(self, service: FleetService, *numbers: int) -> None:
        for number in numbers:
            service.check_in(self.plan.plan_id, self.pseudonym(number), self.certificate(number))

    def send(self, service: FleetService, phase: int, *numbers: int, round_number: int = 1) -> None:
        for number in numbers:
            device = self.device(number)
            service.upload(self.plan.plan_id, round_number, phase, device.pseudonym, device.message(phase))

    def run(self, service: FleetService, *numbers: int, round_number: int = 1, until: int = 6) -> None:
        """Bring a round to where phase `until` is closed, all these devices answering at once."""
        self.check_in(service, *numbers)
        for phase in range(1, until + 1):
            self.send(service, phase, *numbers, round_number=round_number)
            if phase == 1 and len(numbers) < self.plan.cohort:
                self.clock.now = max(self.clock.now, START + (round_number - 1) * ROUND_S + ROUND_S // 2)
            service.tick()

    def state(self, service: FleetService, round_number: int = 1) -> str:
        found = {each["round"]: each["state"] for each in service.rounds(self.plan.plan_id)}
        return str(found[round_number])


@cache
def made_plan(cohort: int, rounds: int, authority: str) -> Plan:
    """A plan of 32 numbers."""
    request = Request(
        population=cohort * 50,
        cohort=cohort,
        rounds=rounds,
        delta=1e-6,
        noise_multiplier=2.0,
        parameters=32,
        round_seconds=ROUND_S,
        first_round_at=START,
        authority=authority,
    )
    plan = make_plan(request)
    assert plan is not None
    return plan


def raw_sum(
    service: FleetService, plan: Plan, round_number: int, noised: bytes, seal_key: SealKey
) -> NDArray[np.int64]:
    """The sum without its noise, in ring steps: only who holds the seal key can do this, and only for a while."""
    with DatabaseNoiseStore(service.database).transaction(plan.plan_id) as rows:
        state: PlanState = rows.state()
        row = rows.row(round_number)
    assert row is not None
    place = RowPlace(plan.plan_id, round_number, row.previous, state.dimension)
    lattice = np.frombuffer(noised, "<i8") - open_row(seal_key, row.sealed, place)
    assert not np.any(lattice % (1 << plan.lattice_bits))
    return lattice >> plan.lattice_bits
