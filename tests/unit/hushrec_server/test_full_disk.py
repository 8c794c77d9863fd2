"""A disk that is full in the middle of a round: what was acknowledged stays, what was refused can be sent again.

SQLite's `max_page_count` stands for the disk: a file that may not grow is refused room as by a full one. Pages are as
small as they can be, so that little fits into those that are there.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec.messages import status_of
from hushrec_privacy.errors import StorageError
from hushrec_privacy.ledger import Anchor
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_server.database import Database
from hushrec_server.schema import FEATURE, MESSAGE, RESULT
from hushrec_server.service import FleetService
from sqlalchemy import Connection, event, func, select

from tests.small_fleet import ROUND_S, START, SmallFleet, raw_sum

COHORT = 12
DEVICES = range(COHORT)
PHASES = range(1, 7)


class Disk:
    """Under one SQLite database."""

    def __init__(self, database: Database) -> None:
        self.full = False
        event.listen(database._engine, "begin", self._limit)

    def _limit(self, connection: Connection) -> None:
        """The limit is of each connection, and never below what is there."""
        connection.exec_driver_sql(f"PRAGMA max_page_count = {1 if self.full else 2**30}")


@pytest.fixture
def fleet(tmp_path: Path) -> SmallFleet:
    path = tmp_path / "fleet.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as new:
        for statement in ("PRAGMA page_size = 512", "CREATE TABLE t (x)", "DROP TABLE t"):
            new.execute(statement)
    fleet = SmallFleet(tmp_path, f"sqlite:///{path}", cohort=COHORT)
    fleet.plan = large_plan(fleet)
    return fleet


def large_plan(fleet: SmallFleet) -> Plan:
    """Of 256 numbers: neither a vector nor a row of noise fits into one page."""
    plan = make_plan(
        Request(
            population=COHORT * 50,
            cohort=COHORT,
            rounds=50,
            delta=1e-6,
            noise_multiplier=2.0,
            parameters=256,
            round_seconds=ROUND_S,
            first_round_at=START,
            authority=fleet.authority.public().hex(),
        )
    )
    assert plan is not None
    return plan


@pytest.fixture
def service(fleet: SmallFleet) -> Iterator[FleetService]:
    service = fleet.service()
    with service.database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA page_size").scalar_one() == 512
    yield service
    service.database.close()


@pytest.fixture
def disk(service: FleetService) -> Disk:
    return Disk(service.database)


def begun(fleet: SmallFleet, service: FleetService, phase: int) -> None:
    """Bring a round to where a phase is open."""
    fleet.check_in(service, *DEVICES)
    for earlier in range(1, phase):
        fleet.send(service, earlier, *DEVICES)
        service.tick()


def finished(fleet: SmallFleet, service: FleetService, phase: int) -> None:
    """Send everything from a phase on, and check that the sum is whole and was spent once."""
    fleet.clock.now += ROUND_S // 50 + 1  # whoever failed had a lease
    for later in range(phase, 7):
        fleet.send(service, later, *DEVICES)  # the same bytes again are welcome
        service.tick()
    assert fleet.state(service) == "published"
    with service.database.reading() as connection:
        noised = connection.execute(select(RESULT.c.noised)).scalar_one()
    total = raw_sum(service, fleet.plan, 1, noised, fleet.seal_key)
    np.testing.assert_array_equal(total, sum(fleet.vector(number) for number in DEVICES))
    assert service.ledger.plan(fleet.plan.plan_id).rounds == 1
    service.ledger.verify()


def kept(service: FleetService, phase: int) -> int:
    with service.database.reading() as connection:
        wanted = select(func.count()).select_from(MESSAGE).where(MESSAGE.c.phase == phase)
        return connection.execute(wanted).scalar_one()


def test_a_plan_that_finds_no_room_is_refused_for_a_while_and_taken_when_there_is_some(fleet: SmallFleet) -> None:
    service = fleet.service(add_plan=False)
    disk, signed = Disk(service.database), (fleet.plan.encode(), fleet.plan_key.sign(fleet.plan))
    disk.full = True
    with pytest.raises(StorageError, match="its disk is full") as refused:
        service.add_plan(*signed)
    assert status_of(refused.value) == 503
    disk.full = False
    service.add_plan(*signed)
    assert len(service.info().plans) == 1
    service.database.close()


@pytest.mark.parametrize("phase", PHASES)
def test_uploads_are_refused_while_the_disk_is_full_and_none_that_was_acknowledged_is_lost(
    fleet: SmallFleet, service: FleetService, disk: Disk, phase: int
) -> None:
    begun(fleet, service, phase)
    disk.full, acknowledged = True, 0
    for number in DEVICES:
        with suppress(StorageError):
            fleet.send(service, phase, number)
            acknowledged += 1
    assert acknowledged < COHORT
    service.tick()
    assert kept(service, phase) == acknowledged
    with pytest.raises(StorageError, match="no room: its disk is full"):
        service.check()
    disk.full = False
    finished(fleet, service, phase)


@pytest.mark.parametrize("phase", PHASES)
def test_a_step_of_the_server_that_found_no_room_is_done_when_there_is_some(
    fleet: SmallFleet, service: FleetService, disk: Disk, phase: int
) -> None:
    begun(fleet, service, phase)
    fleet.send(service, phase, *DEVICES)
    before, disk.full = fleet.state(service), True
    for _ in range(3):
        with suppress(StorageError):
            service.tick()
        fleet.clock.now += ROUND_S // 50 + 1
    assert fleet.state(service) in (before, "summed")
    with pytest.raises(StorageError, match="no room"):
        service.check()
    disk.full = False
    service.tick()
    finished(fleet, service, phase + 1)


@pytest.fixture
def full_once_spent(service: FleetService, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk gets full between a round's entry in the ledger and its noise."""
    spend = service.ledger.spend

    def last_room(*arguments: Any, **more: Any) -> Anchor:
        head = spend(*arguments, **more)
        monkeypatch.undo()
        disk.full = True
        return head

    monkeypatch.setattr(service.ledger, "spend", last_room)


