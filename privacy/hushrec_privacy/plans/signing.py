"""Signatures of plans: Ed25519 (RFC 8032) over the plan's bytes under a domain prefix, kept beside them.

The shop's plan key signs nothing else; its public half ships in the bundle. A plan is read only through
`verified_plan`, so that no unsigned byte is ever parsed into something that acts.
"""

from pathlib import Path
from typing import NoReturn

from hushrec_privacy.errors import ConfigError, PlanError
from hushrec_privacy.key_files import KEY_BYTES, create_key, read_key
from hushrec_privacy.plans.limits import COHORT_FLOOR
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
        if len(secret) != KEY_BYTES:
            raise ConfigError("a plan key has 32 bytes; make one with: hushrec privacy sign --new-key FILE")
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # slow to import

        self._key = Ed25519PrivateKey.from_private_bytes(secret)

    @classmethod
    def create(cls, path: Path) -> "PlanKey":
        """Make a key from the operating system's randomness and keep it in a file that only its owner can read.

        Raises:
            ConfigError: The file exists already, or cannot be written; no key is ever overwritten.
        """
        return cls(create_key(path, "plan key"))

    @classmethod
    def read(cls, path: Path) -> "PlanKey":
        """Read a key from its file.

        Raises:
            ConfigError: No such plain file, others may read it, or it does not hold exactly 32 bytes.
        """
        return cls(read_key(path, "plan key"))

    def public(self) -> bytes:
        """The public half, 32 bytes: what devices check with."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, plan: Plan) -> bytes:
        """The detached signature of a plan, 64 bytes.

        Raises:
            PlanError: The plan states another epsilon than its numbers give, names no authority, or has a cohort below
                the floor without saying DEMO: it would be refused everywhere.
        """
        plan.check_epsilon()
        if not plan.authority:
            raise PlanError("the plan names no authority, so no device could join; plan anew with --authority")
        if plan.min_cohort < COHORT_FLOOR and not plan.demo:
            raise PlanError(f"the plan allows rounds of {plan.min_cohort} devices and does not say DEMO; plan anew")
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
