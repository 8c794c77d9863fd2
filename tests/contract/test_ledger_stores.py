"""Every store of a ledger keeps the same promises. A new one is added to `STORES` and has passed when these pass."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hushrec.vault import Vault
from hushrec.vault_ledger import VaultLedgerStore
from hushrec_privacy.errors import BudgetError, LedgerError
from hushrec_privacy.ledger import (
    Close,
    Genesis,
    Ledger,
    LedgerStore,
    Limits,
    MemoryLedgerStore,
    Record,
    Spend,
    SqliteLedgerStore,
    append_entry,
    sqlite,
    verify,
)
from hushrec_privacy.ledger.chain import next_record
from hushrec_privacy.ledger.entries import Entry, entry_bytes
from hushrec_server import ledger_store
from hushrec_server.database import Database
from hushrec_server.ledger_store import DatabaseLedgerStore

from tests.databases import database_url, needs_postgres
from tests.ledger_plans import made_up_plan

PLAN = made_up_plan(limits=Limits(2_000, max_rho="2.5"))


@contextmanager
def in_database(kind: str, folder: Path) -> Iterator[LedgerStore]:
    with database_url(kind, folder) as url:
        database = Database.open(url)
        yield DatabaseLedgerStore(database)
        database.close()


@contextmanager
def in_vault(folder: Path) -> Iterator[LedgerStore]:
    with Vault.open(folder / "vault.db", bytes(32)) as vault:
        vault.put("plan/identity", b"not of the ledger")
        yield VaultLedgerStore(vault)


STORES: dict[str, Callable[[Path], AbstractContextManager[LedgerStore]]] = {
    "memory": lambda _: closing(MemoryLedgerStore()),
    "sqlite": lambda folder: closing(SqliteLedgerStore.create(folder / "ledger.sqlite")),
    "vault": in_vault,
    "server-sqlite": lambda folder: in_database("sqlite", folder),
    "server-postgresql": lambda folder: in_database("postgresql", folder),
}
MARKS = {"server-postgresql": needs_postgres}


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in STORES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LedgerStore]:
    with STORES[request.param](tmp_path) as store:
        yield store


def chain(*entries: Entry) -> list[Record]:
    records: list[Record] = []
    for entry in entries:
        records.append(next_record(entry_bytes(entry), records[-1].anchor if records else None))
    return records


RECORDS = chain(Genesis(), PLAN, Spend(PLAN.plan, 1, 1), Spend(PLAN.plan, 4, 9, "0.5"), Close(PLAN.plan))


def test_what_was_appended_is_read_in_order_bit_by_bit(store: LedgerStore) -> None:
    for record in RECORDS:
        assert store.append(record) is True
    assert list(store.scan()) == RECORDS
    for start in range(len(RECORDS) + 1):
        assert list(store.scan(start)) == RECORDS[start:]


@pytest.mark.parametrize("index", [0, 1, 2, 4])
def test_a_record_that_does_not_follow_the_last_one_is_not_written(store: LedgerStore, index: int) -> None:
    for record in RECORDS[:3]:
        store.append(record)
    assert store.append(RECORDS[index]) is False
    assert list(store.scan()) == RECORDS[:3]


def test_a_record_after_another_history_is_not_written(store: LedgerStore) -> None:
    for record in RECORDS[:3]:
        store.append(record)
    other = chain(Genesis("1"), PLAN, Spend(PLAN.plan, 1, 1), Spend(PLAN.plan, 2, 2))
    assert store.append(other[3]) is False
    assert store.append(replace(RECORDS[3], previous=bytes(32))) is False
    assert list(store.scan()) == RECORDS[:3]


def test_an_empty_store_takes_nothing_but_a_first_record(store: LedgerStore) -> None:
    assert store.append(RECORDS[1]) is False
    assert store.append(RECORDS[0]) is True


def test_a_scan_that_was_begun_does_not_hold_up_a_writer(store: LedgerStore) -> None:
    for record in RECORDS[:3]:
        store.append(record)
    scan = iter(store.scan())
    assert next(scan) == RECORDS[0]
    assert store.append(RECORDS[3]) is True
    assert list(scan)[:2] == RECORDS[1:3]


def test_more_records_than_are_read_at_once_are_all_read(store: LedgerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sqlite, ledger_store):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)
    records = chain(*(Genesis(at_s=index) for index in range(10)))
    for record in records:
        assert store.append(record)
    assert list(store.scan()) == records


def test_a_ledger_over_it_counts_refuses_and_verifies(store: LedgerStore) -> None:
    ledger = Ledger.begin(store, lifetime_rho="2")
    ledger.open_plan(PLAN)
    for round_ in (1, 2, 3):
        ledger.spend(PLAN.plan, round_, rho="0.5")
    head = ledger.anchor()
    for spend in (Spend(PLAN.plan, 3, 3, "0.5"), Spend(PLAN.plan, 4, 4, "0.6"), Spend(PLAN.plan, 4, 2_001, "0")):
        with pytest.raises(BudgetError):
            append_entry(store, spend)
    assert verify(store, anchor=head).head == head
    assert append_entry(store, Spend(PLAN.plan, 4, 4, "0.5")).rho == "2"
    assert ledger.totals().rho_left == "0"
    with pytest.raises(LedgerError):
        Ledger.begin(store)


def test_of_two_that_add_at_once_one_is_first(store: LedgerStore) -> None:
    Ledger.begin(store).open_plan(PLAN)
    with ThreadPoolExecutor(4) as pool:
        ledgers = [Ledger(store) for _ in range(4)]
        done = list(pool.map(lambda ledger: spent_rounds(ledger, range(1, 9)), ledgers))
    assert sorted(round_ for rounds in done for round_ in rounds) == list(range(1, 9))
    assert verify(store).plans[PLAN.plan].rounds == 8


def spent_rounds(ledger: Ledger, rounds: range) -> list[int]:
    done = []
    for round_ in rounds:
        with suppress(BudgetError):
            ledger.spend(PLAN.plan, round_, rho="0.1")
            done.append(round_)
    return done


@pytest.mark.parametrize("column", ["previous", "hash", "entry"])
def test_text_in_place_of_bytes_is_a_damaged_ledger(tmp_path: Path, column: str) -> None:
    with in_database("sqlite", tmp_path) as store:
        Ledger.begin(store)
        file = next(path for path in tmp_path.iterdir() if path.suffix == ".sqlite")
        with closing(sqlite3.connect(file)) as database:
            database.execute(f"UPDATE ledger_entry SET {column} = 'text'")
            database.commit()
        with pytest.raises(LedgerError, match="rewritten"):
            verify(store)
