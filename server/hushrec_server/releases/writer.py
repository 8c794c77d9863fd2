"""Signing and writing the next versions of roles, in the order that keeps every client's view whole.

timestamp.json comes last and is the moment at which a change is seen. A new root comes after everything that it must
vouch for has been signed by its keys too.
"""

from collections.abc import Callable

from hushrec_privacy.errors import ReleaseError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # exported there without saying so
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from hushrec_server.releases.files import RepositoryFiles
from hushrec_server.releases.keys import ReleaseKey, ReleaseKeys
from hushrec_server.releases.roles import ROLES, Content, Lifetimes, State, named_keys, root_naming, signed_bytes

__all__ = ["RoleWriter"]

Signers = dict[str, tuple[ReleaseKey, ...]]


class RoleWriter:
    """Writes roles into the files of one repository; its caller holds the lock.

    Args:
        files: Of the repository.
        clock: Seconds since 1970-01-01 UTC.
        lifetimes: How long what is signed is valid.
    """

    def __init__(self, files: RepositoryFiles, clock: Callable[[], float], lifetimes: Lifetimes) -> None:
        self._files, self._clock, self._lifetimes = files, clock, lifetimes

    def first(self, keys: ReleaseKeys) -> None:
        """Write the first version of every role.

        Raises:
            ReleaseError: A key is missing.
        """
        signers: Signers = {role: (key,) for role, key in named_keys(keys).items()}
        root = root_naming(keys, version=1)
        self._put(root, "1.root.json", signers["root"])
        self._write(Targets(), Snapshot(), Timestamp(), signers)

    def check_keys(self, root: Root, keys: ReleaseKeys) -> None:
        """Check that those of the targets key and the online key that are at hand are the ones that root names.

        Raises:
            ReleaseError: One is another.
        """
        for role, key in (("targets", keys.targets), ("snapshot", keys.online), ("timestamp", keys.online)):
            if key is not None:
                self._check_named(root, role, key)

    def resign(self, state: State, roles: tuple[str, ...], keys: ReleaseKeys) -> None:
        """Write the next version of some roles, with the content that `state` has.

        Args:
            state: Read under the lock, and perhaps changed since.
            roles: Of targets, snapshot and timestamp; each with those that name it.
            keys: What to sign with.

        Raises:
            ReleaseError: A key is missing, or not the one that root names.
        """
        signers: Signers = {}
        for role in roles:
            signers[role] = (keys.need_targets() if role == "targets" else keys.need_online(),)
            self._check_named(state.root.signed, role, *signers[role])
        self._write_next(state, signers)

    def rotate(self, state: State, keys: ReleaseKeys, new: ReleaseKeys) -> None:
        """Write the next root, which names the keys of `new` alone.

        Every other role is signed by old and new keys first, and so holds before and after. Where an old key is lost,
        clients refuse what they see for the moment between the two.

        Raises:
            ReleaseError: The old root key or a new key is missing, or the old one is not the one that root names.
        """
        old_root, root = keys.need_root(), root_naming(new, version=state.root.signed.version + 1)
        self._check_named(state.root.signed, "root", old_root)
        old = {"targets": keys.targets, "snapshot": keys.online, "timestamp": keys.online}
        self._write_next(
            state, {role: tuple(key for key in (old[role], named_keys(new)[role]) if key) for role in ROLES}
        )
        self._put(root, f"{root.version}.root.json", (old_root, new.need_root()))
        self._files.sync()

    def _write_next(self, state: State, signers: Signers) -> None:
        targets, snapshot, timestamp = state.targets.signed, state.snapshot.signed, state.timestamp.signed
        for role, content in (("targets", targets), ("snapshot", snapshot), ("timestamp", timestamp)):
            content.version += role in signers
        self._write(targets, snapshot, timestamp, signers)

    def _write(self, targets: Targets, snapshot: Snapshot, timestamp: Timestamp, signers: Signers) -> None:
        if "targets" in signers:
            data = self._put(targets, f"{targets.version}.targets.json", signers["targets"])
            snapshot.meta["targets.json"] = MetaFile.from_data(targets.version, data, ["sha256"])
        if "snapshot" in signers:
            data = self._put(snapshot, f"{snapshot.version}.snapshot.json", signers["snapshot"])
            timestamp.snapshot_meta = MetaFile.from_data(snapshot.version, data, ["sha256"])
        self._files.sync()
        self._put(timestamp, "timestamp.json", signers["timestamp"])
        self._files.sync()
        self._files.drop_old_metadata()

    def _put(self, content: Content, name: str, signers: tuple[ReleaseKey, ...]) -> bytes:
        data = signed_bytes(content, signers, int(self._clock()), self._lifetimes.of(content.type))
        self._files.put_metadata(name, data)
        return data

    def _check_named(self, root: Root, role: str, key: ReleaseKey) -> None:
        if key.public.keyid not in root.roles[role].keyids:
            raise ReleaseError(
                f"{self._files.folder}: the key for {role} is not the one that root names; read the newest keys"
            )
