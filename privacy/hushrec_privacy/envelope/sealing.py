"""Seal a message to the server, padded to the one size of its route: HPKE (RFC 9180), base mode, one shot.

KEM X-Wing (0x647a), KDF HKDF-SHA256, AEAD AES-256-GCM; `info` is the context and the key's id, no associated data.

    offset  bytes     what
    0       1         wire version, 1
    1       8         id of the key
    9       1,120     encapsulated key: ML-KEM 1,088, X25519 32
    1,129   size      AES-256-GCM of: length of the payload (4, big endian), the payload, zeros
    then    16        its tag

Base mode tells nothing about the sender: the signature of the request does. There is no forward secrecy towards a key
that the server still has: keys are rotated, and old ones deleted.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hushrec_privacy.envelope.context import WIRE_VERSION, Context
from hushrec_privacy.envelope.keys import KEY_ID_BYTES, EnvelopeKey, key_id, read_public
from hushrec_privacy.errors import ConfigError, EnvelopeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite

__all__ = ["LENGTH_BYTES", "OVERHEAD_BYTES", "open_sealed", "seal"]

LENGTH_BYTES = 4
"""What the payload's own length takes of the size it is padded to."""

_HEAD_BYTES = 1 + KEY_ID_BYTES
OVERHEAD_BYTES = _HEAD_BYTES + 1_120 + 16
"""What a sealed message is longer than the size it was padded to."""

_LARGEST = 2**31


def seal(public: bytes, context: Context, payload: bytes, size: int) -> bytes:
    """Pad a payload and seal it.

    Guarantee:
        All envelopes of one `size` have the same length, `size` + `OVERHEAD_BYTES`, whatever they hold.

    Args:
        public: Of the server's key, 1,216 bytes, from a `KeySet` that was verified.
        context: What it is for.
        payload: At most `size` - 4 bytes.
        size: What this route is padded to, in bytes. Public configuration.

    Raises:
        ConfigError: The payload does not fit, or the size is out of range. Tells the two lengths.
        EnvelopeError: `public` is no key.
    """
    _check_size(size)
    if len(payload) > size - LENGTH_BYTES:
        raise ConfigError(f"a payload of {len(payload)} bytes does not fit into an envelope of {size}, less 4")
    named = key_id(public)
    padded = len(payload).to_bytes(LENGTH_BYTES, "big") + payload + bytes(size - LENGTH_BYTES - len(payload))
    try:
        sealed = _suite().encrypt(padded, read_public(public), context.encode() + named)
    except ValueError as error:  # an X25519 key of small order
        raise EnvelopeError("the server's key is no envelope key; fetch the server's keys again") from error
    return bytes([WIRE_VERSION]) + named + sealed


def open_sealed(keys: Iterable[EnvelopeKey], context: Context, sealed: bytes, size: int) -> bytes:
    """Open an envelope and take off the padding.

    Args:
        keys: Those in force; the envelope names the one it needs.
        context: What it must be for.
        sealed: Untrusted.
        size: What this route is padded to, in bytes.

    Raises:
        EnvelopeError: It cannot be opened: a wrong length, version, key or context, changed bytes, or wrong padding;
            not told apart. How long it takes differs by what anyone can see: length, version and key id.
        ConfigError: The size is out of range.
    """
    _check_size(size)
    view = memoryview(sealed)
    named = bytes(view[1:_HEAD_BYTES])
    fits = len(view) == size + OVERHEAD_BYTES and view[0] == WIRE_VERSION
    for key in keys if fits else ():
        padded = _opened(key, context.encode() + named, view[_HEAD_BYTES:]) if key.key_id == named else None
        payload = None if padded is None else _unpadded(padded)
        if payload is not None:
            return payload
    raise EnvelopeError("the message cannot be opened; fetch the server's keys again and send it anew")


def _opened(key: EnvelopeKey, info: bytes, sealed: memoryview) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        return _suite().decrypt(sealed, key.reveal(), info)
    except (InvalidTag, ValueError):
        return None


def _unpadded(padded: bytes) -> bytes | None:
    length = int.from_bytes(padded[:LENGTH_BYTES], "big")
    rest = padded[LENGTH_BYTES + length :]
    fits = length <= len(padded) - LENGTH_BYTES
    return padded[LENGTH_BYTES : LENGTH_BYTES + length] if fits and rest.count(0) == len(rest) else None


def _check_size(size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or not LENGTH_BYTES <= size <= _LARGEST:
        raise ConfigError(f"an envelope is padded to {size!r} bytes; it must be a whole number from {LENGTH_BYTES} on")


def _suite() -> "Suite":
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
