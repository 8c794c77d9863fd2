"""A ledger in one SQLite file: appended records are on the disk before the call returns.

A rollback journal with synchronous=EXTRA, not the write-ahead log. Between two writes everything is in the one file, so
a copy is complete (a copy without its `-wal` would be an older ledger that verifies), and a lost journal undoes no
commit. FULL would leave the journal's deletion to be synced later: a power cut in between would roll the commit back.
It costs some milliseconds a spend, and there is one spend a round.

Triggers and a unique index refuse what the code should never try. Whoever can write the file can remove them, and is
found by the chain and by an anchor only.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from hushrec_privacy.errors import LedgerError
from hushrec_privacy.ledger.chain import Anchor, Record, follows
from hushrec_privacy.ledger.entries import Spend, read_entry

__all__ = ["SqliteLedgerStore"]

SCHEMA_VERSION = 1
APPLICATION_ID = 0x686C6467  # "hldg": tells a ledger from the database of another program
SMALLEST_DATABASE_BYTES = 512  # SQLite takes a shorter file for an empty one and writes over it
BUSY_S = 10.0
ROWS_AT_ONCE = 1_000

# The last three columns repeat what a spend's entry says, in the order of canonical JSON. Types are checked by hand:
# STRICT tables need SQLite 3.37, which some supported systems do not have.
SOUND = """typeof(n) = 'integer' AND n >= 0
    AND typeof(previous) = 'blob' AND length(previous) = 32
    AND typeof(hash) = 'blob' AND length(hash) = 32
    AND typeof(entry) = 'text'
    AND CASE instr(entry, '"kind":"spend"') WHEN 0
        THEN plan IS NULL AND first IS NULL AND last IS NULL
        ELSE ifnull(instr(entry,
            '"first":' || first || ',"kind":"spend","last":' || last || ',"plan":"' || plan || '"'), 0) > 0
        END"""
SCHEMA = (
    f"""CREATE TABLE entries(
    n INTEGER PRIMARY KEY,
    previous BLOB NOT NULL,
    hash BLOB NOT NULL,
    entry TEXT NOT NULL,
    plan TEXT,
    first INTEGER,
    last INTEGER,
    CHECK ({SOUND})
)""",
    "CREATE UNIQUE INDEX spent_once ON entries(plan, last)",
    """CREATE TRIGGER entries_continue BEFORE INSERT ON entries
WHEN NEW.n IS NOT (SELECT coalesce(max(n), -1) + 1 FROM entries)
    OR NEW.previous IS NOT coalesce((SELECT hash FROM entries ORDER BY n DESC LIMIT 1), zeroblob(32))
BEGIN SELECT RAISE(ABORT, 'the entry does not follow the last one'); END""",
    """CREATE TRIGGER entries_increase BEFORE INSERT ON entries
