"""The secret keys of a release repository: Ed25519 (RFC 8032), one file each, readable by its owner alone.

Three keys for the four roles of TUF. The root key says which other keys count, and belongs in a safe. The targets key
says what is a release; whoever publishes needs it. The online key signs snapshot and timestamp, which only say that
the targets are the newest; a server needs it to refresh them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hushrec_privacy import canonical
from hushrec_privacy.errors import ConfigError, ReleaseError
from hushrec_privacy.key_files import create_key, read_key
from tuf.api.metadata import Key, Signature  # type: ignore[attr-defined]  # exported there without saying so

__all__ = ["ONLINE_KEY", "ROOT_KEY", "TARGETS_KEY", "ReleaseKey", "ReleaseKeys"]

ROOT_KEY, TARGETS_KEY, ONLINE_KEY = "root.key", "targets.key", "online.key"


class ReleaseKey:
    """One secret key; it shows nothing of itself.

    Attributes:
        public: The public half as metadata names it; its keyid is the sha256 of its canonical JSON (TUF 1.0, 4.2).
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = Ed25519PrivateKey.from_private_bytes(secret)
        raw = self._secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        fields = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": raw.hex()}}
        self.public: Key = Key.from_dict(hashlib.sha256(canonical.encode(fields)).hexdigest(), fields)

    def sign(self, data: bytes) -> Signature:
        """Sign the canonical bytes of metadata."""
        return Signature(self.public.keyid, self._secret.sign(data).hex())

    def __repr__(self) -> str:
        """Nothing of the secret."""
        return f"ReleaseKey({self.public.keyid[:16]})"

    def __reduce__(self) -> NoReturn:
        """A secret is not copied by accident."""
        raise TypeError("a ReleaseKey cannot be copied or pickled")


@dataclass(frozen=True)
class ReleaseKeys:
    """The keys that are at hand; those of a role that is not used may be missing.

    Attributes:
        root: Needed to create a repository and to rotate its root.
        targets: Needed to publish, to roll back and to prune.
        online: Needed for all of these and to refresh.
    """

    root: ReleaseKey | None = None
    targets: ReleaseKey | None = None
    online: ReleaseKey | None = None

    @classmethod
    def create(cls, offline: Path, online: Path) -> "ReleaseKeys":
        """Make three new keys: root.key and targets.key in one folder, online.key in another.

        Args:
            offline: Folder that can be carried away; made if it does not exist.
            online: Folder that stays on the server; made if it does not exist.

        Raises:
            ConfigError: A key is there already, which is never overwritten, or one cannot be written; none is made.
            ReleaseError: Both are the same folder: the root key would stay on the server.
        """
        if offline.resolve() == online.resolve():
            raise ReleaseError(f"{offline}: the offline keys need a folder of their own, to be carried away")
        for folder in (offline, online):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        places = [(offline / ROOT_KEY, "root key"), (offline / TARGETS_KEY, "targets key")]
        places.append((online / ONLINE_KEY, "online key"))
        made: dict[Path, ReleaseKey] = {}
        try:
            for path, name in places:
                made[path] = ReleaseKey(create_key(path, name))
        except ConfigError:
            for path in made:  # no repository knows them yet, and they would be in the way of the next try
                path.unlink()
            raise
        return cls(*made.values())

    @classmethod
    def read(cls, *folders: Path) -> "ReleaseKeys":
        """Read whichever of the three keys lie in some folders.

        Raises:
            ConfigError: A key's file is not as it must be, such as readable by others.
            ReleaseError: There is none at all, or two of the folders have different ones of a name.
        """
        found: dict[str, bytes] = {}
        for folder in folders:
            for file in (ROOT_KEY, TARGETS_KEY, ONLINE_KEY):
                if (folder / file).exists():
                    key = read_key(folder / file, file.replace(".", " "))
                    if found.setdefault(file, key) != key:  # a copy of the same key is no question
                        raise ReleaseError(f"{folder / file}: another folder has another one; say which one is meant")
        if not found:
            named = ", ".join(map(str, folders))
            raise ReleaseError(f"{named}: no {ROOT_KEY}, {TARGETS_KEY} or {ONLINE_KEY} there; name the folder of keys")
        keys = {file: ReleaseKey(key) for file, key in found.items()}
        return cls(keys.get(ROOT_KEY), keys.get(TARGETS_KEY), keys.get(ONLINE_KEY))

    def need_root(self) -> ReleaseKey:
        """The root key.

        Raises:
            ReleaseError: It is not at hand.
        """
        return _present(self.root, ROOT_KEY)

    def need_targets(self) -> ReleaseKey:
        """The targets key.

        Raises:
            ReleaseError: It is not at hand.
        """
        return _present(self.targets, TARGETS_KEY)

    def need_online(self) -> ReleaseKey:
        """The online key.

        Raises:
            ReleaseError: It is not at hand.
        """
        return _present(self.online, ONLINE_KEY)


def _present(key: ReleaseKey | None, file: str) -> ReleaseKey:
    if key is None:
        raise ReleaseError(f"this needs {file}, which is in none of the folders of keys that were named")
    return key
