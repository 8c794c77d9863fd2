"""Where the sealed rows of noise live, one transaction a round; and the store in one SQLite file.

Knows nothing of keys or noise (see `seal.py`, `banded.py`). With the key, the file and the releases give the raw sums:
leave it out of backups. An older copy set back is not noticed here. No noise is used twice by it, for every draw is
new, but its later rounds count as abandoned, and only the ledger keeps them from being released a second time: draw for
a round that the ledger has already spent only after making sure that nothing was published for it.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError, NoiseStateError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["NoiseRows", "NoiseStore", "PlanState", "SealedRow", "SqliteNoiseRows", "SqliteNoiseStore"]

_TABLES = """
CREATE TABLE IF NOT EXISTS noise_plan (
    plan TEXT PRIMARY KEY, dimension INTEGER NOT NULL, bands INTEGER NOT NULL, last_round INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS noise_row (
    plan TEXT NOT NULL, round INTEGER NOT NULL, previous INTEGER NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (plan, round));
"""


class PlanState(NamedTuple):
    """How far a plan has come."""

    dimension: int
    bands: int
    last_round: int  # drawn; 0 before the first
    newest_row: int  # 0 if there is none


class SealedRow(NamedTuple):
    """One row as it is stored."""

    previous: int
    sealed: bytes


class NoiseRows(Protocol):
    """The rows of one plan inside one transaction; nothing counts until it is committed."""

    def state(self) -> PlanState:
        """How far the plan has come; `NoiseStateError` if it was never begun."""

    def row(self, round_number: int) -> SealedRow | None:
        """The row of a round, or None."""

    def append(self, round_number: int, row: SealedRow | None, *, first_kept: int) -> None:
        """Set the last round, add its row if there is one, and delete every row before round `first_kept`."""


class NoiseStore(Protocol):
    """Any number of processes may use one store; transactions on it exclude each other."""

    def begin(self, plan_id: str, *, dimension: int, bands: int) -> None:
        """Begin a plan, once."""

    def transaction(self, plan_id: str) -> AbstractContextManager[NoiseRows]:
        """Commit when the block ends, roll everything back when it raises."""


class SqliteNoiseRows:
    """`NoiseRows` over one SQLite connection.

    Attributes:
        connection: For what must be stored in the same transaction, such as the noised sum. Do not commit it.
    """

    def __init__(self, connection: "sqlite3.Connection", plan_id: str) -> None:
        self.connection, self._plan = connection, plan_id

    def state(self) -> PlanState:
        """How far the plan has come.

        Raises:
            NoiseStateError: It was never begun here, or the file is damaged.
        """
        found = _run(self.connection, "SELECT dimension, bands, last_round FROM noise_plan WHERE plan = ?", self._plan)
        if not found:
            raise NoiseStateError("this plan has no noise state in this file; begin it once, when the plan begins")
        newest = _run(self.connection, "SELECT coalesce(max(round), 0) FROM noise_row WHERE plan = ?", self._plan)
        values = (*found[0], *newest[0])
        if not all(isinstance(value, int) for value in values):  # SQLite would keep a text in a column of integers
            raise _damaged()
        return PlanState(*values)

    def row(self, round_number: int) -> SealedRow | None:
        """The row of a round, or None.

        Raises:
            NoiseStateError: The file is damaged.
        """
        wanted = "SELECT previous, sealed FROM noise_row WHERE plan = ? AND round = ?"
        found = _run(self.connection, wanted, self._plan, round_number)
        if not found:
            return None
        previous, sealed = found[0]
        if not isinstance(previous, int) or not isinstance(sealed, bytes):
            raise _damaged()
        return SealedRow(previous, sealed)

    def append(self, round_number: int, row: SealedRow | None, *, first_kept: int) -> None:
        """Set the last round, add its row if there is one, and delete every row before round `first_kept`.

        Raises:
            NoiseStateError: The file is damaged or full, or the round is there already.
        """
        _run(self.connection, "DELETE FROM noise_row WHERE plan = ? AND round < ?", self._plan, first_kept)
        if row is not None:
            values = (self._plan, round_number, row.previous, row.sealed)
            _run(self.connection, "INSERT INTO noise_row VALUES (?, ?, ?, ?)", *values)
        _run(self.connection, "UPDATE noise_plan SET last_round = ? WHERE plan = ?", round_number, self._plan)


class SqliteNoiseStore:
    """Rows of any number of plans in one SQLite file, readable by its owner only; every commit is synced to the disk.

        with store.transaction(plan_id) as rows:
            noise = banded.draw(rows, round_number)
            rows.connection.execute("INSERT INTO noised VALUES (?, ?)", (round_number, (total + noise).tobytes()))

    The file holds at most bands - 1 rows of 8 bytes a coordinate for a plan, however many rounds it has.
    """

    def __init__(self, path: Path, *, wait_s: float = 60.0) -> None:
        """Open or create the file.

        Args:
            path: The file; its folder must exist.
            wait_s: How long to wait for another process's transaction, at most.

        Raises:
            ConfigError: `wait_s` is not above 0, or the file cannot be created.
            NoiseStateError: It is no SQLite file.
        """
        checks.positive(wait_s=wait_s)
        self._path, self._wait_s = path, wait_s
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise ConfigError(f"{path}: the noise state cannot be opened: {error.strerror}") from error
        with self._connected() as connection:
            _run(connection, "PRAGMA page_size = 65536")  # rows are megabytes; no effect on a file that exists
            _run(connection, "PRAGMA journal_mode = WAL")
            for statement in filter(str.strip, _TABLES.split(";")):
                _run(connection, statement)

    def begin(self, plan_id: str, *, dimension: int, bands: int) -> None:
        """Begin a plan, once.

        Raises:
            NoiseStateError: It has begun before; its rounds go on from where they are.
        """
        with self._connected() as connection:
            known = _run(connection, "SELECT 1 FROM noise_plan WHERE plan = ?", plan_id)
            if known:
                raise NoiseStateError("this plan has begun before; go on with its noise state")
            _run(connection, "INSERT INTO noise_plan VALUES (?, ?, ?, 0)", plan_id, dimension, bands)

    @contextmanager
    def transaction(self, plan_id: str) -> Iterator[SqliteNoiseRows]:
        """Hold the file alone; commit when the block ends, roll everything back when it raises.

        Raises:
            NoiseStateError: Another process held it for too long, or it is damaged or full.
        """
        with self._connected() as connection:
            _run(connection, "BEGIN IMMEDIATE")
            yield SqliteNoiseRows(connection, plan_id)
            _run(connection, "COMMIT")  # if this is not reached, closing rolls back

    @contextmanager
    def _connected(self) -> Iterator["sqlite3.Connection"]:
        """A connection of its own each time: none crosses a fork or a thread."""
        import sqlite3

        with closing(sqlite3.connect(self._path, timeout=self._wait_s, isolation_level=None)) as connection:
            _run(connection, "PRAGMA synchronous = FULL")
            yield connection


def _damaged() -> NoiseStateError:
    return NoiseStateError("the file of the noise state is damaged; end this plan and begin a new one")


def _run(connection: "sqlite3.Connection", statement: str, *values: int | str | bytes) -> list[tuple[Any, ...]]:
    import sqlite3

    try:
        return connection.execute(statement, values).fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the second from a damaged schema
        held = "locked" in str(error)
        why = "another process holds it; try again" if held else f"SQLite says: {error}"
        raise NoiseStateError(f"the file of the noise state cannot be used: {why}") from error
