"""The files of a release repository: each appears whole or not at all, and is on the disk before anything names it.

    metadata/   1.root.json, N.targets.json, N.snapshot.json, timestamp.json
    targets/    blobs/<sha256>.<sha256>, releases/<sha256>.<version>.json, <sha256>.release.json
    parts/      what is being written; emptied by the next writer

The hash before a target's name is TUF's consistent snapshot: no file but timestamp.json ever changes its content, so a
client never meets half of a change.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from hushrec.file_lock import file_lock
from hushrec.staging import sync_directory
from hushrec_privacy.errors import ReleaseError

__all__ = ["PUT_BACK", "RepositoryFiles"]

PUT_BACK = (
    "put this file back from a copy, and no older copy of the folder: docs/releases.md, When the folder is damaged"
)
"""What to do about a file that is missing or damaged."""

KEPT_METADATA = 10
"""Older targets and snapshot files that stay for clients in the middle of a check."""

CHUNK_BYTES = 1 << 20
LOCK_WAIT_S = 60.0
_VERSIONED = re.compile(r"([1-9][0-9]*)\.(root|targets|snapshot)\.json")


class RepositoryFiles:
    """The folder of one repository.

    Attributes:
        folder: Absolute path.
        metadata: What clients see below /metadata/.
        targets: What clients see below /targets/.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))
        self.metadata, self.targets = self.folder / "metadata", self.folder / "targets"
        self._parts = self.folder / "parts"

    def create(self) -> None:
        """Make the folders.

        Raises:
            ReleaseError: There is a repository already, or something else.
        """
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ReleaseError(f"{self.folder}: is there already and not empty; a repository needs a new folder")
        for folder in self._folders():
            folder.mkdir(parents=True)

    def try_out(self) -> None:
        """Make the folders and take them away again, so that what `create` would refuse is known beforehand.

        Raises:
            ReleaseError: As for `create`.
        """
        self.create()
        for folder in (*self._folders(), self.targets):
            folder.rmdir()

    def check_there(self) -> None:
        """Tell a folder that is no repository from a repository that is damaged.

        Raises:
            ReleaseError: There is nothing of a repository.
        """
        if not any(folder.is_dir() for folder in (self.metadata, self.targets, self._parts)):
            what = "is no release repository" if self.folder.exists() else "does not exist"
            raise ReleaseError(
                f"{self.folder}: {what}; name the folder of the repository, or make one with: hushrec release init"
            )

    def _folders(self) -> tuple[Path, ...]:
        return self.metadata, self.targets / "blobs", self.targets / "releases", self._parts

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other writer out, in this process or another, and remove what a killed one left half-written.

        Raises:
            ReleaseError: It is no repository, or another writer has not ended within a minute.
        """
        self.check_there()
        with file_lock(self.folder / "writer.lock", LOCK_WAIT_S) as held:
            if not held:
                raise ReleaseError(f"{self.folder}: another process is writing for {LOCK_WAIT_S:.0f} s; try again")
            self._parts.mkdir(exist_ok=True)  # a copy may have left out what is empty
            for left in self._parts.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield

    def part(self) -> Path:
        """A free name on the same disk, for something to be moved into place; tidied up by the next writer."""
        return self._parts / secrets.token_hex(8)

    def versions(self, role: str) -> list[int]:
        """Versions of a role's metadata that are there, rising."""
        found = (_VERSIONED.fullmatch(path.name) for path in self.metadata.iterdir())
        return sorted(int(match[1]) for match in found if match and match[2] == role)

    def put_metadata(self, name: str, data: bytes) -> None:
        """Write one file of metadata, replacing one of the same name."""
        self._put(self.metadata / name, data)

    def put_target(self, name: str, data: bytes) -> None:
        """Write a small target under its hashed name."""
        self._put(self.target_path(name, hashlib.sha256(data).hexdigest()), data)

    def put_blob(self, name: str, sha256: str, source: Path) -> None:
        """Copy a file in as a target, once by content.

        Raises:
            ReleaseError: Its content has another hash: it changed since it was verified.
        """
        target = self.target_path(name, sha256)
        if target.exists():  # whole: files are renamed into place
            return
        part, digest = self.part(), hashlib.sha256()
        with source.open("rb") as read, part.open("xb") as file:
            while chunk := read.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise ReleaseError(f"{source}: changed while it was being published; make the bundle again")
        part.replace(target)

    def sync(self) -> None:
        """Make all renames so far durable."""
        for folder in (self.targets / "blobs", self.targets / "releases", self.targets, self.metadata):
            sync_directory(folder)

    def target_path(self, name: str, sha256: str) -> Path:
        """Where the target of this name and content lies.

        >>> RepositoryFiles(Path("x")).target_path("releases/7.json", "ab" * 32).name[-8:]
        'b.7.json'
        """
        head, slash, last = name.rpartition("/")
        return self.targets / f"{head}{slash}{sha256}.{last}"

    def drop_old_metadata(self) -> None:
        """Remove targets and snapshot files that no client can still be asking for. Roots stay for good."""
        for role in ("targets", "snapshot"):
            for version in self.versions(role)[:-KEPT_METADATA]:
                (self.metadata / f"{version}.{role}.json").unlink(missing_ok=True)

    def drop_targets_except(self, kept: set[Path]) -> int:
        """Remove every target file but these.

        Returns:
            Bytes that became free.
        """
        freed = 0
        for path in self.targets.rglob("*"):
            if path.is_file() and path not in kept:
                freed += path.stat().st_size
                path.unlink()
        return freed

    def _put(self, target: Path, data: bytes) -> None:
        part = self.part()
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
