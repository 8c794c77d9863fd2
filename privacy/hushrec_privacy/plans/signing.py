"""Signatures of plans: Ed25519 (RFC 8032) over the plan's bytes under a domain prefix, kept beside them.

The shop's plan key signs plans and, under a domain of its own, the key sets that tell devices which keys of the server
to seal to; nothing else. Its public half ships in the bundle. A plan is read only through
`verified_plan`, so that no unsigned byte is ever parsed into something that acts.
"""

from typing import ClassVar

from hushrec_privacy.envelope.key_set import KEY_SET_DOMAIN, KeySet
from hushrec_privacy.errors import PlanError
from hushrec_privacy.key_files import KeyInFile
from hushrec_privacy.plans.limits import COHORT_FLOOR
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.signatures import SIGNATURE_BYTES, SigningKey, check_signature

__all__ = ["SIGNATURE_BYTES", "PlanKey", "verified_plan"]

_DOMAIN = b"hushrec plan v1"


class PlanKey(SigningKey, KeyInFile):
    """The shop's secret key for plans and key sets; it never leaves the shop and shows nothing of itself.

    Raises:
        ConfigError: The secret is not 32 bytes.
    """

    KIND: ClassVar[str] = "plan key"

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
        return self._sign(_DOMAIN, plan.encode())

    def sign_key_set(self, key_set: KeySet) -> bytes:
        """The detached signature of a server's key set, 64 bytes; `envelope.verified_key_set` checks it."""
        return self._sign(KEY_SET_DOMAIN, key_set.encode())


def verified_plan(data: bytes, signature: bytes, public_key: bytes) -> Plan:
    """Read a plan whose signature is right.

    Args:
        data: The plan's bytes. Untrusted.
        signature: 64 bytes. Untrusted.
        public_key: Of the shop's plan key, 32 bytes, from a source that is trusted.

    Raises:
        PlanError: Any of them is not as it must be; the plan is not parsed unless the signature is right.
    """
    refusal = PlanError("the plan's signature is not of the shop's plan key; fetch plan and signature again")
    check_signature(public_key, _DOMAIN, data, signature, refusal=refusal)
    return Plan.decode(data)
