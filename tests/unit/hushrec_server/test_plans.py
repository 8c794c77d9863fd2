"""A server takes plans of its shop alone, opens them in the ledger first, and takes each once."""

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hushrec_privacy.errors import FleetError, HushrecError, NoiseStateError, PlanError
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.plans import PlanStatus, check_seal, seal_fingerprint
from hushrec_server.schema import NOISE_PLAN, PLAN
from hushrec_server.service import FleetService
from sqlalchemy import func, select, update

from tests.fleet_plans import a_fleet_plan
from tests.small_fleet import ROUND_S, START, SmallFleet


def count(service: FleetService) -> tuple[int, int, int]:
    with service.database.reading() as connection:
        plans, noise = (
            connection.execute(select(func.count()).select_from(table)).scalar_one() for table in (PLAN, NOISE_PLAN)
        )
    return plans, noise, len(service.ledger.totals().plans)


def test_a_plan_is_shown_as_it_was_signed(fleet: SmallFleet, service: FleetService) -> None:
    info = service.info()
    assert info.plans == ((fleet.plan.encode(), fleet.plan_key.sign(fleet.plan)),)
    assert info.authorities == (fleet.authority.public(),)
    assert (info.server, info.release, info.now) == ("shop", 0, START)


def test_a_plan_that_is_there_already_is_left_as_it_is(fleet: SmallFleet, service: FleetService) -> None:
    for _ in range(3):
        service.add_plan(fleet.plan.encode(), fleet.plan_key.sign(fleet.plan))
    assert count(service) == (1, 1, 1)


def test_a_plan_all_of_whose_rounds_are_over_is_refused_unless_it_is_known(fleet: SmallFleet) -> None:
    service = fleet.service(add_plan=False)
    signed = fleet.plan.encode(), fleet.plan_key.sign(fleet.plan)
    fleet.clock.now = START + 50 * ROUND_S
    with pytest.raises(PlanError, match="all 50 rounds of the plan are over"):
        service.add_plan(*signed)
    assert count(service) == (0, 0, 0)
    fleet.clock.now -= 1
    service.add_plan(*signed)
    fleet.clock.now += 1
    service.tick()
    service.add_plan(*signed)  # as each restart does
    assert count(service) == (1, 1, 1)
    assert service.info().plans == ()
    service.database.close()


def test_processes_that_start_at_once_take_it_once(fleet: SmallFleet) -> None:
    with ThreadPoolExecutor(6) as pool:
        services = list(pool.map(lambda _: fleet.service(), range(6)))
    assert count(services[0]) == (1, 1, 1)
    assert services[0].ledger.verify().entries == 2
    for service in services:
        service.database.close()


def test_what_is_done_to_a_plan_is_logged_once_and_a_demo_s_line_says_so(fleet: SmallFleet, log: io.StringIO) -> None:
    service, plan = fleet.service(), fleet.plan.plan_id
    service.add_plan(fleet.plan.encode(), fleet.plan_key.sign(fleet.plan))
    service.halt(plan, "halted by an administrator")
    service.resume(plan)
    fleet.check_in(service, 0)
    service.abort(plan, 1)
    service.database.close()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert fleet.plan.demo, "a small fleet is one"
    assert [(line["event"], line["plan"]) for line in lines] == [
        (event, plan) for event in ("plan added", "plan halted", "plan resumed", "round aborted")
    ]
    assert lines[0]["demo"] == "DEMO, protects nobody"
    assert lines[1]["reason"] == "halted by an administrator"
    assert fleet.pseudonym(0) not in log.getvalue()


def test_the_line_of_a_plan_that_protects_does_not_speak_of_a_demo(fleet: SmallFleet, log: io.StringIO) -> None:
    service, plan = fleet.service(add_plan=False), a_fleet_plan(first_round_at=START)
    service.add_plan(plan.encode(), fleet.plan_key.sign(plan))
    service.database.close()
    assert "plan added" in log.getvalue()
    assert "DEMO" not in log.getvalue()


