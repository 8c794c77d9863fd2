"""The server's database: one SQLite file for one process, or PostgreSQL for any number of them.

A transaction is durable when its block ends. On SQLite writers exclude each other from their first statement on and
readers wait for nobody; on PostgreSQL whoever changes a row locks it first. Errors name
file or host, and tell no password and no row.
"""

import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from hushrec.new_file import new_file
from hushrec_privacy.errors import ConfigError, StorageError
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from hushrec_server.schema import FEATURE, ROWS_OF_DEVICES, prepare

__all__ = ["Database", "insert_new", "insert_several_new", "put"]

WAIT_S = 60.0
"""How long a transaction waits for another one, at most."""

CONNECT_S = 10
_FULL_S = 60.0
_NO_ROOM = "its disk is full; make room, and nothing else need be done"
_CONNECTIONS = 20  # of one process; PostgreSQL allows 100 in all by default
_SQLITE_PRAGMAS = (
    "journal_mode = WAL",
    "fullfsync = ON",
    "secure_delete = ON",  # what is erased is overwritten
    "trusted_schema = OFF",
)


class Database:
    """Connections of one process. Safe to use from several threads; open it anew after a fork.

    >>> Database.open("mysql://shop@localhost/fleet")
    Traceback (most recent call last):
    ...
    hushrec_privacy.errors.ConfigError: the database must be sqlite:///FILE or postgresql+psycopg://…, not mysql
    """

    def __init__(self, engine: Engine) -> None:
        """Use an engine as it is; see `open`."""
        self._engine, self._place = engine, _place(engine.url)
        self._reader = engine.execution_options(reading=True)
        self._hasty = engine.execution_options(hasty=True)
        self._turn: threading.Lock | None = None if self.shared else threading.Lock()
        self._full_at = -math.inf

    @classmethod
    def open(cls, url: str) -> "Database":
        """Open a database, and make its tables if it is new. Any number of processes may do so at once.

        Args:
            url: `sqlite:///FILE` (four slashes before an absolute path) or `postgresql+psycopg://…`.

        Raises:
            ConfigError: It is neither.
            StorageError: It cannot be reached, is of a newer hushrec, is not hushrec's, or is a file that was emptied.
        """
        if url.count("@") > 1 and not url.startswith("sqlite"):  # what follows the first would be taken for the host
            raise ConfigError("the database's URL has more than one @; write %40 for one in a name or a password")
        try:
            address = make_url(url)
        except (ArgumentError, ValueError):  # not chained: it repeats the address, password and all
            raise ConfigError("the database's URL cannot be read; it looks like sqlite:///fleet.sqlite") from None
        if address.drivername in ("sqlite", "sqlite+pysqlite") and address.database:
            engine = _sqlite_file(Path(address.database))
        elif address.drivername == "postgresql+psycopg":
            engine = _postgresql_engine(address)
        else:
            raise ConfigError(
                f"the database must be sqlite:///FILE or postgresql+psycopg://…, not {address.drivername}"
            )
        return cls(engine)._prepared()

    def transaction(self) -> AbstractContextManager[Connection]:
        """Commit, durably, when the block ends; roll everything back when it raises.

        Raises:
            StorageError: The database could not be used; if in doubt everything or nothing was stored.
        """
        return self._writing(self._engine)

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that changes nothing, and on SQLite waits for no writer.

        Raises:
            StorageError: The database could not be used.
        """
        return self._block(self._reader)

    def hasty(self) -> AbstractContextManager[Connection]:
        """A transaction that survives the death of this process, but perhaps not that of the machine.

        For what is written at every request, and forgotten after minutes.

        Raises:
            StorageError: The database could not be used.
        """
        return self._writing(self._hasty)

    @property
    def shared(self) -> bool:
        """Whether several processes can work on it at the same time."""
        return self._engine.dialect.name == "postgresql"

    def forget(self) -> None:
        """Let as little as possible of what was deleted stay behind.

        SQLite overwrites it and cuts its log to nothing. PostgreSQL gives whole pages at a table's end back and uses
        the others again; until then deleted rows can be found in its files, and later in its write-ahead log.

        Raises:
            StorageError: The database could not be used.
        """
        with self._told(), self._engine.connect() as connection:
            if self.shared:
                names = ", ".join(table.name for table in (*ROWS_OF_DEVICES, FEATURE))
                plain = connection.execution_options(isolation_level="AUTOCOMMIT")
                plain.exec_driver_sql(f"VACUUM (SKIP_LOCKED) {names}")
            else:
                connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")  # outside a transaction

    def check_room(self) -> None:
        """For /readyz: reading a full database works, so what was last refused says whether it is full.

        Raises:
            StorageError: A write found no room within the last minute.
        """
        if time.monotonic() - self._full_at < _FULL_S:
            raise StorageError(f"the database has no room: {_NO_ROOM}")

    def _prepared(self) -> "Database":
        try:
            with self.transaction() as connection:
                prepare(connection)
        except BaseException:
            self.close()
            raise
        return self

    @contextmanager
    def _writing(self, engine: Engine) -> Iterator[Connection]:
        """On SQLite threads wait for their turn here: a busy file is asked for again and again, in no order."""
        if self._turn is None:
            with self._block(engine) as connection:
                yield connection
            return
        if not self._turn.acquire(timeout=WAIT_S):
            raise StorageError(f"the database is busy: no turn to write within {WAIT_S:.0f} s; try again")
        try:
            with self._block(engine) as connection:
                yield connection
        finally:
            self._turn.release()

    @contextmanager
    def _block(self, engine: Engine) -> Iterator[Connection]:
        with self._told(), engine.begin() as connection:
            yield connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:  # the latter from a statement outside any transaction
            if _is_full(error):
                self._full_at = time.monotonic()
            # Not chained: the original's text may hold an address, or a value of a row, and tracebacks are logged.
            told = f"the database cannot be used: {_reason(error)}; {_advice(error)}"
            raise StorageError(f"{self._place}: {told}") from None

    def close(self) -> None:
        """Close all connections that are not in use."""
        self._engine.dispose()

    def __repr__(self) -> str:
        """The kind alone: an address may hold a password."""
        return f"Database({self._engine.dialect.name})"


def insert_new(connection: Connection, table: Table, **values: object) -> bool:
    """Add a row unless one with its key is there; whether it was added."""
    kind = postgresql if connection.dialect.name == "postgresql" else sqlite
    wanted = kind.insert(table).values(**values).on_conflict_do_nothing()
    return connection.execute(wanted.execution_options(preserve_rowcount=True)).rowcount == 1


def insert_several_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> list[bool]:
    """Add rows unless ones with their keys are there; whether each was added. The keys must differ, and be in order."""
    if connection.dialect.name != "postgresql":  # SQLite knows RETURNING from 3.35 on only; and calls cost little
        one = sqlite.insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
        return [connection.execute(one, row).rowcount == 1 for row in rows]
    keys = table.primary_key.columns
    many = postgresql.insert(table).on_conflict_do_nothing().returning(*keys)
    added = {tuple(row) for row in connection.execute(many, rows)}
    return [tuple(row[key.name] for key in keys) in added for row in rows]


def put(connection: Connection, table: Table, **values: object) -> None:
    """Add a row, or change the one that has its key: of several at once the last one stays, and none fails."""
    kind = postgresql if connection.dialect.name == "postgresql" else sqlite
    wanted = kind.insert(table).values(**values)
    changed = {name: wanted.excluded[name] for name in values if name not in table.primary_key.columns}
    connection.execute(wanted.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=changed))


def _state(error: Exception) -> str | None:
    """What the database itself calls it."""
    original = getattr(error, "orig", None) or error
    return getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)


def _is_full(error: Exception) -> bool:
    return _state(error) in ("SQLITE_FULL", "53100")


def _advice(error: Exception) -> str:
    if _is_full(error):
        return _NO_ROOM
    if (_state(error) or "").startswith("SQLITE"):  # it has no log
        return "check that its file is whole, its rights, and the free space"
    if isinstance(error, OperationalError) and _state(error) is None and not isinstance(error.orig, sqlite3.Error):
        return (
            "it cannot be reached there, or refuses this server: check that PostgreSQL runs and listens, that this "
            "machine gets through, and user, password and name of the database; its own log says why it refused"
        )
    return "look into its own log"


def _reason(error: Exception) -> str:
    kind, state = type(getattr(error, "orig", None) or error).__name__, _state(error)
    return f"{kind}, {state}" if state else kind


def _place(address: URL) -> str:
    """File, or host and port; never user or password."""
    if address.get_backend_name() == "sqlite":
        return str(address.database)
    host = address.host or address.query.get("host") or os.environ.get("PGHOST")
    port = address.port or address.query.get("port") or os.environ.get("PGPORT") or 5432
    return f"PostgreSQL at {host}, port {port}" if host else f"PostgreSQL at this machine's own socket, port {port}"


def _sqlite_file(path: Path) -> Engine:
    """An engine of a file with all tables; one that is missing is made whole, so an empty one held something once."""
    try:
        if not os.path.lexists(path):
            with new_file(path) as fresh:
                Database(_sqlite_engine(fresh))._prepared().close()
        size = path.stat().st_size
    except OSError as error:
        raise StorageError(f"{path}: the database cannot be opened: {error.strerror}") from error
    if not size:
        raise StorageError(
            f"{path}: the database is empty: what its plans have spent is lost. Restore it; if it cannot be restored, "
            'see "A database was restored" in docs/runbook.md, and delete this file before the start with new plans'
        )
    return _sqlite_engine(path)


def _sqlite_engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"timeout": WAIT_S, "isolation_level": None, "check_same_thread": False},
        **_pool(),
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        for pragma in _SQLITE_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        # NORMAL would lose acknowledged uploads with the power.
        options = connection.get_execution_options()
        connection.exec_driver_sql(f"PRAGMA synchronous = {'NORMAL' if options.get('hasty') else 'FULL'}")
        connection.exec_driver_sql("BEGIN" if options.get("reading") else "BEGIN IMMEDIATE")

    return engine


def _postgresql_engine(address: URL) -> Engine:
    wait = f"-c lock_timeout={WAIT_S:.0f}s -c synchronous_commit=on -c idle_in_transaction_session_timeout=10min"
    engine = create_engine(address, connect_args={"connect_timeout": CONNECT_S, "options": wait}, **_pool())

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        if connection.get_execution_options().get("hasty"):
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")

    return engine


def _pool() -> dict[str, Any]:
    return {
        "pool_size": _CONNECTIONS // 2,
        "max_overflow": _CONNECTIONS - _CONNECTIONS // 2,
        "pool_timeout": WAIT_S,
        "hide_parameters": True,
    }
