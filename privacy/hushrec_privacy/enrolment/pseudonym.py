"""The name of an account in one plan: the same every time, and nothing that links two plans or tells the account.

HMAC-SHA256 (RFC 2104) under a secret of the authority over "hushrec pseudonym v1", 0x00, the plan's id (32 bytes) and
the account's name in UTF-8; the first 16 bytes of it. Two accounts of a plan share one with probability 2^-128.
"""

import hashlib
import hmac

from hushrec_privacy.enrolment.names import account_bytes, plan_bytes
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.key_files import KEY_BYTES

__all__ = ["pseudonym"]

_DOMAIN = b"hushrec pseudonym v1\0"
_PSEUDONYM_BYTES = 16


def pseudonym(secret: bytes, account: str, plan_id: str) -> str:
    """Give an account's pseudonym in a plan, 32 hexadecimal digits.

    Args:
        secret: 32 bytes that only the authority has. Who knows it can tell whose pseudonym is whose.
        account: The shop's own name of it, 1 to 256 bytes of UTF-8.
        plan_id: 64 hexadecimal digits.

    Raises:
        ConfigError: The secret is not 32 bytes.
        EnrolmentError: The account is empty, too long or no text, or the plan's id is not of that form.

    >>> pseudonym(bytes(32), "ann", "ab" * 32) == pseudonym(bytes(32), "ann", "cd" * 32)
    False
    """
    if not isinstance(secret, bytes) or len(secret) != KEY_BYTES:
        raise ConfigError(f"the secret of the pseudonyms has {KEY_BYTES} bytes")
    data = _DOMAIN + plan_bytes(plan_id) + account_bytes(account)
    return hmac.digest(secret, data, hashlib.sha256)[:_PSEUDONYM_BYTES].hex()
