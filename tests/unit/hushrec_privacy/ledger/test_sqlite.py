"""What happens to the file: made only when asked for, damage found, other programs' files refused."""

import multiprocessing
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hushrec_privacy.errors import BudgetError, LedgerError
from hushrec_privacy.ledger import Ledger, Spend, SqliteLedgerStore, verify
from hushrec_privacy.ledger import sqlite as product
from hushrec_privacy.ledger.chain import next_record
from hushrec_privacy.ledger.entries import entry_bytes

from tests.ledger_plans import made_up_plan

PLAN = made_up_plan()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of seven entries: five rounds of ρ 0.5."""
    path = tmp_path / "ledger.sqlite"
    with SqliteLedgerStore.create(path) as store:
        ledger = Ledger.begin(store, lifetime_rho="9")
        ledger.open_plan(PLAN)
        for round_ in range(1, 6):
            ledger.spend(PLAN.plan, round_, rho="0.5")
    return path


def spent(path: Path) -> str:
    with SqliteLedgerStore(path, read_only=True) as store:
        return verify(store).rho


def edit(path: Path, *statements: str) -> None:
    """Change the file as someone would who knows SQLite and wants to get past the triggers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        triggers = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        database.execute("PRAGMA ignore_check_constraints = ON")
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            database.execute(statement)
        for _, sql in triggers:
            database.execute(sql)


def test_what_was_spent_is_there_after_opening_again(path: Path) -> None:
    assert spent(path) == "2.5"
    with SqliteLedgerStore(path) as store:
        ledger = Ledger(store)
        with pytest.raises(BudgetError, match="spent already"):
            ledger.spend(PLAN.plan, 5, rho="0.5")
        ledger.spend(PLAN.plan, 6, rho="0.5")
    assert spent(path) == "3"


def test_the_file_is_its_owner_s_alone(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_between_two_writes_everything_is_in_one_file(path: Path) -> None:
    with SqliteLedgerStore(path) as store:
        Ledger(store).spend(PLAN.plan, 6, rho="0.5")
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        copy = path.with_name("copy.sqlite")
        shutil.copy(path, copy)
    assert spent(copy) == "3"


def test_every_write_is_synced_to_the_disk_journal_and_folder_too(path: Path) -> None:
    with SqliteLedgerStore(path) as store:
        assert store._db.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
        assert store._db.execute("PRAGMA fullfsync").fetchone() == (1,)
        assert store._db.execute("PRAGMA journal_mode").fetchone() == (b"delete",)


def test_a_missing_ledger_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="must be restored, not begun anew"):
        SqliteLedgerStore(tmp_path / "gone.sqlite")
    assert not list(tmp_path.iterdir())


def test_an_emptied_ledger_is_refused(path: Path) -> None:
    path.write_bytes(b"")
    for read_only in (True, False):
        with pytest.raises(LedgerError, match="is empty"):
            SqliteLedgerStore(path, read_only=read_only)


def test_a_ledger_that_is_there_is_not_made_anew(path: Path) -> None:
    with pytest.raises(LedgerError, match="is there already"):
        SqliteLedgerStore.create(path)
    assert spent(path) == "2.5"


def test_of_two_that_make_one_file_one_begins_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with SqliteLedgerStore.create(path) as one, SqliteLedgerStore.create(path) as two:
        Ledger.begin(one, lifetime_rho="1")
        with pytest.raises(LedgerError, match="there is a ledger already"):
            Ledger.begin(two, lifetime_rho="2")
        assert verify(two).genesis.lifetime_rho == "1"


def test_one_that_was_made_and_never_begun_leaves_an_empty_file_that_can_be_begun(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    SqliteLedgerStore.create(path).close()
    assert path.stat().st_size == 0
    with pytest.raises(LedgerError, match="is empty"):
        SqliteLedgerStore(path)
    with SqliteLedgerStore.create(path) as store:
        Ledger.begin(store)
    assert spent(path) == "0"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="check its folder"):
        SqliteLedgerStore.create(tmp_path / "none" / "ledger.sqlite")


@pytest.mark.parametrize("content", [b"x", b"x" * 511, b"x" * 9_000, b"SQLite format 3\x00" + b"x" * 9_000])
def test_another_kind_of_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for use in (SqliteLedgerStore, SqliteLedgerStore.create):
        with pytest.raises(LedgerError, match=r"notes\.txt"):
            use(path)
    assert path.read_bytes() == content


