"""The authority: gives every account of the shop one certificate a plan, and remembers nothing that names an account.

It lives apart from the server, with a folder of its own: the key that certifies, the secret of the pseudonyms, the key
that the shop's login shares with it, and a SQLite file of the certificates given. A row is plan, pseudonym (a keyed
hash of the account: without the secret it tells nothing) and the device's public key. No time, no address, no account.
"""

import contextlib
import hmac
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from hushrec.messages import ENROLMENT_DOMAIN, CertificateBody, enrolment_bytes
from hushrec_privacy.enrolment import AuthorityKey, login_token, pseudonym, verified_token, verify
from hushrec_privacy.errors import ConfigError, EnrolmentError, EnvelopeError, StorageError
from hushrec_privacy.key_files import create_key, read_key

__all__ = ["AUTHORITY_PUBLIC", "Authority", "create_authority"]

AUTHORITY_PUBLIC = "authority.pub"
"""Public half of the key that certifies, as 64 hexadecimal digits: what the server and devices are given."""

_KEY, _PSEUDONYMS, _LOGIN, _DATABASE = "authority.key", "pseudonyms.key", "login.key", "certificates.sqlite"
_SCHEMA_VERSION = 1
_APPLICATION_ID = 0x68617574  # "haut"
_SCHEMA = """CREATE TABLE certificates(
    plan TEXT NOT NULL, pseudonym TEXT NOT NULL, identity BLOB NOT NULL, PRIMARY KEY (plan, pseudonym)
) WITHOUT ROWID"""
_BUSY_S = 10.0


def create_authority(folder: Path) -> bytes:
    """Make the folder of a new authority: three secrets, a file for certificates, and its public half.

    Args:
        folder: Made if it is missing; holds no authority yet.

    Returns:
        The public half of the key that certifies, 32 bytes.

    Raises:
        ConfigError: There is one already, or the folder cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = [name for name in (_KEY, _PSEUDONYMS, _LOGIN, _DATABASE, AUTHORITY_PUBLIC) if (folder / name).exists()]
        if there:
            raise ConfigError(f"{folder}: holds {there[0]} already; an authority is never overwritten")
        create_key(folder / _PSEUDONYMS, "secret of pseudonyms")
        create_key(folder / _LOGIN, "login key")
        _opened(folder / _DATABASE, new=True).close()
        public = AuthorityKey.create(folder / _KEY).public()
        (folder / AUTHORITY_PUBLIC).write_text(public.hex() + "\n", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"{folder}: an authority cannot be made here: {error.strerror}") from error
    except sqlite3.Error as error:
        raise ConfigError(f"{folder}: an authority cannot be made here: {error}") from error
    return public


class Authority:
    """An opened authority; safe to use from several threads.

    Args:
        folder: What `create_authority` made.
        clock: Seconds since 1970-01-01 UTC.

    Raises:
        ConfigError: The folder or one of its keys is missing, or others may read it.
        StorageError: The file of certificates is missing, empty, or cannot be used.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float]) -> None:
        self._key = AuthorityKey.read(folder / _KEY)
        self._pseudonyms = read_key(folder / _PSEUDONYMS, "secret of pseudonyms")
        self._login = read_key(folder / _LOGIN, "login key")
        self._clock, self._lock = clock, threading.Lock()
        self._path = folder / _DATABASE
        if not self._path.exists():  # a new one would not know who has a certificate
            raise _lost(self._path, "is missing")
        try:
            self._connection = _opened(self._path)
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: the certificates cannot be read: {error}") from error

    def public(self) -> bytes:
        """The public half of the key that certifies, 32 bytes."""
        return self._key.public()

    def token(self, account: str, plan_id: str, *, valid_s: int) -> str:
        """Vouch for an account, as the shop's own login does.

        Raises:
            EnrolmentError: The account or the plan's id is not of the right form.
        """
        return login_token(self._login, account, plan_id, int(self._clock()) + valid_s)

    def certify(self, body: CertificateBody) -> bytes:
        """Give the certificate of an account for a plan; the same again for the same device, none for another.

        Args:
            body: Untrusted.

        Returns:
            Certificate and signature.

        Raises:
            EnrolmentError: The token is not of the shop's login or has ended, whoever asks does not have the
                identity's secret, or the account has a certificate for another identity.
            StorageError: The file of certificates cannot be used.
        """
        account = verified_token(self._login, body.token, plan_id=body.plan, at_s=int(self._clock()))
        name = pseudonym(self._pseudonyms, account, body.plan)
        _check_proof(body)
        try:
            with self._lock, _transaction(self._connection):
                self._connection.execute(
                    "INSERT OR IGNORE INTO certificates VALUES (?, ?, ?)", (body.plan, name, body.identity)
                )
                (given,) = self._connection.execute(
                    "SELECT identity FROM certificates WHERE plan = ? AND pseudonym = ?", (body.plan, name)
                ).fetchone()
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: the certificate cannot be kept: {error}") from error
        if not hmac.compare_digest(given, body.identity):
            raise EnrolmentError(
                "the account takes part in this plan with another device already; one device an account takes part"
            )
        return self._key.certify(body.plan, name, body.identity)

    def count(self, plan_id: str) -> int:
        """How many certificates were given for a plan."""
        with self._lock:
            row = self._connection.execute("SELECT count(*) FROM certificates WHERE plan = ?", (plan_id,)).fetchone()
        return int(row[0])

    def close(self) -> None:
        """Close the file of certificates."""
        self._connection.close()

    def __repr__(self) -> str:
        """Nothing of the keys."""
        return "Authority()"

    def __reduce__(self) -> NoReturn:
        """Secrets are not copied by accident."""
        raise TypeError("an Authority cannot be copied or pickled")


def _check_proof(body: CertificateBody) -> None:
    try:
        verify(body.identity, ENROLMENT_DOMAIN, enrolment_bytes(body.plan, body.token), body.proof)
    except EnvelopeError as error:
        raise EnrolmentError("the request does not show that the device has its identity's secret") from error


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _opened(path: Path, *, new: bool = False) -> sqlite3.Connection:
    """Open the file, or make a new one; durable at every commit."""
    if new:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous=EXTRA")
        with _transaction(connection):
            _make(connection) if new else _check(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _make(connection: sqlite3.Connection) -> None:
    connection.execute(_SCHEMA)
    connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")


def _check(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:  # the key is made after the table, so an authority whose key is there had one
        raise _lost(path, "is empty")
    if application != _APPLICATION_ID:
        raise sqlite3.DatabaseError("it is a database of another program")
    if version != _SCHEMA_VERSION:
        raise sqlite3.DatabaseError(f"it has version {version}, this hushrec reads {_SCHEMA_VERSION}")
    if "certificates" not in tables:
        raise _lost(path, "has no certificates")


def _lost(path: Path, how: str) -> StorageError:
    return StorageError(
        f"{path}: {how}, and without it accounts could enrol twice; restore it, or halt all plans and make a new "
        "authority"
    )
