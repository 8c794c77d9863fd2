"""Tables of the server's database, and their version. A column never changes its meaning: new meaning, new version.

A device appears by its pseudonym of the plan: in a running round, of which `ROWS_OF_DEVICES` hold nothing once it has
ended; with a payload that it sent by itself, until that expires; and with its newest requests, for some minutes.
"""

from hushrec_privacy.errors import StorageError
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    inspect,
    select,
    text,
)

__all__ = [
    "DEVICE",
    "FEATURE",
    "LEDGER",
    "MESSAGE",
    "METADATA",
    "NOISE_PLAN",
    "NOISE_ROW",
    "NONCE",
    "PHASE",
    "PLAN",
    "REPLY",
    "REPLY_BODY",
    "RESULT",
    "ROUND",
    "ROWS_OF_DEVICES",
    "VERSION",
    "prepare",
]

VERSION = 1

METADATA = MetaData()
_MAKING = 0x68757368  # lock of PostgreSQL: two processes do not make tables at once
_ID = String(64)

_SCHEMA = Table("hushrec_schema", METADATA, Column("version", Integer, primary_key=True, autoincrement=False))

PLAN = Table(
    "fleet_plan",
    METADATA,
    Column("plan", _ID, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),  # fingerprint of the key that seals its noise
    Column("status", String(16), nullable=False),
    Column("reason", String(200), nullable=False, default=""),
    Column("added_at", BigInteger, nullable=False),
)
"""Plans that were accepted."""

ROUND = Table(
    "fleet_round",
    METADATA,
    Column("plan", _ID, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("state", String(16), nullable=False),
    Column("closing", Boolean, nullable=False, default=False),  # no further message of its phase counts
    Column("opened_at", BigInteger, nullable=False),
    Column("deadline_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False, default=0),
    Column("session", LargeBinary, nullable=False),
    Column("release", _ID, nullable=False),
    Column("admitted", BigInteger, nullable=False, default=0),  # places given
    Column("expected", BigInteger, nullable=False),  # messages that the open phase waits for
    Column("reason", String(200), nullable=False, default=""),
    Column("ended_at", BigInteger),  # nothing of its devices is left
    Index("fleet_round_ended_at", "ended_at"),
)
"""One row a round. Rounds to which nobody came have none."""

_ROUND_KEY = (("plan", _ID), ("number", BigInteger))


def _of_round(name: str, *columns: Column[object]) -> Table:
    key = [Column(each, kind, primary_key=True, autoincrement=False) for each, kind in _ROUND_KEY]
    return Table(name, METADATA, *key, *columns)


def _key(name: str, kind: type[BigInteger] | type[SmallInteger] = BigInteger) -> "Column[object]":
    return Column(name, kind, primary_key=True, autoincrement=False)


DEVICE = _of_round(
    "fleet_device",
    _key("place"),
    Column("pseudonym", String(32), nullable=False),
    Column("identity", LargeBinary, nullable=False),
    Column("came_at", BigInteger, nullable=False),
)
Index("fleet_device_pseudonym", DEVICE.c.plan, DEVICE.c.number, DEVICE.c.pseudonym, unique=True)

MESSAGE = _of_round(
    "fleet_message",
    _key("phase", SmallInteger),
    _key("place"),
    Column("sha256", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
"""Uploads; each counts once."""

PHASE = _of_round(
    "fleet_phase",
    _key("phase", SmallInteger),
    Column("state", LargeBinary, nullable=False),
    Column("total", LargeBinary),  # uint64 of the masked sum
)
"""What secure aggregation remembers of a phase that is closed."""

REPLY = _of_round(
    "fleet_reply", _key("phase", SmallInteger), _key("place"), Column("sha256", LargeBinary, nullable=False)
)
REPLY_BODY = _of_round(
    "fleet_reply_body",
    _key("phase", SmallInteger),
    Column("sha256", LargeBinary, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
"""Answers; a roster that all devices get is kept once."""

ROWS_OF_DEVICES = (MESSAGE, REPLY, REPLY_BODY, PHASE, DEVICE)
"""Of running rounds only."""

RESULT = _of_round(
    "fleet_result",
    Column("sha256", LargeBinary, nullable=False),
    Column("noised", LargeBinary),  # int64, lattice steps; gone once an update is published
    Column("survivors", BigInteger, nullable=False),
    Column("anchor", String(100), nullable=False),
    Column("noised_at", BigInteger, nullable=False),
)
"""Noised sums."""

NONCE = Table(
    "fleet_nonce",
    METADATA,
    Column("plan", _ID, primary_key=True),
    Column("pseudonym", String(32), primary_key=True),
    Column("nonce", LargeBinary, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
    Index("fleet_nonce_expires_at", "expires_at"),
)
"""Requests that were accepted within the time in which they could be sent again."""

FEATURE = Table(
    "fleet_feature",
    METADATA,
    Column("plan", _ID, primary_key=True),
    Column("name", String(40), primary_key=True),
    Column("pseudonym", String(32), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("fleet_feature_expires_at", "expires_at"),
)
"""Payloads that devices sent by themselves, noised there, until they expire."""

LEDGER = Table(
    "ledger_entry",
    METADATA,
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("plan", _ID),
    Column("first", BigInteger),
    Column("last", BigInteger),
    Index("ledger_entry_first", "plan", "first", unique=True),
    Index("ledger_entry_last", "plan", "last", unique=True),
)

NOISE_PLAN = Table(
    "noise_plan",
    METADATA,
    Column("plan", _ID, primary_key=True),
    Column("dimension", BigInteger, nullable=False),
    Column("bands", BigInteger, nullable=False),
    Column("last_round", BigInteger, nullable=False),
)
NOISE_ROW = Table(
    "noise_row",
    METADATA,
    Column("plan", _ID, primary_key=True),
    Column("round", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)


def prepare(connection: Connection) -> None:
    """Make the tables of a new database, or check those of one that is there; inside one transaction.

    Raises:
        StorageError: It is of another version, or of another program.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MAKING})
    there = set(inspect(connection).get_table_names())
    if _SCHEMA.name in there:
        _check_version(list(connection.execute(select(_SCHEMA.c.version)).scalars()))
        return
    if there & set(METADATA.tables) or (there and connection.dialect.name == "sqlite"):
        raise StorageError("the database is of another program, or damaged; name another one, or restore this one")
    METADATA.create_all(connection)
    connection.execute(_SCHEMA.insert().values(version=VERSION))


def _check_version(found: list[int]) -> None:
    if len(found) != 1:
        raise StorageError("the database does not tell its version; restore it from a backup")
    if found[0] > VERSION:
        raise StorageError(
            f"the database was made by a newer hushrec (schema {found[0]}, this one knows {VERSION}); update hushrec"
        )
    if found[0] < VERSION:  # there is no older version yet that could be brought up to date
        raise StorageError(f"the database has schema {found[0]}, which no hushrec made; restore it from a backup")
