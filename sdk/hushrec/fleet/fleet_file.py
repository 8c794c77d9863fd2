"""The file by which an app trusts a shop: whose plans, whose certificates, whose releases, and where to ask.

Canonical JSON that ships inside the app, so that whoever can change it could change the app. It is the only source of
trust: nothing is believed because a server said it first.
"""

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from hushrec_privacy import canonical
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.server_names import checked_server_name

from hushrec.addresses import checked_url

__all__ = ["MAX_FLEET_FILE_BYTES", "FleetFile"]

FORMAT = 1
KIND = "hushrec-fleet"
MAX_FLEET_FILE_BYTES = 1 << 18
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class FleetFile:
    """What an app knows of a shop before it asks anybody. Public, all of it.

    >>> trusted = FleetFile("shop-1", "ab" * 32, "https://login.shop.example", '{"signed":{}}')
    >>> FleetFile.decode(trusted.encode()) == trusted
    True

    Attributes:
        server: Name of the shop's aggregation server; every message is bound to it.
        plan_key: Public half of the key that signs plans and key sets, 64 hexadecimal digits. Plans name the key of
            the authority, so that no server can certify devices of its own making.
        authority: Address of the authority that gives certificates.
        root: The first root metadata of the release repository (TUF), its text.

    Raises:
        ConfigError: A field is not of its form.
    """

    server: str
    plan_key: str
    authority: str
    root: str

    def __post_init__(self) -> None:
        """Refuse what nobody could have meant."""
        for name, value in asdict(self).items():
            if not isinstance(value, str):
                raise ConfigError(f"the fleet file's {name} is no text")
        checked_server_name(self.server, what="the fleet file's server")
        if not _KEY.fullmatch(self.plan_key):
            raise ConfigError("the fleet file's plan_key must be 64 lower-case hexadecimal digits")
        checked_url(self.authority, name="the fleet file's authority")
        if '"signed"' not in self.root:
            raise ConfigError("the fleet file's root is no root metadata of a release repository")

    @property
    def plan_public(self) -> bytes:
        """`plan_key` as 32 bytes."""
        return bytes.fromhex(self.plan_key)

    def encode(self) -> bytes:
        """The file's one byte string.

        Raises:
            ConfigError: It would be too long.
        """
        data = canonical.encode({"format": FORMAT, "kind": KIND} | asdict(self))
        if len(data) > MAX_FLEET_FILE_BYTES:
            raise ConfigError(f"the fleet file has {len(data)} bytes; at most {MAX_FLEET_FILE_BYTES} are allowed")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the bytes of such a file.

        Raises:
            ConfigError: They are no fleet file, one of another format, too long, or not canonical.
        """
        if len(data) > MAX_FLEET_FILE_BYTES:
            raise ConfigError(f"the fleet file has {len(data)} bytes; at most {MAX_FLEET_FILE_BYTES} are allowed")
        value = canonical.decode(data, name="the fleet file")
        if not isinstance(value, dict) or value.pop("kind", None) != KIND:
            raise ConfigError("this is no fleet file of hushrec; make one with: hushrec fleet file")
        found = value.pop("format", None)
        if found != FORMAT or isinstance(found, bool):
            raise ConfigError(f"the fleet file has format {found!r}, this hushrec reads {FORMAT}; update hushrec")
        known = {f.name for f in fields(cls)}
        if set(value) != known:
            raise ConfigError(f"the fleet file's fields are not those of format {FORMAT}: {sorted(set(value) ^ known)}")
        return cls(**value)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Raises:
            ConfigError: It cannot be read, or is no fleet file.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FLEET_FILE_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{path}: the fleet file cannot be read: {error.strerror}") from error
        try:
            return cls.decode(data)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.message}") from error
