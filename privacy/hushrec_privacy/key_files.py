"""Files of secret keys: 32 random bytes that only their owner can read, never overwritten, never followed by a link."""

import os
import stat
from pathlib import Path
from typing import ClassVar, Self

from hushrec_privacy.errors import ConfigError

__all__ = ["KEY_BYTES", "KeyInFile", "create_key", "read_key"]

KEY_BYTES = 32
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # no link, no waiting for a pipe


class KeyInFile:
    """A type of secret key: 32 bytes, kept in a file. Its subclasses hide it and say what it is for."""

    __slots__ = ()

    KIND: ClassVar[str] = "key"
    """What it is, for messages."""

    def __init__(self, secret: bytes) -> None:
        """Of 32 secret bytes.

        Raises:
            ConfigError: It is something else.
        """
        raise NotImplementedError

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a key from the operating system's randomness and keep it in a file that only its owner can read.

        Args:
            path: Must not exist. Outside of whatever the key protects, and outside its backups.

        Raises:
            ConfigError: The file exists already, or cannot be written; no key is ever overwritten.
        """
        return cls(create_key(path, cls.KIND))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a key that `create` wrote.

        Raises:
            ConfigError: No such plain file, others may read it, or it does not hold exactly 32 bytes.
        """
        return cls(read_key(path, cls.KIND))


def create_key(path: Path, name: str) -> bytes:
    """Draw a new key and write it to a new file that only its owner can read.

    Args:
        path: Must not exist.
        name: What the key is, for messages.

    Raises:
        ConfigError: The file exists, or cannot be written.
    """
    key = os.urandom(KEY_BYTES)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise ConfigError(f"{path}: exists already; the {name} there is never overwritten") from error
    except OSError as error:
        raise ConfigError(f"{path}: the {name} cannot be written: {error.strerror}") from error
    return key


def read_key(path: Path, name: str) -> bytes:
    """Read a key that `create_key` wrote.

    Args:
        path: Its file.
        name: What the key is, for messages.

    Raises:
        ConfigError: No such plain file, others may read it, or it does not hold exactly 32 bytes.
    """
    try:
        with os.fdopen(os.open(path, _READ), "rb") as file:
            state = os.fstat(file.fileno())
            key = file.read(KEY_BYTES + 1) if stat.S_ISREG(state.st_mode) else b""
    except OSError as error:
        raise ConfigError(f"{path}: the {name} cannot be read: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path}: is no {name}, which is a file of {KEY_BYTES} bytes")
    if os.name == "posix" and state.st_mode & 0o077:
        raise ConfigError(f"{path}: others may read or change this {name}; take their rights away: chmod 600 {path}")
    return key
