"""Signatures of plans: Ed25519 (RFC 8032) over the plan's bytes under a domain prefix, kept beside them.

The shop's plan key signs nothing else; its public half ships in the bundle. A plan is read only through
`verified_plan`, so that no unsigned byte is ever parsed into something that acts.
"""

import os
from pathlib import Path
from typing import NoReturn

from hushrec_privacy.errors import ConfigError, PlanError
from hushrec_privacy.plans.plan import Plan

__all__ = ["SIGNATURE_BYTES", "PlanKey", "verified_plan"]

SIGNATURE_BYTES = 64
_DOMAIN = b"hushrec plan v1\x00"


class PlanKey:
    """The shop's secret key for plans; it never leaves the shop and shows nothing of itself.

    Raises:
        ConfigError: The secret is not 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ConfigError("a plan key has 32 bytes; make one with: hushrec privacy sign --new-key FILE")
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # slow to import

        self._key = Ed25519PrivateKey.from_private_bytes(secret)

    @classmethod
    def create(cls, path: Path) -> "PlanKey":
        """Make a key from the operating system's randomness and keep it in a file that only its owner can read.

        Raises:
            ConfigError: The file exists already; no key is ever overwritten.
        """
        secret = os.urandom(32)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise ConfigError(f"{path}: exists already; a plan key is never overwritten") from error
        with os.fdopen(handle, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        return cls(secret)

    @classmethod
    def read(cls, path: Path) -> "PlanKey":
        """Read a key from its file.

        Raises:
            ConfigError: It is not a key, or others can read it.
        """
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path}: others can read this key; take their rights away: chmod 600 {path}")
        return cls(path.read_bytes())

    def public(self) -> bytes:
        """The public half, 32 bytes: what devices check with."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, plan: Plan) -> bytes:
        """The detached signature of a plan, 64 bytes.

        Raises:
            PlanError: The plan states another epsilon than its numbers give: it would be refused everywhere.
        """
        plan.check_epsilon()
        return self._key.sign(_DOMAIN + plan.encode())

    def __repr__(self) -> str:
        """Nothing of the key."""
        return "PlanKey()"

    def __reduce__(self) -> NoReturn:
        """A secret is not copied by accident."""
        raise TypeError("a PlanKey cannot be copied or pickled")


def verified_plan(data: bytes, signature: bytes, public_key: bytes) -> Plan:
    """Read a plan whose signature is right.

    Args:
        data: The plan's bytes. Untrusted.
        signature: 64 bytes. Untrusted.
        public_key: Of the shop's plan key, 32 bytes, from a source that is trusted.

    Raises:
        PlanError: Any of them is not as it must be; the plan is not parsed unless the signature is right.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _DOMAIN + data)
    except (InvalidSignature, ValueError) as error:
        raise PlanError("the plan's signature is not of the shop's plan key; fetch plan and signature again") from error
    return Plan.decode(data)
