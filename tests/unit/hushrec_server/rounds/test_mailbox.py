"""An upload counts once, in its phase, from the device whose place it is; all else is refused with its reason."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hushrec_privacy.errors import FleetError
from hushrec_server.rounds.aggregation import Closed
from hushrec_server.schema import MESSAGE
from hushrec_server.service import FleetService
from sqlalchemy import func, select

from tests.plain_aggregation import PlainAggregation
from tests.small_fleet import START, Clock, SmallFleet

Messages = Iterable[tuple[int, bytes]]


def kept(service: FleetService) -> int:
    with service.database.reading() as connection:
        return connection.execute(select(func.count()).select_from(MESSAGE)).scalar_one()


def reason(act: Callable[[], object]) -> str:
    with pytest.raises(FleetError) as found:
        act()
    return found.value.reason


def upload(fleet: SmallFleet, service: FleetService, phase: int, number: int, message: bytes) -> None:
    service.upload(fleet.plan.plan_id, 1, phase, fleet.pseudonym(number), message)


def test_the_same_bytes_again_are_welcome_and_count_once(fleet: SmallFleet, service: FleetService) -> None:
    fleet.check_in(service, *range(5))
    for _ in range(3):
        fleet.send(service, 1, 0)
    assert kept(service) == 1


def test_the_same_bytes_at_the_same_moment_count_once(fleet: SmallFleet, service: FleetService) -> None:
    fleet.check_in(service, *range(5))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fleet.send(service, 1, 0), range(8)))
    assert kept(service) == 1


def test_the_same_bytes_again_are_welcome_after_the_phase_too(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5), until=2)
    fleet.send(service, 1, 0)
    fleet.send(service, 2, 0)
    assert kept(service) == 10


def test_other_bytes_in_the_same_place_are_refused_and_the_first_stay(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5), until=1)
    fleet.send(service, 2, 0)
    assert reason(lambda: upload(fleet, service, 2, 0, b"2 something else")) == "already-counted"
    for number in range(1, 5):
        fleet.send(service, 2, number)
    service.tick()
    assert reason(lambda: upload(fleet, service, 2, 0, b"2 something else")) == "already-counted"
    assert kept(service) == 10


def test_a_message_after_its_phase_was_closed_does_not_count(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(4), until=1)
    fleet.clock.now += 1
    assert fleet.state(service) == "choose"
    assert reason(lambda: fleet.send(service, 1, 4)) == "not-in-round"
    fleet.send(service, 2, 0, 1, 2)
    fleet.clock.now += 60
    assert reason(lambda: fleet.send(service, 2, 3)) == "phase-closed"  # its time is over, though no tick has closed it
    assert kept(service) == 7


def test_a_message_of_a_later_phase_is_not_taken(fleet: SmallFleet, service: FleetService) -> None:
    fleet.check_in(service, *range(5))
    for phase in range(2, 7):
        assert reason(partial(fleet.send, service, phase, 0)) == "not-open"
    assert kept(service) == 0


@pytest.mark.parametrize("phase", [-1, 0, 7, 255, 2**40])
def test_a_phase_that_does_not_exist_is_refused(fleet: SmallFleet, service: FleetService, phase: int) -> None:
    fleet.check_in(service, 0)
    plan, name = fleet.plan.plan_id, fleet.pseudonym(0)
    assert reason(lambda: service.upload(plan, 1, phase, name, b"x")) == "not-open"
    assert reason(lambda: service.reply(plan, 1, phase, name)) == "not-open"
    assert reason(lambda: service.message_bytes(plan, 1, phase)) == "not-open"


def test_who_has_no_place_can_neither_send_nor_ask(fleet: SmallFleet, service: FleetService) -> None:
    fleet.check_in(service, 0)
    assert reason(lambda: fleet.send(service, 1, 5)) == "not-in-round"
    assert reason(lambda: service.reply(fleet.plan.plan_id, 1, 1, fleet.pseudonym(5))) == "not-in-round"


@pytest.mark.parametrize("number", [-1, 0, 2, 10**6, 2**62])
def test_a_round_that_does_not_exist_has_no_places(fleet: SmallFleet, service: FleetService, number: int) -> None:
    fleet.check_in(service, 0)
    plan, name = fleet.plan.plan_id, fleet.pseudonym(0)
    assert reason(lambda: service.upload(plan, number, 1, name, b"x")) == "not-in-round"
    assert reason(lambda: service.reply(plan, number, 1, name)) == "not-in-round"
    assert reason(lambda: service.identity(plan, number, name)) == "not-in-round"
    assert reason(lambda: service.message_bytes(plan, number, 1)) == "not-in-round"


@pytest.mark.parametrize("message", [b"", b"1", b"2 x", b"1 " + b"x" * 100, b"1 " + b"ab" * 16])
def test_a_message_that_is_not_right_does_not_count(fleet: SmallFleet, service: FleetService, message: bytes) -> None:
    fleet.check_in(service, 0)  # the last one is right, but for the pseudonym
    assert reason(lambda: upload(fleet, service, 1, 0, message)) == "bad-message"
    assert kept(service) == 0
    fleet.send(service, 1, 0)


def test_a_vector_longer_than_the_phase_allows_is_refused_before_it_is_read(
    fleet: SmallFleet, service: FleetService
) -> None:
    fleet.run(service, *range(5), until=3)
    size = service.message_bytes(fleet.plan.plan_id, 1, 4)
    assert size == 8 * fleet.plan.coordinates
    assert reason(lambda: upload(fleet, service, 4, 0, bytes(size + 8))) == "bad-message"
    fleet.send(service, 4, 0)


def test_a_device_that_left_out_a_phase_has_dropped_out(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5), until=1)
    fleet.send(service, 2, 0, 1, 2, 3)
    fleet.clock.now += 60
    service.tick()
    assert fleet.state(service) == "share"
    plan, name = fleet.plan.plan_id, fleet.pseudonym(4)
    assert reason(lambda: fleet.send(service, 3, 4)) == "dropped-out"
    assert reason(lambda: service.reply(plan, 1, 2, name)) == "dropped-out"
    assert service.reply(plan, 1, 1, name) == b"1 closed"


def test_replies_are_each_devices_own_and_stay_while_the_round_runs(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5), until=3)
    plan = fleet.plan.plan_id
    for number in range(5):
        assert service.reply(plan, 1, 1, fleet.pseudonym(number)) == b"1 closed"
        assert service.reply(plan, 1, 2, fleet.pseudonym(number)) == b"2 closed for %d" % number
        assert service.reply(plan, 1, 4, fleet.pseudonym(number)) is None


def test_after_the_last_phase_the_reply_is_empty_until_the_uploads_are_erased(
    fleet: SmallFleet, service: FleetService, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.run(service, *range(5), until=5)
    plan, name = fleet.plan.plan_id, fleet.pseudonym(0)
    fleet.send(service, 6, *range(5))
    assert service.reply(plan, 1, 6, name) is None
    with monkeypatch.context() as patch:
        patch.setattr(type(service._progress._finishing), "spend_and_noise", lambda *_: stop())
        with pytest.raises(InterruptedError):
            service.tick()
    assert service.reply(plan, 1, 6, name) == b""
    fleet.clock.now += 20
    service.tick()
    assert reason(lambda: service.reply(plan, 1, 6, name)) == "round-over"
    assert reason(lambda: service.message_bytes(plan, 1, 6)) == "round-over"
    assert reason(lambda: service.identity(plan, 1, name)) == "round-over"
    assert reason(lambda: fleet.send(service, 6, 0)) == "round-over"


def stop() -> None:
    raise InterruptedError


def test_of_an_aborted_round_devices_hear_that_it_was_given_up(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5), until=2)
    service.abort(fleet.plan.plan_id, 1)
    plan, name = fleet.plan.plan_id, fleet.pseudonym(0)
    assert reason(lambda: fleet.send(service, 3, 0)) == "round-aborted"
    assert reason(lambda: service.reply(plan, 1, 2, name)) == "round-aborted"
    assert reason(lambda: service.identity(plan, 1, name)) == "round-aborted"
    assert reason(lambda: service.abort(plan, 1)) == "too-late"


def test_no_upload_slips_in_while_its_phase_is_being_closed(
    fleet: SmallFleet, service: FleetService, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.run(service, *range(5), until=1)
    fleet.send(service, 2, 0, 1, 2, 3)
    behind = fleet.service(clock=Clock(START + 10))  # another process, for whose clock there is time left
    right = PlainAggregation.close

    def slow(self: PlainAggregation, session: bytes, phase: int, state: bytes, messages: Messages) -> Closed:
        assert reason(lambda: fleet.send(behind, 2, 4)) == "phase-closed"
        return right(self, session, phase, state, messages)

    monkeypatch.setattr(PlainAggregation, "close", slow)
    fleet.clock.now = START + 60
    service.tick()
    assert fleet.state(service) == "share"
    assert kept(service) == 9
    behind.database.close()
