"""Rows of rounds, devices, messages and replies: every statement over them, and no decision.

Each function works inside the caller's transaction. `locked` excludes everybody else from the round, `shared` only
whoever wants it locked: uploads run side by side, and none slips in while its phase is being closed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, delete, exists, func, insert, select, update

from hushrec_server.database import Database, insert_new
from hushrec_server.rounds.aggregation import Closed
from hushrec_server.rounds.states import ENDED, State
from hushrec_server.schema import DEVICE, MESSAGE, PHASE, REPLY, REPLY_BODY, ROUND, ROWS_OF_DEVICES

__all__ = [
    "Device",
    "Key",
    "Round",
    "add_devices",
    "add_message",
    "add_phase",
    "bodies",
    "change",
    "counted",
    "device",
    "erase",
    "free_places",
    "has_reply",
    "latest",
    "locked",
    "message_digest",
    "newest",
    "open_round",
    "phase_state",
    "phase_total",
    "places",
    "read",
    "reply",
    "running",
    "shared",
    "silent",
]

BODIES_AT_ONCE = 16
ERASED_AT_ONCE = 16


class Key(NamedTuple):
    """Which round."""

    plan: str
    number: int


class Round(NamedTuple):
    """One round as it is stored; the fields are the table's."""

    plan: str
    number: int
    state: State
    closing: bool
    opened_at: int
    deadline_at: int
    lease_until: int
    session: bytes
    release: str
    admitted: int
    expected: int
    reason: str
    ended_at: int | None

    @property
    def key(self) -> Key:
        """Which one it is."""
        return Key(self.plan, self.number)

    @property
    def ended(self) -> bool:
        """Whether no device has anything to do with it any more."""
        return self.state in ENDED


class Device(NamedTuple):
    """A device's place in a round."""

    place: int
    pseudonym: str
    identity: bytes


def read(connection: Connection, key: Key) -> Round | None:
    """A round as it is now."""
    return _first(connection, _READ, key)


def locked(connection: Connection, key: Key, *, skip: bool = False) -> Round | None:
    """A round that stays as it is until the transaction ends; with `skip` None if somebody else has it."""
    return _first(connection, _LOCKED_OR_SKIPPED if skip else _LOCKED, key)


def shared(connection: Connection, key: Key) -> Round | None:
    """A round that nobody can lock until the transaction ends."""
    return _first(connection, _SHARED, key)


def running(connection: Connection) -> list[Round]:
    """All rounds for which something is left to do; aborted ones whose uploads are not erased yet, too."""
    found = connection.execute(select(ROUND).where(ROUND.c.ended_at.is_(None)).order_by(ROUND.c.plan, ROUND.c.number))
    return [_round(row) for row in found]


def newest(connection: Connection, plan: str, count: int) -> list[Round]:
    """The newest rounds of a plan, newest first."""
    return [_round(row) for row in connection.execute(_NEWEST, {"plan": plan, "count": count})]


def latest(connection: Connection, plan: str, *, lock: bool = False) -> Round | None:
    """The newest round of a plan; with `lock` it stays as it is until the transaction ends."""
    found = connection.execute(_NEWEST_LOCKED if lock else _NEWEST, {"plan": plan, "count": 1}).first()
    return None if found is None else _round(found)


def open_round(connection: Connection, new: Round) -> None:
    """Add a round."""
    connection.execute(insert(ROUND).values(**new._asdict()))


def change(connection: Connection, key: Key, **values: object) -> None:
    """Change columns of a round."""
    connection.execute(update(ROUND).where(ROUND.c.plan == key.plan, ROUND.c.number == key.number).values(**values))


def device(connection: Connection, key: Key, pseudonym: str) -> Device | None:
    """The place of a device, or None."""
    found = connection.execute(_DEVICE, {**key._asdict(), "pseudonym": pseudonym}).first()
    return None if found is None else Device(found.place, found.pseudonym, bytes(found.identity))


