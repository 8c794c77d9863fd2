"""The small sealed store of a device: values under short names in one SQLite file, opened with a key from outside.

Every value is sealed by AES-256-GCM and bound to its name, this vault and a version; a sealed summary says which values
there are. So a value that is swapped, copied, set back to an older one, taken out or brought in is found by the next
call that would have to do with it, at the latest when the vault is opened. Not found is the whole file set back to an
older copy of itself. Names and lengths are not hidden, nor is anything from who reads the memory of the process.

The key from outside seals one row, the data key: `rekey` rewrites that row alone. The old key then opens this file no
more, but still a copy that was made before.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from hushrec_privacy.errors import ConfigError

from hushrec.vault_cipher import NONCE_BYTES, VAULT_ID_BYTES, DataKey, Mark, add_marks, unusable
from hushrec.vault_file import VaultFile, new_vault_file
from hushrec.vault_key import checked_key, key_from_keyring, new_key_in_keyring

__all__ = ["MAX_NAME_BYTES", "MAX_VALUE_BYTES", "Vault"]

MAX_NAME_BYTES = 255
MAX_VALUE_BYTES = 2**24


class Vault:
    """Values of bytes under short names; safe to use from several threads, and opened by several processes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Vault.open(f"{folder}/device.vault", bytes(32)) as vault:
    ...     vault.put("greeting", b"hello")
    ...     vault.get("greeting"), vault.names()
    (b'hello', ['greeting'])

    Attributes:
        path: The file.
    """

    def __init__(self, file: VaultFile, key: bytes | None) -> None:
        """Use `Vault.open`."""
        self.path: Path = file.path
        self._file = file
        self._changes, self._total, self._marks = 0, 0, dict[bytes, Mark]()
        self._summary: bytes | None = None  # sealed, as it was when the three above were checked against it
        with self._transaction():
            self._data_key = self._unlock(key)
            self._refresh()

    @classmethod
    def open(cls, path: str | os.PathLike[str], key: bytes | None = None) -> "Vault":
        """Open the vault in a file, or make it if there is no such file (readable by its owner only).

        Args:
            path: The file, on a local disk.
            key: 32 bytes; None: the operating system's keyring has it, or is given one for a new vault.

        Raises:
            VaultError: The key is not its own, there is none, or the file is no vault, an emptied, damaged or altered
                one, a newer one, or one that others may touch.
            ConfigError: The key is not 32 bytes.
        """
        if key is not None:
            checked_key(key)
        if not os.path.lexists(path):
            _make(path, key)
        file = VaultFile(path)
        try:
            return cls(file, key)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> "Vault":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, name: str) -> bytes | None:
        """Give a value, or None if there is none.

        Raises:
            VaultError: It was damaged or altered, or the file cannot be read.
            ConfigError: This is no name.
        """
        stored = _name_bytes(name)
        with self._transaction():
            self._refresh()
            return self._read(stored)

    def values(self, prefix: str = "") -> dict[str, bytes]:
        """Give all values whose names begin with a prefix, by name: many at once, some microseconds each.

        Raises:
            VaultError: One was damaged or altered, or the file cannot be read.
        """
        begin = prefix.encode()
        with self._transaction():
            self._refresh()
            marks = {name: mark for name, mark in self._marks.items() if name.startswith(begin)}
            rows = self._file.run(
                "SELECT name, version, value FROM sealed WHERE substr(name, 1, ?) = ?", len(begin), begin
            )
            return {name.decode(): value for name, value in self._data_key.open_all(rows, marks).items()}

    def names(self) -> list[str]:
        """Give all names, sorted by their UTF-8.

        Raises:
            VaultError: The file was altered, or cannot be read.
        """
        with self._transaction():
            self._refresh()
            return [name.decode() for name in sorted(self._marks)]

    def put(self, name: str, value: bytes) -> None:
        """Keep a value in place of an older one.

        Guarantee:
            After the return it outlives a power cut; until then the older value is there, whole.

        Args:
            name: 1 to 255 bytes of UTF-8. Not hidden.
            value: At most 16 MiB. Its length is not hidden.

        Raises:
            VaultError: The file was altered, or cannot be written.
            ConfigError: This is no name, or no value that fits.
        """
        self.put_many({name: value})

    def put_many(self, values: Mapping[str, bytes]) -> None:
        """Keep several values at once: all of them or, if anything fails, none.

        Raises:
            VaultError: The file was altered, or cannot be written.
            ConfigError: One is no name, or no value that fits.
        """
        named = {_name_bytes(name): _checked_value(value) for name, value in values.items()}
        with self._transaction(writes=True):
            self._refresh()
            self._write(named)

    def update(self, name: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Replace a value by what a function makes of it, with no other writer in between.

        Args:
            name: As for `put`.
            change: Gets the value, None if there is none, and gives the new one; the same is not written again. Must
                not use the vault.

        Returns:
            What the value is now.

        Raises:
            VaultError: The file was altered, or cannot be written.
            ConfigError: This is no name, or no value that fits.
        """
        stored = _name_bytes(name)
        with self._transaction(writes=True):
            self._refresh()
            old = self._read(stored)
            new = _checked_value(change(old))
            if new != old:
                self._write({stored: new})
            return new

    def delete(self, name: str) -> None:
        """Take a value out, and overwrite its place in the file; one that is not there stays so.

        Raises:
            VaultError: The file was altered, or cannot be written.
            ConfigError: This is no name.
        """
        stored = _name_bytes(name)
        with self._transaction(writes=True):
            self._refresh()
            if stored in self._marks:
                self._changes += 1
                self._note(stored, None)
                self._file.run("DELETE FROM sealed WHERE name = ?", stored)
                self._write_summary()

    def rekey(self, key: bytes) -> None:
        """Put another key in place of the one that opened it; values stay as they are.

        Args:
            key: 32 bytes. A key in the keyring is left there, and opens nothing any more.

        Raises:
            VaultError: The file was altered, or cannot be written.
            ConfigError: The key is not 32 bytes.
        """
        wrapped = self._data_key.wrap(checked_key(key))
        with self._transaction(writes=True):
            self._refresh()
            self._file.run("UPDATE vault SET key = ?", wrapped)

    def close(self) -> None:
        """Close the file. Closing twice is allowed; anything else afterwards raises VaultError."""
        self._file.close()

    def __repr__(self) -> str:
        """The file, and nothing in it."""
        return f"Vault({str(self.path)!r})"

    def __reduce__(self) -> NoReturn:
        """What it holds does not travel."""
        raise TypeError("a Vault cannot be copied or pickled; open its file")

    def _unlock(self, key: bytes | None) -> DataKey:
        rows = self._file.run("SELECT id, key FROM vault")
        if len(rows) != 1 or not all(isinstance(blob, bytes) for blob in rows[0]) or len(rows[0][0]) != VAULT_ID_BYTES:
            raise unusable()
        vault_id, wrapped = rows[0]
        return DataKey.unwrap(wrapped, key_from_keyring(vault_id) if key is None else key, vault_id)

    def _refresh(self) -> None:
        """See whether all values are those of the summary, if it is another than the last time."""
        rows = self._file.run("SELECT summary FROM vault")
        if len(rows) != 1 or not isinstance(rows[0][0], bytes):
            raise unusable()
        if rows[0][0] == self._summary:
            return
        changes, total = self._data_key.open_summary(rows[0][0])
        marks = {}
        for name, version, nonce in self._file.run(
            f"SELECT name, version, substr(value, 1, {NONCE_BYTES}) FROM sealed"
        ):
            if not (isinstance(name, bytes) and isinstance(version, int) and isinstance(nonce, bytes) and version > 0):
                raise unusable()
            marks[name] = Mark(version, nonce)
        if add_marks(0, *(self._data_key.weigh(name, mark) for name, mark in marks.items())) != total:
            raise unusable()
        self._changes, self._total, self._marks, self._summary = changes, total, marks, rows[0][0]

    def _read(self, name: bytes) -> bytes | None:
        rows = self._file.run("SELECT name, version, value FROM sealed WHERE name = ?", name)
        if not rows and name not in self._marks:
            return None
        return self._data_key.open_all(rows, {name: self._marks.get(name)})[name]

    def _write(self, values: Mapping[bytes, bytes]) -> None:
        rows = []
        for name, value in values.items():
            self._changes += 1
            sealed = self._data_key.seal(name, self._changes, value)
            self._note(name, Mark.of(self._changes, sealed))
            rows.append((name, self._changes, sealed))
        self._file.run_many("INSERT OR REPLACE INTO sealed VALUES (?, ?, ?)", rows)
        self._write_summary()

    def _note(self, name: bytes, mark: Mark | None) -> None:
        """Replace what the summary says of a value; None: there is none any more."""
        old = self._marks.pop(name, None)
        if old is not None:
            self._total = add_marks(self._total, -self._data_key.weigh(name, old))
        if mark is not None:
            self._total = add_marks(self._total, self._data_key.weigh(name, mark))
            self._marks[name] = mark

    def _write_summary(self) -> None:
        self._summary = self._data_key.seal_summary(self._changes, self._total)
        self._file.run("UPDATE vault SET summary = ?", self._summary)

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[None]:
        with self._file.transaction(writes=writes):
            try:
                yield
            except BaseException:
                self._summary = None
                raise


def _make(path: str | os.PathLike[str], key: bytes | None) -> None:
    """Make an empty vault, all of it or nothing."""
    vault_id = os.urandom(VAULT_ID_BYTES)
    with new_vault_file(path) as file:
        wrapping = new_key_in_keyring(vault_id) if key is None else key
        data_key = DataKey.create(vault_id)
        with file.transaction(writes=True):
            file.make_tables()
            row = (vault_id, data_key.wrap(wrapping), data_key.seal_summary(0, 0))
            file.run("INSERT INTO vault VALUES (1, ?, ?, ?)", *row)


def _name_bytes(name: str) -> bytes:
    try:
        stored = name.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise ConfigError("a name in a vault is a text of valid Unicode") from error
    if not 1 <= len(stored) <= MAX_NAME_BYTES:
        raise ConfigError(f"a name in a vault has 1 to {MAX_NAME_BYTES} bytes")
    return stored


def _checked_value(value: bytes) -> bytes:
    if not isinstance(value, bytes) or len(value) > MAX_VALUE_BYTES:
        raise ConfigError(f"a value in a vault is bytes, at most {MAX_VALUE_BYTES}")
    return value
