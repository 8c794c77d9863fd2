"""What one shopper did on this device: events in a SQLite file, or in memory behind the same interface.

An appended event survives the death of the process at once (write-ahead log), and a power cut after `flush`, which runs
by itself within a second of an append. Knows nothing of catalogue and model: every id and behaviour is kept as it came.
"""

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
from hushrec_privacy.errors import ProfileError

from hushrec.bundle import FileStamp

__all__ = ["Block", "Event", "Place", "Profile", "ProfileHashes"]

SCHEMA_VERSION = 1
APPLICATION_ID = 0x68757368  # "hush": tells a profile from the database of another program
SMALLEST_DATABASE_BYTES = 512  # SQLite takes a shorter file for an empty one and writes over it
FLUSH_AFTER_S = 0.8
BUSY_S = 5.0
KEPT_BUNDLES = 8
BLOCK_EVENTS = 2_048

SCHEMA = f"""
CREATE TABLE events(n INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, item BLOB NOT NULL, behavior BLOB NOT NULL);
CREATE INDEX events_by_time ON events(at_us);
CREATE TABLE settings(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE hashes(n INTEGER PRIMARY KEY, bundle BLOB NOT NULL UNIQUE, stamps BLOB NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


class Event(NamedTuple):
    """One thing the shopper did.

    Attributes:
        item: The shop's id, whether or not any catalogue has it.
        behavior: Name of the kind of event.
        at_us: Microseconds since 1970-01-01 UTC.
    """

    item: str
    behavior: str
    at_us: int


class Place(NamedTuple):
    """Where an event stands among all of a profile, whatever is added to it: by time, at one time as they arrived.

    Attributes:
        at_us: Microseconds since 1970-01-01 UTC.
        arrival: Its number in the profile, from 1; rising.
    """

    at_us: int
    arrival: int


class Block(NamedTuple):
    """Some events of a profile that follow each other, oldest first.

    Attributes:
        events: The events.
        arrivals: The number of each in the profile.
    """

    events: list[Event]
    arrivals: list[int]


class Profile:
    """The events of one shopper; safe to use from several threads.

    >>> with Profile() as profile:
    ...     profile.append("mug", "view", at_us=1_700_000_000_000_000)
    ...     profile.events()
    [Event(item='mug', behavior='view', at_us=1700000000000000)]

    Attributes:
        path: The file; None: in memory, gone with the process.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Open a profile, making the file if there is none (readable by its owner only).

        Args:
            path: The file; None keeps everything in memory.

        Raises:
            ProfileError: It is a folder, not a profile, damaged, written by a newer hushrec, or its rights forbid it.
        """
        import sqlite3

        self.path = None if path is None else Path(os.path.abspath(path))  # noqa: PTH100 - keeps links, as SQLite does
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._closed = False
        self._error: type[sqlite3.Error] = sqlite3.Error
        if self.path is not None:
            _prepare_file(self.path)
        try:
            self._db = sqlite3.connect(
                self.path or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._failed("cannot be opened", error) from error
        try:
            self._prepare_database()
        except sqlite3.Error as error:
            self._db.close()
            raise self._failed("cannot be opened as a profile", error) from error
        except ProfileError:
            self._db.close()
            raise

    def __enter__(self) -> "Profile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def hash_record(self) -> "ProfileHashes":
        """Where `Bundle.open` remembers which files it has hashed."""
        return ProfileHashes(self)

    def append(self, item: str, behavior: str, at_us: int) -> None:
        """Keep one event.

        Guarantee:
            After the return the event outlives the process, and within a second a power cut.

        Args:
            item: Any string.
            behavior: Any string.
            at_us: Microseconds since 1970-01-01 UTC.

        Raises:
            ProfileError: The event could not be written.
        """
        with self._lock:
            self._run("INSERT INTO events(at_us, item, behavior) VALUES (?, ?, ?)", at_us, _blob(item), _blob(behavior))
            if self._timer is None and self.path is not None:
                self._timer = threading.Timer(FLUSH_AFTER_S, self._flush_later)
                self._timer.daemon = True
                self._timer.start()

    def events(self, until_us: int | None = None, *, newest: int | None = None) -> list[Event]:
        """List events by time, those of one moment in the order they arrived.

        Args:
            until_us: Leave out later ones, in microseconds since 1970-01-01 UTC; None: leave out none.
            newest: Only so many of the last ones; None: all.

        Raises:
            ProfileError: The profile cannot be read.
        """
        until = 2**63 - 1 if until_us is None else until_us
        rows = self._run(
            "SELECT item, behavior, at_us FROM events WHERE at_us <= ? ORDER BY at_us DESC, n DESC LIMIT ?",
            until,
            -1 if newest is None else newest,
        )
        return [Event(_text(item), _text(behavior), at_us) for item, behavior, at_us in reversed(rows)]

    def blocks(self, before: Place, *, since_us: int | None = None, size: int | None = None) -> Iterator[Block]:
        """Go through the events backwards without holding all of them: the newest block comes first.

        Args:
            before: Events from this place on are left out.
            since_us: So are those that are no later, in microseconds since 1970-01-01 UTC; None: none.
            size: Events of a block at most; None: some thousands, which are read within some milliseconds.

        Raises:
            ProfileError: The profile cannot be read.
        """
        first_us = -(2**63) if since_us is None else since_us + 1
        at_once = BLOCK_EVENTS if size is None else size
        while True:
            rows = self._run(
                "SELECT item, behavior, at_us, n FROM events WHERE (at_us, n) < (?, ?) AND at_us >= ? "
                "ORDER BY at_us DESC, n DESC LIMIT ?",
                *before,
                first_us,
                at_once,
            )
            if rows:
                events = [Event(_text(item), _text(behavior), at_us) for item, behavior, at_us, _ in reversed(rows)]
                yield Block(events, [n for *_, n in reversed(rows)])
            if len(rows) < at_once:
                return
            before = Place(*rows[-1][2:])

    def first_seen(self) -> dict[str, int]:
        """Give every item of the profile with the time of its first event, in microseconds since 1970-01-01 UTC.

        Raises:
            ProfileError: The profile cannot be read.
        """
        return {_text(item): at_us for item, at_us in self._run("SELECT item, min(at_us) FROM events GROUP BY item")}

    def counts(self) -> dict[str, int]:
        """Give every item of the profile with the number of its events.

        Raises:
            ProfileError: The profile cannot be read.
        """
        return {_text(item): count for item, count in self._run("SELECT item, count(*) FROM events GROUP BY item")}

    def get(self, key: str) -> bytes | None:
        """Read a value that the runtime keeps for itself, such as the result of the engine's self-check.

        Raises:
            ProfileError: The profile cannot be read.
        """
        rows = self._run("SELECT value FROM settings WHERE key = ?", key)
        return bytes(rows[0][0]) if rows else None

    def put(self, key: str, value: bytes) -> None:
        """Keep such a value in place of an older one.

        Raises:
            ProfileError: It could not be written.
        """
        self._run("INSERT OR REPLACE INTO settings VALUES (?, ?)", key, value)

    def flush(self) -> None:
        """Make everything appended so far safe against a power cut; a few milliseconds.

        Raises:
            ProfileError: The disk refused.
        """
        self._run("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Flush and close the file. Closing twice is allowed; anything else afterwards raises ProfileError."""
        with self._lock:
            timer, self._timer = self._timer, None
            if self._closed:
                return
            self._closed = True
            try:
                self._db.close()  # the last connection of a file also flushes it
            except self._error as error:
                raise self._failed("cannot be closed", error) from error
        if timer is not None:
            timer.cancel()
            timer.join()

    def _prepare_database(self) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application != APPLICATION_ID:
            raise ProfileError(f"{self.path}: is the database of another program; name another file")
        if version > SCHEMA_VERSION:
            raise ProfileError(f"{self.path}: was written by a newer hushrec (schema {version}); update hushrec")
        self._db.execute("PRAGMA trusted_schema = OFF")
        (mode,) = self._db.execute("PRAGMA journal_mode = WAL").fetchone()
        if self.path is not None and mode != "wal":
            raise ProfileError(f"{self.path}: its file system has no write-ahead log; name a file on a local disk")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if tables:
            (state,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise ProfileError(f"{self.path}: is damaged ({state}); restore it from a copy or name another file")
        else:
            self._create()

    def _create(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not tables:  # another process may have been faster
            for statement in filter(str.strip, SCHEMA.split(";")):
                self._db.execute(statement)
        self._db.execute("COMMIT")

    def _run(self, statement: str, *values: object) -> list[Any]:
        try:
            with self._lock:
                return self._db.execute(statement, values).fetchall()
        except self._error as error:
            raise self._failed("is closed" if self._closed else "cannot be used", error) from error

    def _failed(self, what: str, error: Exception) -> ProfileError:
        hint = "check its rights, the free space, and that it is a profile"
        return ProfileError(f"{self.path or 'profile in memory'}: {what} ({error}); {hint}")

    def _flush_later(self) -> None:
        """Flush on a connection of its own, so that `append` never waits for the disk."""
        import sqlite3

        with self._lock:
            self._timer = None
            if self._closed or self.path is None:
                return
        # A failure is not lost: the next append, flush or close meets the same disk and raises.
        with contextlib.suppress(sqlite3.Error):
            uri = f"{self.path.as_uri()}?mode=rw"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as database:
                database.execute("PRAGMA wal_checkpoint(PASSIVE)")


class ProfileHashes:
    """The `hushrec.bundle.HashRecord` of a profile; forgets all but the last few bundles."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def get_stamps(self, bundle: str) -> tuple[FileStamp, ...]:
        """See `HashRecord`.

        Raises:
            ProfileError: The profile cannot be read.
        """
        rows = self._profile._run("SELECT stamps FROM hashes WHERE bundle = ?", _blob(bundle))
        try:
            return msgspec.json.decode(rows[0][0], type=tuple[FileStamp, ...]) if rows else ()
        except msgspec.MsgspecError:
            return ()  # nothing is known then, and every file is hashed again

    def put_stamps(self, bundle: str, stamps: tuple[FileStamp, ...]) -> None:
        """See `HashRecord`.

        Raises:
            ProfileError: The profile cannot be written.
        """
        values = (_blob(bundle), msgspec.json.encode(stamps))
        self._profile._run("INSERT OR REPLACE INTO hashes(bundle, stamps) VALUES (?, ?)", *values)
        self._profile._run("DELETE FROM hashes WHERE n <= (SELECT max(n) FROM hashes) - ?", KEPT_BUNDLES)


def _prepare_file(path: Path) -> None:
    """Refuse what SQLite would report as just "unable to open", and make a new file private to its owner.

    A file that is there is only looked at: closing a handle of it would release the locks of another `Profile` in this
    process (fcntl locks belong to the process).
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        _check_existing(path)
    except FileNotFoundError as error:
        raise ProfileError(f"{path}: the folder {path.parent} does not exist; make it first") from error
    except OSError as error:
        raise ProfileError(f"{path}: cannot be made ({error.strerror}); check the rights of its folder") from error


def _check_existing(path: Path) -> None:
    try:
        seen = path.stat()
    except OSError as error:
        raise ProfileError(f"{path}: is a link that leads nowhere ({error.strerror}); name another file") from error
    if stat.S_ISDIR(seen.st_mode):
        raise ProfileError(f"{path}: is a folder; name a file")
    if not stat.S_ISREG(seen.st_mode) or 0 < seen.st_size < SMALLEST_DATABASE_BYTES:
        raise ProfileError(f"{path}: is not a profile; name another file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise ProfileError(f"{path}: may not be read and written; check its rights")


def _blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogatepass")
