"""Keys of one round: X25519 (RFC 7748) between two devices, and what is derived from it by HKDF-SHA256 (RFC 5869).

    salt   the session's id
    info   name of the purpose, 0x00, root of the roster (32 bytes), places of the devices (2 bytes each, big endian)

    purpose                     secret                          places
    hushrec secagg pair mask    X25519 of the two mask keys     the smaller, the larger
    hushrec secagg share        X25519 of the two share keys    sender, receiver
    hushrec secagg self mask    the device's seed               its own

The root stands for every public key on the roster, so that a pair of devices with different rosters shares no key. A
share key encrypts exactly one message (AES-256-GCM, NIST SP 800-38D, nonce 0): the shares that one sender has for one
receiver, in one session. X25519 is not secure against a quantum computer.
"""

import hashlib
import hmac
from functools import lru_cache
from typing import NoReturn

from hushrec_privacy.errors import SecAggError

__all__ = ["KEY_BYTES", "TAG_BYTES", "KeyPair", "Place", "public_key_is_usable", "seed_commitment"]

KEY_BYTES = 32
TAG_BYTES = 16
_PAIR, _SHARE, _SELF = b"hushrec secagg pair mask\0", b"hushrec secagg share\0", b"hushrec secagg self mask\0"
_SEED = b"hushrec secagg seed\0"
_NONCE = bytes(12)


class KeyPair:
    """An X25519 key pair of one round; it shows nothing of its secret and cannot be pickled."""

    def __init__(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # slow to import

        self._key = X25519PrivateKey.from_private_bytes(secret)
        self._secret = secret
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def reveal(self) -> bytes:
        """The 32 secret bytes, to be shared among the holders."""
        return self._secret

    def agree(self, public: bytes) -> bytes:
        """The secret shared with the owner of another public key, 32 bytes.

        Raises:
            SecAggError: The other key is one of the few that make no secret (RFC 7748, section 6.1).
        """
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise SecAggError("a public key on the roster makes no secret; its device is broken or lies") from error

    def __repr__(self) -> str:
        """Nothing of the secret."""
        return "KeyPair()"

    def __reduce__(self) -> NoReturn:
        """A secret is not copied by accident."""
        raise TypeError("a KeyPair cannot be copied or pickled")


class Place:
    """Where keys are used: one session, one roster, one device of it.

    Args:
        session_id: 32 bytes.
        root: Of the roster, 32 bytes.
        number: Place of the device on the roster, from 0 on.
    """

    def __init__(self, session_id: bytes, root: bytes, number: int) -> None:
        self.session_id, self.root, self.number = session_id, root, number

    def pair_mask_key(self, agreed: bytes, other: int) -> bytes:
        """Key of the mask between this device and another, from the secret that their mask keys agree on."""
        return self._derive(agreed, _PAIR, min(self.number, other), max(self.number, other))

    def self_mask_key(self, seed: bytes) -> bytes:
        """Key of the mask that is this device's alone."""
        return self._derive(seed, _SELF, self.number)

    def seal(self, agreed: bytes, receiver: int, payload: bytes) -> bytes:
        """Encrypt the shares that this device has for another: ciphertext and tag, 16 bytes longer."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key, bound = self._share_key(agreed, self.number, receiver)
        return AESGCM(key).encrypt(_NONCE, payload, bound)

    def open(self, agreed: bytes, sender: int, sealed: bytes) -> bytes:
        """Decrypt the shares that another device has for this one.

        Raises:
            SecAggError: They are not from that device for this one in this session; not told apart.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key, bound = self._share_key(agreed, sender, self.number)
        try:
            return AESGCM(key).decrypt(_NONCE, sealed, bound)
        except InvalidTag as error:
            raise SecAggError(
                "shares of a neighbour cannot be opened: they were changed, or are of elsewhere"
            ) from error

    def _share_key(self, agreed: bytes, sender: int, receiver: int) -> tuple[bytes, bytes]:
        bound = self.session_id + self.root + _places(sender, receiver)
        return self._derive(agreed, _SHARE, sender, receiver), bound

    def _derive(self, secret: bytes, purpose: bytes, *places: int) -> bytes:
        """HKDF with one block of output."""
        extracted = hmac.digest(self.session_id, secret, "sha256")
        return hmac.digest(extracted, purpose + self.root + _places(*places) + b"\1", "sha256")


def seed_commitment(session_id: bytes, place: int, seed: bytes) -> bytes:
    """What a device tells the server of its seed before it is needed: a hash, 32 bytes."""
    return hashlib.sha256(_SEED + session_id + _places(place) + seed).digest()


def public_key_is_usable(public: bytes) -> bool:
    """Whether a public key makes a secret; those of low order make the same one with everybody."""
    try:
        _probe().agree(public)
    except SecAggError:
        return False
    return True


@lru_cache(maxsize=1)
def _probe() -> KeyPair:
    return KeyPair(bytes(KEY_BYTES))  # any secret will do


def _places(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)
