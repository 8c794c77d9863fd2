"""How a vault seals: a data key, wrapped under a key from outside, and values bound to their place. No storage here.

AES-256-GCM (NIST SP 800-38D) throughout, each time as nonce (12 random bytes), ciphertext, tag (16). Associated data:

    wrapped data key   "hushrec vault 1 key", 0x00, vault's id (16)
    summary            "hushrec vault 1 summary", 0x00, vault's id (16)
    value              "hushrec vault 1 value", 0x00, vault's id (16), version (8, big endian), name (UTF-8)

From the data key come a key that seals and a key of marks, by HMAC-SHA256 over "seal" and "mark". A mark is the keyed
BLAKE2b (RFC 7693), 32 bytes, of version, nonce and name. The summary holds how many changes there were and the sum of
the marks of all values, modulo 2^256: the multiset hash of Clarke et al. (ASIACRYPT 2003, MSet-Add-Hash), here under a
key and never shown. A value that is taken out, set back, doubled or brought in makes the sum wrong.
"""

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from hushrec_privacy.errors import VaultError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["NONCE_BYTES", "VAULT_ID_BYTES", "DataKey", "Mark", "add_marks", "unusable"]

NONCE_BYTES = 12
VAULT_ID_BYTES = 16
_DATA_KEY_BYTES = 32
_KEY = b"hushrec vault 1 key\0"
_SUMMARY = b"hushrec vault 1 summary\0"
_VALUE = b"hushrec vault 1 value\0"
_MODULUS = 2**256


class Mark(NamedTuple):
    """What the summary says of one value: who has another value, or an older one, has another mark."""

    version: int
    nonce: bytes

    @classmethod
    def of(cls, version: int, sealed: bytes) -> "Mark":
        """The mark of a value that was just sealed."""
        return cls(version, sealed[:NONCE_BYTES])


class DataKey:
    """The key of one vault's values; `repr` hides it, and it cannot be pickled."""

    __slots__ = ("_bound", "_cipher", "_key", "_mark_key", "_vault_id")

    def __init__(self, key: bytes, vault_id: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # slow to import

        self._key, self._vault_id = key, vault_id
        self._cipher = AESGCM(hmac.digest(key, b"seal", "sha256"))
        self._mark_key = hmac.digest(key, b"mark", "sha256")
        self._bound = _VALUE + vault_id

    @classmethod
    def create(cls, vault_id: bytes) -> "DataKey":
        """Draw one from the operating system's randomness."""
        return cls(os.urandom(_DATA_KEY_BYTES), vault_id)

    @classmethod
    def unwrap(cls, wrapped: bytes, key: bytes, vault_id: bytes) -> "DataKey":
        """Take it out of its wrapping.

        Raises:
            VaultError: Another key, another vault, or damaged; not told apart.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        data_key = _opened(AESGCM(key), wrapped, _KEY + vault_id)
        if len(data_key) != _DATA_KEY_BYTES:
            raise unusable()
        return cls(data_key, vault_id)

    def wrap(self, key: bytes) -> bytes:
        """Wrap it under a key of 32 bytes, 60 bytes."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return _sealed(AESGCM(key), self._key, _KEY + self._vault_id)

    def seal(self, name: bytes, version: int, value: bytes) -> bytes:
        """Seal a value at its place."""
        return _sealed(self._cipher, value, self._bound + version.to_bytes(8, "big") + name)

    def open_all(
        self, rows: Iterable[tuple[bytes, int, bytes]], marks: Mapping[bytes, "Mark | None"]
    ) -> dict[bytes, bytes]:
        """Open values, each at its place and all that there must be.

        Args:
            rows: Name, version and sealed value of each. Untrusted.
            marks: What the summary says of each of them.

        Raises:
            VaultError: One was sealed elsewhere, changed or replaced, or another set of them is there.
        """
        from cryptography.exceptions import InvalidTag

        decrypt, bound, opened = self._cipher.decrypt, self._bound, {}
        try:
            for name, version, sealed in rows:
                nonce = sealed[:NONCE_BYTES]
                if marks[name] != (version, nonce):
                    raise unusable()
                opened[name] = decrypt(nonce, sealed[NONCE_BYTES:], bound + version.to_bytes(8, "big") + name)
        except (InvalidTag, KeyError, TypeError, ValueError) as error:
            raise unusable() from error
        if len(opened) != len(marks):
            raise unusable()
        return opened

    def weigh(self, name: bytes, mark: "Mark") -> int:
        """What a value adds to the sum of the marks."""
        data = mark.version.to_bytes(8, "big") + mark.nonce + name
        return int.from_bytes(hashlib.blake2b(data, digest_size=32, key=self._mark_key).digest())

    def seal_summary(self, changes: int, marks: int) -> bytes:
        """Seal the number of changes and the sum of the marks, 68 bytes."""
        plain = changes.to_bytes(8, "big") + marks.to_bytes(32, "big")
        return _sealed(self._cipher, plain, _SUMMARY + self._vault_id)

    def open_summary(self, sealed: bytes) -> tuple[int, int]:
        """Give the number of changes and the sum of the marks.

        Raises:
            VaultError: It is another vault's, or was changed.
        """
        plain = _opened(self._cipher, sealed, _SUMMARY + self._vault_id)
        return int.from_bytes(plain[:8]), int.from_bytes(plain[8:])

    def __repr__(self) -> str:
        """Nothing of the key."""
        return "DataKey(hidden)"

    def __reduce__(self) -> NoReturn:
        """A key does not travel."""
        raise TypeError("a DataKey cannot be copied or pickled")


def add_marks(marks: int, *more: int) -> int:
    """Add marks to a sum; negative ones leave it.

    >>> add_marks(add_marks(5, 7), -7)
    5
    """
    return sum(more, marks) % _MODULUS


def unusable() -> VaultError:
    """The one opaque error of whatever does not open."""
    return VaultError(
        "the vault cannot be opened: the key is not its own, or the file was damaged or altered. Give the right key; "
        "if it is, remove the file and enrol again"
    )


def _sealed(cipher: "AESGCM", plain: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, bound)


def _opened(cipher: "AESGCM", sealed: bytes, bound: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except (InvalidTag, ValueError) as error:
        raise unusable() from error
