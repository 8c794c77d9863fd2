"""`hushrec serve` is killed in every state of a round and every durable step: no acknowledged upload is lost, none is
counted twice, no budget is forgotten, no round has two results or two releases."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hushrec_privacy.errors import LedgerError
from hushrec_server.schema import DEVICE, LEDGER, RESULT, ROUND

from tests.databases import POSTGRES, needs_postgres

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "killed_server.py"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script of the full run as a module."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("killed_server", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["killed_server"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


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
    found, shop = checks.found, checks._shop
    assert found.faults == dict.fromkeys(found.faults, 0)
    first, newest = (release.bundle for release in shop.releases.list())
    checks._bundle = first
    monkeypatch.setattr(shop, "expected", lambda _: newest)
    checks.result(1, vectors)
    assert found.faults == dict.fromkeys(found.faults, 0)
    monkeypatch.setattr(shop, "expected", lambda _: "ab" * 32)
    checks.result(1, vectors)
    assert (found.changed, found.unreadable) == (1, 1)
    monkeypatch.setattr(checks, "_release", lambda *_: None)
    checks.acknowledged.add((1, 4, 7))
    checks.result(1, {**vectors, 7: 0 * vectors[0]})
    assert (found.lost, found.doubled, found.split) == (1, 0, 1)
    checks.acknowledged -= {(1, 4, 7), (1, 4, 2)}
    checks.result(1, vectors)
    assert (found.lost, found.doubled, found.split) == (1, 2, 2)
    checks.acknowledged.add((1, 4, 2))
    checks.result(1, {**vectors, 2: vectors[2] + (vectors[2] == 0)})
    assert (found.lost, found.doubled, found.split, found.changed) == (1, 3, 2, 1)
    for number in (1, 2):
        (shop.folder / "published" / f"{number:08}-{'00' * 32}.note").write_bytes(b"another value")
        checks.result(number, vectors)
    assert (found.changed, found.split) == (3, 2)
    (note,) = (shop.folder / "sums").glob("*.note")
    (shop.folder / "sums" / f"{1:08}-{'00' * 32}.note").write_bytes(note.read_bytes())
    checks.result(1, vectors)
    assert found.split == 3


def test_the_check_finds_what_is_wrong_at_a_kill_and_at_the_end(fleet: Any) -> None:
    checks, found = fleet.checks, fleet.checks.found
    running = {"state": "mask", "ended_at": None, "lease_until": 2**40}  # nobody goes on with it
    with checks._database.transaction() as connection:
        connection.execute(ROUND.update().values(**running))
        device = {"plan": checks._plan.plan_id, "number": 1, "place": 1}
        connection.execute(DEVICE.insert().values(**device, pseudonym="p", identity=b"i", came_at=1))
        result = dict(connection.execute(RESULT.select()).mappings().one())
        connection.execute(RESULT.insert().values(**{**result, "number": 2}))
    fleet.after_kill()
    assert (found.overdue, found.lost) == (1, 6 * 6)
    fleet._reasons["secagg"] = 2
    checks._watcher.refused.append("damaged")
    with (checks._shop.folder / "server-0.log").open("a") as log:
        log.write('{"level": "error", "event": "bug", "error": "KeyError"}\n')
    facts = fleet.facts()
    assert (facts.unpaid, facts.changed, facts.unreadable, facts.turned_away, facts.crashed) == (1, 1, 1, 2, 1)
    assert facts.left == 2
    with checks._database.transaction() as connection:
        connection.execute(LEDGER.delete().where(LEDGER.c.n == 1))
    with pytest.raises(LedgerError):
        fleet.facts()


def test_a_process_stands_still_at_the_moment_that_is_aimed_at_and_the_round_ends_all_the_same(fleet: Any) -> None:
    fleet.one_round(["2 noise", "4 publish"])
    assert fleet.servers.ways.total() == 2
    assert fleet.state() == "published"
    assert fleet.checks.found.faults == dict.fromkeys(fleet.checks.found.faults, 0)