@pytest.mark.usefixtures("full_once_spent")
def test_a_round_that_was_spent_when_the_disk_got_full_is_not_spent_again(
    fleet: SmallFleet, service: FleetService, disk: Disk
) -> None:
    begun(fleet, service, 6)
    fleet.send(service, 6, *DEVICES)
    for _ in range(3):
        service.tick()
        assert (fleet.state(service), service.ledger.plan(fleet.plan.plan_id).rounds) == ("summed", 1)
        fleet.clock.now += ROUND_S // 50 + 1
    disk.full = False
    service.tick()
    finished(fleet, service, 7)


@pytest.mark.usefixtures("full_once_spent")
def test_a_round_whose_noise_found_no_room_for_a_round_s_time_is_given_up_and_the_next_one_runs(
    fleet: SmallFleet, service: FleetService, disk: Disk
) -> None:
    begun(fleet, service, 6)
    fleet.send(service, 6, *DEVICES)
    service.tick()
    fleet.clock.now = START + 3 * ROUND_S
    service.tick()
    assert fleet.state(service) == "aborted"
    disk.full = False
    fleet.clock.now = START + 5 * ROUND_S
    fleet.run(service, *DEVICES, round_number=6)
    assert fleet.state(service, 6) == "published"


def test_a_database_that_has_room_again_is_ready_a_minute_later(
    service: FleetService, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.check()
    disk.full = True
    with pytest.raises(StorageError, match="SQLITE_FULL; its disk is full"), service.database.transaction() as writing:
        writing.execute(FEATURE.insert().values(plan="p", name="n", pseudonym="d", body=bytes(5_000), expires_at=1))
    disk.full = False
    with pytest.raises(StorageError, match="no room"):
        service.check()
    later = time.monotonic() + 61
    monkeypatch.setattr("hushrec_server.database.time.monotonic", lambda: later)
    service.check()
