"""The ledger in the server's database, as a `LedgerStore`.

Entries are only ever added; their number is the key, so that of two processes that add at once one is first. Whoever
can write the database can change them, and is found by the chain and by an anchor only. A database set back to an older
backup takes its ledger with it: the anchor in the newest release detects that.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from hushrec_privacy.errors import LedgerError, StorageError
from hushrec_privacy.ledger import Anchor, Record, Spend
from hushrec_privacy.ledger.chain import follows
from hushrec_privacy.ledger.entries import read_entry
from sqlalchemy import select

from hushrec_server.database import Database, insert_new
from hushrec_server.schema import LEDGER

__all__ = ["DatabaseLedgerStore"]

ROWS_AT_ONCE = 1_000


class DatabaseLedgerStore:
    """One ledger a database. Safe to use from several threads and processes."""

    def __init__(self, database: Database) -> None:
        """Keep the ledger in a database that is open; it stays the caller's to close."""
        self._database = database

    def append(self, record: Record) -> bool:
        """See `LedgerStore`.

        Raises:
            LedgerError: See there.
        """
        entry = read_entry(record.entry)
        spent = {"plan": entry.plan, "first": entry.first, "last": entry.last} if isinstance(entry, Spend) else {}
        with _as_ledger_error("written"), self._database.transaction() as connection:
            found = connection.execute(select(LEDGER.c.n, LEDGER.c.hash).order_by(LEDGER.c.n.desc()).limit(1)).first()
            if not follows(record, None if found is None else Anchor(found.n, bytes(found.hash))):
                return False
            # On PostgreSQL another process may have added one since: the keys decide.
            return insert_new(
                connection,
                LEDGER,
                n=record.index,
                previous=record.previous,
                hash=record.hash,
                entry=record.entry,
                **spent,
            )

    def scan(self, start: int = 0) -> Iterator[Record]:
        """See `LedgerStore`. Holds no transaction between blocks of rows.

        Raises:
            LedgerError: See there.
        """
        wanted = select(LEDGER.c.n, LEDGER.c.previous, LEDGER.c.hash, LEDGER.c.entry).order_by(LEDGER.c.n)
        while True:
            with _as_ledger_error("read"), self._database.reading() as connection:
                rows = connection.execute(wanted.where(LEDGER.c.n >= start).limit(ROWS_AT_ONCE)).all()
                records = [
                    Record(n, bytes(previous), bytes(digest), bytes(entry)) for n, previous, digest, entry in rows
                ]
            yield from records
            if not records:
                return
            start = records[-1].index + 1

    def close(self) -> None:
        """See `LedgerStore`; the database is the caller's."""


@contextmanager
def _as_ledger_error(what: str) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise LedgerError(f"the ledger in the server's database cannot be {what}: {error.message}") from error
    except TypeError as error:  # in SQLite, whoever can write the file can put another type than the table says
        raise LedgerError("the ledger holds text where bytes belong: it was rewritten; restore a newer copy") from error
