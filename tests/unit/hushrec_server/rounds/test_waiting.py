"""A round whose result is not decided yet rests: asked again with each lease, told once, over when it is decided."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hushrec_privacy.errors import FleetError
from hushrec_server.publishing import Newest, RoundResult, StoredResults, Verdict
from hushrec_server.rounds.finishing import Finishing
from hushrec_server.rounds.progress import BUSY_S, IDLE_S
from hushrec_server.schema import RESULT
from hushrec_server.service import FleetService
from sqlalchemy import select

from tests.learning_shop import comparing_plan
from tests.small_fleet import ROUND_S, START, SmallFleet

LEASE_S = ROUND_S // 50


class Undecided(StoredResults):
    """A publisher that lets results of training wait until a test decides."""

    def __init__(self) -> None:
        self.verdict, self.asked = Verdict(waiting="model version 2 waits"), 0
        self.staged = Newest()

    def candidate(self) -> Newest:
        return self.staged

    def publish(self, result: RoundResult) -> Verdict:
        if result.plan.purpose != "update":
            return super().publish(result)
        self.asked += 1
        return self.verdict


@pytest.fixture
def publisher() -> Undecided:
    return Undecided()


@pytest.fixture
def server(fleet: SmallFleet, publisher: Undecided) -> Iterator[FleetService]:
    service = fleet.service(publisher)
    fleet.run(service, *range(5))
    yield service
    service.database.close()


def told(log: io.StringIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == event]


def reason(fleet: SmallFleet, service: FleetService) -> str:
    return str(service.rounds(fleet.plan.plan_id)[0]["reason"])


def add_comparing(fleet: SmallFleet, service: FleetService) -> SmallFleet:
    """The same fleet under a plan that compares, over the same server."""
    authority = fleet.authority.public().hex()
    other = replace(fleet)
    other.plan = comparing_plan(authority, first_round_at=START, round_seconds=ROUND_S, rounds=fleet.rounds)
    service.add_plan(other.plan.encode(), fleet.plan_key.sign(other.plan))
    return other


def test_it_stays_where_it_is_and_its_sum_stays_too(fleet: SmallFleet, server: FleetService) -> None:
    assert fleet.state(server) == "erased"
    with server.database.reading() as connection:
        assert connection.execute(select(RESULT.c.noised)).scalar_one() is not None


def test_it_is_asked_again_with_each_lease_and_not_in_between(
    fleet: SmallFleet, server: FleetService, publisher: Undecided
) -> None:
    assert publisher.asked == 1
    for _ in range(3):
        assert server.tick() == IDLE_S, "nothing to do but to ask again"
    fleet.clock.now += LEASE_S
    assert server.tick() == BUSY_S
    assert publisher.asked == 2
    other = fleet.service(publisher)
    assert other.tick() == IDLE_S
    assert publisher.asked == 2
    other.database.close()


def test_another_round_is_not_held_up_by_it(fleet: SmallFleet, server: FleetService, publisher: Undecided) -> None:
    comparing = add_comparing(fleet, server)
    publisher.staged = Newest(2, "cc" * 32)
    comparing.run(server, *range(5), until=5)
    assert server.tick() == BUSY_S
    comparing.send(server, 6, *range(5))
    server.tick()
    assert comparing.state(server) == "published"
    assert fleet.state(server) == "erased"


def test_the_next_round_of_its_plan_waits_for_it(fleet: SmallFleet, server: FleetService, publisher: Undecided) -> None:
    fleet.clock.now = START + ROUND_S
    with pytest.raises(FleetError) as refused:
        fleet.check_in(server, 7)
    assert refused.value.reason == "not-now"
    publisher.verdict = Verdict()
    server.tick()
    assert fleet.state(server) == "published"
    assert reason(fleet, server) == ""
    fleet.run(server, *range(5), round_number=2)
    assert fleet.state(server, 2) == "published"


def test_once_it_is_out_the_log_says_so(
    fleet: SmallFleet, server: FleetService, publisher: Undecided, log: io.StringIO
) -> None:
    publisher.verdict = Verdict()
    fleet.clock.now += LEASE_S
    server.tick()
    assert [line["round"] for line in told(log, "round published")] == [1]
    assert not told(log, "release refused")


def test_refused_in_the_end_it_is_aborted_and_says_why(
    fleet: SmallFleet, server: FleetService, publisher: Undecided, log: io.StringIO
) -> None:
    publisher.verdict = Verdict(refused="devices found it worse")
    fleet.clock.now += LEASE_S
    server.tick()
    assert (fleet.state(server), reason(fleet, server)) == ("aborted", "devices found it worse")
    assert [line["reason"] for line in told(log, "release refused")] == ["devices found it worse"]
    with server.database.reading() as connection:
        assert connection.execute(select(RESULT.c.noised)).scalar_one() is None


def test_the_operator_is_told_once_why_it_waits(fleet: SmallFleet, publisher: Undecided, log: io.StringIO) -> None:
    service = fleet.service(publisher)
    fleet.run(service, *range(5))
    for _ in range(5):
        fleet.clock.now += LEASE_S
        service.tick()
    text = "model version 2 waits; no plan that compares is open: add one"
    assert [line["reason"] for line in told(log, "release waits")] == [text]
    assert reason(fleet, service) == text
    assert not told(log, "round is stuck")
    assert not told(log, "round published")
    comparing = add_comparing(fleet, service)
    for change in ("open", "halted", "halted", "open"):
        if change == "halted":
            service.halt(comparing.plan.plan_id)
        else:
            service.resume(comparing.plan.plan_id)
        fleet.clock.now += LEASE_S
        service.tick()
    said = [line["reason"] for line in told(log, "release waits")]
    assert said == [text, "model version 2 waits", text, "model version 2 waits"]
    service.database.close()


def test_a_process_that_was_held_up_writes_no_reason_into_a_round_that_has_ended(
    fleet: SmallFleet, server: FleetService, publisher: Undecided, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Finishing.publish

    def slow(self: Finishing, *given: Any) -> Verdict:
        monkeypatch.setattr(Finishing, "publish", right)
        found = right(self, *given)
        publisher.verdict = Verdict()
        fleet.clock.now += LEASE_S
        other = fleet.service(publisher)
        other.tick()
        other.database.close()
        return found._replace(waiting="something else")

    monkeypatch.setattr(Finishing, "publish", slow)
    fleet.clock.now += LEASE_S
    server.tick()
    assert (fleet.state(server), reason(fleet, server)) == ("published", "")


def test_a_plan_does_not_end_before_its_last_round_is_decided(
    fleet: SmallFleet, server: FleetService, publisher: Undecided
) -> None:
    fleet.clock.now = START + fleet.rounds * ROUND_S + 1
    server.tick()
    assert len(server.info().plans) == 1
    publisher.verdict = Verdict()
    fleet.clock.now += LEASE_S
    server.tick()
    server.tick()
    assert fleet.state(server) == "published"
    assert server.info().plans == ()


def test_the_shop_sees_what_waits_and_whose_rounds_it_waits_for(
    fleet: SmallFleet, server: FleetService, publisher: Undecided
) -> None:
    assert server.status()["candidate"] is None
    publisher.staged = Newest(2, "cc" * 32)
    waits = {"model_version": 2, "bundle": "cc" * 32, "waits_for": "a plan that compares: none is open"}
    assert server.status()["candidate"] == waits
    comparing = add_comparing(fleet, server)
    assert server.status()["candidate"] == {**waits, "waits_for": f"a round of {comparing.plan.plan_id}"}
    server.halt(comparing.plan.plan_id)
    assert server.status()["candidate"] == waits
