"""Pseudonyms for users: HMAC-SHA256 of the id under a key that stays with the shop.

Without the key nobody can tell from a pseudonym who it is, or make the pseudonym of somebody they know; with it a user
keeps the same pseudonym from one reading to the next. RFC 2104, cut to the first 128 bits as its section 5 allows.
"""

import hmac
import os
import secrets
from pathlib import Path

from hushrec_privacy.errors import ConfigError

__all__ = ["PseudonymKey", "load_or_create_key", "pseudonym"]

KEY_BYTES = 32
_DIGITS = 32  # hexadecimal: 128 bits, so that 10^9 users collide with a chance of about 10^-21


class PseudonymKey(bytes):
    """The key. Neither `repr` nor `str` shows it.

    >>> PseudonymKey(b"secret")
    PseudonymKey(hidden)
    """

    def __repr__(self) -> str:
        return "PseudonymKey(hidden)"

    __str__ = __repr__


def pseudonym(user: str, key: bytes) -> str:
    """The pseudonym of a user id: 32 hexadecimal digits.

    >>> pseudonym("17850", b"key of the docs") == pseudonym("17850", b"key of the docs")
    True
    >>> len(pseudonym("17850", b"another key"))
    32
    """
    return hmac.digest(key, user.encode("utf-8"), "sha256").hex()[:_DIGITS]


def load_or_create_key(path: Path) -> PseudonymKey:
    """Read the key file, or make one: 32 bytes from the operating system, readable by its owner only.

    Args:
        path: The file; its folder must exist.

    Raises:
        ConfigError: The file does not hold a key, or cannot be read or written.
    """
    try:
        created = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _load(path)
    except OSError as error:
        raise ConfigError(f"the key of the pseudonyms cannot be written to {path}: {error.strerror}") from error
    key = secrets.token_bytes(KEY_BYTES)
    with os.fdopen(created, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
    return PseudonymKey(key)


def _load(path: Path) -> PseudonymKey:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        raise ConfigError(f"the key of the pseudonyms cannot be read from {path}: {error.strerror}") from error
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        # from None: the cause would quote the file's content
        raise ConfigError(
            f"{path} does not hold a key of {KEY_BYTES} bytes in hexadecimal; name the right file, "
            "or another path to make a new key (users then get new pseudonyms)"
        ) from None
    return PseudonymKey(key)
