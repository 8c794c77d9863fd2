"""The SQLite file of a vault: made private to its owner, refused when it is another's, written so that it lasts.

A rollback journal with synchronous=EXTRA, not the write-ahead log: between two writes everything is in the one file,
and what was written is on the disk before the call returns. FULL would leave the journal's deletion, which is what
commits, to be synced later. Deleted and replaced rows are overwritten in the file. Knows nothing of keys and values.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hushrec_privacy.errors import VaultError

from hushrec.new_file import new_file
from hushrec.vault_cipher import unusable

__all__ = ["VaultFile", "new_vault_file"]

SCHEMA_VERSION = 1
APPLICATION_ID = 0x68766C74  # "hvlt": tells a vault from the database of another program
SMALLEST_DATABASE_BYTES = 512  # SQLite takes a shorter file for an empty one and writes over it
BUSY_S = 10.0
SCHEMA = (
    "CREATE TABLE vault(n INTEGER PRIMARY KEY CHECK (n = 1), id BLOB NOT NULL, key BLOB NOT NULL, "
    "summary BLOB NOT NULL)",
    "CREATE TABLE sealed(name BLOB PRIMARY KEY, version INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
)
PRAGMAS = (
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "synchronous = EXTRA",
    "fullfsync = ON",
    "secure_delete = ON",
    "journal_mode = DELETE",
)


class VaultFile:
    """The two tables of a vault, opened; one thread at a time.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str], *, new: bool = False) -> None:
        """Open a file that is there.

        Args:
            path: The file.
            new: It is empty, and its tables are still to be made; see `new_vault_file`.

        Raises:
            VaultError: It is no vault, an emptied, damaged or altered one, a newer one, one that others may touch, or
                it cannot be read and written.
        """
        import sqlite3

        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - keeps links, as SQLite does
        self._lock, self._process = threading.RLock(), os.getpid()
        self._error = (sqlite3.Error, UnicodeDecodeError)  # SQLite quotes what it cannot read, valid text or not
        _check_existing(self.path, new=new)
        try:
            self._db = sqlite3.connect(
                f"{self.path.as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise self._failed("cannot be opened", error) from error
        try:
            with self._guarded("is no vault that can be used"):
                for pragma in PRAGMAS:
                    self._db.execute(f"PRAGMA {pragma}")
                if not new:
                    self._check_kind()
        except BaseException:
            self._db.close()
            raise

    def run(self, statement: str, *values: object) -> list[Any]:
        """Run one statement and give its rows; only inside a `transaction`."""
        return self._db.execute(statement, values).fetchall()

    def run_many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Run one statement for several rows; only inside a `transaction`."""
        self._db.executemany(statement, rows)

    @contextlib.contextmanager
    def transaction(self, *, writes: bool = False) -> Iterator[None]:
        """Everything inside happens at once or, if anything fails, not at all.

        Raises:
            VaultError: SQLite refused, the file is closed, or this is another process than the one that opened it.
        """
        with self._guarded("cannot be used"):
            self._db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(*self._error):
                    self._db.execute("ROLLBACK")
                raise

    def make_tables(self) -> None:
        """Make the tables in a new file; only inside a `transaction`."""
        marks = (f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {SCHEMA_VERSION}")
        for statement in (*SCHEMA, *marks):
            self._db.execute(statement)

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        with self._lock:
            self._db.close()

    def _check_kind(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise VaultError(f"{self.path}: is the database of another program; name another file")
        if version > SCHEMA_VERSION:
            raise VaultError(f"{self.path}: was written by a newer hushrec (schema {version}); update hushrec")
        made = {sql for (sql,) in self._db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
        (state,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
        if version != SCHEMA_VERSION or made != set(SCHEMA) or state != "ok":
            raise unusable()

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        if os.getpid() != self._process:  # SQLite's locks do not survive a fork
            raise VaultError(f"{self.path}: was opened by another process; open it again in this one")
        with self._lock:
            try:
                yield
            except self._error as error:
                raise self._failed(what, error) from error

    def _failed(self, what: str, error: Exception) -> VaultError:
        hint = "check its rights, the free space, and that it is a vault on a local disk"
        return VaultError(f"{self.path}: {what} ({error}); {hint}")


@contextlib.contextmanager
def new_vault_file(path: str | os.PathLike[str]) -> Iterator[VaultFile]:
    """Give an empty file to fill, which stands at `path`, whole, when the body ends; see `new_file`.

    Raises:
        VaultError: It cannot be made.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - keeps links, as SQLite does
    try:
        with new_file(path) as fresh, contextlib.closing(VaultFile(fresh, new=True)) as file:
            yield file
    except OSError as error:
        raise VaultError(f"{path}: cannot be made ({error.strerror}); check its folder and the rights of it") from error


def _check_existing(path: Path, *, new: bool) -> None:
    """Refuse what SQLite would report as just "unable to open", or take for a new database.

    The file is only looked at: closing a handle of it would drop the locks of another vault of the process.
    """
    try:
        seen = path.stat()
    except OSError as error:
        raise VaultError(f"{path}: is a link that leads nowhere ({error.strerror}); name another file") from error
    if stat.S_ISREG(seen.st_mode) and not seen.st_size and not new:
        raise VaultError(
            f"{path}: is empty: what was kept in it is lost. Put the file back from a copy, or delete it to begin "
            "anew, with other keys and an empty record"
        )
    if not stat.S_ISREG(seen.st_mode) or 0 < seen.st_size < SMALLEST_DATABASE_BYTES:
        raise VaultError(f"{path}: is not a vault; name another file")
    if os.name == "posix" and seen.st_mode & 0o077:
        raise VaultError(f"{path}: others may read or change this vault; take their rights away: chmod 600 {path}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise VaultError(f"{path}: may not be read and written; check its rights")
