"""A device joins what its shop signed, within its own limits, at its time; every refusal has a name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hushrec.fleet import joining
from hushrec.fleet.joining import REFUSALS, Accepted, accepted_plan, check_round, earliest_round_in_s
from hushrec_privacy import canonical
from hushrec_privacy.errors import FleetError
from hushrec_privacy.ledger import MemoryLedgerStore, ParticipationRecord
from hushrec_privacy.plans.limits import DeviceLimits, UnsafeDemoLimits
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.secagg import Session

from tests.fleet_plans import AUTHORITY, a_fleet_plan

SECRET = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PLAN_KEY = SECRET.public_key().public_bytes_raw()
PLAN = a_fleet_plan(first_round_at=1_000_000, round_seconds=600, min_separation=5)
MANY = DeviceLimits(lifetime_rho=50.0)
NOW = 1_000_000 + 10 * 600.0  # round 11 begins


def signed(data: bytes) -> bytes:
    return SECRET.sign(b"hushrec plan v1\x00" + data)


def a_record(lifetime_rho: str = "50") -> ParticipationRecord:
    return ParticipationRecord.begin(MemoryLedgerStore(), lifetime_rho=lifetime_rho)


def accept(plan: Plan | bytes, record: ParticipationRecord | None = None, limits: DeviceLimits = MANY) -> Accepted:
    data = plan if isinstance(plan, bytes) else plan.encode()
    return accepted_plan(data, signed(data), PLAN_KEY, limits=limits, totals=(record or a_record()).totals())


def session(plan: Plan = PLAN, **changed: Any) -> Session:
    return Session(
        **{
            "plan_id": plan.plan_id,
            "round_number": 11,
            "attempt": bytes(16),
            "authority": bytes.fromhex(AUTHORITY),
            "coordinates": plan.coordinates,
            "ring_bits": plan.ring_bits,
            "min_devices": plan.min_cohort,
            "setting": "active",
            **changed,
        }
    )


def joined(plan: Plan = PLAN, *rounds: int, limits: DeviceLimits = MANY) -> tuple[Accepted, ParticipationRecord]:
    """A device that joined a plan and took part in rounds of it."""
    record = a_record()
    accepted = accept(plan, record, limits)
    record.join(accepted.opened)
    for round_ in rounds:
        rho = check_round(accepted, session(plan, round_number=round_), record=record, at_s=1e12, round_number=round_)
        record.participate(accepted.plan_id, round_, rho=rho)
    return accepted, record


def reason_of(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(FleetError) as refused:
        call(*arguments, **named)
    assert refused.value.message == REFUSALS[refused.value.reason]
    assert refused.value.retry_after_s is None
    return refused.value.reason


def round_reason(
    known: tuple[Accepted, ParticipationRecord], round_: int = 11, at_s: float = NOW, **changed: Any
) -> str:
    accepted, record = known
    before = record.totals().rho
    given = session(accepted.plan, **{"round_number": round_, **changed})
    reason = reason_of(check_round, accepted, given, record=record, at_s=at_s, round_number=round_)
    assert record.totals().rho == before, "a check spends nothing"
    return reason


def test_a_plan_of_the_shop_within_all_limits_is_joined_and_so_is_its_round_at_its_time() -> None:
    accepted, record = joined()
    assert (accepted.plan, accepted.plan_id) == (PLAN, PLAN.plan_id)
    rho = check_round(accepted, session(), record=record, at_s=NOW, round_number=11)
    assert float(rho) > 0
    record.participate(PLAN.plan_id, 11, rho=rho)


def test_a_signature_of_anyone_else_is_refused() -> None:
    data, totals = PLAN.encode(), a_record().totals()
    for given, signature, key in (
        (data, bytes(64), PLAN_KEY),
        (data, signed(data)[:-1], PLAN_KEY),
        (data, b"", PLAN_KEY),
        (data + b" ", signed(data), PLAN_KEY),
        (data, signed(data), bytes.fromhex(AUTHORITY)),
        (data, SECRET.sign(data), PLAN_KEY),
    ):
        assert reason_of(accepted_plan, given, signature, key, limits=MANY, totals=totals) == "signature"


def test_a_plan_that_cannot_be_read_is_told_apart_from_one_that_is_not_signed() -> None:
    newer = canonical.encode({**PLAN.to_dict(), "format": 2, "kind": "hushrec-plan"})
    for data in (newer, b"{}", b"", PLAN.encode() + b"\n"):
        assert reason_of(accept, data) == "plan"


def test_a_plan_that_claims_a_better_epsilon_is_refused() -> None:
    assert reason_of(accept, replace(PLAN, epsilon="0.01")) == "epsilon"
    assert reason_of(accept, replace(PLAN, epsilon="1000")) == "epsilon"


def test_a_demonstration_is_joined_under_demonstration_limits_alone_and_these_join_nothing_else() -> None:
    demo = a_fleet_plan(cohort=6, population=60)
    assert demo.demo
    assert reason_of(accept, demo) == "demo"
    assert reason_of(accept, PLAN, None, UnsafeDemoLimits(lifetime_rho=50.0)) == "real-plan"
    accept(demo, None, UnsafeDemoLimits(lifetime_rho=50.0))


def test_a_small_cohort_is_refused_though_its_plan_does_not_say_demo() -> None:
    assert reason_of(accept, replace(PLAN, min_cohort=99)) == "cohort"
    assert reason_of(accept, PLAN, None, DeviceLimits(cohort_floor=1_000, lifetime_rho=50.0)) == "cohort"


def test_a_plan_with_too_many_participations_or_too_high_a_cost_is_refused() -> None:
    assert reason_of(accept, PLAN, None, DeviceLimits(participations=1, lifetime_rho=50.0)) == "times"
    assert reason_of(accept, PLAN, None, DeviceLimits(lifetime_rho=0.001)) == "lifetime"


def test_what_other_plans_spent_counts_and_what_this_one_spent_is_not_counted_twice() -> None:
    rho = PLAN.mu() ** 2 / 2
    limits = DeviceLimits(lifetime_rho=1.5 * rho)
    accepted, record = joined(PLAN, 11, limits=limits)
    accept(PLAN, record, limits)
    other = replace(PLAN, first_round_at=1_000_001)
    assert reason_of(accept, other, record, DeviceLimits(lifetime_rho=1.001 * rho)) == "lifetime"
    accept(other, record, DeviceLimits(lifetime_rho=2.001 * rho))
    assert accepted.plan_id in record.totals().plans


def test_a_plan_without_an_authority_is_refused() -> None:
    assert reason_of(accept, replace(PLAN, authority="")) == "authority"


def test_a_session_of_another_authority_is_refused() -> None:
    assert round_reason(joined(), authority=bytes(32)) == "authority"


@pytest.mark.parametrize(
    "changed",
    [
        {"plan_id": "ab" * 32},
        {"coordinates": 1024},
        {"ring_bits": 17},
        {"setting": "curious"},
        {"min_devices": 2},
        {"min_devices": 159},
    ],
)
def test_a_session_that_is_not_the_plan_s_is_refused(changed: dict[str, Any]) -> None:
    assert PLAN.min_cohort == 160
    assert round_reason(joined(), **changed) == "session"


def test_a_session_of_another_round_than_the_one_said_is_refused() -> None:
    accepted, record = joined()
    given = session(round_number=12)
    assert reason_of(check_round, accepted, given, record=record, at_s=1e12, round_number=11) == "session"


def test_a_session_may_demand_more_devices_than_the_plan() -> None:
    accepted, record = joined()
    check_round(accepted, session(min_devices=161), record=record, at_s=NOW, round_number=11)


def test_a_round_before_its_time_is_refused_but_for_a_clock_that_is_a_little_behind() -> None:
    known = joined()
    assert round_reason(known, at_s=NOW - 61) == "early"
    assert round_reason(known, 12) == "early"
    check_round(known[0], session(), record=known[1], at_s=NOW - 59, round_number=11)


def test_a_round_that_the_plan_does_not_have_is_refused() -> None:
    assert PLAN.rounds == 20
    assert round_reason(joined(), 21, at_s=1e12) == "number"


def test_a_round_again_or_an_earlier_one_is_refused() -> None:
    known = joined(PLAN, 11)
    assert round_reason(known, 11, at_s=1e12) == "spent"
    assert round_reason(known, 3, at_s=1e12) == "spent"


def test_a_round_that_is_too_near_is_refused() -> None:
    known = joined(PLAN, 11)
    assert round_reason(known, 15, at_s=1e12) == "near"
    check_round(known[0], session(round_number=16), record=known[1], at_s=1e12, round_number=16)


def test_a_device_that_took_part_as_often_as_it_may_is_done_with_the_plan() -> None:
    plan = replace(PLAN, participations=2)
    plan = replace(plan, epsilon=canonical.float_text(plan.guarantee().epsilon))
    known = joined(plan, 1, 6)
    assert reason_of(accept, plan, known[1]) == "used-up"
    assert round_reason(known, 11, at_s=1e12) == "used-up"


def test_a_plan_without_a_round_that_is_far_enough_is_over() -> None:
    assert reason_of(accept, PLAN, joined(PLAN, 16)[1]) == "over"


def test_the_lifetime_limit_of_the_record_holds_whatever_the_app_allows() -> None:
    record = a_record(lifetime_rho="0.001")
    accepted = accept(PLAN, record)
    record.join(accepted.opened)
    given = session()
    assert reason_of(check_round, accepted, given, record=record, at_s=NOW, round_number=11) == "lifetime"


def test_a_device_waits_until_a_round_that_is_far_enough_may_begin() -> None:
    accepted, record = joined()
    assert earliest_round_in_s(accepted, record.totals(), at_s=NOW) == 0
    assert earliest_round_in_s(accepted, record.totals(), at_s=999_000.0) == 1_000
    accepted, record = joined(PLAN, 11)
    assert earliest_round_in_s(accepted, record.totals(), at_s=NOW) == 5 * 600
    accepted, record = joined(PLAN, 16)
    assert earliest_round_in_s(accepted, record.totals(), at_s=NOW) == float("inf")


def test_every_reason_is_reached_by_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert not [reason for reason in REFUSALS if f'== "{reason}"' not in tests]


def test_every_reason_is_in_the_table_of_the_module_and_has_one_line() -> None:
    documented = [line.split()[0] for line in (joining.__doc__ or "").splitlines() if line.startswith("    ")]
    assert documented == list(REFUSALS)
    assert all(0 < len(line) < 100 and "\n" not in line for line in REFUSALS.values())
