"""Envelopes: what a device sends is padded, sealed to the server's key, and signed by the device.

context   what an envelope is for; it opens nowhere else
keys      the server's secret keys
sealing   HPKE with X-Wing, and the padding
requests  signatures of devices over requests, and how replays are found
key_set   the server's public keys, signed by the shop; their rotation
"""

from hushrec_privacy.envelope.context import WIRE_VERSION, Context
from hushrec_privacy.envelope.key_set import KeySet, ServerKey, keys_in_force, rotated, verified_key_set
from hushrec_privacy.envelope.keys import KEY_ID_BYTES, PUBLIC_KEY_BYTES, EnvelopeKey, key_id
from hushrec_privacy.envelope.requests import WINDOW_S, RequestId, sign_request, verify_request
from hushrec_privacy.envelope.sealing import LENGTH_BYTES, OVERHEAD_BYTES, open_sealed, seal

__all__ = [
    "KEY_ID_BYTES",
    "LENGTH_BYTES",
    "OVERHEAD_BYTES",
    "PUBLIC_KEY_BYTES",
    "WINDOW_S",
    "WIRE_VERSION",
    "Context",
    "EnvelopeKey",
    "KeySet",
    "RequestId",
    "ServerKey",
    "key_id",
    "keys_in_force",
    "open_sealed",
    "rotated",
    "seal",
    "sign_request",
    "verified_key_set",
    "verify_request",
]
