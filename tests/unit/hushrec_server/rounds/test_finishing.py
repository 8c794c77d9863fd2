"""Ledger, noise, erasure, publication: whoever dies between two steps loses nothing, and nothing is done twice."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec_privacy.errors import LedgerError, NoiseStateError, ReleaseError, StorageError
from hushrec_privacy.ledger import Anchor
from hushrec_privacy.mechanisms.banded import BandedNoise
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_server.publishing import Newest, RoundResult, StoredResults, Verdict
from hushrec_server.rounds.finishing import Finishing
from hushrec_server.schema import MESSAGE, NOISE_ROW, RESULT
from hushrec_server.service import FleetService
from sqlalchemy import func, select

from tests.plain_aggregation import PlainAggregation
from tests.small_fleet import ROUND_S, START, SmallFleet, raw_sum


class Shelf(StoredResults):
    """A publisher that keeps what it was given, apart from any database."""

    def __init__(self) -> None:
        self.published: list[RoundResult] = []
        self.asked, self.refuses, self.anchored = 0, False, True
        self.staged = Newest()

    def newest(self) -> Newest:
        return Newest(1 + len(self.published), "5a" * 32)

    def candidate(self) -> Newest:
        return self.staged

    def anchor(self) -> Anchor | None:
        return self.published[-1].anchor if self.published and self.anchored else None

    def last_published(self, plan_id: str) -> int:
        return max((each.number for each in self.published if each.plan.plan_id == plan_id), default=0)

    def publish(self, result: RoundResult) -> Verdict:
        self.asked += 1
        if self.refuses:
            return Verdict(refused="the new model ranks worse; the old one stays")
        if self.last_published(result.plan.plan_id) < result.number:
            self.published.append(result)
        return Verdict()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def server(fleet: SmallFleet, shelf: Shelf) -> Iterator[FleetService]:
    service = fleet.service(shelf)
    yield service
    service.database.close()


class KilledError(Exception):
    """The process dies here."""


def revealed(fleet: SmallFleet, service: FleetService) -> None:
    """A round of five devices whose reveals are all there; nothing of the server's own steps is done."""
    fleet.run(service, *range(5), until=5)
    fleet.send(service, 6, *range(5))


def result_of(service: FleetService, number: int = 1) -> Any:
    with service.database.reading() as connection:
        return connection.execute(select(RESULT).where(RESULT.c.number == number)).one()


def count(service: FleetService, table: Any) -> int:
    with service.database.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