def test_a_folder_and_a_link_to_nowhere_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, link):
        for use in (SqliteLedgerStore, SqliteLedgerStore.create):
            with pytest.raises(LedgerError):
                use(path)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("pragma", ["application_id = 0", "application_id = 7"])
def test_the_database_of_another_program_is_refused(path: Path, pragma: str) -> None:
    edit(path, f"PRAGMA {pragma}")
    with pytest.raises(LedgerError, match="of another program"):
        SqliteLedgerStore(path)


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    edit(path, "PRAGMA user_version = 2", "ALTER TABLE entries ADD COLUMN note TEXT")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"newer hushrec \(schema 2\); update hushrec"):
        SqliteLedgerStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER entries_stay",
        "DROP INDEX spent_once",
        "CREATE TABLE more(x)",
        "CREATE TRIGGER quiet AFTER INSERT ON entries BEGIN DELETE FROM entries WHERE n = NEW.n; END",
        "PRAGMA user_version = 0",
    ],
)
def test_altered_tables_are_found(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)
    with pytest.raises(LedgerError, match="its tables were altered"):
        SqliteLedgerStore(path)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("""UPDATE entries SET entry = replace(entry, '0.5', '0.1') WHERE n = 3""", "entry 3 .* does not fit its hash"),
        ("""UPDATE entries SET entry = replace(entry, '"9"', '"8"') WHERE n = 0""", "entry 0 .* does not fit its hash"),
        ("UPDATE entries SET entry = CAST(x'ff' AS TEXT) WHERE n = 0", "entry 0 .* does not fit its hash"),
        ("UPDATE entries SET hash = zeroblob(32) WHERE n = 6", "entry 6 .* does not fit its hash"),
        ("UPDATE entries SET previous = zeroblob(32) WHERE n = 6", "entry 6 .* does not fit its hash"),
        ("UPDATE entries SET n = 9 WHERE n = 6", "entry 6 of the ledger is missing"),
        ("UPDATE entries SET n = -1 WHERE n = 0", "damaged|missing"),
        ("DELETE FROM entries WHERE n = 0", "entry 0 of the ledger is missing"),
        ("DELETE FROM entries WHERE n = 4", "entry 4 of the ledger is missing"),
        ("DELETE FROM entries", "no first entry"),
        ("UPDATE entries SET hash = 'x' WHERE n = 3", "is damaged"),
        ("UPDATE entries SET entry = CAST(entry AS BLOB) WHERE n = 3", "is damaged"),
        ("UPDATE entries SET last = 99 WHERE n = 3", "is damaged"),
        ("UPDATE entries SET plan = NULL, first = NULL, last = NULL WHERE n = 3", "is damaged"),
        ("UPDATE entries SET plan = 'x', first = 1, last = 1 WHERE n = 0", "is damaged"),
        (
            "INSERT INTO entries(n, previous, hash, entry) VALUES (7, zeroblob(32), zeroblob(32), '{}')",
            "entry 7 .* hash",
        ),
    ],
)
def test_an_edited_file_is_found(path: Path, statement: str, message: str) -> None:
    edit(path, statement)
    with pytest.raises(LedgerError, match=message):
        spent(path)


def test_swapped_rows_are_found(path: Path) -> None:
    edit(path, *(f"UPDATE entries SET n = {new} WHERE n = {old}" for old, new in ((3, 90), (4, 3), (90, 4))))
    with pytest.raises(LedgerError, match=r"entry 3 .* does not fit its hash"):
        spent(path)


def test_the_last_rows_deleted_are_an_older_copy_that_only_an_anchor_finds(path: Path) -> None:
    with SqliteLedgerStore(path) as store:
        anchor = Ledger(store).anchor()
    edit(path, "DELETE FROM entries WHERE n > 3")
    with SqliteLedgerStore(path) as store:
        assert verify(store).rho == "1"
        with pytest.raises(LedgerError, match="older copy"):
            verify(store, anchor=anchor)


