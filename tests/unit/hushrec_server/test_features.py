"""Payloads that devices send by themselves are kept until they expire; nonces for as long as a request could return."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from hushrec_privacy.errors import FleetError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.schema import DirectPayload, Segment, Vector
from hushrec_server.features import NONCE_S
from hushrec_server.schema import FEATURE, NONCE
from hushrec_server.service import FleetService
from sqlalchemy import func, select

from tests.small_fleet import ROUND_S, START, SmallFleet

DAY_S = 86_400


@cache
def plan_with_payloads(authority: str) -> Plan:
    plan = make_plan(
        Request(
            population=250,
            cohort=5,
            rounds=50,
            delta=1e-6,
            noise_multiplier=2.0,
            vector=Vector(
                "features",
                (Segment("visits", 3, "2", "how often the app was opened"),),
                (DirectPayload("interests", 4, "1", "what the shopper likes", "1", "0.000001", 3, 7),),
            ),
            round_seconds=ROUND_S,
            first_round_at=START,
            authority=authority,
        )
    )
    assert plan is not None
    return plan


@pytest.fixture
def fleet(tmp_path: Path, url: str) -> SmallFleet:
    fleet = SmallFleet(tmp_path, url)
    fleet.plan = plan_with_payloads(fleet.authority.public().hex())
    return fleet


def reason(act: Callable[[], object]) -> str:
    with pytest.raises(FleetError) as found:
        act()
    return found.value.reason


def payload(number: float, length: int = 4) -> bytes:
    return np.full(length, number, "<f4").tobytes()


def count(service: FleetService, table: object) -> int:
    with service.database.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()  # type: ignore[arg-type]


def test_a_payload_is_handed_to_the_shop_until_it_expires_and_then_deleted(
    fleet: SmallFleet, service: FleetService
) -> None:
    plan = fleet.plan.plan_id
    service.add_features(plan, "interests", fleet.pseudonym(0), payload(1))
    fleet.clock.now += DAY_S // 2
    service.add_features(plan, "interests", fleet.pseudonym(1), payload(2))
    assert set(service.features(plan, "interests")) == {payload(1), payload(2)}
    fleet.clock.now = START + 7 * DAY_S
    assert service.features(plan, "interests") == (payload(2),)
    service.tick()
    assert count(service, FEATURE) == 1
    fleet.clock.now += DAY_S
    service.tick()
    assert count(service, FEATURE) == 0


def test_of_a_payload_that_has_expired_nothing_is_left_in_the_files(fleet: SmallFleet, service: FleetService) -> None:
    if service.database.shared:
        pytest.skip("PostgreSQL uses its pages again; see docs/rounds.md")
    values = np.array([1.2345, -6.789, 3.1415, 2.7182], "<f4").tobytes()
    service.add_features(fleet.plan.plan_id, "interests", fleet.pseudonym(0), values)
    fleet.clock.now += 7 * DAY_S
    service.tick()
    left = [path.name for path in fleet.folder.glob("fleet.sqlite*") if values in path.read_bytes()]
    assert not left


def test_a_device_has_one_payload_of_a_name(fleet: SmallFleet, service: FleetService) -> None:
    for body in (payload(1), payload(2)):
        service.add_features(fleet.plan.plan_id, "interests", fleet.pseudonym(0), body)
    assert service.features(fleet.plan.plan_id, "interests") == (payload(2),)


def test_a_payload_that_a_device_sends_many_times_at_once_is_kept_once_and_each_is_acknowledged(
    fleet: SmallFleet, service: FleetService
) -> None:
    bodies = [payload(number) for number in range(32)]
    with ThreadPoolExecutor(8) as pool:  # an error of any of them is raised here
        list(pool.map(lambda body: service.add_features(fleet.plan.plan_id, "interests", "ab" * 16, body), bodies))
    (kept,) = service.features(fleet.plan.plan_id, "interests")
    assert kept in bodies
    fleet.clock.now += DAY_S
    service.add_features(fleet.plan.plan_id, "interests", "ab" * 16, payload(1))
    fleet.clock.now = START + 7 * DAY_S
    assert service.features(fleet.plan.plan_id, "interests") == (payload(1),), "it expires as the last one does"


def test_the_order_tells_nothing_of_who_sent_or_when(fleet: SmallFleet, service: FleetService) -> None:
    bodies = [payload(number) for number in range(20)]
    for number, body in enumerate(bodies):
        service.add_features(fleet.plan.plan_id, "interests", fleet.pseudonym(number), body)
    first = service.features(fleet.plan.plan_id, "interests")
    for number, body in enumerate(reversed(bodies)):
        service.add_features(fleet.plan.plan_id, "interests", fleet.pseudonym(number), body)
    assert service.features(fleet.plan.plan_id, "interests") == first
    assert set(first) == set(bodies)
    assert list(first) != bodies


def test_a_payload_that_the_plan_does_not_list_is_refused(fleet: SmallFleet, service: FleetService) -> None:
    plan, name = fleet.plan.plan_id, fleet.pseudonym(0)
    assert reason(lambda: service.add_features(plan, "visits", name, b"x")) == "unknown-feature"
    assert reason(lambda: service.add_features("ab" * 32, "interests", name, b"x")) == "unknown-plan"
    assert reason(lambda: service.features("ab" * 32, "interests")) == "unknown-plan"
    service.halt(plan)
    with pytest.raises(FleetError) as refused:
        service.add_features(plan, "interests", name, payload(1))
    assert (refused.value.reason, refused.value.retry_after_s) == ("plan-halted", fleet.plan.round_seconds)
    assert count(service, FEATURE) == 0


@pytest.mark.parametrize(
    "values",
    [b"", payload(1, 3), payload(1, 5), payload(1) + b"\0", payload(float("nan")), payload(1, 3) + payload(-np.inf, 1)],
)
def test_a_payload_that_is_not_the_plan_s_vector_is_refused_and_the_one_before_it_stays(
    fleet: SmallFleet, service: FleetService, values: bytes
) -> None:
    plan, name = fleet.plan.plan_id, fleet.pseudonym(0)
    service.add_features(plan, "interests", name, payload(7))
    assert reason(lambda: service.add_features(plan, "interests", name, values)) == "bad-message"
    assert service.features(plan, "interests") == (payload(7),)


def test_a_nonce_is_known_again_until_no_request_could_carry_it(fleet: SmallFleet, service: FleetService) -> None:
    plan, name = fleet.plan.plan_id, fleet.pseudonym(0)
    assert service.remember_nonces(plan, [(name, b"n", START)]) == [True]
    assert service.remember_nonces(plan, [(name, b"n", START)]) == [False]
    assert service.remember_nonces(plan, [(name, b"m", START), (fleet.pseudonym(1), b"n", START)]) == [True, True]
    fleet.clock.now = START + NONCE_S - 1
    service.tick()
    assert count(service, NONCE) == 3
    fleet.clock.now += 1
    service.tick()
    assert count(service, NONCE) == 0


def test_a_nonce_that_comes_twice_at_once_is_new_once(fleet: SmallFleet, service: FleetService) -> None:
    plan, name = fleet.plan.plan_id, fleet.pseudonym(0)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: service.remember_nonces(plan, [(name, b"n", START)])[0], range(16)))
    assert sum(found) == 1


def test_of_many_nonces_only_those_that_are_new_are_new_and_one_that_comes_twice_is_new_once(
    fleet: SmallFleet, service: FleetService
) -> None:
    plan, (one, other) = fleet.plan.plan_id, (fleet.pseudonym(0), fleet.pseudonym(1))
    assert service.remember_nonces(plan, [(one, b"b", START)]) == [True]
    asked = [(one, b"c", START), (one, b"b", START), (other, b"b", START), (one, b"c", START), (one, b"a", START)]
    assert service.remember_nonces(plan, asked) == [True, False, True, False, True]
    assert service.remember_nonces("cd" * 32, [(one, b"a", START)]) == [True]


def test_a_nonce_is_kept_as_long_as_the_first_request_that_carried_it_needs(
    fleet: SmallFleet, service: FleetService
) -> None:
    plan, name = fleet.plan.plan_id, fleet.pseudonym(0)
    asked = [(name, b"n", START), (name, b"n", START - NONCE_S + 1)]
    assert service.remember_nonces(plan, asked) == [True, False]
    fleet.clock.now = START + NONCE_S - 1
    service.tick()
    assert count(service, NONCE) == 1


def test_processes_that_get_the_same_nonces_in_other_orders_do_not_wait_for_each_other_in_a_ring(
    fleet: SmallFleet, service: FleetService
) -> None:
    other, together = fleet.service(), Barrier(2)
    asked = [(fleet.pseudonym(number), b"n", START) for number in range(800)]

    def ask(service: FleetService, order: int) -> int:
        new = 0
        for plan in range(5):
            together.wait(20)
            new += sum(service.remember_nonces(f"{plan:064x}", asked[::order]))
        return new

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(ask, service, 1), pool.submit(ask, other, -1)]
        assert sum(each.result() for each in found) == 5 * 800
    other.database.close()


def test_counts_are_shown_beside_their_noise(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5))
    found = service.counts(fleet.plan.plan_id)
    assert found["purpose"] == "features"
    rounds = found["rounds"]
    assert isinstance(rounds, list)
    assert [each["round"] for each in rounds] == [1]
    values, deviation = (rounds[0]["segments"]["visits"][name] for name in ("values", "deviation"))
    assert len(values) == 3
    assert deviation > 0
    assert np.abs(values).max() < 10 * deviation + 2 * 5
