"""The server's part of a round: pure functions of bytes, so that any process goes on from what was stored.

`accept` checks one message by itself, `close` ends a phase with the messages that were accepted in it, `finish` removes
the masks (`unmasking.py`). All are deterministic and keep nothing. A refused message is a `SecAggError` of `accept`:
the round goes on without it. A `SecAggError` of `close` or `finish` ends the round, and nothing of it is revealed:
every phase needs `min_devices`, and t living holders for each secret that will have to be recovered.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.enrolment import verify
from hushrec_privacy.errors import EnvelopeError, SecAggError
from hushrec_privacy.secagg.keys import KEY_BYTES, public_key_is_usable
from hushrec_privacy.secagg.messages import (
    AGREE_DOMAIN,
    KEY_KIND,
    MASK_DOMAIN,
    NEIGHBOUR_ROW,
    REVEAL_ROW,
    SEALED_BYTES,
    SEED_KIND,
    SIGNED_ROW,
    agreed_bytes,
    limbs_of,
    read_rows,
)
from hushrec_privacy.secagg.packing import check_packed, element_type, packed_bytes, unpack
from hushrec_privacy.secagg.roster import ENTRY_BYTES, SIGNATURE_BYTES, Roster, member_of, verified_entry
from hushrec_privacy.secagg.session import MAX_DEVICES, Phase, Session
from hushrec_privacy.secagg.state import AGREED, CHOSE, SHARED, SURVIVED, RoundState
from hushrec_privacy.secagg.wire import Reader, frame, write_set

__all__ = ["Closed", "Messages", "accept", "advertised_pseudonym", "close", "enough", "revealed_rows"]

Messages = Iterable[tuple[int, bytes]]

# What a device must have done to speak in a phase.
_NEEDED = {
    Phase.CHOOSE: 0,
    Phase.SHARE: CHOSE,
    Phase.MASK: SHARED,
    Phase.AGREE: SURVIVED,
    Phase.REVEAL: AGREED,
}


@dataclass(frozen=True)
class Closed:
    """A phase that ended.

    Attributes:
        state: For `accept` and `close` of the next phase.
        replies: The answer to each device that took part, by index.
        total: After MASK the sum of the masked vectors, shape (d,), modulo 2^ring_bits; else None.
    """

    state: bytes
    replies: dict[int, bytes]
    total: NDArray[np.uint64] | None = None


def accept(session: Session, phase: Phase, state: bytes, index: int, message: bytes) -> None:
    """Check one message of a device by itself.

    Args:
        session: Of the round.
        phase: That is open.
        state: Left by the close of the phase before; b"" for ADVERTISE.
        index: Of the device, given by the server at check-in, 0 to 65,535.
        message: Untrusted.

    Raises:
        SecAggError: It is malformed, of another session or phase, wrongly signed, or of a device that dropped out.
    """
    if phase is Phase.ADVERTISE:
        member = verified_entry(session, _entry(session, message))
        if not 0 <= index < 2**16 or not all(map(public_key_is_usable, (member.mask_key, member.share_key))):
            raise SecAggError(f"device {index} advertises keys that make no secret")
        return
    before = RoundState.decode(session, state, Phase(phase - 1))
    place = before.place(index, _NEEDED[phase])
    reader = Reader(session, phase, message)
    if phase is Phase.CHOOSE:
        _chosen(before, place, reader)
    elif phase is Phase.SHARE:
        reader.exactly(KEY_BYTES + SEALED_BYTES * before.numbers.chosen)
    elif phase is Phase.MASK:
        signature = reader.exactly(_masked_bytes(session)).take(SIGNATURE_BYTES)
        _check_signature(before, place, MASK_DOMAIN, signature)
        vector = reader.view(_masked_bytes(session) - SIGNATURE_BYTES)
        check_packed(vector, session.coordinates, session.ring_bits)
    elif phase is Phase.AGREE:
        _check_signature(before, place, AGREE_DOMAIN, reader.exactly(SIGNATURE_BYTES).take(SIGNATURE_BYTES))
    else:
        revealed_rows(before, place, reader)


def advertised_pseudonym(session: Session, message: bytes) -> str:
    """Whose ADVERTISE this is, 32 hexadecimal digits; `accept` is what checks it.

    Raises:
        SecAggError: It is no such message.
    """
    return member_of(_entry(session, message)).pseudonym.hex()


def close(session: Session, phase: Phase, state: bytes, messages: Messages) -> Closed:
    """End a phase.

    Args:
        session: Of the round.
        phase: ADVERTISE to AGREE; `finish` ends REVEAL.
        state: Left by the close of the phase before; b"" for ADVERTISE.
        messages: Index and message of each device whose message `accept` let pass, in any order, no index twice. Read
            once, one after the other: those of MASK need not be in memory together.

    Raises:
        SecAggError: Too few devices are left, or an index is there twice: the round is aborted. In ADVERTISE a device
            whose name or key another one has as well is left out, and gets no reply.
    """
    if phase is Phase.ADVERTISE:
        return _close_advertise(session, messages)
    if phase is Phase.REVEAL:
        raise SecAggError("REVEAL is ended by finish")
    before = RoundState.decode(session, state, Phase(phase - 1))
    closing = {
        Phase.CHOOSE: _close_choose,
        Phase.SHARE: _close_share,
        Phase.MASK: _close_mask,
        Phase.AGREE: _close_agree,
    }
    return closing[phase](before, messages)


def _close_advertise(session: Session, messages: Messages) -> Closed:
    entries = sorted((index, _entry(session, message)) for index, message in messages)
    enough(session, len(entries), "advertised")
    if len(entries) > MAX_DEVICES:
        raise SecAggError(f"more than {MAX_DEVICES} devices advertised; the round is aborted")
    seen: set[bytes] = set()
    indexes: set[int] = set()
    admitted: list[tuple[int, bytes]] = []
    for index, entry in entries:
        member = member_of(entry)
        names = {member.pseudonym, member.identity, member.mask_key, member.share_key}
        if index in indexes:
            raise SecAggError(f"device {index} has two messages in ADVERTISE")
        indexes.add(index)
        if names & seen:
            continue  # of two that agreed on a name or a key, so that the round would end, the later stays outside
        seen |= names
        admitted.append((index, entry))
    enough(session, len(admitted), "advertised names and keys of their own")
    after = RoundState.begin(session, admitted)
    roster = Roster.of(session, [entry for _, entry in admitted]).encode()
    return Closed(after.encode(), {index: roster for index, _ in admitted})


def _close_choose(before: RoundState, messages: Messages) -> Closed:
    rows = before.rows.copy()
    for place, reader in _readers(before, Phase.CHOOSE, messages, rows, CHOSE):
        rows["chosen"][place] = _chosen(before, place, reader)
    after = before.after(Phase.CHOOSE, rows)
    chose = np.flatnonzero(after.has(CHOSE))
    enough(before.session, len(chose), "chose neighbours")
    choosers = _choosers(after, chose)
    replies = {}
    for place in chose.tolist():
        if len(choosers[place]) > after.numbers.most_choosers:
            raise SecAggError("a device was chosen by too many others; the round is aborted")
        neighbours = np.union1d(rows["chosen"][place], choosers[place])
        opened = np.zeros(len(neighbours), NEIGHBOUR_ROW)
        opened["place"], opened["entry"] = neighbours, rows["entry"][neighbours]
        opened["chooser"] = np.isin(neighbours, choosers[place])
        body = len(neighbours).to_bytes(2, "big") + opened.tobytes()
        replies[after.index(place)] = frame(before.session, Phase.CHOOSE, body, reply=True)
    return Closed(after.encode(), replies)


def _close_share(before: RoundState, messages: Messages) -> Closed:
    rows = before.rows.copy()
    sealed: dict[int, list[bytes]] = {place: [] for place in range(len(rows))}  # by receiver; senders ascend
    for place, reader in _readers(before, Phase.SHARE, sorted(messages), rows, SHARED):
        reader.exactly(KEY_BYTES + SEALED_BYTES * before.numbers.chosen)
        rows["commitment"][place] = np.frombuffer(reader.view(KEY_BYTES), np.uint8)
        for receiver in rows["chosen"][place].tolist():
            sealed[receiver].append(reader.take(SEALED_BYTES))
    after = before.after(Phase.SHARE, rows)
    _holders_left(after, SHARED)
    shared = write_set(after.has(SHARED))
    replies = {
        after.index(place): frame(before.session, Phase.SHARE, shared, *sealed[place], reply=True)
        for place in np.flatnonzero(after.has(SHARED)).tolist()
    }
    return Closed(after.encode(), replies)


def _close_mask(before: RoundState, messages: Messages) -> Closed:
    session, rows = before.session, before.rows.copy()
    total = np.zeros(session.coordinates, element_type(session.ring_bits))
    signatures = {}
    for place, reader in _readers(before, Phase.MASK, messages, rows, SURVIVED):
        signatures[place] = reader.exactly(_masked_bytes(session)).take(SIGNATURE_BYTES)
        vector = unpack(reader.view(_masked_bytes(session) - SIGNATURE_BYTES), session.coordinates, session.ring_bits)
        np.add(total, vector, out=total)
    after = before.after(Phase.MASK, rows)
    _holders_left(after, SURVIVED)
    survivors = np.flatnonzero(after.has(SURVIVED))
    survived, choosers = write_set(after.has(SURVIVED)), _choosers(after, survivors)
    replies = {}
    for place in survivors.tolist():
        signed = (signatures[chooser] for chooser in choosers[place])
        replies[after.index(place)] = frame(session, Phase.MASK, survived, *signed, reply=True)
    return Closed(after.encode(), replies, total.astype(np.uint64) & np.uint64((1 << session.ring_bits) - 1))


def _close_agree(before: RoundState, messages: Messages) -> Closed:
    rows = before.rows.copy()
    signatures = np.zeros(len(rows), SIGNED_ROW)
    signatures["place"] = np.arange(len(rows))
    for place, reader in _readers(before, Phase.AGREE, messages, rows, AGREED):
        signature = reader.exactly(SIGNATURE_BYTES).view(SIGNATURE_BYTES)
        signatures["signature"][place] = np.frombuffer(signature, np.uint8)
    after = before.after(Phase.AGREE, rows)
    _holders_left(after, AGREED)
    agreed, holders, replies = after.has(AGREED), after.holders(), {}
    for place in np.flatnonzero(agreed).tolist():
        signed = signatures[holders[place][agreed[holders[place]]]]
        body = len(signed).to_bytes(2, "big") + signed.tobytes()
        replies[after.index(place)] = frame(before.session, Phase.AGREE, body, reply=True)
    return Closed(after.encode(), replies)


def revealed_rows(before: RoundState, place: int, reader: Reader) -> NDArray[np.void]:
    """The rows of a REVEAL: exactly one share of each device whose shares this one holds, of the kind that it may give.

    Raises:
        SecAggError: It is anything else.
    """
    owners = before.held(place)
    rows = read_rows(reader, REVEAL_ROW, len(owners), len(before.rows))
    kinds = np.where(before.has(SURVIVED)[owners], SEED_KIND, KEY_KIND)
    if (rows["place"] != owners).any() or (rows["kind"] != kinds).any():
        raise SecAggError(f"device {before.index(place)} reveals other shares than one of each device that it must")
    limbs_of(rows["share"].tobytes())
    return rows


def enough(session: Session, count: int, what: str) -> None:
    """Abort a round that has become too small."""
    if count < session.min_devices:
        raise SecAggError(f"{count} devices {what}, fewer than {session.min_devices}: the round is aborted")


def _readers(
    before: RoundState, phase: Phase, messages: Messages, rows: NDArray[np.void], flag: int
) -> Iterable[tuple[int, Reader]]:
    """Each message with the place of its device, which is flagged in `rows`."""
    for index, message in messages:
        place = before.place(index, _NEEDED[phase])
        if rows["flags"][place] & flag:
            raise SecAggError(f"device {index} has two messages in {phase.name}")
        rows["flags"][place] |= flag
        yield place, Reader(before.session, phase, message)


def _holders_left(after: RoundState, flag: int) -> None:
    """Abort unless enough devices are left, and t holders of every secret that may have to be recovered."""
    left = after.has(flag)
    if flag != AGREED:
        enough(after.session, int(left.sum()), "shared" if flag == SHARED else "masked their vectors")
    counts = left[after.holders()].sum(axis=1)
    if (counts[after.has(SHARED)] < after.numbers.threshold).any():
        raise SecAggError("too few neighbours of a device are left to recover its masks: the round is aborted")


def _choosers(after: RoundState, among: NDArray[np.int64]) -> list[list[int]]:
    """For each place, who of `among` chose it, ascending."""
    choosers: list[list[int]] = [[] for _ in after.rows]
    for place in among.tolist():
        for chosen in after.rows["chosen"][place].tolist():
            choosers[chosen].append(place)
    return choosers


def _chosen(before: RoundState, place: int, reader: Reader) -> NDArray[np.int64]:
    count = before.numbers.chosen
    chosen = reader.exactly(2 * count).places(count, len(before.rows))
    if (chosen == place).any():
        raise SecAggError(f"device {before.index(place)} chose itself")
    return chosen


def _check_signature(before: RoundState, place: int, domain: bytes, signature: bytes) -> None:
    survived = before.has(SURVIVED) if before.phase >= Phase.MASK else None
    signed = agreed_bytes(before.session, before.root, before.has(SHARED), survived)
    try:
        verify(before.member(place).identity, domain, signed, signature)
    except EnvelopeError as error:
        raise SecAggError(f"device {before.index(place)} did not sign the sets that the server told it") from error


def _entry(session: Session, message: bytes) -> bytes:
    return Reader(session, Phase.ADVERTISE, message).exactly(ENTRY_BYTES).take(ENTRY_BYTES)


def _masked_bytes(session: Session) -> int:
    return SIGNATURE_BYTES + packed_bytes(session.coordinates, session.ring_bits)
