"""The server's data folder: its keys, made when they are first needed, and what people put there from elsewhere.

    seal.key           seals the noise of earlier rounds; leave it out of backups of the database
    admin.token        lets an administrator in, one line of text
    envelope-N.key     opens what devices seal; envelope-N.pub is its public half, to be signed
    keys.json          the public halves, signed by the shop's plan key: `hushrec envelope sign`; from elsewhere
    plan.pub           the public half of the plan key; from elsewhere
    releases, online   the release repository and its online.key, and targets.key if rounds are published from here:
                       `hushrec release init`
    masters            what new models are made from; as private as the model

Neither the plan key nor an authority's key is ever made or looked for here: whoever has them and this server could
make up devices.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hushrec.file_lock import file_lock
from hushrec.messages import SignedDocument, read_json
from hushrec_privacy.envelope import EnvelopeKey, KeySet, keys_in_force, verified_key_set
from hushrec_privacy.envelope.key_set import KEY_SET_DOMAIN
from hushrec_privacy.errors import ConfigError, EnvelopeError, FleetError
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.signatures import check_signature

__all__ = [
    "KEYS_FILE",
    "EnvelopeKeys",
    "ServerKeys",
    "check_signed",
    "new_envelope_key",
    "prepare_folder",
    "read_public_key",
    "read_signed",
    "read_text",
    "say_if_open",
    "seal_key",
]

KEYS_FILE, SEAL_KEY, ADMIN_TOKEN = "keys.json", "seal.key", "admin.token"
_LOCK, _LOCK_WAIT_S = ".lock", 30.0
_ENVELOPE = re.compile(r"envelope-([1-9][0-9]{0,5})\.(key|pub)")
_MAX_TEXT = 1 << 20


@dataclass(frozen=True)
class ServerKeys:
    """The secrets that a server needs before its database; `seal_key` gives the one that belongs to the database."""

    envelopes: tuple[EnvelopeKey, ...]
    admin_token: bytes


@dataclass(frozen=True)
class EnvelopeKeys:
    """The signed key set with the secret keys behind it.

    Attributes:
        document: As devices get it: bytes and signature.
        key_set: What it says.
        keys: All envelope keys of this server.
    """

    document: tuple[bytes, bytes]
    key_set: KeySet
    keys: tuple[EnvelopeKey, ...]

    @classmethod
    def read(
        cls, folder: Path, keys: tuple[EnvelopeKey, ...], plan_key: bytes, *, server: str, at_s: int
    ) -> "EnvelopeKeys":
        """Read and check what the shop signed.

        Raises:
            ConfigError: It is not signed by the plan key, of another server, over, or of other keys; says what to do.
        """
        path = folder / KEYS_FILE
        try:
            signed = read_signed(path)
            found = verified_key_set(signed.data, signed.signature, plan_key, server=server, least_serial=1, at_s=at_s)
        except EnvelopeError as error:
            raise ConfigError(f"{path}: {error.message}. Sign the keys anew: hushrec envelope sign") from error
        envelopes = cls((signed.data, signed.signature), found, keys)
        envelopes.check(at_s)
        return envelopes

    def in_force(self, at_s: int) -> tuple[EnvelopeKey, ...]:
        """The keys to open with at a moment."""
        return tuple(keys_in_force(self.key_set, self.keys, at_s=at_s))

    def expires_at(self) -> int:
        """When the last of them is over, seconds since 1970-01-01 UTC."""
        return max(each.not_after for each in self.key_set.keys)

    def check(self, at_s: int) -> None:
        """For /readyz and the start: devices seal to the newest key in force, which must be here.

        Raises:
            ConfigError: None is in force, or it is not here.
        """
        try:
            newest = self.key_set.newest(at_s)
        except EnvelopeError as error:
            raise ConfigError("the signed keys are over: hushrec envelope new, hushrec envelope sign") from error
        if newest not in [key.public() for key in self.keys]:
            raise ConfigError("devices seal to a key that is not in the data folder; put it there, or sign what is")


def prepare_folder(folder: Path, say: Callable[[str], None]) -> ServerKeys:
    """Make what is missing of administrator's token and envelope keys, and read them.

    Args:
        folder: Made if it is missing.
        say: Told of everything that is made, and if others may enter the folder.

    Raises:
        ConfigError: The folder cannot be made or written, or a file in it is not as it must be.
    """
    try:
        with suppress(FileExistsError):  # it is there, or another process was faster
            folder.mkdir(mode=0o700, parents=True)
            say(f"made {folder}, readable by its owner alone")
    except OSError as error:
        raise _unusable(folder, error) from error
    say_if_open(folder, say)
    with _alone(folder):
        return _keys(folder, say)


def say_if_open(folder: Path, say: Callable[[str], None]) -> None:
    """Warn of a folder that others may enter. Each secret in it has rights of its own, and is refused without them.

    Args:
        folder: Of a server or an authority; one that is missing is passed over.
        say: Told what to do.
    """
    if os.name == "posix" and folder.is_dir() and folder.stat().st_mode & 0o077:
        say(
            f"{folder}: others on this machine have rights in this folder: to read when and how much it changes, or to "
            f"replace what lies in it; take them away: chmod 700 {folder}"
        )


def seal_key(folder: Path, say: Callable[[str], None], check_new: Callable[[], object]) -> SealKey:
    """Read the key that seals the noise of earlier rounds; make it if it is missing.

    Args:
        folder: The data folder.
        say: Told if it is made.
        check_new: Called before it is made; raises if something was sealed with another one.

    Raises:
        ConfigError: It cannot be written or read, or is not as it must be.
    """
    path = folder / SEAL_KEY
    with _alone(folder):
        if not path.exists():
            check_new()
            SealKey.create(path)
            say(f"made {path}: keep it, and keep it out of backups of the database")
        return SealKey.read(path)


def new_envelope_key(folder: Path) -> Path:
    """Make the next envelope key of a data folder.

    Returns:
        The file of its public half, to be signed.

    Raises:
        ConfigError: It cannot be written.
        OSError: The same, for the public half.
    """
    number = max(_envelope_numbers(folder) + _envelope_numbers(folder, "pub"), default=0) + 1
    key = EnvelopeKey.create(folder / f"envelope-{number}.key")
    public = folder / f"envelope-{number}.pub"
    public.write_text(key.public().hex() + "\n", encoding="ascii")
    return public


def read_text(path: Path, name: str) -> str:
    """Read a short text file, without blanks around it.

    Args:
        path: The file.
        name: What it is, for messages.

    Raises:
        ConfigError: It cannot be read, or is no text.
    """
    try:
        with path.open("rb") as file:
            return file.read(_MAX_TEXT).decode().strip()
    except OSError as error:
        raise ConfigError(f"{path}: the {name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the {name} is no text") from error


def read_signed(path: Path) -> SignedDocument:
    """Read a keys.json; what is signed in it, and by whom, is not looked at.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    text = read_text(path, "file of signed envelope keys")
    try:
        return read_json(text.encode(), SignedDocument)
    except FleetError as error:
        what = "is no keys.json" if text else "is empty"
        raise ConfigError(f"{path}: {what}; it must be the file that hushrec envelope sign wrote") from error


