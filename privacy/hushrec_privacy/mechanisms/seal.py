"""Seal one row of noise under a key that lives outside the database: AES-256-GCM (NIST SP 800-38D).

Each row has a nonce of its own, 96 random bits, and is bound to its plan, round, the round before it, its dimension and
the format. Sealing does not detect a whole database set back to an older copy: the ledger's outside anchor does.
"""

import os
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.errors import ConfigError, NoiseStateError
from hushrec_privacy.key_files import KEY_BYTES, KeyInFile

__all__ = ["RowPlace", "SealKey", "open_row", "seal_row", "unusable"]

_FORMAT = b"hushrec noise row 1\0"
_NONCE_BYTES = 12


class SealKey(KeyInFile):
    """32 secret bytes; `repr` hides them, and they cannot be pickled.

    >>> SealKey(bytes(32))
    SealKey(hidden)
    """

    KIND: ClassVar[str] = "seal key"

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise ConfigError(f"a seal key has {KEY_BYTES} bytes")
        self._key = key

    def reveal(self) -> bytes:
        """The bytes themselves, for the cipher alone."""
        return self._key

    def __repr__(self) -> str:
        """Nothing of the key."""
        return "SealKey(hidden)"

    def __reduce__(self) -> NoReturn:
        """A key does not travel."""
        raise TypeError("SealKey cannot be copied or pickled")


@dataclass(frozen=True)
class RowPlace:
    """What a sealed row is bound to.

    Attributes:
        plan_id: sha256 of the plan, 64 hexadecimal digits.
        round_number: The round that the row hides, from 1 on.
        previous: The round drawn before it; 0 for the first.
        dimension: Coordinates of the row.
    """

    plan_id: str
    round_number: int
    previous: int
    dimension: int

    def encoded(self) -> bytes:
        """The associated data: every field at a fixed offset."""
        numbers = (self.round_number, self.previous, self.dimension)
        return _FORMAT + bytes.fromhex(self.plan_id) + b"".join(n.to_bytes(8, "big") for n in numbers)


def seal_row(key: SealKey, row: NDArray[np.int64], place: RowPlace) -> bytes:
    """Encrypt and authenticate one row, shape (`place.dimension`,), as nonce, ciphertext and tag."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # slow to import

    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key.reveal()).encrypt(nonce, row.astype("<i8", copy=False).tobytes(), place.encoded())


def open_row(key: SealKey, sealed: bytes, place: RowPlace) -> NDArray[np.int64]:
    """Decrypt a row that was sealed at this place, shape (`place.dimension`,), read-only.

    Raises:
        NoiseStateError: Wrong key or place, or changed bytes; not told apart.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    view = memoryview(sealed)
    try:
        plain = AESGCM(key.reveal()).decrypt(view[:_NONCE_BYTES], view[_NONCE_BYTES:], place.encoded())
    except (InvalidTag, ValueError) as error:
        raise unusable() from error
    if len(plain) != 8 * place.dimension:
        raise unusable()
    return np.frombuffer(plain, "<i8").astype(np.int64, copy=False)


def unusable() -> NoiseStateError:
    """The one opaque error of a state that cannot be used."""
    return NoiseStateError(
        "the sealed noise of earlier rounds cannot be used: it is missing, damaged or of another plan, or the key is "
        "wrong. Check the key file; if it is right, end this plan and begin a new one"
    )