def places(connection: Connection, key: Key, pseudonyms: Iterable[str]) -> dict[str, int]:
    """The places of those of these devices that have one, by pseudonym."""
    found = connection.execute(_PLACES, {**key._asdict(), "pseudonyms": list(pseudonyms)})
    return {row.pseudonym: row.place for row in found}


def silent(connection: Connection, key: Key, came_before: int, count: int) -> Sequence[int]:
    """The first places, at most so many, whose devices came so long ago and have said nothing."""
    said = exists().where(*_of(MESSAGE, key), MESSAGE.c.phase == 1, MESSAGE.c.place == DEVICE.c.place)
    wanted = select(DEVICE.c.place).where(*_of(DEVICE, key), DEVICE.c.came_at <= came_before, ~said)
    return connection.execute(wanted.order_by(DEVICE.c.place).limit(count)).scalars().all()


def add_devices(connection: Connection, key: Key, new: Sequence[Device], now: int) -> None:
    """Give places that nobody has to devices, one at least."""
    connection.execute(_ADD_DEVICE, [{**key._asdict(), **each._asdict(), "came_at": now} for each in new])


def free_places(connection: Connection, key: Key, places: Sequence[int]) -> None:
    """Take places away from the devices that have them."""
    connection.execute(delete(DEVICE).where(*_of(DEVICE, key), DEVICE.c.place.in_(places)))


def message_digest(connection: Connection, key: Key, phase: int, place: int) -> bytes | None:
    """sha256 of the message that is kept of a device for a phase, or None."""
    found = connection.execute(_DIGEST, {**key._asdict(), "phase": phase, "place": place}).scalar()
    return None if found is None else bytes(found)


def add_message(connection: Connection, key: Key, phase: int, place: int, body: bytes) -> bool:
    """Keep a message; False: there is one already."""
    values = {"phase": phase, "place": place, "sha256": hashlib.sha256(body).digest(), "body": body}
    return insert_new(connection, MESSAGE, **key._asdict(), **values)


def counted(connection: Connection, key: Key, phase: int) -> int:
    """How many messages of a phase there are."""
    return connection.execute(_COUNTED, {**key._asdict(), "phase": phase}).scalar_one()


def bodies(database: Database, key: Key, phase: int) -> Iterator[tuple[int, bytes]]:
    """All messages of a phase by place, a few at a time; no transaction is open between them."""
    wanted = select(MESSAGE.c.place, MESSAGE.c.body).where(*_of(MESSAGE, key), MESSAGE.c.phase == phase)
    last = -1
    while True:
        with database.reading() as connection:
            next_ones = wanted.where(MESSAGE.c.place > last).order_by(MESSAGE.c.place).limit(BODIES_AT_ONCE)
            rows = connection.execute(next_ones).all()
        for place, body in rows:
            yield place, bytes(body)
        if len(rows) < BODIES_AT_ONCE:
            return
        last = rows[-1].place


def add_phase(connection: Connection, key: Key, phase: int, closed: Closed) -> None:
    """Keep what a closed phase came to, and its replies."""
    total = None if closed.total is None else closed.total.astype("<u8", copy=False).tobytes()
    values = {"phase": phase, "state": closed.state, "total": total}
    connection.execute(insert(PHASE).values(**key._asdict(), **values))
    digests = {place: hashlib.sha256(body).digest() for place, body in closed.replies.items()}
    once = {digest: closed.replies[place] for place, digest in digests.items()}
    same = {**key._asdict(), "phase": phase}
    if once:
        connection.execute(
            insert(REPLY_BODY), [{**same, "sha256": digest, "body": body} for digest, body in once.items()]
        )
        connection.execute(
            insert(REPLY), [{**same, "place": place, "sha256": digest} for place, digest in digests.items()]
        )


def phase_state(connection: Connection, key: Key, phase: int) -> bytes | None:
    """What a closed phase came to; None: it is not closed. Before the first phase there is nothing: b""."""
    if phase == 0:
        return b""
    found = connection.execute(select(PHASE.c.state).where(*_of(PHASE, key), PHASE.c.phase == phase)).scalar()
    return None if found is None else bytes(found)