def read_public_key(path: Path, name: str, size: int = 32) -> bytes:
    """Read a public key that is kept as hexadecimal digits.

    Raises:
        ConfigError: It cannot be read, or has another length.
    """
    text = read_text(path, name)
    if not re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", text):
        raise ConfigError(f"{path}: this is not the {name}, which is {2 * size} hexadecimal digits")
    return bytes.fromhex(text)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes that start at the same moment out."""
    try:
        with file_lock(folder / _LOCK, _LOCK_WAIT_S) as alone:
            if not alone:
                raise ConfigError(f"{folder}: another process has been preparing it for {_LOCK_WAIT_S:.0f} s")
            yield
    except OSError as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{folder}: cannot be used as data folder: {error.strerror}")


def _keys(folder: Path, say: Callable[[str], None]) -> ServerKeys:
    token = folder / ADMIN_TOKEN
    if not token.exists():
        _create_token(token)
        say(f"made {token}: for whoever administers this server")
    if not _envelope_numbers(folder):
        _refuse_lost_key(folder)
        say(f"made an envelope key; its public half is {new_envelope_key(folder)}")
    envelopes = tuple(EnvelopeKey.read(folder / f"envelope-{n}.key") for n in _envelope_numbers(folder))
    return ServerKeys(envelopes, _read_token(token))


def _create_token(path: Path) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")


def _read_token(path: Path) -> bytes:
    token = read_text(path, "administrator's token").encode()
    if len(token) < 32:
        raise ConfigError(f"{path}: this token has less than 32 characters; delete the file to get a new one")
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: others may read the administrator's token: chmod 600 {path}")
    return token


def _envelope_numbers(folder: Path, half: str = "key") -> list[int]:
    found = (_ENVELOPE.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in found if match and match[2] == half)


def _refuse_lost_key(folder: Path) -> None:
    """A key that was signed has been here; another one in its place would open nothing that devices seal to it."""
    if (folder / KEYS_FILE).exists():
        path = folder / f"envelope-{max(_envelope_numbers(folder, 'pub'), default=1)}.key"
        raise ConfigError(
            f"{path}: is missing, and {KEYS_FILE} tells devices to seal to it. Put it back; if it is lost, make "
            f"another: hushrec envelope new {folder}, then hushrec envelope sign, and start again"
        )


def check_signed(folder: Path, plan_key: Path, server: str) -> None:
    """Say what to do if the files that come from elsewhere are missing, or do not fit each other or the server.

    Args:
        folder: The data folder.
        plan_key: Where the public half of the plan key should be.
        server: Its name.

    Raises:
        ConfigError: One is missing or no such file, they are of two plan keys, or of a server of another name.
    """
    missing = [path for path in (plan_key, folder / KEYS_FILE) if not path.exists()]
    if missing:
        newest = f"envelope-{max(_envelope_numbers(folder), default=1)}.pub"
        raise ConfigError(
            f"{missing[0]}: is missing. Take {folder / newest} to where the shop's plan key is, run there: "
            f"hushrec envelope sign {newest} --key plan.key --server {server}, "
            f"put the keys.json and plan.pub that it writes into {folder}, and start again"
        )
    keys = folder / KEYS_FILE
    signed, public = read_signed(keys), read_public_key(plan_key, "plan key's public half")
    strangers = ConfigError(
        f"{keys} was not signed by the plan key whose public half is {plan_key}: one of the two files is the wrong "
        "one. Put in both that one run of hushrec envelope sign wrote"
    )
    check_signature(public, KEY_SET_DOMAIN, signed.data, signed.signature, refusal=strangers)
    try:
        found = KeySet.decode(signed.data).server
    except EnvelopeError as error:
        raise ConfigError(f"{keys}: {error.message}") from error
    if found != server:
        raise ConfigError(
            f"{keys}: holds the keys of another server, {found!r}, and the configuration's name is {server!r}. Correct "
            f"the name, or sign the keys for this one: hushrec envelope sign --server {server}"
        )
