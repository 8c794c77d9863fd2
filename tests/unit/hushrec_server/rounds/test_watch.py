"""A plan that gets nowhere is told of, and one that spends budget for nothing is halted."""

from collections.abc import Iterator
from typing import Any

import pytest
from hushrec_privacy.errors import ReleaseError
from hushrec_server.plans import PlanStatus
from hushrec_server.publishing import Newest
from hushrec_server.rounds.watch import TOLD_ROUNDS, VAIN_ROUNDS
from hushrec_server.schema import PLAN
from hushrec_server.service import FleetService
from sqlalchemy import update

from tests.learning_shop import comparing_plan
from tests.small_fleet import ROUND_S, START, SmallFleet
from tests.unit.hushrec_server.rounds.test_finishing import Shelf


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def server(fleet: SmallFleet, shelf: Shelf) -> Iterator[FleetService]:
    service = fleet.service(shelf)
    yield service
    service.database.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Events of this module."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "hushrec_server.rounds.watch.log_event", lambda event, **fields: found.append({"event": event, **fields})
    )
    return found


def plan_of(service: FleetService) -> dict[str, Any]:
    plans = service.status()["plans"]
    assert isinstance(plans, list)
    return dict(plans[0])


def at_round(fleet: SmallFleet, number: int) -> None:
    fleet.clock.now = START + (number - 1) * ROUND_S


def refused_rounds(fleet: SmallFleet, service: FleetService, *numbers: int) -> None:
    for number in numbers:
        at_round(fleet, number)
        fleet.run(service, *range(5), round_number=number)
        assert fleet.state(service, number) == "aborted"


def test_rounds_that_were_aborted_and_those_to_which_nobody_came_count_until_one_is_published(
    fleet: SmallFleet, server: FleetService
) -> None:
    for number in (1, 3):
        at_round(fleet, number)
        fleet.run(server, 0, round_number=number, until=1)
        assert fleet.state(server, number) == "aborted"
    at_round(fleet, 4)
    assert plan_of(server)["rounds_without_result"] == 3
    fleet.run(server, *range(5), round_number=4)
    assert plan_of(server)["rounds_without_result"] == 0
    at_round(fleet, 5)
    assert plan_of(server)["rounds_without_result"] == 0
    at_round(fleet, 7)
    assert plan_of(server)["rounds_without_result"] == 2


def test_of_a_plan_that_compares_rounds_to_which_nobody_came_do_not_count(fleet: SmallFleet, shelf: Shelf) -> None:
    authority = fleet.authority.public().hex()
    fleet.plan = comparing_plan(authority, first_round_at=START, round_seconds=ROUND_S)
    service = fleet.service(shelf)
    at_round(fleet, 9)
    assert plan_of(service)["rounds_without_result"] == 0, "there was nothing to compare"
    shelf.staged = Newest(2, "cc" * 32)
    for number, expected in ((9, 1), (12, 2)):
        at_round(fleet, number)
        fleet.run(service, 0, round_number=number, until=1)
        assert fleet.state(service, number) == "aborted"
        assert plan_of(service)["rounds_without_result"] == expected
    at_round(fleet, 13)
    fleet.run(service, *range(5), round_number=13)
    assert plan_of(service)["rounds_without_result"] == 0
    service.database.close()


def test_rounds_before_a_plan_came_do_not_count(fleet: SmallFleet) -> None:
    at_round(fleet, 9)
    service = fleet.service()
    assert plan_of(service)["rounds_without_result"] == 0
    at_round(fleet, 11)
    assert plan_of(service)["rounds_without_result"] == 2
    service.database.close()


def test_the_log_says_once_that_a_plan_gets_nowhere_and_again_after_it_got_somewhere(
    fleet: SmallFleet, server: FleetService, told: list[dict[str, Any]]
) -> None:
    for number in range(1, TOLD_ROUNDS + 4):
        at_round(fleet, number)
        server.tick()
    once = {"event": "plan gets nowhere", "plan": fleet.plan.plan_id, "rounds": TOLD_ROUNDS}
    assert told == [once]
    fleet.run(server, *range(5), round_number=TOLD_ROUNDS + 3)
    for number in range(TOLD_ROUNDS + 4, 2 * TOLD_ROUNDS + 6):
        at_round(fleet, number)
        server.tick()
    assert told == [once, once]


