"""Places are given in a round's time, to as many as the cohort, once each; whoever gets none is told when to come."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hushrec_privacy.enrolment import AuthorityKey
from hushrec_privacy.errors import EnrolmentError, FleetError, ReleaseError, StorageError
from hushrec_server.publishing import Newest, StoredResults
from hushrec_server.rounds import store
from hushrec_server.rounds.admission import CheckIn
from hushrec_server.rounds.store import Key
from hushrec_server.schema import PLAN
from hushrec_server.service import FleetService
from sqlalchemy import update

from tests.learning_shop import comparing_plan
from tests.small_fleet import ROUND_S, START, SmallFleet


class Compares(StoredResults):
    """A publisher with a release and a candidate."""

    def __init__(self) -> None:
        self.staged = Newest(2, "cc" * 32)

    def newest(self) -> Newest:
        return Newest(1, "aa" * 32)

    def candidate(self) -> Newest:
        return self.staged


def check_in(fleet: SmallFleet, service: FleetService, number: int) -> CheckIn:
    return service.check_in(fleet.plan.plan_id, fleet.pseudonym(number), fleet.certificate(number))


def check_ins(fleet: SmallFleet, service: FleetService, *numbers: int) -> list[int | str]:
    """What a group gets: places, or reasons."""
    asked = [(fleet.pseudonym(number), fleet.certificate(number)) for number in numbers]
    found = service.check_ins(fleet.plan.plan_id, asked)
    return [each.index if isinstance(each, CheckIn) else str(getattr(each, "reason", each.code)) for each in found]


def refused(fleet: SmallFleet, service: FleetService, number: int = 99) -> FleetError:
    with pytest.raises(FleetError) as found:
        check_in(fleet, service, number)
    return found.value


def test_a_device_is_told_round_place_session_and_deadline(fleet: SmallFleet, service: FleetService) -> None:
    first, second = (check_in(fleet, service, number) for number in (7, 8))
    assert (first.round_number, first.index, first.deadline_at) == (1, 0, START + ROUND_S // 2)
    assert (second.round_number, second.index) == (1, 1)
    assert first.session == second.session != b""


def test_a_device_that_asks_again_gets_the_same_place(fleet: SmallFleet, service: FleetService) -> None:
    first = check_in(fleet, service, 7)
    check_in(fleet, service, 8)
    assert check_in(fleet, service, 7) == first
    fleet.send(service, 1, 7)
    assert check_in(fleet, service, 7).index == 0


def test_a_device_that_lost_its_answer_finds_its_place_in_a_round_that_has_gone_on(
    fleet: SmallFleet, service: FleetService
) -> None:
    fleet.run(service, *range(5), until=3)
    assert check_in(fleet, service, 3).index == 3
    assert refused(fleet, service).reason == "not-now"


@pytest.mark.parametrize("now", [START - ROUND_S, START - 1])
def test_before_the_first_round_nobody_gets_in(fleet: SmallFleet, service: FleetService, now: int) -> None:
    fleet.clock.now = now
    error = refused(fleet, service)
    assert error.reason == "not-now"
    assert error.retry_after_s is not None
    assert START <= now + error.retry_after_s < START + ROUND_S // 4


def test_after_the_time_of_admission_nobody_gets_in_until_the_next_round(
    fleet: SmallFleet, service: FleetService
) -> None:
    fleet.clock.now = START + 439  # half of a thousand, less the time for one message
    assert check_in(fleet, service, 0).round_number == 1
    fleet.clock.now += 1
    error = refused(fleet, service)
    assert error.reason == "not-now"
    assert error.retry_after_s is not None
    assert START + ROUND_S <= fleet.clock.now + error.retry_after_s < START + ROUND_S + ROUND_S // 4


def test_no_more_than_the_cohort_gets_in(fleet: SmallFleet, service: FleetService) -> None:
    places = {check_in(fleet, service, number).index for number in range(5)}
    assert places == set(range(5))
    error = refused(fleet, service)
    assert error.reason == "round-full"
    assert error.retry_after_s is not None
    assert fleet.clock.now + error.retry_after_s >= START + ROUND_S


def test_no_more_than_the_cohort_gets_in_when_all_come_at_once(fleet: SmallFleet, service: FleetService) -> None:
    other = fleet.service()

    def come(number: int) -> int | str:
        try:
            return check_in(fleet, (service, other)[number % 2], number).index
        except FleetError as error:
            return error.reason

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(come, range(24)))
    other.database.close()
    assert sorted(place for place in found if isinstance(place, int)) == list(range(5))
    assert {reason for reason in found if isinstance(reason, str)} == {"round-full"}
    assert len(service.rounds(fleet.plan.plan_id)) == 1


def test_a_group_gets_places_in_its_order_and_no_more_than_the_cohort(fleet: SmallFleet, service: FleetService) -> None:
    assert check_ins(fleet, service, 7, 3) == [0, 1]
    assert check_ins(fleet, service, 4, 3, 5, 6, 8, 9, 10) == [2, 1, 3, 4, "round-full", "round-full", "round-full"]
    assert check_ins(fleet, service, 11, 8) == ["round-full", "round-full"]
    assert [service.identity(fleet.plan.plan_id, 1, fleet.pseudonym(number)) for number in (4, 3, 5)] == [
        fleet.identity(number).public() for number in (4, 3, 5)
    ]


def test_each_of_a_group_that_is_refused_is_told_a_moment_of_its_own(fleet: SmallFleet, service: FleetService) -> None:
    check_ins(fleet, service, *range(4))
    asked = [(fleet.pseudonym(number), fleet.certificate(number)) for number in range(4, 30)]
    place, *others = service.check_ins(fleet.plan.plan_id, asked)
    assert isinstance(place, CheckIn)
    assert len({error.retry_after_s for error in others if isinstance(error, FleetError)}) > 10


def test_a_device_that_is_twice_in_a_group_gets_one_place(fleet: SmallFleet, service: FleetService) -> None:
    assert check_ins(fleet, service, 7, 8, 7) == [0, 1, 0]
    assert check_ins(fleet, service, 9) == [2]


def test_a_wrong_certificate_in_a_group_is_nobody_else_s_business(fleet: SmallFleet, service: FleetService) -> None:
    plan, name = fleet.plan.plan_id, fleet.pseudonym
    wrong = [(name(1), fleet.certificate(2)), (name(3), b""), (name(4), fleet.certificate(4)[:-1] + b"x")]
    asked = [(name(0), fleet.certificate(0)), *wrong, (name(1), fleet.certificate(1))]
    first, *refused, last = service.check_ins(plan, asked)
    assert isinstance(first, CheckIn)
    assert isinstance(last, CheckIn)
    assert (first.index, last.index) == (0, 1)
    assert [type(error) for error in refused] == [EnrolmentError] * 3


def test_groups_that_come_to_several_processes_at_once_get_no_more_than_the_cohort(
    fleet: SmallFleet, service: FleetService
) -> None:
    other = fleet.service()
    with ThreadPoolExecutor(8) as pool:
        groups = pool.map(lambda n: check_ins(fleet, (service, other)[n % 2], *range(n, n + 3)), range(16))
        found = [place for group in groups for place in group]
    other.database.close()
    assert {place for place in found if isinstance(place, int)} == set(range(5))
    assert {reason for reason in found if isinstance(reason, str)} == {"round-full"}
    assert len({service.identity(fleet.plan.plan_id, 1, fleet.pseudonym(number)) for number in range(18)} - {None}) == 5


def test_a_group_takes_the_places_of_those_that_say_nothing_and_of_nobody_else(
    fleet: SmallFleet, service: FleetService
) -> None:
    check_ins(fleet, service, 0, 1, 2, 3)
    fleet.send(service, 1, 1)
    fleet.clock.now += 60
    assert check_ins(fleet, service, 10, 11, 2, 12, 13, 14) == [4, 0, 2, 3, "round-full", "round-full"]
    assert service.rounds(fleet.plan.plan_id)[0]["admitted"] == 5, "a place that was given again is one place"
    assert service.identity(fleet.plan.plan_id, 1, fleet.pseudonym(0)) is None
    assert service.identity(fleet.plan.plan_id, 1, fleet.pseudonym(11)) == fleet.identity(11).public()


@pytest.mark.parametrize("broken", ["add_devices", "change"])
def test_a_group_that_cannot_be_stored_has_no_place_and_gets_one_when_it_asks_again(
    fleet: SmallFleet, service: FleetService, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    check_ins(fleet, service, 0)

    def fail(*_: object, **__: object) -> None:
        raise StorageError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(store, broken, fail)
        with pytest.raises(StorageError):
            check_ins(fleet, service, 1, 2)
    assert service.identity(fleet.plan.plan_id, 1, fleet.pseudonym(1)) is None
    assert check_ins(fleet, service, 3, 2, 1) == [1, 2, 3]


def test_without_a_release_to_start_from_only_those_that_have_a_place_are_answered(
    fleet: SmallFleet, service: FleetService, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_ins(fleet, service, 0)

    def damaged() -> None:
        raise ReleaseError("the repository is damaged")

    monkeypatch.setattr(service._publisher, "newest", damaged)
    assert check_ins(fleet, service, 0, 1) == [0, "release"]
    with pytest.raises(ReleaseError):
        check_in(fleet, service, 1)


def test_who_is_refused_or_has_a_place_waits_for_no_lock(fleet: SmallFleet, service: FleetService) -> None:
    check_ins(fleet, service, *range(5))
    other = fleet.service()
    with other.database.transaction() as connection:
        store.latest(connection, fleet.plan.plan_id, lock=True)
        connection.execute(update(PLAN).values(reason="held"))
        with ThreadPoolExecutor(1) as pool:
            turned = pool.submit(
                service.refused, fleet.plan.plan_id, {fleet.pseudonym(3), fleet.pseudonym(9), "f" * 32}
            )
            asked = pool.submit(check_ins, fleet, service, 9, 3, 8)
            assert turned.result(20).keys() == {fleet.pseudonym(9), "f" * 32}
            assert asked.result(20) == ["round-full", 3, "round-full"]
    other.database.close()


def test_nobody_gets_a_place_in_a_round_that_another_process_is_closing(
    fleet: SmallFleet, service: FleetService
) -> None:
    check_ins(fleet, service, 0)
    key, other = Key(fleet.plan.plan_id, 1), fleet.service()
    with ThreadPoolExecutor(1) as pool:
        with other.database.transaction() as connection:
            store.locked(connection, key)
            asked = pool.submit(check_ins, fleet, service, 0, 1)
            with pytest.raises(TimeoutError):
                asked.result(0.5)
            store.change(connection, key, closing=True)
        assert asked.result(20) == [0, "not-now"]
    other.database.close()


def test_nobody_is_refused_without_being_asked_for_a_certificate_while_there_are_places(
    fleet: SmallFleet, service: FleetService
) -> None:
    plan, anyone = fleet.plan.plan_id, {fleet.pseudonym(number) for number in range(9)}
    assert service.refused(plan, anyone) == {}
    check_ins(fleet, service, *range(4))
    assert service.refused(plan, anyone) == {}
    check_ins(fleet, service, 4)
    found = service.refused(plan, anyone)
    assert found.keys() == {fleet.pseudonym(number) for number in range(5, 9)}
    assert {error.reason for error in found.values()} == {"round-full"}
    fleet.clock.now += 60  # the places of those that have said nothing are free
    assert service.refused(plan, anyone) == {}
    service.halt(plan)
    assert {error.reason for error in service.refused(plan, anyone).values()} == {"plan-halted"}
    with pytest.raises(FleetError) as unknown:
        service.refused("cd" * 32, anyone)
    assert unknown.value.reason == "unknown-plan"


def test_a_place_whose_device_says_nothing_goes_to_the_next_one(fleet: SmallFleet, service: FleetService) -> None:
    for number in range(5):
        check_in(fleet, service, number)
    fleet.send(service, 1, 0, 1, 3, 4)
    fleet.clock.now += 59
    assert refused(fleet, service, 6).reason == "round-full"
    fleet.clock.now += 1
    assert check_in(fleet, service, 6).index == 2
    assert refused(fleet, service, 7).reason == "round-full"
    with pytest.raises(FleetError) as late:
        fleet.send(service, 1, 2)
    assert late.value.reason == "not-in-round"
    fleet.send(service, 1, 6)
    assert service.identity(fleet.plan.plan_id, 1, fleet.pseudonym(2)) is None


def test_a_next_round_opens_only_when_the_one_before_is_over(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5), until=4)
    fleet.clock.now = START + ROUND_S
    assert refused(fleet, service).reason == "not-now"
    service.abort(fleet.plan.plan_id, 1)
    assert check_in(fleet, service, 9).round_number == 2


def test_rounds_to_which_nobody_came_are_left_out(fleet: SmallFleet, service: FleetService) -> None:
    check_in(fleet, service, 0)
    fleet.clock.now = START + 7 * ROUND_S
    service.tick()
    assert check_in(fleet, service, 0).round_number == 8
    assert [each["round"] for each in service.rounds(fleet.plan.plan_id)] == [8, 1]


def test_a_round_is_opened_once_even_if_it_ended_early(fleet: SmallFleet, service: FleetService) -> None:
    fleet.run(service, *range(5))
    assert fleet.state(service) == "published"
    assert refused(fleet, service).reason == "not-now"


def test_a_clock_that_was_set_back_opens_no_earlier_round(fleet: SmallFleet, service: FleetService) -> None:
    fleet.clock.now = START + 3 * ROUND_S
    check_in(fleet, service, 0)
    service.abort(fleet.plan.plan_id, 4)
    fleet.clock.now = START + ROUND_S
    assert refused(fleet, service).reason == "not-now"


def test_after_the_last_round_the_plan_has_ended(fleet: SmallFleet, service: FleetService) -> None:
    fleet.clock.now = START + 50 * ROUND_S
    error = refused(fleet, service)
    assert (error.reason, error.retry_after_s) == ("plan-ended", None)
    service.tick()
    assert refused(fleet, service).reason == "plan-ended"
    assert service.info().plans == ()
    assert service.ledger.plan(fleet.plan.plan_id).closed


def test_a_halted_plan_lets_nobody_in_until_it_is_resumed(fleet: SmallFleet, service: FleetService) -> None:
    service.halt(fleet.plan.plan_id, "the shop wants to look first")
    error = refused(fleet, service)
    assert (error.reason, error.retry_after_s) == ("plan-halted", ROUND_S)
    service.resume(fleet.plan.plan_id)
    assert check_in(fleet, service, 0).index == 0


@pytest.mark.parametrize("plan_id", ["ab" * 32, "", "'; DROP TABLE fleet_plan; --", "é" * 64])
def test_a_plan_that_is_not_there_is_unknown(fleet: SmallFleet, service: FleetService, plan_id: str) -> None:
    with pytest.raises(FleetError) as found:
        service.check_in(plan_id, fleet.pseudonym(0), fleet.certificate(0))
    assert found.value.reason == "unknown-plan"


@pytest.mark.parametrize("wrong", ["another authority", "another device", "cut short", "of no bytes", "another plan"])
def test_without_the_right_certificate_nobody_gets_in(fleet: SmallFleet, service: FleetService, wrong: str) -> None:
    forger = AuthorityKey(b"f" * 32)
    given = {
        "another authority": forger.certify(fleet.plan.plan_id, fleet.pseudonym(0), fleet.identity(0).public()),
        "another device": fleet.certificate(1),
        "cut short": fleet.certificate(0)[:-1],
        "of no bytes": b"",
        "another plan": fleet.authority.certify("cd" * 32, fleet.pseudonym(0), fleet.identity(0).public()),
    }
    with pytest.raises(EnrolmentError):
        service.check_in(fleet.plan.plan_id, fleet.pseudonym(0), given[wrong])
    assert service.rounds(fleet.plan.plan_id) == []


def test_the_identity_is_the_certificates(fleet: SmallFleet, service: FleetService) -> None:
    check_in(fleet, service, 3)
    assert service.identity(fleet.plan.plan_id, 1, fleet.pseudonym(3)) == fleet.identity(3).public()
    assert service.identity(fleet.plan.plan_id, 1, fleet.pseudonym(4)) is None


class TestComparing:
    """Rounds of a plan that compares are about the candidate."""

    @pytest.fixture
    def publisher(self) -> Compares:
        return Compares()

    @pytest.fixture
    def service(self, fleet: SmallFleet, publisher: Compares) -> Iterator[FleetService]:
        authority = fleet.authority.public().hex()
        fleet.plan = comparing_plan(authority, first_round_at=START, round_seconds=ROUND_S)
        service = fleet.service(publisher)
        yield service
        service.database.close()

    def test_a_round_names_the_candidate_and_not_the_release_in_use(
        self, fleet: SmallFleet, service: FleetService
    ) -> None:
        assert check_in(fleet, service, 0).release == "cc" * 32
        fleet.run(service, *range(5))
        assert service.rounds(fleet.plan.plan_id)[0]["release"] == "cc" * 32

    @pytest.mark.parametrize("into", [0, 100, 300, 379])
    def test_without_a_candidate_a_device_comes_back_while_this_round_lets_devices_in(
        self, fleet: SmallFleet, service: FleetService, publisher: Compares, into: int
    ) -> None:
        publisher.staged = Newest()
        fleet.clock.now = START + into
        for _ in range(20):
            error = refused(fleet, service)
            assert error.reason == "not-now"
            assert error.retry_after_s is not None
            assert 440 - into > error.retry_after_s >= (440 - into) // 4
        assert service.rounds(fleet.plan.plan_id) == []
        publisher.staged = Newest(2, "cc" * 32)
        assert check_in(fleet, service, 99).round_number == 1

    def test_without_a_candidate_near_the_end_of_admission_a_device_comes_to_the_next_round(
        self, fleet: SmallFleet, service: FleetService, publisher: Compares
    ) -> None:
        publisher.staged = Newest()
        fleet.clock.now = START + 380
        error = refused(fleet, service)
        assert error.retry_after_s is not None
        assert START + ROUND_S <= fleet.clock.now + error.retry_after_s < START + ROUND_S + ROUND_S // 4

    @pytest.mark.parametrize("now", [Newest(), Newest(3, "dd" * 32)])
    def test_a_round_about_what_is_no_candidate_any_more_lets_nobody_else_in(
        self, fleet: SmallFleet, service: FleetService, publisher: Compares, now: Newest
    ) -> None:
        first = check_in(fleet, service, 0)
        publisher.staged = now
        assert refused(fleet, service).reason == "not-now"
        assert check_in(fleet, service, 0) == first, "whoever has a place keeps it"
        fleet.clock.now = START + ROUND_S
        service.tick()
        if now.version:
            assert check_in(fleet, service, 1).release == now.bundle

    @pytest.mark.parametrize("staged", [Newest(), Newest(3, "dd" * 32)], ids=["none", "another one"])
    def test_when_the_candidate_is_gone_only_those_of_a_group_that_have_a_place_are_answered(
        self, fleet: SmallFleet, service: FleetService, publisher: Compares, staged: Newest
    ) -> None:
        assert check_ins(fleet, service, 0, 1) == [0, 1]
        publisher.staged = staged
        assert check_ins(fleet, service, 2, 1, 3) == ["not-now", 1, "not-now"]
        assert service.identity(fleet.plan.plan_id, 1, fleet.pseudonym(2)) is None

    def test_the_same_candidate_is_compared_by_the_next_round_when_one_was_given_up(
        self, fleet: SmallFleet, service: FleetService
    ) -> None:
        check_in(fleet, service, 0)
        service.abort(fleet.plan.plan_id, 1)
        fleet.clock.now = START + ROUND_S
        found = check_in(fleet, service, 0)
        assert (found.round_number, found.release) == (2, "cc" * 32)
