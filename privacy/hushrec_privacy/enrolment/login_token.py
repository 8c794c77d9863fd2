"""Login tokens: the shop's own login tells the authority which account a device belongs to.

The shop's backend, where the shopper is logged in, makes one and hands it to the app; the authority checks it. Both
share a key of 32 bytes. The token is base64url (RFC 4648, section 5) without padding of

    offset  bytes     what
    0       1         version, 1
    1       32        id of the plan that it enrols for
    33      8         moment at which it ends, seconds since 1970-01-01 UTC, big endian
    41      1 to 256  the account's name, UTF-8
    then    32        HMAC-SHA256 (RFC 2104) over "hushrec login token v1", 0x00 and all bytes before

It hides nothing, and it works until it ends, for whoever has it: make it last minutes, and send it over TLS only. That
an account gets no second certificate, the authority sees to.
"""

import base64
import binascii
import hashlib
import hmac

from hushrec_privacy import checks
from hushrec_privacy.enrolment.names import LONGEST_ACCOUNT_BYTES, account_bytes, plan_bytes
from hushrec_privacy.errors import ConfigError, EnrolmentError
from hushrec_privacy.key_files import KEY_BYTES

__all__ = ["login_token", "plan_of_token", "verified_token"]

_VERSION = b"\1"
_DOMAIN = b"hushrec login token v1\0"
_HEAD_BYTES = 41
_MAC_BYTES = 32
_LONGEST = 4 * (_HEAD_BYTES + LONGEST_ACCOUNT_BYTES + _MAC_BYTES + 2) // 3  # characters
_LAST_SECOND = 2**63 - 1


def login_token(key: bytes, account: str, plan_id: str, expires_at: int) -> str:
    """Vouch for an account that is logged in.

    Args:
        key: 32 bytes that the shop's login and the authority share.
        account: Its name, 1 to 256 bytes of UTF-8; the same every time, or the account can enrol again.
        plan_id: 64 hexadecimal digits.
        expires_at: Seconds since 1970-01-01 UTC; from this moment on the token is refused.

    Raises:
        ConfigError: The key is not 32 bytes, or `expires_at` is no time.
        EnrolmentError: The account or the plan's id is not of that form.

    >>> token = login_token(bytes(32), "ann", "ab" * 32, expires_at=1_000)
    >>> verified_token(bytes(32), token, plan_id="ab" * 32, at_s=999)
    'ann'
    """
    checks.at_least(0, expires_at=expires_at)
    if expires_at > _LAST_SECOND:
        raise ConfigError("expires_at is above 2^63 - 1 seconds; no time is as late")
    data = _VERSION + plan_bytes(plan_id) + expires_at.to_bytes(8, "big") + account_bytes(account)
    return base64.urlsafe_b64encode(data + _mac(key, data)).rstrip(b"=").decode()


def verified_token(key: bytes, token: str, *, plan_id: str, at_s: int) -> str:
    """Give the account that a token vouches for.

    Args:
        key: The one that it was made with.
        token: Untrusted.
        plan_id: The plan that is asked for, 64 hexadecimal digits.
        at_s: Now, seconds since 1970-01-01 UTC.

    Raises:
        EnrolmentError: It was changed or made with another key, is for another plan, or has ended.
        ConfigError: The key is not 32 bytes.
    """
    data = _decoded(token)
    signed, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
    if not hmac.compare_digest(_mac(key, signed), mac) or len(signed) <= _HEAD_BYTES or signed[:1] != _VERSION:
        raise EnrolmentError("the login token is not of this shop's login; log in again")
    if signed[1:33] != plan_bytes(plan_id):
        raise EnrolmentError("the login token is for another plan; log in again")
    if at_s >= int.from_bytes(signed[33:_HEAD_BYTES], "big"):
        raise EnrolmentError("the login token has ended; log in again")
    return signed[_HEAD_BYTES:].decode()


def plan_of_token(token: str) -> str | None:
    """The plan that a token is for, as it says itself: for who has several, and picks one. Checks nothing.

    Returns:
        64 hexadecimal digits; None: this is no token.

    >>> plan_of_token(login_token(bytes(32), "ann", "ab" * 32, expires_at=1_000)) == "ab" * 32
    True
    """
    data = _decoded(token)
    return data[1:33].hex() if len(data) > _HEAD_BYTES + _MAC_BYTES and data[:1] == _VERSION else None


def _mac(key: bytes, data: bytes) -> bytes:
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise ConfigError(f"the key of login tokens has {KEY_BYTES} bytes")
    return hmac.digest(key, _DOMAIN + data, hashlib.sha256)


def _decoded(token: str) -> bytes:
    """The bytes of a token; empty ones, which no key signed, for what is none or is written in another way."""
    if not isinstance(token, str) or len(token) > _LONGEST or not token.isascii():
        return b""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if base64.urlsafe_b64encode(data).rstrip(b"=") == token.encode() else b""
