"""Participation records of devices with real plans, for tests of receipts."""

from collections.abc import Iterable
from functools import cache

from hushrec_privacy.ledger import MemoryLedgerStore, Open, ParticipationRecord
from hushrec_privacy.ledger.device_cost import device_opening, participation_rho
from hushrec_privacy.plans.limits import DeviceLimits
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan

__all__ = ["a_plan", "joined", "recorded", "take_part"]


@cache
def a_plan(rounds: int = 100, epsilon: float = 2.0) -> Plan:
    """A plan of 20,000 devices in cohorts of 1,000: rounds are 20 apart."""
    found = make_plan(Request(population=20_000, cohort=1000, rounds=rounds, delta=1e-6, epsilon=epsilon))
    assert found is not None
    return found


def joined(plan: Plan, participations: int = 100) -> Open:
    """The entry by which a device joins it."""
    return device_opening(plan, DeviceLimits(participations=participations))


def take_part(record: ParticipationRecord, opened: Open, rounds: Iterable[int]) -> None:
    """Join a plan and take part in rounds of it, each told at its true cost."""
    record.join(opened)
    for before, round_ in enumerate(rounds):
        record.participate(opened.plan, round_, rho=participation_rho(opened, before))


def recorded(opened: Open, rounds: Iterable[int], *, lifetime_rho: str = "5") -> MemoryLedgerStore:
    """The record of a device that took part in rounds of one plan."""
    store = MemoryLedgerStore()
    take_part(ParticipationRecord.begin(store, lifetime_rho=lifetime_rho), opened, rounds)
    return store
