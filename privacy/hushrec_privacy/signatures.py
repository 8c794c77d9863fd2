"""Ed25519 (RFC 8032) under domains: what every signing key here shares.

What is signed is domain ‖ 0x00 ‖ data. A domain is printable ASCII, so that no domain and data can be read as another
domain and data: a signature holds for one purpose alone. Knows no keys of its own; each kind has a type elsewhere.
"""

import re
from typing import NoReturn

from hushrec_privacy.errors import ConfigError, HushrecError
from hushrec_privacy.key_files import KEY_BYTES

__all__ = ["PUBLIC_BYTES", "SIGNATURE_BYTES", "SigningKey", "check_signature"]

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
_DOMAIN = re.compile(rb"[ -~]{1,64}")


class SigningKey:
    """A secret key that shows nothing of itself; what it may sign, its subclasses say.

    Raises:
        ConfigError: The secret is not 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if not isinstance(secret, bytes) or len(secret) != KEY_BYTES:
            raise ConfigError(f"the secret of a {type(self).__name__} has {KEY_BYTES} bytes")
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # slow to import

        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self._public = self._key.public_key().public_bytes_raw()

    def public(self) -> bytes:
        """The public half, 32 bytes: what others check with."""
        return self._public

    def _sign(self, domain: bytes, data: bytes) -> bytes:
        return self._key.sign(_under(domain, data))

    def __repr__(self) -> str:
        """Nothing of the key."""
        return f"{type(self).__name__}()"

    def __reduce__(self) -> NoReturn:
        """A secret is not copied by accident."""
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled")


def check_signature(public: bytes, domain: bytes, data: bytes, signature: bytes, *, refusal: HushrecError) -> None:
    """Check a signature; only a return means that it is right.

    Args:
        public: 32 bytes. May be untrusted only where a certificate names it.
        domain: What the signature must be for, 1 to 64 printable ASCII characters.
        data: What was signed. Untrusted.
        signature: 64 bytes. Untrusted.
        refusal: What to raise otherwise.

    Raises:
        HushrecError: `refusal`: a wrong signature, a key that is none, or a wrong length; not told apart.
        ConfigError: The domain is not of the right form.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signed = _under(domain, data)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    except (InvalidSignature, ValueError) as error:
        raise refusal from error


def _under(domain: bytes, data: bytes) -> bytes:
    if not _DOMAIN.fullmatch(domain):
        raise ConfigError(f"{domain!r} is no domain of signatures: 1 to 64 printable ASCII characters")
    return domain + b"\0" + data