STEPS = {
    "before the sum": ("hushrec_server.rounds.finishing.Finishing._raw_sum", "summed", 0),
    "before the ledger": ("hushrec_privacy.ledger.Ledger.spend", "summed", 0),
    "between ledger and noise": ("hushrec_server.rounds.finishing.Finishing._add_noise", "summed", 1),
    "while noise is drawn": ("hushrec_privacy.mechanisms.banded.BandedNoise.draw", "summed", 1),
    "before the uploads are erased": ("hushrec_server.rounds.store.erase", "noised", 1),
    "after the uploads are erased": ("hushrec_server.database.Database.forget", "noised", 1),
    "before it is published": ("tests.unit.hushrec_server.rounds.test_finishing.Shelf.publish", "erased", 1),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_dies_leaves_a_round_that_the_next_one_finishes(
    fleet: SmallFleet, server: FleetService, shelf: Shelf, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    revealed(fleet, server)
    where, state, spent = STEPS[step]

    def die(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "publish", die) if "Shelf" in where else patch.setattr(where, die)
        with pytest.raises(KilledError):
            server.tick()
    assert fleet.state(server) == state
    assert server.ledger.plan(fleet.plan.plan_id).rounds == spent
    next_one = fleet.service(shelf)
    next_one.tick()
    assert fleet.state(server) == state  # the dead one's lease has not run out
    fleet.clock.now += 20
    next_one.tick()
    assert fleet.state(server) == "published"
    assert next_one.ledger.plan(fleet.plan.plan_id).rounds == 1
    assert [each.number for each in shelf.published] == [1]
    noised = shelf.published[0].noised.tobytes()
    total = raw_sum(server, fleet.plan, 1, noised, fleet.seal_key)
    np.testing.assert_array_equal(total, sum(fleet.vector(number) for number in range(5)))
    assert count(server, MESSAGE) == 0
    next_one.database.close()


def test_a_kill_after_publishing_publishes_once(
    fleet: SmallFleet, server: FleetService, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    revealed(fleet, server)
    right = Finishing._advance

    def die(self: Finishing, connection: Any, round_: Any, **values: object) -> bool:
        if round_.state == "erased":
            raise KilledError
        return right(self, connection, round_, **values)

    with monkeypatch.context() as patch:
        patch.setattr(Finishing, "_advance", die)
        with pytest.raises(KilledError):
            server.tick()
    assert (shelf.asked, fleet.state(server)) == (1, "erased")
    fleet.clock.now += 20
    server.tick()
    assert (shelf.asked, len(shelf.published), fleet.state(server)) == (2, 1, "published")


def test_the_noise_of_a_process_that_died_is_not_the_noise_of_the_next_one(
    fleet: SmallFleet, server: FleetService, monkeypatch: pytest.MonkeyPatch
) -> None:
    revealed(fleet, server)
    drawn, right = [], BandedNoise.draw

    def draw(self: BandedNoise, rows: Any, round_number: int) -> Any:
        drawn.append(right(self, rows, round_number))
        if len(drawn) == 1:
            raise KilledError
        return drawn[-1]

    monkeypatch.setattr(BandedNoise, "draw", draw)
    with pytest.raises(KilledError):
        server.tick()
    assert count(server, NOISE_ROW) == count(server, RESULT) == 0
    fleet.clock.now += 20
    server.tick()
    assert len(drawn) == 2
    assert (drawn[0] != drawn[1]).any()


def test_several_processes_at_once_make_one_result(fleet: SmallFleet, server: FleetService, shelf: Shelf) -> None:
    revealed(fleet, server)
    services = [fleet.service(shelf) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            list(pool.map(FleetService.tick, services))
    assert fleet.state(server) == "published"
    assert shelf.asked == 1
    assert server.ledger.plan(fleet.plan.plan_id).rounds == 1
    for service in services:
        service.database.close()


def test_two_processes_that_both_believe_to_be_alone_make_one_result(
    fleet: SmallFleet, server: FleetService, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    revealed(fleet, server)
    other, right = fleet.service(shelf), PlainAggregation.finish

    def slow(self: PlainAggregation, *given: Any) -> Any:
        monkeypatch.setattr(PlainAggregation, "finish", right)
        fleet.clock.now += 20  # so long that the lease runs out
        other.tick()
        return right(self, *given)

    monkeypatch.setattr(PlainAggregation, "finish", slow)
    server.tick()
    assert fleet.state(server) == "published"
    assert [each.number for each in shelf.published] == [1]
    assert server.ledger.plan(fleet.plan.plan_id).rounds == 1
    other.database.close()


@pytest.mark.parametrize("held_up", ["_raw_sum", "_spend", "_add_noise", "erase", "publish"])
def test_a_process_that_was_held_up_for_a_whole_round_harms_nothing(
    fleet: SmallFleet, server: FleetService, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, held_up: str
) -> None:
    revealed(fleet, server)
    other, right = fleet.service(shelf), getattr(Finishing, held_up)

    def slow(self: Finishing, *given: Any, **named: Any) -> Any:
        monkeypatch.setattr(Finishing, held_up, right)
        fleet.clock.now += 20
        other.tick()
        fleet.clock.now = START + ROUND_S
        fleet.run(other, *range(5), round_number=2)
        assert fleet.state(other, 2) == "published"
        return right(self, *given, **named)

    monkeypatch.setattr(Finishing, held_up, slow)
    server.tick()
    server.tick()
    assert (fleet.state(server, 1), fleet.state(server, 2)) == ("published", "published")
    assert [each.number for each in shelf.published] == [1, 2]
    assert server.ledger.plan(fleet.plan.plan_id).rounds == 2
    plans = server.status()["plans"]
    assert isinstance(plans, list)
    assert plans[0]["status"] == "open"
    other.database.close()


def test_the_raw_sum_is_nowhere_in_the_database(fleet: SmallFleet, shelf: Shelf, tmp_path: Path) -> None:
    path = tmp_path / "own.sqlite"
    fleet.url = f"sqlite:///{path}"
    service = fleet.service(shelf)
    plain = sum(fleet.vector(number) for number in range(5))
    assert isinstance(plain, np.ndarray)
    raw = (plain << fleet.plan.lattice_bits).astype("<i8").tobytes()
    revealed(fleet, service)
    service.tick()
    assert fleet.state(service) == "published"
    for file in tmp_path.glob("own.sqlite*"):
        assert raw not in file.read_bytes()
        assert fleet.vector(0).tobytes() not in file.read_bytes()
        assert fleet.pseudonym(0).encode() not in file.read_bytes()
    service.database.close()


def test_a_vector_that_no_honest_device_sends_ends_the_round_and_spends_nothing(
    fleet: SmallFleet, server: FleetService, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = np.full(fleet.plan.coordinates, 2**40)
    monkeypatch.setattr(SmallFleet, "vector", lambda *_: huge)
    revealed(fleet, server)
    server.tick()
    assert fleet.state(server) == "aborted"
    assert server.ledger.plan(fleet.plan.plan_id).rounds == 0
    assert count(server, MESSAGE) == 0


def test_a_refused_release_ends_the_round_and_the_next_one_runs(
    fleet: SmallFleet, server: FleetService, shelf: Shelf
) -> None:
    shelf.refuses = True
    revealed(fleet, server)
    server.tick()
    assert fleet.state(server) == "aborted"
    assert "worse" in str(server.rounds(fleet.plan.plan_id)[0]["reason"])
    shelf.refuses = False
    fleet.clock.now = START + ROUND_S
    fleet.run(server, *range(5), round_number=2)
    assert [each.number for each in shelf.published] == [2]


def test_a_release_that_cannot_be_made_now_is_made_later(
    fleet: SmallFleet, server: FleetService, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    revealed(fleet, server)

    def fail(*_: object) -> None:
        raise ReleaseError("the disk refused")

    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "publish", fail)
        server.tick()
        fleet.clock.now += ROUND_S
        server.tick()
    assert (fleet.state(server), shelf.published) == ("erased", [])
    fleet.clock.now += 20
    server.tick()
    assert (fleet.state(server), len(shelf.published)) == ("published", 1)


def test_a_fault_in_one_plan_s_round_holds_up_no_other_plan(
    fleet: SmallFleet, server: FleetService, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [fleet.plan, replace(fleet.plan, rotation_seed="cd" * 32)]
    for plan in plans:
        fleet.plan = plan
        server.add_plan(plan.encode(), fleet.plan_key.sign(plan))
        fleet.run(server, *range(5), until=5)
    for plan in plans:
        fleet.plan = plan
        fleet.send(server, 6, *range(5))
    first = min(plan.plan_id for plan in plans)
    publish = Shelf.publish

    def fail(shelf: Shelf, result: RoundResult) -> Verdict:
        if result.plan.plan_id == first:
            raise OSError(28, "No space left on device")
        return publish(shelf, result)

    monkeypatch.setattr(Shelf, "publish", fail)
    with pytest.raises(OSError, match="No space"):
        server.tick()
    assert [each.plan.plan_id == first for each in shelf.published] == [False]


def test_a_sum_that_only_faults_for_a_whole_round_is_given_up(
    fleet: SmallFleet, server: FleetService, monkeypatch: pytest.MonkeyPatch
) -> None:
    revealed(fleet, server)

    def fail(*_: object) -> None:
        raise ValueError("nobody foresaw this")

    monkeypatch.setattr(Finishing, "spend_and_noise", fail)
    fleet.clock.now += ROUND_S
    for _ in range(2):
        with pytest.raises(ValueError, match="foresaw"):
            server.tick()
        fleet.clock.now += ROUND_S
    assert fleet.state(server) == "aborted"


def test_what_was_published_is_deleted_and_its_hash_stays(fleet: SmallFleet, server: FleetService) -> None:
    fleet.run(server, *range(5))
    found = result_of(server)
    assert found.noised is None
    assert len(found.sha256) == 32


def test_devices_start_from_the_release_that_was_newest_when_the_round_opened(
    fleet: SmallFleet, server: FleetService, shelf: Shelf
) -> None:
    first = server.check_in(fleet.plan.plan_id, fleet.pseudonym(0), fleet.certificate(0))
    assert first.release == "5a" * 32
    assert server.info().release == 1
    fleet.run(server, *range(5))
    assert shelf.published[0].release == "5a" * 32
    assert server.info().release == 2


def test_without_the_seal_key_no_round_is_finished_and_the_server_does_not_start(
    fleet: SmallFleet, server: FleetService
) -> None:
    fleet.run(server, *range(5))
    fleet.seal_key = SealKey(b"w" * 32)
    with pytest.raises(NoiseStateError, match="seal key"):
        fleet.service()


def test_noise_that_was_lost_ends_the_round_and_halts_the_plan(fleet: SmallFleet, server: FleetService) -> None:
    fleet.run(server, *range(5))
    with server.database.transaction() as connection:
        connection.execute(NOISE_ROW.delete())
    fleet.clock.now = START + ROUND_S
    fleet.run(server, *range(5), round_number=2)
    assert fleet.state(server, 2) == "aborted"
    plans = server.status()["plans"]
    assert isinstance(plans, list)
    assert plans[0]["status"] == "halted"
    assert "sealed noise" in plans[0]["reason"]
    assert server.ledger.plan(fleet.plan.plan_id).rounds == 2  # spent, whatever followed
    assert count(server, MESSAGE) == 0


def test_while_the_ledger_cannot_be_written_nothing_is_noised_and_later_it_goes_on(
    fleet: SmallFleet, server: FleetService, monkeypatch: pytest.MonkeyPatch
) -> None:
    revealed(fleet, server)

    def fail(*_: object) -> None:
        raise LedgerError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("hushrec_privacy.ledger.Ledger.spend", fail)
        for _ in range(3):
            server.tick()
            fleet.clock.now += 20
        assert fleet.state(server) == "summed"
    server.tick()
    assert fleet.state(server) == "published"


def test_a_sum_that_cannot_be_finished_for_a_whole_round_is_given_up(
    fleet: SmallFleet, server: FleetService, monkeypatch: pytest.MonkeyPatch
) -> None:
    revealed(fleet, server)

    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr("hushrec_server.rounds.finishing.DatabaseNoiseStore.transaction", fail)
    server.tick()
    assert fleet.state(server) == "summed"
    fleet.clock.now += ROUND_S
    server.tick()
    assert fleet.state(server) == "aborted"
    assert server.ledger.plan(fleet.plan.plan_id).rounds == 1


class TestSetBack:
    """An older copy of the database is put back."""

    @pytest.fixture
    def older(self, fleet: SmallFleet, shelf: Shelf, tmp_path: Path) -> SmallFleet:
        """A copy from when a round's reveals were there and nothing spent; that round was then published."""
        path, copy = tmp_path / "own.sqlite", tmp_path / "copy.sqlite"
        fleet.url = f"sqlite:///{path}"
        service = fleet.service(shelf)
        revealed(fleet, service)
        with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        source.close()
        target.close()
        service.tick()
        assert fleet.state(service) == "published"
        service.database.close()
        fleet.url = f"sqlite:///{copy}"
        return fleet

    def test_the_anchor_in_the_newest_release_detects_it(self, older: SmallFleet, shelf: Shelf) -> None:
        with pytest.raises(LedgerError, match="older copy"):
            older.service(shelf)

    def test_without_an_anchor_the_published_round_is_not_noised_again(self, older: SmallFleet, shelf: Shelf) -> None:
        shelf.anchored = False
        service = older.service(shelf)
        older.clock.now += 20
        service.tick()
        assert older.state(service) == "aborted"
        assert len(shelf.published) == 1
        assert count(service, RESULT) == 0
        service.database.close()
