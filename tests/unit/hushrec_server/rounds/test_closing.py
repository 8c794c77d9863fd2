"""A phase ends when all that it waits for is there, or its time is over; with too few devices the round is given up."""

import pytest
from hushrec.messages import status_of
from hushrec_privacy.errors import FleetError
from hushrec_server.schema import DEVICE, MESSAGE, PHASE, REPLY, REPLY_BODY
from hushrec_server.service import FleetService
from sqlalchemy import func, select

from tests.small_fleet import ROUND_S, START, SmallFleet


def left_of_devices(service: FleetService) -> int:
    with service.database.reading() as connection:
        return sum(
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (DEVICE, MESSAGE, PHASE, REPLY, REPLY_BODY)
        )


def test_a_phase_closes_at_once_when_all_have_sent(fleet: SmallFleet, service: FleetService) -> None:
    for phase, state in enumerate(("choose", "share", "mask", "agree", "reveal", "published"), start=1):
        if phase == 1:
            fleet.check_in(service, *range(5))
        fleet.send(service, phase, *range(5))
        service.tick()
        assert fleet.state(service) == state
    assert fleet.clock.now == START


@pytest.mark.parametrize(("phase", "seconds"), [(1, 500), (2, 60), (3, 60), (4, 200), (5, 60), (6, 60)])
def test_a_phase_waits_for_the_missing_until_its_time_is_over_and_no_longer(
    fleet: SmallFleet, service: FleetService, phase: int, seconds: int
) -> None:
    if phase > 1:
        fleet.run(service, *range(5), until=phase - 1)
    else:
        fleet.check_in(service, *range(4))
    fleet.send(service, phase, *range(4))
    before = fleet.state(service)
    assert service.rounds(fleet.plan.plan_id)[0]["deadline_at"] == START + seconds
    fleet.clock.now = START + seconds - 1
    service.tick()
    assert fleet.state(service) == before
    fleet.clock.now += 1
    service.tick()
    assert fleet.state(service) != before


@pytest.mark.parametrize("phase", range(1, 7))
def test_with_too_few_devices_the_round_is_given_up_and_nothing_of_it_is_left(
    fleet: SmallFleet, service: FleetService, phase: int
) -> None:
    fleet.run(service, *range(4), until=phase - 1)
    if phase == 1:
        fleet.check_in(service, *range(3))
    fleet.send(service, phase, *range(3))
    fleet.clock.now += ROUND_S // 2
    service.tick()
    assert fleet.state(service) == "aborted"
    assert left_of_devices(service) == 0
    found = service.rounds(fleet.plan.plan_id)[0]
    assert "too few" in str(found["reason"])
    assert found["ended_at"] == fleet.clock.now
    assert service.ledger.plan(fleet.plan.plan_id).rounds == 0


def test_with_the_fewest_that_the_plan_allows_the_round_goes_on(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5), until=1)
    fleet.send(service, 2, *range(4))
    fleet.clock.now += ROUND_S // 2
    service.tick()
    for phase in range(3, 7):
        fleet.send(service, phase, *range(4))
        service.tick()
    assert fleet.state(service) == "published"


def test_after_an_aborted_round_the_next_one_runs(fleet: SmallFleet, service: FleetService) -> None:
    fleet.check_in(service, 0)
    fleet.clock.now = START + ROUND_S
    service.tick()
    fleet.run(service, *range(5), round_number=2)
    assert (fleet.state(service, 1), fleet.state(service, 2)) == ("aborted", "published")
    assert service.ledger.plan(fleet.plan.plan_id).rounds == 1


@pytest.mark.parametrize("until", range(6))
def test_the_shop_can_end_a_round_in_every_phase(fleet: SmallFleet, service: FleetService, until: int) -> None:
    fleet.check_in(service, *range(5))
    fleet.run(service, *range(5), until=until)
    service.abort(fleet.plan.plan_id, 1)
    assert fleet.state(service) == "aborted"
    assert left_of_devices(service) == 0


def test_a_round_to_which_nobody_came_is_none_that_could_be_ended(fleet: SmallFleet, service: FleetService) -> None:
    fleet.check_in(service, 0)
    with pytest.raises(FleetError, match="there is no round 2 of this plan") as refused:
        service.abort(fleet.plan.plan_id, 2)
    assert (refused.value.reason, status_of(refused.value)) == ("not-found", 404)
    assert fleet.state(service) == "advertise"


def test_an_abort_that_was_cut_off_is_finished_by_the_next_process(
    fleet: SmallFleet, service: FleetService, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.run(service, *range(5), until=2)
    with monkeypatch.context() as patch:
        patch.setattr("hushrec_server.rounds.store.erase", killed)
        with pytest.raises(InterruptedError):
            service.abort(fleet.plan.plan_id, 1)
    assert left_of_devices(service) > 0
    next_one = fleet.service()
    fleet.clock.now += 20
    next_one.tick()
    assert left_of_devices(service) == 0
    assert service.rounds(fleet.plan.plan_id)[0]["ended_at"] == fleet.clock.now
    next_one.database.close()


def killed(*_: object) -> None:
    raise InterruptedError