@pytest.mark.parametrize(
    "statement", ["UPDATE entries SET n = n", "UPDATE entries SET entry = '{}'", "DELETE FROM entries WHERE n = 6"]
)
def test_triggers_refuse_to_change_what_is_there(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, pytest.raises(sqlite3.IntegrityError, match="entries are never"):
        database.execute(statement)


@pytest.mark.parametrize(("first", "last"), [(5, 5), (4, 9), (1, 5)])
def test_the_database_refuses_a_round_twice_even_if_the_code_above_does_not(path: Path, first: int, last: int) -> None:
    with SqliteLedgerStore(path) as store:
        head = verify(store).head
        with pytest.raises(LedgerError, match="a round would be spent twice"):
            store.append(next_record(entry_bytes(Spend(PLAN.plan, first, last, "0.5")), head))
        assert verify(store).head == head


def test_the_database_refuses_an_entry_out_of_its_place(path: Path) -> None:
    row = ("INSERT INTO entries(n, previous, hash, entry) VALUES (?, zeroblob(32), zeroblob(32), '{}')", (7,))
    with closing(sqlite3.connect(path)) as database, pytest.raises(sqlite3.IntegrityError, match="does not follow"):
        database.execute(*row)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def check_damage(path: Path, data: bytes) -> bool:
    """Whether damage is found; what is not found must have changed nothing that counts."""
    path.write_bytes(data)
    try:
        assert spent(path) == "2.5"
    except LedgerError:
        return True
    return False


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(path: Path) -> None:
    data = path.read_bytes()
    found = sum(check_damage(path, flipped(data, place)) for place in range(0, len(data), 61))
    used = 7 * (2 * 32 + 60)  # bytes of the records alone, a bound from below
    assert found >= used / 61 * 0.8


@pytest.mark.slow
def test_every_single_flipped_byte_is_found_or_changes_nothing(path: Path) -> None:
    data = path.read_bytes()
    for place in range(len(data)):
        check_damage(path, flipped(data, place))


def test_a_file_cut_short_anywhere_is_found(path: Path) -> None:
    data = path.read_bytes()
    for length in [*range(0, len(data), 509), len(data) - 1]:
        if not check_damage(path, data[:length]):  # SQLite takes a short last page for one that ends in zeros
            assert len(data) - length < 512
            assert not any(data[length:])


def test_a_page_that_never_reached_the_disk_is_found(path: Path) -> None:
    data = path.read_bytes()
    for start in range(0, len(data), 4096):
        zeros = data[:start] + bytes(4096) + data[start + 4096 :]
        assert check_damage(path, zeros) or not any(data[start : start + 4096])


def test_a_reader_needs_no_right_to_write_and_cannot(path: Path) -> None:
    before = path.read_bytes()
    with SqliteLedgerStore(path, read_only=True) as store:
        ledger = Ledger(store)
        with pytest.raises(LedgerError, match="cannot be written"):
            ledger.spend(PLAN.plan, 6, rho="0.5")
    assert path.read_bytes() == before


def test_opening_and_dry_runs_leave_no_trace(path: Path) -> None:
    before, times = path.read_bytes(), path.stat()
    with SqliteLedgerStore(path) as store:
        ledger = Ledger(store)
        ledger.spend(PLAN.plan, 6, rho="0.5", dry_run=True)
        with pytest.raises(BudgetError):
            ledger.spend(PLAN.plan, 5, rho="0.5", dry_run=True)
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_that_another_process_holds_is_busy_for_a_bounded_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product, "BUSY_S", 0.05)
    with SqliteLedgerStore(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        ledger = Ledger(store)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked"):
            ledger.spend(PLAN.plan, 6, rho="0.5")
        other.execute("ROLLBACK")
        ledger.spend(PLAN.plan, 6, rho="0.5")
        other.execute("BEGIN")
        other.execute("SELECT * FROM entries").fetchone()  # a reader in the middle holds up only the commit
        with pytest.raises(LedgerError, match="locked"):
            ledger.spend(PLAN.plan, 7, rho="0.5")
        other.execute("COMMIT")
        ledger.spend(PLAN.plan, 7, rho="0.5")
    assert spent(path) == "3.5"


def test_a_full_disk_spends_nothing_and_the_ledger_goes_on(path: Path) -> None:
    with SqliteLedgerStore(path) as store:
        ledger = Ledger(store)
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")

        def spend_all() -> None:
            for round_ in range(6, 100):
                ledger.spend(PLAN.plan, round_, rho="0")

        with pytest.raises(LedgerError, match="full"):
            spend_all()
        reached = ledger.plan(PLAN.plan).last
        store._db.execute("PRAGMA max_page_count = 1000")
        ledger.spend(PLAN.plan, reached + 1, rho="0")
    assert spent(path) == "2.5"


def test_an_interrupt_in_the_middle_of_a_write_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteLedgerStore(path) as store:
        ledger = Ledger(store)

        def interrupted(*_: object) -> bool:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(product, "follows", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ledger.spend(PLAN.plan, 6, rho="0.5")
        assert not store._db.in_transaction
        ledger.spend(PLAN.plan, 6, rho="0.5")
    assert spent(path) == "3"


def test_a_closed_ledger_says_so_and_closing_twice_is_allowed(path: Path) -> None:
    store = SqliteLedgerStore(path)
    ledger = Ledger(store)
    ledger.close()
    store.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.totals()


def fork_and_try(use: Callable[[], object]) -> str:
    """What a forked child gets."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def child() -> None:
        try:
            use()
            theirs.send("done")
        except LedgerError as error:
            theirs.send(str(error))

    process = context.Process(target=child)
    process.start()
    assert ours.poll(30)
    said: str = ours.recv()
    process.join()
    return said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_must_open_the_ledger_itself(path: Path) -> None:
    with SqliteLedgerStore(path) as store:
        ledger = Ledger(store)
        assert "was opened by another process" in fork_and_try(lambda: ledger.spend(PLAN.plan, 6, rho="0.5"))
        assert fork_and_try(lambda: spent(path)) == "done"
        ledger.spend(PLAN.plan, 6, rho="0.5")


def test_threads_never_spend_a_round_twice(path: Path) -> None:
    done: list[int] = []

    def spend_some(ledger: Ledger) -> Iterator[None]:
        while len(done) < 40:
            try:
                round_ = ledger.plan(PLAN.plan).last + 1
                ledger.spend(PLAN.plan, round_, rho="0.01")
                done.append(round_)
            except BudgetError:
                continue
        yield

    with SqliteLedgerStore(path) as store, SqliteLedgerStore(path) as other:
        shared, own = Ledger(store), Ledger(other)
        threads = [threading.Thread(target=lambda each=each: next(spend_some(each))) for each in (shared, shared, own)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(done)) == len(done) >= 40
        assert shared.plan(PLAN.plan).rounds == own.plan(PLAN.plan).rounds == len(done) + 5


@pytest.fixture
def torn(path: Path) -> Path:
    """A copy of the ledger taken in the middle of a write that has reached the file: torn pages, and a journal."""
    copy = path.with_name("torn.sqlite")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
        shutil.copy(path, path.with_name("whole.sqlite"))
        database.execute("PRAGMA cache_size = 1")
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute("BEGIN IMMEDIATE")
        for n in range(7, 200):
            database.execute("INSERT INTO entries VALUES (?, zeroblob(32), zeroblob(32), '{}', 'x', ?, ?)", (n, n, n))
        shutil.copy(path, copy)
        shutil.copy(f"{path}-journal", f"{copy}-journal")
        database.execute("ROLLBACK")
    assert copy.read_bytes() != path.with_name("whole.sqlite").read_bytes()
    return copy


def test_a_torn_write_is_rolled_back_by_the_next_one_to_open(torn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(product, "SCHEMA", [statement for statement in product.SCHEMA if "TRIGGER" not in statement])
    with SqliteLedgerStore(torn) as store:
        assert verify(store).rho == "2.5"
    assert not Path(f"{torn}-journal").exists()
    assert spent(torn) == "2.5"


def test_a_torn_write_is_not_taken_for_a_ledger_by_one_who_only_reads(
    torn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product, "SCHEMA", [statement for statement in product.SCHEMA if "TRIGGER" not in statement])
    before = torn.read_bytes()
    with pytest.raises(LedgerError, match=r"torn\.sqlite: is not a ledger that can be used"):
        spent(torn)
    assert torn.read_bytes() == before


def test_any_mixture_of_pages_of_two_moments_is_refused_or_is_one_of_the_two(path: Path) -> None:
    """A write of which only some pages reached the disk, and whose journal is lost."""
    page, moments = 4096, [path.read_bytes()]
    with SqliteLedgerStore(path) as store:
        ledger = Ledger(store)
        for round_ in range(6, 30):
            ledger.spend(PLAN.plan, round_, rho="0.01")
    moments.append(path.read_bytes())
    places = range(0, len(moments[1]), page)
    refused = 0
    for kept in range(2 ** len(places)):
        pages = [moments[kept >> index & 1][start : start + page] for index, start in enumerate(places)]
        path.write_bytes(b"".join(part.ljust(page, b"\0") for part in pages))
        try:
            assert spent(path) in ("2.5", "2.74")
        except LedgerError:
            refused += 1
    assert refused >= 2 ** len(places) / 2