@pytest.mark.parametrize("status", [PlanStatus.HALTED, PlanStatus.ENDED])
def test_a_plan_that_is_not_open_is_not_waited_for(
    fleet: SmallFleet, server: FleetService, told: list[dict[str, Any]], status: PlanStatus
) -> None:
    with server.database.transaction() as connection:
        connection.execute(update(PLAN).values(status=status))
    at_round(fleet, 20)
    server.tick()
    assert plan_of(server)["rounds_without_result"] == 0
    assert not told


def test_a_plan_that_spends_rounds_for_nothing_is_halted_and_can_be_resumed_for_as_many_again(
    fleet: SmallFleet, server: FleetService, shelf: Shelf
) -> None:
    shelf.refuses = True
    refused_rounds(fleet, server, *range(1, VAIN_ROUNDS + 1))
    at_round(fleet, VAIN_ROUNDS + 1)
    server.tick()
    found = plan_of(server)
    assert (found["status"], found["rounds_spent"]) == ("halted", VAIN_ROUNDS)
    assert "A plan gets nowhere" in found["reason"]
    server.resume(fleet.plan.plan_id)
    refused_rounds(fleet, server, *range(VAIN_ROUNDS + 1, 2 * VAIN_ROUNDS))
    assert plan_of(server)["status"] == "open"
    refused_rounds(fleet, server, 2 * VAIN_ROUNDS)
    at_round(fleet, 2 * VAIN_ROUNDS + 1)
    server.tick()
    assert plan_of(server)["status"] == "halted"


def test_a_round_that_is_published_in_between_keeps_the_plan_open(
    fleet: SmallFleet, server: FleetService, shelf: Shelf
) -> None:
    shelf.refuses = True
    refused_rounds(fleet, server, *range(1, VAIN_ROUNDS))
    shelf.refuses = False
    at_round(fleet, VAIN_ROUNDS)
    fleet.run(server, *range(5), round_number=VAIN_ROUNDS)
    shelf.refuses = True
    refused_rounds(fleet, server, *range(VAIN_ROUNDS + 1, 2 * VAIN_ROUNDS))
    at_round(fleet, 2 * VAIN_ROUNDS)
    server.tick()
    assert plan_of(server)["status"] == "open"


def test_rounds_that_were_given_up_before_they_were_spent_halt_nothing(fleet: SmallFleet, server: FleetService) -> None:
    for number in range(1, VAIN_ROUNDS + 3):
        at_round(fleet, number)
        fleet.run(server, 0, round_number=number, until=1)
    found = plan_of(server)
    assert (found["status"], found["rounds"]["aborted"]) == ("open", VAIN_ROUNDS + 2)


def test_a_round_that_waits_to_be_published_is_not_in_vain_yet(
    fleet: SmallFleet, server: FleetService, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise ReleaseError("the disk refused")

    shelf.refuses = True
    refused_rounds(fleet, server, *range(1, VAIN_ROUNDS))
    monkeypatch.setattr(shelf, "publish", full)
    at_round(fleet, VAIN_ROUNDS)
    fleet.run(server, *range(5), round_number=VAIN_ROUNDS)
    assert fleet.state(server, VAIN_ROUNDS) == "erased"
    at_round(fleet, VAIN_ROUNDS + 1)
    server.tick()
    found = plan_of(server)
    assert (found["status"], found["rounds_spent"]) == ("open", VAIN_ROUNDS)


def test_a_process_that_starts_later_leaves_a_plan_that_was_resumed_open(
    fleet: SmallFleet, server: FleetService, shelf: Shelf
) -> None:
    shelf.refuses = True
    refused_rounds(fleet, server, *range(1, VAIN_ROUNDS + 1))
    at_round(fleet, VAIN_ROUNDS + 1)
    server.tick()
    server.resume(fleet.plan.plan_id)
    later = fleet.service(shelf)
    later.tick()
    assert plan_of(later)["status"] == "open"
    later.database.close()
