"""Write `wire.json` anew: one example of everything that enrolment and envelopes put on the wire.

    python -m tests.vectors.envelope.make_wire

The secrets are counted, not drawn, and protect nothing. Sealing and signing a request draw randomness that the library
does not let go of, so that a new run gives other bytes for these two, which open and verify as well.
"""

import json
from pathlib import Path

from hushrec_privacy.enrolment import AuthorityKey, Identity, login_token, pseudonym
from hushrec_privacy.envelope import Context, EnvelopeKey, KeySet, ServerKey, seal, sign_request
from hushrec_privacy.plans.signing import PlanKey

__all__ = ["FILE", "SECRETS", "main"]

FILE = Path(__file__).with_name("wire.json")
SECRETS = {
    name: bytes(range(start, start + 32))
    for start, name in enumerate(("authority", "identity", "envelope", "plan", "login", "pseudonyms"), start=1)
}
ACCOUNT, PLAN_ID, SERVER, AT_S = "ann@example.com", "ab" * 32, "fleet.example.com", 1_700_000_000


def main() -> None:
    """Write the file."""
    identity, envelope_key = Identity(SECRETS["identity"]), EnvelopeKey(SECRETS["envelope"])
    name = pseudonym(SECRETS["pseudonyms"], ACCOUNT, PLAN_ID)
    context = Context(SERVER, "check-in", PLAN_ID, 7, name)
    payload, size = b"a payload", 64
    sealed = seal(envelope_key.public(), context, payload, size)
    key_set = KeySet(3, SERVER, (ServerKey(envelope_key.public(), AT_S, AT_S + 86_400),))
    wire = {
        "secrets": {what: secret.hex() for what, secret in SECRETS.items()},
        "account": ACCOUNT,
        "plan_id": PLAN_ID,
        "pseudonym": name,
        "login_token": {"expires_at": AT_S, "token": login_token(SECRETS["login"], ACCOUNT, PLAN_ID, AT_S)},
        "certificate": AuthorityKey(SECRETS["authority"]).certify(PLAN_ID, name, identity.public()).hex(),
        "context": {"server": SERVER, "route": "check-in", "round_number": 7, "encoded": context.encode().hex()},
        "envelope": {"payload": payload.hex(), "size": size, "sealed": sealed.hex()},
        "request": {"at_s": AT_S, "header": sign_request(identity, context, sealed, at_s=AT_S)},
        "key_set": {
            "serial": 3,
            "encoded": key_set.encode().hex(),
            "signature": PlanKey(SECRETS["plan"]).sign_key_set(key_set).hex(),
        },
    }
    FILE.write_text(json.dumps(wire, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
