"""Server processes are killed in every state of a round and every durable step: no acknowledged upload is lost, none is
counted twice, no budget is forgotten, no round has two results."""

import importlib.util
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hushrec_privacy.errors import LedgerError
from hushrec_server.schema import DEVICE, LEDGER

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
    facts = script.kill_server(setting, tmp_path, 13, each=1, postgres=POSTGRES)
    assert facts.moments >= 13
    assert all(facts.kills[name] for name in (*script.STATES, *script.STEPS))
    assert facts.published > 0
    assert facts.faults == dict.fromkeys(facts.faults, 0)


@pytest.fixture
def fleet(script: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """One round that nothing went wrong in; the server is still there."""
    authority = script.AUTHORITY.public()
    with (
        script.begin(tmp_path, "sqlite", "", authority) as url,
        script.Servers(str(SCRIPT), tmp_path, url, 1) as servers,
    ):
        fleet = script.Fleet(tmp_path, url, servers, random.Random(3))
        fleet.one_round(None)
        yield fleet


def test_the_check_finds_what_was_lost_changed_unpaid_and_left(fleet: Any) -> None:
    assert fleet.found.faults == dict.fromkeys(fleet.found.faults, 0)
    assert len(list((fleet.folder / "published").glob("*.sum"))) == 1
    fleet.acknowledged[1, 4, 99] = True
    fleet._check_result()
    assert fleet.found.lost == 1
    del fleet.acknowledged[1, 4, 99], fleet.acknowledged[1, 4, 2]
    fleet._check_result()
    assert fleet.found.doubled == 1
    (fleet.folder / "published" / f"{1:08}-{'00' * 32}.sum").write_bytes(b"another")
    (fleet.folder / "published" / f"{2:08}-{'00' * 32}.sum").write_bytes(b"of no round")
    fleet._check_result()
    assert fleet.found.changed == 1
    fleet.number = 2
    with fleet.database.transaction() as connection:
        plan = {"plan": fleet.plan.plan_id, "number": 1, "place": 1}
        connection.execute(DEVICE.insert().values(**plan, pseudonym="p", identity=b"i", came_at=1))
    facts = fleet.facts()
    assert (facts.unpaid, facts.left) == (1, 1)


def test_the_check_finds_a_ledger_that_was_altered(fleet: Any) -> None:
    with fleet.database.transaction() as connection:
        connection.execute(LEDGER.delete().where(LEDGER.c.n == 1))
    with pytest.raises(LedgerError):
        fleet.facts()
