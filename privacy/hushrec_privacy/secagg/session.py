"""What both sides of one round of secure aggregation agree on before the first message, and its bytes.

    offset  bytes  what (whole numbers: big endian)
    0       1      version of the protocol, 1
    1       32     id of the plan
    33      8      number of the round
    41      16     attempt, drawn anew by the server each time it starts the round
    57      32     public key of the authority that certifies devices
    89      4      coordinates of the vector
    93      1      bits of a coordinate, 2 to 32
    94      2      fewest devices whose vectors may be summed
    96      1      setting: 0 curious server, 1 active server

The session's id is the sha256 of these 97 bytes; every key, signature and ciphertext of the round is bound to it, so
that nothing of one round or attempt is of use in another. The bytes come from the server: a device compares every field
but the attempt with the signed plan and with the authority that it trusts before it begins.
"""

import enum
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self, TypeAlias

from hushrec_privacy.errors import SecAggError

__all__ = [
    "MAX_COORDINATES",
    "MAX_DEVICES",
    "PROTOCOL_VERSION",
    "SESSION_BYTES",
    "Phase",
    "Session",
    "Setting",
]

Setting: TypeAlias = Literal["active", "curious"]

PROTOCOL_VERSION = 1
SESSION_BYTES = 97
MAX_DEVICES = 10_000
MAX_COORDINATES = 2**24
_SETTINGS: tuple[Setting, ...] = ("curious", "active")


class Phase(enum.IntEnum):
    """The six messages of a device, in order; the number is what the wire says."""

    ADVERTISE = 1
    CHOOSE = 2
    SHARE = 3
    MASK = 4
    AGREE = 5
    REVEAL = 6


@dataclass(frozen=True)
class Session:
    """One attempt at one round.

    Attributes:
        plan_id: sha256 of the plan, 64 hexadecimal digits.
        round_number: Of the plan, from 1 on.
        attempt: 16 random bytes of the server.
        authority: Public key that certificates are checked with, 32 bytes.
        coordinates: Length d of the vectors, at most 2^24.
        ring_bits: The sum is modulo 2^ring_bits; 2 to 32.
        min_devices: Fewest devices on the roster, and fewest in the sum; 2 to 10,000.
        setting: What the server may do: "curious" follows the protocol and looks, "active" does what it likes.
        version: Of the protocol; 1.

    Raises:
        SecAggError: A field is outside its range, or the version is not known here.
    """

    plan_id: str
    round_number: int
    attempt: bytes
    authority: bytes
    coordinates: int
    ring_bits: int
    min_devices: int
    setting: Setting
    version: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        if self.version != PROTOCOL_VERSION:
            raise SecAggError("the session is of another version of secure aggregation; update hushrec")
        right = (
            len(self.plan_id) == 64
            and set(self.plan_id) <= set("0123456789abcdef")
            and 1 <= self.round_number < 2**63
            and len(self.attempt) == 16
            and len(self.authority) == 32
            and 1 <= self.coordinates <= MAX_COORDINATES
            and 2 <= self.ring_bits <= 32
            and 2 <= self.min_devices <= MAX_DEVICES
            and self.setting in _SETTINGS
        )
        if not right:
            raise SecAggError("a field of the session is outside its range; take it from the plan")

    def encode(self) -> bytes:
        """Its one byte string, 97 bytes."""
        return b"".join(
            (
                bytes([self.version]),
                bytes.fromhex(self.plan_id),
                self.round_number.to_bytes(8, "big"),
                self.attempt,
                self.authority,
                self.coordinates.to_bytes(4, "big"),
                bytes([self.ring_bits]),
                self.min_devices.to_bytes(2, "big"),
                bytes([_SETTINGS.index(self.setting)]),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a session.

        Raises:
            SecAggError: Not 97 bytes, another version, or a field outside its range.

        >>> session = Session("ab" * 32, 1, bytes(16), bytes(32), 2048, 16, 100, "active")
        >>> Session.decode(session.encode()) == session
        True
        """
        if len(data) != SESSION_BYTES or data[96] >= len(_SETTINGS):
            raise SecAggError("this is no session of secure aggregation; ask the server again")
        return cls(
            data[1:33].hex(),
            int.from_bytes(data[33:41], "big"),
            bytes(data[41:57]),
            bytes(data[57:89]),
            int.from_bytes(data[89:93], "big"),
            data[93],
            int.from_bytes(data[94:96], "big"),
            _SETTINGS[data[96]],
            data[0],
        )

    @cached_property
    def id(self) -> bytes:
        """sha256 of the bytes, 32 bytes."""
        return hashlib.sha256(self.encode()).digest()
