"""The server's envelope keys: X-Wing (draft-connolly-cfrg-xwing-kem-10), ML-KEM-768 beside X25519.

A secret key is the 32 bytes of section 5.2 of the draft: SHAKE-256 stretches them to 96, of which 64 are the seed of
ML-KEM (FIPS 203: d, z) and 32 the X25519 secret. A public key is ML-KEM's, 1,184 bytes, and X25519's, 32 bytes.
"""

import hashlib
from typing import TYPE_CHECKING, ClassVar, NoReturn

from hushrec_privacy.errors import ConfigError, EnvelopeError
from hushrec_privacy.key_files import KEY_BYTES, KeyInFile

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey

__all__ = ["KEY_ID_BYTES", "PUBLIC_KEY_BYTES", "EnvelopeKey", "key_id", "read_public"]

KEY_ID_BYTES = 8
PUBLIC_KEY_BYTES = 1_216
_MLKEM_PUBLIC_BYTES = 1_184
_MLKEM_SEED_BYTES = 64
_KEY_ID_DOMAIN = b"hushrec envelope key v1\0"


class EnvelopeKey(KeyInFile):
    """One secret key with both of its halves; `repr` hides them, and it cannot be pickled.

    Attributes:
        key_id: What envelopes to this key start with, 8 bytes.

    Raises:
        ConfigError: The secret is not 32 bytes.
    """

    KIND: ClassVar[str] = "envelope key"

    __slots__ = ("_key", "_public", "key_id")

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes) or len(secret) != KEY_BYTES:
            raise ConfigError(f"an envelope key has {KEY_BYTES} bytes")
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey  # slow to import
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
        from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

        stretched = hashlib.shake_256(secret).digest(_MLKEM_SEED_BYTES + 32)
        lattice = MLKEM768PrivateKey.from_seed_bytes(stretched[:_MLKEM_SEED_BYTES])
        curve = X25519PrivateKey.from_private_bytes(stretched[_MLKEM_SEED_BYTES:])
        self._key = MLKEM768X25519PrivateKey(lattice, curve)
        self._public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        self.key_id = key_id(self._public)

    def public(self) -> bytes:
        """The public half, 1,216 bytes: what devices seal to."""
        return self._public

    def reveal(self) -> "MLKEM768X25519PrivateKey":
        """The key itself, for the cipher alone."""
        return self._key

    def __repr__(self) -> str:
        """Nothing of the key."""
        return "EnvelopeKey(hidden)"

    def __reduce__(self) -> NoReturn:
        """A key does not travel."""
        raise TypeError("an EnvelopeKey cannot be copied or pickled")


def key_id(public: bytes) -> bytes:
    """Name a public key: the first 8 bytes of the sha256 of "hushrec envelope key v1", 0x00 and the key.

    >>> len(key_id(bytes(1216)))
    8
    """
    return hashlib.sha256(_KEY_ID_DOMAIN + public).digest()[:KEY_ID_BYTES]


def read_public(public: bytes) -> "MLKEM768X25519PublicKey":
    """Read a public key from its 1,216 bytes.

    Raises:
        EnvelopeError: It is none.
    """
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.hpke import MLKEM768X25519PublicKey

    try:
        lattice = MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES])
        curve = X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:])
    except ValueError as error:
        raise EnvelopeError("the server's key is no envelope key; fetch the server's keys again") from error
    return MLKEM768X25519PublicKey(lattice, curve)
