"""`hushrec serve` is killed in every state of a round and every durable step: no acknowledged upload is lost, none is
counted twice, no budget is forgotten, no round has two results or two releases."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hushrec_privacy.errors import LedgerError
from hushrec_server.schema import DEVICE, LEDGER, RESULT, ROUND

from tests.benchmark_scripts import benchmark
from tests.databases import POSTGRES, needs_postgres


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script of the full run as a module."""
    with benchmark("killed_server") as module:
        yield module


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["sqlite-1", pytest.param("postgresql-3", marks=needs_postgres)])
def test_no_kill_loses_doubles_or_forgets_anything(script: ModuleType, tmp_path: Path, setting: str) -> None:
    with script.fleet_of(setting, tmp_path, POSTGRES) as fleet:
        facts = script.kill_servers(fleet, 13, each=1)
    assert facts.moments >= 13
    assert all(facts.kills[name] for name in script.TARGETS)
    assert facts.published > 0
    assert facts.faults == dict.fromkeys(facts.faults, 0)


@pytest.fixture
def fleet(script: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """One round that nothing went wrong in; the server is still there."""
    with script.fleet_of("sqlite-1", tmp_path) as fleet:
        fleet.one_round(())
        yield fleet


def test_the_check_finds_what_is_wrong_with_a_round(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checks, vectors = fleet.checks, {device.place: device.vector for device in fleet.devices}
    found, shop, plan = checks.found, checks._shop, fleet.plan
    checks.result(plan, 1, vectors)
    assert found.faults == dict.fromkeys(found.faults, 0)
    shop.releases.withdraw()
    checks.result(plan, 1, vectors)
    assert (found.changed, found.unreadable) == (1, 1)
    monkeypatch.setattr(checks, "_offered", lambda _: None)
    checks.acknowledged.add((1, 4, 7))
    checks.result(plan, 1, {**vectors, 7: 0 * vectors[0]})
    assert (found.lost, found.doubled) == (1, 0)
    checks.acknowledged -= {(1, 4, 7), (1, 4, 2)}
    checks.result(plan, 1, vectors)
    assert (found.lost, found.doubled) == (1, 3), "one vector more; another sum, noted and with its noise"
    checks.acknowledged.add((1, 4, 2))
    checks.result(plan, 1, {**vectors, 2: vectors[2] + 1})
    assert (found.lost, found.doubled, found.split, found.changed) == (1, 5, 0, 1)
    note, (sums,) = f"{1:08}-{'00' * 32}.note", (shop.folder / "sums").glob("*.note")
    (shop.folder / "published" / note).write_bytes(b"another value")
    (shop.folder / "sums" / note).write_bytes(sums.read_bytes())
    with checks._database.transaction() as connection:
        connection.execute(RESULT.update().values(survivors=5))
    checks.result(plan, 1, vectors)
    assert (found.changed, found.split) == (2, 3)


def test_the_check_finds_what_is_wrong_with_a_verdict_at_a_kill_and_at_the_end(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks, found, told, decided = fleet.checks, fleet.checks.found, list[Any](), fleet.checks._decided
    monkeypatch.setattr(checks, "_decided", told.append)
    fleet.one_round(())
    of_training = ROUND.update().where(ROUND.c.number == 1)
    with checks._database.transaction() as connection:
        connection.execute(of_training.values(state="aborted"))
    decided(told[0])
    assert found.changed == 1
    decided(told[0])
    assert found.changed == 2, "nothing waits any more"
    with checks._database.transaction() as connection:
        connection.execute(of_training.values(state="published"))
    running = {"state": "mask", "ended_at": None, "lease_until": 2**40}  # nobody goes on with it
    with checks._database.transaction() as connection:
        connection.execute(ROUND.update().where(ROUND.c.number == 2).values(**running))
        device = {"plan": checks._shop.comparing.plan_id, "number": 2, "place": 1}
        connection.execute(DEVICE.insert().values(**device, pseudonym="p", identity=b"i", came_at=1))
        result = dict(connection.execute(RESULT.select().where(RESULT.c.number == 2)).mappings().one())
        connection.execute(RESULT.insert().values(**{**result, "number": 3}))
    fleet.after_kill()
    assert (found.overdue, found.lost) == (1, sum(number == 2 for number, _, _ in checks.acknowledged))
    fleet._reasons["secagg"] = 2
    checks._watcher.refused.append("damaged")
    with (checks._shop.folder / "server-0.log").open("a") as log:
        log.write('{"level": "error", "event": "bug", "error": "KeyError"}\n')
    checks._shop.releases.rollback(1)
    facts = fleet.facts()
    assert (facts.unpaid, facts.changed, facts.unreadable, facts.turned_away, facts.crashed) == (1, 3, 1, 2, 1)
    assert facts.left == 2
    with checks._database.transaction() as connection:
        connection.execute(LEDGER.delete().where(LEDGER.c.n == 1))
    with pytest.raises(LedgerError):
        fleet.facts()


def test_a_process_stands_still_at_the_moment_that_is_aimed_at_and_the_round_ends_all_the_same(fleet: Any) -> None:
    fleet.one_round(["2 noise", "4 decide"])
    facts = fleet.facts()
    assert facts.moments == 2
    assert (facts.published, facts.refused, facts.spent) == (2, 0, 2)
    assert facts.faults == dict.fromkeys(facts.faults, 0)
