"""Every store of a ledger keeps the same promises. A new one is added to `STORES` and has passed when these pass."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
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

from tests.ledger_plans import made_up_plan

PLAN = made_up_plan(limits=Limits(2_000, max_rho="2.5"))
STORES: dict[str, Callable[[Path], LedgerStore]] = {
    "memory": lambda _: MemoryLedgerStore(),
    "sqlite": lambda folder: SqliteLedgerStore.create(folder / "ledger.sqlite"),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LedgerStore]:
    store = STORES[request.param](tmp_path)
    yield store
    store.close()


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
    monkeypatch.setattr(sqlite, "ROWS_AT_ONCE", 3)
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