WHEN EXISTS (SELECT 1 FROM entries WHERE plan = NEW.plan AND last >= NEW.first)
BEGIN SELECT RAISE(ABORT, 'a round would be spent twice'); END""",
    "CREATE TRIGGER entries_stay BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END",
    "CREATE TRIGGER entries_last BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'entries are never deleted'); END",
)


class SqliteLedgerStore:
    """A `LedgerStore` in one file, readable and writable by its owner only. Safe to use from several threads.

    Opening never makes a file: a ledger that is missing must not become an empty one. `create` does.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        """Open a ledger that is there.

        Args:
            path: Its file.
            read_only: Never write, not even to finish what a killed process left; for reports.

        Raises:
            LedgerError: It is missing, empty, not a ledger, damaged, altered, of a newer hushrec, or may not be used;
                or it has a write-ahead log and may not be written.
        """
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - keeps links, as SQLite does
        _check_file(self.path, read_only=read_only)
        self._connect("ro" if read_only else "rw", begin=False)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> "SqliteLedgerStore":
        """Make an empty file; tables and first entry come in one transaction, by `Ledger.begin`.

        Raises:
            LedgerError: There is a ledger or another file under this name, or it cannot be made.
        """
        store = cls.__new__(cls)
        store.path = Path(os.path.abspath(path))  # noqa: PTH100
        _make_file(store.path)
        store._connect("rw", begin=True)
        return store

    def __enter__(self) -> "SqliteLedgerStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, record: Record) -> bool:
        """See `LedgerStore`.

        Raises:
            LedgerError: See there; also: another process holds the file for more than ten seconds.
        """
        entry = read_entry(record.entry)
        spent = (entry.plan, entry.first, entry.last) if isinstance(entry, Spend) else (None, None, None)
        row = (record.index, record.previous, record.hash, record.entry, *spent)
        with self._guarded("cannot be written"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if self._tables() == 0:
                    self._make_tables()
                self._check_journal()
                if not follows(record, self._last()):
                    self._db.execute("ROLLBACK")
                    return False
                self._db.execute("INSERT INTO entries VALUES (?, ?, ?, CAST(? AS TEXT), ?, ?, ?)", row)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        return True

    def scan(self, start: int = 0) -> Iterator[Record]:
        """See `LedgerStore`. Holds no lock between blocks of rows, so that nobody waits for a slow reader.

        Raises:
            LedgerError: See there.
        """
        while rows := self._rows(start):
            for index, previous, digest, entry in rows:
                yield Record(index, previous, digest, entry)
            start = rows[-1][0] + 1

    def close(self) -> None:
        """Close the file. Closing twice is allowed; anything else afterwards raises LedgerError."""
        with self._lock:
            self._db.close()

    def _rows(self, start: int) -> list[Any]:
        with self._guarded("cannot be read"):
            statement = "SELECT n, previous, hash, entry FROM entries WHERE n >= ? ORDER BY n LIMIT ?"
            return self._db.execute(statement, (start, ROWS_AT_ONCE)).fetchall()

    def _last(self) -> Anchor | None:
        row = self._db.execute("SELECT n, hash FROM entries ORDER BY n DESC LIMIT 1").fetchone()
        return None if row is None else Anchor(*row)

    def _connect(self, mode: str, *, begin: bool) -> None:
        import sqlite3

        self._lock, self._process, self._error = threading.RLock(), os.getpid(), sqlite3.Error
        try:
            self._db = sqlite3.connect(
                f"{self.path.as_uri()}?mode={mode}",
                uri=True,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._failed("cannot be opened", error) from error
        try:
            with self._guarded("is not a ledger that can be used"):
                self._prepare(writable=mode == "rw", begin=begin)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, *, writable: bool, begin: bool) -> None:
        self._db.text_factory = bytes  # text that was edited into something else than UTF-8 must not stop a scan
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "synchronous = EXTRA", "fullfsync = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        if not (begin and self._tables() == 0):
            self._check_kind()
        if writable:
            self._db.execute("PRAGMA journal_mode = DELETE")
        self._check_journal()
        (state,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
        if state != b"ok":
            raise LedgerError(f"{self.path}: is damaged ({state.decode(errors='replace')}); restore the newest copy")
        if self._tables():  # read-only, SQLite leaves out what CHECK says
            wrong = self._db.execute(f"SELECT n FROM entries WHERE ({SOUND}) IS NOT 1 LIMIT 1").fetchone()
            if wrong is not None:
                raise LedgerError(f"{self.path}: is damaged (row {wrong[0]}); restore the newest copy")

    def _check_journal(self) -> None:
        """Refuse a write-ahead log, which anyone can switch on, even while we have the file open.

        SQLite knows the mode only once it has read the file.
        """
        (mode,) = self._db.execute("PRAGMA journal_mode").fetchone()
        if mode == b"wal":
            raise LedgerError(
                f"{self.path}: another program gave it a write-ahead log, without which a copy is an older ledger; "
                "close whatever has it open, then open it once for writing, which takes the log back"
            )
        if mode != b"delete":
            raise LedgerError(f"{self.path}: its file system keeps no journal; put it on a local disk")

    def _tables(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return int(count)

    def _make_tables(self) -> None:
        for statement in SCHEMA:
            self._db.execute(statement)
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_kind(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        made = {sql.decode(errors="replace") for (sql,) in self._db.execute("SELECT sql FROM sqlite_schema") if sql}
        if not made:
            raise LedgerError(f"{self.path}: is empty; restore the newest copy of the ledger, or remove the file")
        if application != APPLICATION_ID:
            raise LedgerError(f"{self.path}: is the database of another program; name another file")
        if version > SCHEMA_VERSION:
            raise LedgerError(f"{self.path}: was written by a newer hushrec (schema {version}); update hushrec")
        if version != SCHEMA_VERSION or made != set(SCHEMA):
            raise LedgerError(f"{self.path}: its tables were altered; restore the newest copy")

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """One thread at a time, no process but the one that opened it, and no error of SQLite's own."""
        if os.getpid() != self._process:  # SQLite's locks do not survive a fork
            raise LedgerError(f"{self.path}: was opened by another process; open it again in this one")
        with self._lock:
            try:
                yield
            except self._error as error:
                raise self._failed(what, error) from error

    def _failed(self, what: str, error: Exception) -> LedgerError:
        hint = "check its rights, the free space, and that it is a ledger on a local disk"
        journal = f"{self.path.name}-journal"
        if self.path.with_name(journal).exists():
            hint = f"a killed process left {journal}; who may write the ledger opens it once to take that back"
        return LedgerError(f"{self.path}: {what} ({error}); {hint}")


def _make_file(path: Path) -> None:
    """Make the file, private to its owner; an empty one may be left of a process that was killed here."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.is_file() and path.stat().st_size:
            raise LedgerError(f"{path}: is there already; open it instead of making a new one") from None
        _check_file(path, read_only=False)
    except OSError as error:
        raise LedgerError(
            f"{path}: cannot be made ({error.strerror}); check its folder and the rights of it"
        ) from error


def _check_file(path: Path, *, read_only: bool) -> None:
    """Refuse what SQLite would report as just "unable to open". Looks only: closing a handle would drop its locks."""
    try:
        seen = path.stat()
    except OSError as error:
        raise LedgerError(
            f"{path}: cannot be found ({error.strerror}); a ledger that is lost must be restored, not begun anew"
        ) from error
    if not stat.S_ISREG(seen.st_mode) or 0 < seen.st_size < SMALLEST_DATABASE_BYTES:
        raise LedgerError(f"{path}: is not a ledger; name another file")
    if not os.access(path, os.R_OK if read_only else os.R_OK | os.W_OK):
        raise LedgerError(f"{path}: may not be {'read' if read_only else 'read and written'}; check its rights")
