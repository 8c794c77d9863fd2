"""Signatures of devices over their requests, and the rule by which a replay is found.

A device signs, under the domain "hushrec request v1", the context, the sha256 of the body (32 bytes), the time (8
bytes, big endian) and a nonce (16 bytes). The header is base64url (RFC 4648, section 5) without padding of

    offset  bytes  what
    0       1      version, 1
    1       8      time, seconds since 1970-01-01 UTC, big endian
    9       16     nonce, random
    25      64     Ed25519 signature

A server accepts a request near its own time and remembers (device, nonce) as long as it would: a second one with the
same pair is a replay. What was signed before its window may be forgotten, since its time alone refuses it.
"""

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass

from hushrec_privacy import checks
from hushrec_privacy.enrolment.identity import Identity
from hushrec_privacy.envelope.context import Context
from hushrec_privacy.errors import ConfigError, EnvelopeError
from hushrec_privacy.signatures import SIGNATURE_BYTES, check_signature

__all__ = ["NONCE_BYTES", "WINDOW_S", "RequestId", "sign_request", "verify_request"]

NONCE_BYTES = 16
WINDOW_S = 300
_DOMAIN = b"hushrec request v1"
_VERSION = 1
_HEADER_BYTES = 1 + 8 + NONCE_BYTES + SIGNATURE_BYTES
_HEADER_CHARACTERS = 119
_LAST_SECOND = 2**63 - 1


@dataclass(frozen=True)
class RequestId:
    """What tells a request from every other of its device.

    Attributes:
        nonce: 16 bytes; a server refuses one that it has seen from this device.
        at_s: When it was signed, by the device's clock, seconds since 1970-01-01 UTC.
    """

    nonce: bytes
    at_s: int


def sign_request(identity: Identity, context: Context, body: bytes, *, at_s: int) -> str:
    """Sign a request; a second call for the same one is a request of its own.

    Args:
        identity: Of the device, in the context's plan.
        context: What is asked for.
        body: As it is sent: sealed; empty for a request without one.
        at_s: Now by the server's clock, as well as the device knows it, seconds since 1970-01-01 UTC.

    Returns:
        The header's value, 119 characters.

    Raises:
        ConfigError: `at_s` is no time.
    """
    checks.at_least(0, at_s=at_s)
    if at_s > _LAST_SECOND:
        raise ConfigError("at_s is above 2^63 - 1 seconds; no time is as late")
    request = RequestId(os.urandom(NONCE_BYTES), at_s)
    signature = identity.sign(_DOMAIN, _signed(context, body, request))
    return _text(bytes([_VERSION]) + at_s.to_bytes(8, "big") + request.nonce + signature)


def verify_request(
    public: bytes, context: Context, body: bytes, header: str, *, at_s: int, window_s: int = WINDOW_S
) -> RequestId:
    """Check a request; only a return means that this device signed it, for this place, near this time.

    The caller still refuses a nonce that it has seen from this device.

    Args:
        public: Of the device's identity, 32 bytes, from its certificate.
        context: What is asked for.
        body: As it came. Untrusted.
        header: Untrusted.
        at_s: Now, seconds since 1970-01-01 UTC.
        window_s: How far the device's clock may be off, either way.

    Raises:
        EnvelopeError: The signature is not right, whatever the reason; or, told apart only once it is right, the time
            is too far off.
    """
    refusal = EnvelopeError("the request is not signed by this device for this place; sign it anew")
    data = _decoded(header)
    if len(data) != _HEADER_BYTES or data[0] != _VERSION:
        raise refusal
    request = RequestId(data[9 : 9 + NONCE_BYTES], int.from_bytes(data[1:9], "big"))
    check_signature(public, _DOMAIN, _signed(context, body, request), data[9 + NONCE_BYTES :], refusal=refusal)
    if abs(at_s - request.at_s) > window_s:
        raise EnvelopeError(
            f"the request was signed more than {window_s} s from the server's time; take the time from the server"
        )
    return request


def _signed(context: Context, body: bytes, request: RequestId) -> bytes:
    return context.encode() + hashlib.sha256(body).digest() + request.at_s.to_bytes(8, "big") + request.nonce


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(header: str) -> bytes:
    """The bytes of a header; none for what is written in another way."""
    if not isinstance(header, str) or len(header) != _HEADER_CHARACTERS or not header.isascii():
        return b""
    try:
        data = base64.b64decode(header + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if _text(data) == header else b""