def test_a_plan_that_was_cut_off_after_the_ledger_is_taken_up_again(
    fleet: SmallFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = fleet.service(add_plan=False)

    def die(*_: object, **__: object) -> None:
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr("hushrec_server.plans.begin_plan", die)
        with pytest.raises(InterruptedError):
            service.add_plan(fleet.plan.encode(), fleet.plan_key.sign(fleet.plan))
    assert count(service) == (0, 0, 1)
    service.add_plan(fleet.plan.encode(), fleet.plan_key.sign(fleet.plan))
    assert count(service) == (1, 1, 1)
    service.database.close()


WRONG: dict[str, Callable[[SmallFleet], tuple[bytes, bytes]]] = {
    "of another key": lambda fleet: (fleet.plan.encode(), PlanKey(b"x" * 32).sign(fleet.plan)),
    "of another plan": lambda fleet: (replace(fleet.plan, round_seconds=7).encode(), fleet.plan_key.sign(fleet.plan)),
    "without signature": lambda fleet: (fleet.plan.encode(), b""),
    "without bytes": lambda fleet: (b"", fleet.plan_key.sign(fleet.plan)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_plan_that_the_shop_did_not_sign_is_refused(fleet: SmallFleet, wrong: str) -> None:
    service = fleet.service(add_plan=False)
    with pytest.raises(PlanError):
        service.add_plan(*WRONG[wrong](fleet))
    assert count(service) == (0, 0, 0)
    service.database.close()


def test_a_plan_in_which_nobody_could_hide_is_refused_before_the_ledger(
    fleet: SmallFleet,
) -> None:
    service = fleet.service(add_plan=False)
    fleet.with_plan(min_cohort=1)
    with pytest.raises(PlanError, match="cannot be carried out"):
        service.add_plan(fleet.plan.encode(), fleet.plan_key.sign(fleet.plan))
    assert count(service) == (0, 0, 0)
    service.database.close()


def test_a_plan_in_the_database_that_was_exchanged_is_not_used(fleet: SmallFleet, service: FleetService) -> None:
    other = replace(fleet.plan, round_seconds=7)
    with service.database.transaction() as connection:
        connection.execute(update(PLAN).values(data=other.encode(), signature=fleet.plan_key.sign(other)))
    fresh = fleet.service(add_plan=False)
    with pytest.raises(PlanError, match="restore"):
        fresh.info()
    with service.database.transaction() as connection:
        connection.execute(update(PLAN).values(signature=PlanKey(b"x" * 32).sign(other)))
    with pytest.raises(HushrecError):
        fresh.info()
    fresh.database.close()


def test_a_plan_whose_time_is_over_ends_and_keeps_no_noise(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5))
    fleet.clock.now = START + 50 * ROUND_S - 1
    service.tick()
    assert service.info().plans != ()
    fleet.clock.now += 1
    for _ in range(2):
        service.tick()
    assert service.info().plans == ()
    with service.database.reading() as connection:
        assert connection.execute(select(NOISE_PLAN.c.last_round)).scalar_one() == 50


@pytest.mark.parametrize("change", [FleetService.halt, FleetService.resume])
def test_a_plan_that_has_ended_is_neither_halted_nor_resumed(
    fleet: SmallFleet, service: FleetService, change: Callable[[FleetService, str], None]
) -> None:
    fleet.clock.now = START + 50 * ROUND_S
    service.tick()
    with pytest.raises(FleetError) as refused:
        change(service, fleet.plan.plan_id)
    assert refused.value.reason == "plan-ended"
    assert service.plan(fleet.plan.plan_id).status is PlanStatus.ENDED


def test_a_plan_does_not_end_while_its_last_round_runs(fleet: SmallFleet, service: FleetService) -> None:
    fleet.clock.now = START + 49 * ROUND_S
    fleet.run(service, *range(5), round_number=50, until=4)
    fleet.send(service, 5, *range(4), round_number=50)
    fleet.clock.now = START + 50 * ROUND_S
    service.tick()
    assert fleet.state(service, 50) == "reveal"
    assert not service.ledger.plan(fleet.plan.plan_id).closed
    fleet.send(service, 6, *range(4), round_number=50)
    service.tick()
    assert fleet.state(service, 50) == "published"
    service.tick()
    assert service.ledger.plan(fleet.plan.plan_id).closed


def test_status_tells_rounds_and_what_was_spent(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5))
    found = service.status()
    plans = found["plans"]
    assert isinstance(plans, list)
    assert plans[0]["rounds"] == {"published": 1}
    assert plans[0]["rounds_spent"] == 1
    assert 0 < plans[0]["epsilon_spent"] < plans[0]["epsilon_planned"]
    assert found["ledger"] == str(service.ledger.anchor())
    assert found["release"] == 0


def test_the_fingerprint_of_a_seal_key_tells_keys_apart_and_is_short() -> None:
    prints = {seal_fingerprint(SealKey(bytes([number]) * 32)) for number in range(50)}
    assert {len(found) for found in prints} == {8}
    assert len(prints) == 50


def test_only_the_seal_key_of_plans_that_have_not_ended_fits(fleet: SmallFleet, service: FleetService) -> None:
    check_seal(service.database, seal_fingerprint(fleet.seal_key))
    service.halt(fleet.plan.plan_id)
    for other, told in ((None, "missing"), (seal_fingerprint(SealKey(b"x" * 32)), "not the one that it was")):
        with pytest.raises(NoiseStateError, match=told):
            check_seal(service.database, other)
    with service.database.transaction() as connection:
        connection.execute(update(PLAN).values(status=PlanStatus.ENDED))
    check_seal(service.database, None)


@pytest.mark.parametrize("plan_id", ["", "ab", "AB" * 32, "ab" * 33, "ab" * 31 + "\0\0", "ab" * 32 + "\n"])
def test_what_can_be_no_id_is_an_unknown_plan_without_asking_the_database(
    service: FleetService, plan_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("sqlalchemy.Connection.execute", fail)
    with pytest.raises(FleetError) as refused:
        service.message_bytes(plan_id, 1, 1)
    assert refused.value.reason == "unknown-plan"
