"""Uploads and replies of a running round.

An upload is durable when it returns, and counts if it was stored before its phase began to close: both lock the round.
The same bytes again are welcome at any time, so that a device whose connection broke can repeat itself; other bytes in
their place are not.
"""

import hashlib
import threading
from collections.abc import Callable

from hushrec_privacy.errors import FleetError, SecAggError
from sqlalchemy import Connection

from hushrec_server.database import Database
from hushrec_server.plans import Plans
from hushrec_server.refusals import Reason, refusal
from hushrec_server.rounds import store
from hushrec_server.rounds.aggregation import Aggregation
from hushrec_server.rounds.states import PHASES, State, state_of
from hushrec_server.rounds.store import Device, Key, Round

__all__ = ["Mailbox"]

_STATES_KEPT = 8


class Mailbox:
    """Takes uploads and gives replies. Safe to use from several threads."""

    def __init__(self, database: Database, plans: Plans, aggregation: Aggregation, clock: Callable[[], int]) -> None:
        self._database, self._plans, self._aggregation, self._clock = database, plans, aggregation, clock
        self._states: dict[tuple[bytes, int], bytes] = {}  # of closed phases, which every check of a message needs
        self._lock = threading.Lock()

    def identity(self, key: Key, pseudonym: str) -> bytes | None:
        """The public key of a device in a running round, to check its requests with; None: it has no place there.

        Raises:
            FleetError: There is no such round, or it is over.
        """
        with self._database.reading() as connection:
            self._running(connection, key)
            found = store.device(connection, key, pseudonym)
        return None if found is None else found.identity

    def message_bytes(self, key: Key, phase: int) -> int:
        """Largest message of a phase of a running round.

        Raises:
            FleetError: There is no such round or phase, or the round is over.
        """
        with self._database.reading() as connection:
            session = self._running(connection, key).session
        _is_phase(phase)
        return self._aggregation.message_size(session, phase)

    def upload(self, key: Key, phase: int, pseudonym: str, message: bytes) -> None:
        """Keep a message of a device whose request was checked; see the module for what that means.

        Raises:
            FleetError: It does not count; the reason says why.
            StorageError: The database could not be used; the message may be kept.
        """
        digest = hashlib.sha256(message).digest()
        _is_phase(phase)
        with self._database.reading() as connection:
            round_, device = self._member(connection, key, pseudonym)
            if _is_kept(connection, key, phase, device.place, digest):
                return
            _check_open(round_, phase, self._clock())
            if phase > 1 and not store.has_reply(connection, key, phase - 1, device.place):
                raise refusal(Reason.DROPPED_OUT)
            state = self._state_before(connection, round_, phase)
        self._check(round_, phase, state, device, message)
        with self._database.transaction() as connection:
            found = store.shared(connection, key)
            if found is None or found.ended:
                raise _over(found)
            if store.device(connection, key, pseudonym) != device:
                raise refusal(Reason.NOT_IN_ROUND)  # it was silent for too long, and another has its place
            if _is_kept(connection, key, phase, device.place, digest):
                return
            _check_open(found, phase, self._clock())
            added = store.add_message(connection, key, phase, device.place, message)
        if not added:  # twice at the same moment: the other one is kept
            with self._database.reading() as connection:
                if not _is_kept(connection, key, phase, device.place, digest):
                    raise refusal(Reason.PHASE_CLOSED)

    def reply(self, key: Key, phase: int, pseudonym: str) -> bytes | None:
        """The answer to a device after a phase was closed; None: it is open still. After the last one it is empty.

        Raises:
            FleetError: There will be none; the reason says why.
            StorageError: The database could not be used.
        """
        with self._database.reading() as connection:
            round_, device = self._member(connection, key, pseudonym)
            if not _is_closed(round_, phase):
                return None
            if phase == len(PHASES):
                return b""
            found = store.reply(connection, key, phase, device.place)
        if found is None:
            raise refusal(Reason.DROPPED_OUT)
        return found

    def _running(self, connection: Connection, key: Key) -> Round:
        self._plans.get(connection, key.plan)
        round_ = store.read(connection, key)
        if round_ is None or round_.ended or round_.state is State.ERASED:
            raise _over(round_)
        return round_

    def _member(self, connection: Connection, key: Key, pseudonym: str) -> tuple[Round, Device]:
        round_ = self._running(connection, key)
        device = store.device(connection, key, pseudonym)
        if device is None:
            raise refusal(Reason.NOT_IN_ROUND)
        return round_, device

    def _state_before(self, connection: Connection, round_: Round, phase: int) -> bytes:
        place = (round_.session, phase - 1)
        with self._lock:
            known = self._states.get(place)
        if known is None:
            known = store.phase_state(connection, round_.key, phase - 1)
            if known is None:
                raise refusal(Reason.NOT_OPEN)
            with self._lock:
                while len(self._states) >= _STATES_KEPT:
                    del self._states[next(iter(self._states))]
                self._states[place] = known
        return known

    def _check(self, round_: Round, phase: int, state: bytes, device: Device, message: bytes) -> None:
        session = round_.session
        if len(message) > self._aggregation.message_size(session, phase):
            raise refusal(Reason.BAD_MESSAGE)
        try:
            self._aggregation.accept(session, phase, state, device.place, message)
            if phase == 1 and self._aggregation.pseudonym(session, message) != device.pseudonym:
                raise refusal(Reason.BAD_MESSAGE)
        except SecAggError as error:
            raise refusal(Reason.BAD_MESSAGE) from error


def _is_kept(connection: Connection, key: Key, phase: int, place: int, digest: bytes) -> bool:
    kept = store.message_digest(connection, key, phase, place)
    if kept is not None and kept != digest:
        raise refusal(Reason.ALREADY_COUNTED)
    return kept is not None


def _check_open(round_: Round, phase: int, now: int) -> None:
    if _is_closed(round_, phase) or (round_.state is state_of(phase) and (round_.closing or now >= round_.deadline_at)):
        raise refusal(Reason.PHASE_CLOSED)
    if round_.state is not state_of(phase):
        raise refusal(Reason.NOT_OPEN)


def _is_closed(round_: Round, phase: int) -> bool:
    """Whether what counts in a phase is fixed, and its replies are there."""
    _is_phase(phase)
    return round_.state not in PHASES or PHASES.index(round_.state) >= phase


def _is_phase(phase: int) -> None:
    if not 1 <= phase <= len(PHASES):
        raise refusal(Reason.NOT_OPEN)


def _over(round_: Round | None) -> FleetError:
    if round_ is None:
        return refusal(Reason.NOT_IN_ROUND)
    return refusal(Reason.ROUND_ABORTED if round_.state is State.ABORTED else Reason.ROUND_OVER)
