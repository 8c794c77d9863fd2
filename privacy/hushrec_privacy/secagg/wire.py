"""The frame of every message and its bounded reading.

    offset  bytes  what
    0       1      version of the protocol, 1
    1       1      kind: 1 to 6, what a device sends in that phase; 129 to 133, the server's answer to it
    2       16     the first half of the session's id
    18      ...    what `messages.py` says

Whole numbers are big endian, vectors little endian. Every length follows from the session, the roster and the phase,
and is checked before anything is read; nothing is skipped, nothing may follow. A place is a device's position on the
roster, from 0 on. A set of places is a bit for each place: place i is bit i mod 8 of byte i div 8, least significant
first; the bits after the last place are 0.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg.session import Phase, Session

__all__ = ["HEADER_BYTES", "PLACE_BYTES", "Reader", "frame", "places_bytes", "set_bytes", "write_set"]

HEADER_BYTES = 18
PLACE_BYTES = 2
_REPLY = 128


def frame(session: Session, phase: Phase, *body: bytes, reply: bool = False) -> bytes:
    """A message: header and body."""
    return b"".join((_header(session, phase, reply), *body))


def _header(session: Session, phase: Phase, reply: bool) -> bytes:
    return bytes((session.version, phase + _REPLY * reply)) + session.id[:16]


def set_bytes(devices: int) -> int:
    """Bytes of a set of places."""
    return (devices + 7) // 8


def write_set(members: NDArray[np.bool_]) -> bytes:
    """A set of places, from one boolean a place.

    >>> write_set(np.array([True, False, True])).hex()
    '05'
    """
    return np.packbits(members, bitorder="little").tobytes()


def places_bytes(places: NDArray[np.integer]) -> bytes:
    """Places, two bytes each."""
    return places.astype(">u2").tobytes()


class Reader:
    """Reads the body of one message from front to back.

    Args:
        session: Of the round.
        phase: Of the message.
        data: All of it. Untrusted.
        reply: It is the server's answer, not a device's message.

    Raises:
        SecAggError: Another version, kind or session.
    """

    def __init__(self, session: Session, phase: Phase, data: bytes, *, reply: bool = False) -> None:
        self._name = f"the {'answer to ' if reply else 'message '}{phase.name}"
        self._data, self._offset = memoryview(data), HEADER_BYTES
        if len(data) < HEADER_BYTES:
            raise SecAggError(f"{self._name} is truncated")
        if data[0] != session.version:
            raise SecAggError(f"{self._name} is of another version of secure aggregation; update hushrec")
        if data[:HEADER_BYTES] != _header(session, phase, reply):
            raise SecAggError(f"{self._name} is of another phase or session")

    def exactly(self, length: int) -> Self:
        """Require that so many bytes are left."""
        left = len(self._data) - self._offset
        if left != length:
            raise SecAggError(f"{self._name} is {'truncated' if left < length else 'too long'}")
        return self

    def take(self, length: int) -> bytes:
        """The next bytes, copied."""
        return bytes(self.view(length))

    def view(self, length: int) -> memoryview:
        """The next bytes, not copied."""
        end = self._offset + length
        if length < 0 or end > len(self._data):
            raise SecAggError(f"{self._name} is truncated")
        start, self._offset = self._offset, end
        return self._data[start:end]

    def number(self) -> int:
        """The next two bytes."""
        return int.from_bytes(self.view(2), "big")

    def places(self, count: int, devices: int) -> NDArray[np.int64]:
        """The next places, shape (`count`,), strictly ascending and below `devices`."""
        places = np.frombuffer(self.view(PLACE_BYTES * count), ">u2").astype(np.int64)
        if (np.diff(places) <= 0).any() or (count and places[-1] >= devices):
            raise SecAggError(f"{self._name} names places out of order, twice, or beyond the roster")
        return places

    def members(self, devices: int) -> NDArray[np.bool_]:
        """The next set of places, shape (`devices`,)."""
        raw = np.unpackbits(np.frombuffer(self.view(set_bytes(devices)), np.uint8), bitorder="little").astype(bool)
        if raw[devices:].any():
            raise SecAggError(f"{self._name} names places beyond the roster")
        return raw[:devices]
