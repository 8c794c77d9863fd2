"""A ledger that is kept in another way than by a rollback journal is turned back or refused."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hushrec_privacy.errors import LedgerError
from hushrec_privacy.ledger import Ledger, SqliteLedgerStore, verify

from tests.ledger_plans import made_up_plan

PLAN = made_up_plan()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with one spent round."""
    path = tmp_path / "ledger.sqlite"
    with SqliteLedgerStore.create(path) as store:
        ledger = Ledger.begin(store)
        ledger.open_plan(PLAN)
        ledger.spend(PLAN.plan, 1, rho="0.5")
    return path


def spent(path: Path) -> str:
    with SqliteLedgerStore(path, read_only=True) as store:
        return verify(store).rho


def test_a_ledger_that_someone_turned_to_a_write_ahead_log_is_turned_back(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    with SqliteLedgerStore(path) as store:
        assert store._db.execute("PRAGMA journal_mode").fetchone() == (b"delete",)


def test_a_write_ahead_log_that_appears_while_the_ledger_is_open_stops_spending(path: Path) -> None:
    with SqliteLedgerStore(path) as store:
        ledger = Ledger(store)
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode = WAL")
        with pytest.raises(LedgerError, match="write-ahead log"):
            ledger.spend(PLAN.plan, 2, rho="0.5")
    with SqliteLedgerStore(path) as store:
        assert Ledger(store).spend(PLAN.plan, 2, rho="0.5").index == 3
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_write_ahead_log_is_not_read_through(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        for _ in range(2):  # with the log beside it, and without
            with pytest.raises(LedgerError, match="write-ahead log"):
                SqliteLedgerStore(path, read_only=True)
            database.close()
    SqliteLedgerStore(path).close()
    assert spent(path) == "0.5"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("mode", ["MEMORY", "OFF", "PERSIST"])
def test_a_ledger_that_cannot_keep_its_journal_is_not_written(path: Path, mode: str) -> None:
    with SqliteLedgerStore(path) as store:
        ledger = Ledger(store)
        store._db.execute(f"PRAGMA journal_mode = {mode}")  # what SQLite answers where a journal cannot be kept
        with pytest.raises(LedgerError, match="keeps no journal"):
            ledger.spend(PLAN.plan, 2, rho="0.5")
