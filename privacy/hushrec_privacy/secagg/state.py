"""What the server keeps between two phases: fixed-size rows, from which every answer and check follows.

    offset  bytes  what
    0       1      version of this encoding, 1
    1       1      the phase that was closed last
    2       32     id of the session
    34      32     root of the roster
    66      2      n, devices on the roster; k is that of `parameters.py`
    68      ...    n rows, ascending by index: 2 bytes index; 1 byte flags (1 chose, 2 shared, 4 survived, 8 agreed);
                   274 bytes entry; 32 bytes commitment to the seed; k times 2 bytes chosen places (zeros before CHOOSE)

It holds nothing that a curious server does not see: public keys, the graph, who is still there. The masked vectors and
their sum are not in it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg.keys import KEY_BYTES
from hushrec_privacy.secagg.parameters import Neighbourhood, neighbourhood
from hushrec_privacy.secagg.roster import ENTRY_BYTES, Member, Roster, member_of
from hushrec_privacy.secagg.session import MAX_DEVICES, Phase, Session

__all__ = ["AGREED", "CHOSE", "SHARED", "SURVIVED", "RoundState"]

CHOSE, SHARED, SURVIVED, AGREED = 1, 2, 4, 8
_VERSION = 1
_HEAD_BYTES = 68


@dataclass(frozen=True)
class RoundState:
    """A round after one of its phases.

    Attributes:
        session: Of the round.
        phase: Closed last.
        root: Of the roster, 32 bytes.
        rows: Shape (n,), of fields index, flags, entry, commitment and chosen.
    """

    session: Session
    phase: Phase
    root: bytes
    rows: NDArray[np.void]

    @classmethod
    def begin(cls, session: Session, entries: list[tuple[int, bytes]]) -> "RoundState":
        """The state after ADVERTISE, from checked entries in ascending order of their indexes."""
        rows = np.zeros(len(entries), _row(neighbourhood(len(entries), session.setting).chosen))
        for row, (index, entry) in zip(rows, entries, strict=True):
            row["index"], row["entry"] = index, np.frombuffer(entry, np.uint8)
        roster = Roster.of(session, [entry for _, entry in entries])
        return cls(session, Phase.ADVERTISE, roster.root, rows)

    @classmethod
    def decode(cls, session: Session, data: bytes, phase: Phase) -> "RoundState":
        """Read the state that was left by the close of a phase.

        Raises:
            SecAggError: It is not that.
        """
        devices = int.from_bytes(data[66:_HEAD_BYTES], "big")
        right = (
            data[:2] == bytes((_VERSION, phase))
            and data[2:34] == session.id
            and 2 <= devices <= MAX_DEVICES
            and len(data) == _HEAD_BYTES + devices * _row(neighbourhood(devices, session.setting).chosen).itemsize
        )
        if not right:
            raise SecAggError(f"the state is not that of this session after {phase.name}")
        kind = _row(neighbourhood(devices, session.setting).chosen)
        return cls(session, phase, data[34:66], np.frombuffer(data, kind, offset=_HEAD_BYTES))

    def encode(self) -> bytes:
        """Its bytes."""
        head = bytes((_VERSION, self.phase)) + self.session.id + self.root + len(self.rows).to_bytes(2, "big")
        return head + self.rows.tobytes()

    def after(self, phase: Phase, rows: NDArray[np.void]) -> "RoundState":
        """The state after a later phase."""
        return RoundState(self.session, phase, self.root, rows)

    @cached_property
    def numbers(self) -> Neighbourhood:
        """k and t."""
        return neighbourhood(len(self.rows), self.session.setting)

    def entry(self, place: int) -> bytes:
        """The entry of a place."""
        return bytes(self.rows["entry"][place].tobytes())

    def member(self, place: int) -> Member:
        """The fields of the entry of a place."""
        return member_of(self.entry(place))

    def index(self, place: int) -> int:
        """The index under which the server knows the device of a place."""
        return int(self.rows["index"][place])

    def place(self, index: int, needed: int) -> int:
        """The place of a device that must have done something before.

        Raises:
            SecAggError: It is not on the roster, or has not.
        """
        place = int(np.searchsorted(self.rows["index"], index))
        if place == len(self.rows) or self.index(place) != index or self.rows["flags"][place] & needed != needed:
            raise SecAggError(f"device {index} is not in this phase of the round: it dropped out before")
        return place

    def has(self, flag: int) -> NDArray[np.bool_]:
        """Which devices have done something, shape (n,)."""
        return np.asarray(self.rows["flags"] & flag != 0)

    def choosers(self, place: int) -> NDArray[np.int64]:
        """Places of those that chose a device, ascending."""
        return np.flatnonzero((self.rows["chosen"] == place).any(axis=1) & self.has(CHOSE))

    def held(self, place: int) -> NDArray[np.int64]:
        """Places of those that shared and of which a device holds shares, ascending; itself where it is a holder."""
        owners = np.append(self.choosers(place), place) if self.numbers.complete else self.choosers(place)
        return np.sort(owners[self.has(SHARED)[owners]])

    def holders(self) -> NDArray[np.int64]:
        """Places of the holders of each device's shares, ascending, shape (n, holders)."""
        if self.numbers.complete:
            return np.tile(np.arange(len(self.rows)), (len(self.rows), 1))
        return self.rows["chosen"].astype(np.int64)


def _row(chosen: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("index", ">u2"),
            ("flags", "u1"),
            ("entry", "u1", (ENTRY_BYTES,)),
            ("commitment", "u1", (KEY_BYTES,)),
            ("chosen", ">u2", (chosen,)),
        ]
    )