def phase_total(connection: Connection, key: Key, phase: int) -> bytes | None:
    """The masked sum of a closed phase, little-endian uint64, or None."""
    found = connection.execute(select(PHASE.c.total).where(*_of(PHASE, key), PHASE.c.phase == phase)).scalar()
    return None if found is None else bytes(found)


def has_reply(connection: Connection, key: Key, phase: int, place: int) -> bool:
    """Whether a device was still in when a phase was closed."""
    return connection.execute(_HAS_REPLY, {**key._asdict(), "phase": phase, "place": place}).first() is not None


def reply(connection: Connection, key: Key, phase: int, place: int) -> bytes | None:
    """The answer to a device, or None."""
    found = connection.execute(_REPLY, {**key._asdict(), "phase": phase, "place": place}).scalar()
    return None if found is None else bytes(found)


def erase(database: Database, key: Key) -> None:
    """Delete all that the devices of a round sent and got, a part at a time, so that nobody waits long.

    Where it was cut off, it goes on when it is called again.
    """
    while True:
        with database.transaction() as connection:
            some = select(MESSAGE.c.phase, MESSAGE.c.place).where(*_of(MESSAGE, key)).limit(ERASED_AT_ONCE)
            found = connection.execute(some).all()
            for phase, place in found:
                gone = (*_of(MESSAGE, key), MESSAGE.c.phase == phase, MESSAGE.c.place == place)
                connection.execute(delete(MESSAGE).where(*gone))
            if not found:
                for table in ROWS_OF_DEVICES:
                    connection.execute(delete(table).where(*_of(table, key)))
                return


def _of(table: Table, key: Key) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.plan == key.plan, table.c.number == key.number


def _named(table: Table, *columns: str) -> tuple[ColumnElement[bool], ...]:
    """These columns have the values that the statement is given under their names."""
    return tuple(table.c[name] == bindparam(name) for name in columns)


# Asked for at every request, so built once.
_READ = select(ROUND).where(*_named(ROUND, "plan", "number"))
_LOCKED, _SHARED = _READ.with_for_update(), _READ.with_for_update(read=True)
_LOCKED_OR_SKIPPED = _READ.with_for_update(skip_locked=True)
_NEWEST = select(ROUND).where(*_named(ROUND, "plan")).order_by(ROUND.c.number.desc()).limit(bindparam("count"))
_NEWEST_LOCKED = _NEWEST.with_for_update()
_DEVICE = select(DEVICE.c.place, DEVICE.c.pseudonym, DEVICE.c.identity).where(
    *_named(DEVICE, "plan", "number", "pseudonym")
)
_PLACES = select(DEVICE.c.pseudonym, DEVICE.c.place).where(
    *_named(DEVICE, "plan", "number"), DEVICE.c.pseudonym.in_(bindparam("pseudonyms", expanding=True))
)
_ADD_DEVICE = insert(DEVICE)
_DIGEST = select(MESSAGE.c.sha256).where(*_named(MESSAGE, "plan", "number", "phase", "place"))
_COUNTED = select(func.count()).select_from(MESSAGE).where(*_named(MESSAGE, "plan", "number", "phase"))
_HAS_REPLY = select(REPLY.c.place).where(*_named(REPLY, "plan", "number", "phase", "place"))
_REPLY = select(REPLY_BODY.c.body).where(
    *(REPLY_BODY.c[name] == REPLY.c[name] for name in ("plan", "number", "phase", "sha256")),
    *_named(REPLY, "plan", "number", "phase", "place"),
)


def _first(connection: Connection, wanted: "Select[tuple[object, ...]]", key: Key) -> Round | None:
    found = connection.execute(wanted, key._asdict()).first()
    return None if found is None else _round(found)


def _round(row: object) -> Round:
    found = Round._make(row)  # type: ignore[arg-type]
    return found._replace(state=State(found.state), session=bytes(found.session), closing=bool(found.closing))
