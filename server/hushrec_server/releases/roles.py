"""The four roles of TUF: how long their metadata is valid, reading it back verified, and signing the next version.

Names, fields and rules are those of the TUF specification 1.0 (sections 4.3 to 4.6); python-tuf encodes and verifies.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from hushrec_privacy import checks
from hushrec_privacy.errors import ReleaseError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # exported there without saying so
    Metadata,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from hushrec_server.releases.files import PUT_BACK, RepositoryFiles
from hushrec_server.releases.keys import ReleaseKey, ReleaseKeys

__all__ = ["ROLES", "Content", "Lifetimes", "State", "named_keys", "read_state", "root_naming", "signed_bytes"]

Content = TypeVar("Content", Root, Targets, Snapshot, Timestamp)
ROLES = ("targets", "snapshot", "timestamp")
"""All but root, each named by the next."""

_DAY_S = 24 * 3600


@dataclass(frozen=True)
class Lifetimes:
    """For how many seconds metadata is valid from when it was signed.

    Attributes:
        root_s: Someone with the root key must sign within it.
        targets_s: Someone with the targets key must publish or refresh within it.
        snapshot_s: Renewed when half of it is over.
        timestamp_s: Renewed when half of it is over. For so long can a server keep a newer release from a device.

    Raises:
        ConfigError: One is no whole number of at least 1, or an offline role's is shorter than an online one's.
    """

    root_s: int = 365 * _DAY_S
    targets_s: int = 90 * _DAY_S
    snapshot_s: int = 7 * _DAY_S
    timestamp_s: int = _DAY_S

    def __post_init__(self) -> None:
        checks.at_least(1, timestamp_s=self.timestamp_s)
        checks.at_least(self.timestamp_s, snapshot_s=self.snapshot_s, targets_s=self.targets_s, root_s=self.root_s)

    def of(self, role: str) -> int:
        """Seconds of a role.

        >>> Lifetimes().of("timestamp")
        86400
        """
        return {
            "root": self.root_s,
            "targets": self.targets_s,
            "snapshot": self.snapshot_s,
            "timestamp": self.timestamp_s,
        }[role]


@dataclass(frozen=True)
class State:
    """What clients see at this moment: the newest root, and what timestamp.json leads to."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]

    def expires_at(self) -> dict[str, int]:
        """When each role expires, in seconds since 1970-01-01 UTC."""
        signed: dict[str, Signed] = {
            "root": self.root.signed,
            "targets": self.targets.signed,
            "snapshot": self.snapshot.signed,
            "timestamp": self.timestamp.signed,
        }
        return {role: int(content.expires.timestamp()) for role, content in signed.items()}


def named_keys(keys: ReleaseKeys) -> dict[str, ReleaseKey]:
    """Which key signs which role.

    Raises:
        ReleaseError: One is missing.
    """
    online = keys.need_online()
    return {"root": keys.need_root(), "targets": keys.need_targets(), "snapshot": online, "timestamp": online}


def root_naming(keys: ReleaseKeys, version: int) -> Root:
    """A root that names these keys alone; not yet signed.

    Raises:
        ReleaseError: One is missing.
    """
    root = Root(version=version, consistent_snapshot=True)
    for role, key in named_keys(keys).items():
        root.add_key(key.public, role)
    return root


def signed_bytes(content: Content, signers: Iterable[ReleaseKey], now: int, life_s: int) -> bytes:
    """Set when it expires, sign with every key, and encode.

    Args:
        content: Of one role; changed.
        signers: Keys; all their signatures go in.
        now: Seconds since 1970-01-01 UTC.
        life_s: Seconds from now on that it is valid.
    """
    content.expires = datetime.fromtimestamp(now, UTC) + timedelta(seconds=life_s)
    metadata = Metadata(content)
    for key in signers:
        signature = key.sign(metadata.signed_bytes)
        metadata.signatures[signature.keyid] = signature
    return metadata.to_bytes(JSONSerializer(compact=True))


def read_state(files: RepositoryFiles) -> State:
    """Read what clients see, and verify every signature and hash in it; what has expired passes.

    Raises:
        ReleaseError: It is no repository; or a file is missing, damaged, or not signed by the key that root names.
    """
    files.check_there()
    path = files.metadata

    def read(name: str) -> bytes:
        nonlocal path
        path = files.metadata / name
        return path.read_bytes()

    try:
        root = Metadata[Root].from_bytes(read(f"{files.versions('root')[-1]}.root.json"))
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
        timestamp = Metadata[Timestamp].from_bytes(read("timestamp.json"))
        root.signed.verify_delegate("timestamp", timestamp.signed_bytes, timestamp.signatures)
        meta = timestamp.signed.snapshot_meta
        data = read(f"{meta.version}.snapshot.json")
        meta.verify_length_and_hashes(data)
        snapshot = Metadata[Snapshot].from_bytes(data)
        root.signed.verify_delegate("snapshot", snapshot.signed_bytes, snapshot.signatures)
        meta = snapshot.signed.meta["targets.json"]
        data = read(f"{meta.version}.targets.json")
        meta.verify_length_and_hashes(data)
        targets = Metadata[Targets].from_bytes(data)
        root.signed.verify_delegate("targets", targets.signed_bytes, targets.signatures)
    except (RepositoryError, DeserializationError, OSError, LookupError, ValueError) as error:
        advice = PUT_BACK if path != files.metadata else "name a release repository; hushrec release init makes one"
        raise ReleaseError(f"{path}: is missing or damaged ({error}); {advice}") from error
    return State(root, targets, snapshot, timestamp)
