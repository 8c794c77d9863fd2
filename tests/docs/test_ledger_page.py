"""The example of docs/ledger.md is a ledger: its hashes are recomputed by hand, and our writer gives its bytes."""

import hashlib
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hushrec_privacy.ledger import Anchor, Ledger, MemoryLedgerStore, Record, SqliteLedgerStore, history, verify
from hushrec_privacy.ledger.entries import entry_bytes, read_entry
from hushrec_privacy.ledger.sqlite import APPLICATION_ID, SCHEMA_VERSION

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
ENTRIES = [line.encode() for line in re.findall(r"^```json entries\n(.*?)^```", PAGE, re.M | re.S)[0].splitlines()]
HASHES = re.findall(r"^```text hashes\n(.*?)^```", PAGE, re.M | re.S)[0].splitlines()
PLAN = hashlib.sha256(b"test\n").hexdigest()


def test_the_hashes_follow_from_the_entries_as_the_page_says() -> None:
    assert (bytes.fromhex("68757368726563206c65646765722031"), len(ENTRIES[0])) == (b"hushrec ledger 1", 39)
    before = bytes(32)
    for entry, expected in zip(ENTRIES, HASHES, strict=True):
        before = hashlib.sha256(b"hushrec ledger 1" + before + entry).digest()
        assert before.hex() == expected
    assert f"`3:{HASHES[-1]}`" in PAGE


def test_the_example_verifies_and_holds_what_the_page_says() -> None:
    store = MemoryLedgerStore()
    links = [bytes(32), *map(bytes.fromhex, HASHES)]
    store.records = [Record(n, links[n], links[n + 1], entry) for n, entry in enumerate(ENTRIES)]
    totals = verify(store, anchor=Anchor.parse(f"3:{HASHES[-1]}"))
    assert (totals.rho, totals.rho_left) == ("0.75", "0.75")
    assert (totals.plans[PLAN].rounds, totals.plans[PLAN].last) == (4, 6)
    assert [entry_bytes(entry) for _, entry in history(store)] == ENTRIES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The example, spent by our code."""
    path, times = tmp_path / "ledger.sqlite", iter([None, None, 1_750_000_000, None])
    with SqliteLedgerStore.create(path) as store:
        ledger = Ledger.begin(store, lifetime_rho="1.5", clock=lambda: next(times))  # type: ignore[arg-type, return-value]
        ledger.open_plan(read_entry(ENTRIES[1]))  # type: ignore[arg-type]
        ledger.spend(PLAN, 1, rho="0.25")
        ledger.spend(PLAN, 4, 6, rho="0.5")
    return path


def test_our_writer_makes_the_file_of_the_page(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT n, hex(previous), hex(hash), entry, plan, first, last FROM entries").fetchall()
        assert database.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        columns = database.execute("SELECT name, type, \"notnull\", pk FROM pragma_table_info('entries')").fetchall()
    assert [row[3].encode() for row in rows] == ENTRIES
    assert [row[2].lower() for row in rows] == HASHES
    assert [row[4:] for row in rows] == [(None, None, None), (None, None, None), (PLAN, 1, 1), (PLAN, 4, 6)]
    shown = [f"{name} {kind}{' PRIMARY KEY' * pk}{' NOT NULL' * notnull}" for name, kind, notnull, pk in columns]
    assert f"entries({', '.join(shown)})" in PAGE
    assert f"`PRAGMA application_id` 0x{APPLICATION_ID:X}, `PRAGMA user_version` {SCHEMA_VERSION}," in PAGE
    assert PAGE.startswith(f"# The ledger of a privacy budget, version {SCHEMA_VERSION}\n")


def test_every_field_and_kind_of_the_format_is_on_the_page() -> None:
    from dataclasses import fields

    from hushrec_privacy.ledger import Close, Genesis, Limits, Open, Spend

    for kind in (Genesis, Open, Spend, Close):
        assert f"| `{kind.kind}` |" in PAGE
        assert all(f"`{field.name}`" in PAGE for field in fields(kind))
    assert all(f"`{field.name}`" in PAGE for field in fields(Limits))
