"""The identity of one device in one plan: an Ed25519 secret that signs what the device sends.

A new one for each plan, so that plans cannot be linked by it. It names nobody: the certificate says which pseudonym it
belongs to.
"""

import os

from hushrec_privacy.errors import EnvelopeError
from hushrec_privacy.key_files import KEY_BYTES
from hushrec_privacy.signatures import SigningKey, check_signature

__all__ = ["Identity", "verify"]


class Identity(SigningKey):
    """The secret; `repr` hides it, and it cannot be pickled.

    >>> identity = Identity.create()
    >>> verify(identity.public(), b"example v1", b"data", identity.sign(b"example v1", b"data"))
    >>> identity
    Identity()
    """

    def __init__(self, secret: bytes) -> None:
        super().__init__(secret)
        self._secret = secret

    @classmethod
    def create(cls) -> "Identity":
        """Make a new one from the operating system's randomness."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def from_bytes(cls, secret: bytes) -> "Identity":
        """Take back what `export` gave.

        Raises:
            ConfigError: It is not 32 bytes.
        """
        return cls(secret)

    def sign(self, domain: bytes, data: bytes) -> bytes:
        """Sign data for one purpose, 64 bytes; the same every time.

        Args:
            domain: The purpose with its version, 1 to 64 printable ASCII characters, such as b"hushrec request v1".
            data: Any bytes; sign a hash of long ones.

        Raises:
            ConfigError: The domain is not of that form.
        """
        return self._sign(domain, data)

    def export(self) -> bytes:
        """The 32 secret bytes, for the device's vault and nothing else."""
        return self._secret


def verify(public: bytes, domain: bytes, data: bytes, signature: bytes) -> None:
    """Check what an identity signed; only a return means that it is right.

    Args:
        public: Of the identity, 32 bytes, from a certificate.
        domain: What it was signed for.
        data: What was signed. Untrusted.
        signature: 64 bytes. Untrusted.

    Raises:
        EnvelopeError: The signature is not right, whatever the reason.
        ConfigError: The domain is not of the right form.
    """
    refusal = EnvelopeError("a signature is not of the device that it should be of; enrol again if this goes on")
    check_signature(public, domain, data, signature, refusal=refusal)
