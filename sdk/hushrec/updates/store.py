"""What an updater keeps on disk: whole after a kill at any moment, and after a loss of power.

    state.json          which release is current, which was before, which did not work; which candidate is kept
    blobs/<sha256>      whole verified files, by content
    parts/<sha256>      files that are still being downloaded
    releases/<version>  bundles, their files hard links to blobs
    releases/<bundle>   a candidate, under the hash of its bundle: not out, and never in use from here
    metadata/           of `hushrec.updates.source`

A release directory is filled under another name and renamed; state.json is replaced. So a directory without a dot is
whole, and one that state.json says is in use has passed its self-test. Who writes holds the lock; reading needs none.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from hushrec_privacy import canonical
from hushrec_privacy.errors import BundleError, HushrecError, ReleaseError

from hushrec.bundle import Bundle
from hushrec.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, decode_manifest
from hushrec.releases import Release, ReleaseFile
from hushrec.staging import sync_directory

__all__ = ["State", "UpdateStore", "bundle_version"]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What state.json holds; model versions, 0: none.

    Attributes:
        current: In use.
        previous: Was in use before it.
        refused: The highest one that did not pass its self-test.
        tried: The one whose self-test began last.
        tries: How often it began without an outcome.
        candidate: Hash of the candidate's bundle that was seen last; "": none.
        trials: How often its self-test began without an outcome.
        verdict: Of that test: "works", "fails", or "" before it.
    """

    current: int = 0
    previous: int = 0
    refused: int = 0
    tried: int = 0
    tries: int = 0
    candidate: str = ""
    trials: int = 0
    verdict: str = ""


class UpdateStore:
    """The folder of one updater.

    Args:
        folder: Made if it does not exist.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata, self.releases = folder / "metadata", folder / "releases"
        self._blobs, self._parts, self._state = folder / "blobs", folder / "parts", folder / "state.json"
        self._verified: set[str] = set()
        for made in (self.metadata, self.releases, self._blobs, self._parts):
            made.mkdir(parents=True, exist_ok=True)

    def state(self) -> State:
        """What is in use; an unreadable file counts as none, for then what the app was shipped with is."""
        try:
            fields: Any = canonical.decode(self._state.read_bytes(), name="state.json")
            return msgspec.convert(fields, State)
        except (OSError, HushrecError, msgspec.ValidationError):
            return State()

    def set_state(self, state: State) -> None:
        """Replace the state, durably."""
        part = self._parts / f"state.{secrets.token_hex(6)}"
        _write(part, canonical.encode(msgspec.to_builtins(state)))
        part.replace(self._state)
        sync_directory(self.folder)

    def directory(self, name: int | str) -> Path:
        """Where the bundle of a release lies, by its version; that of a candidate by the hash of its bundle."""
        return self.releases / str(name)

    def missing(self, release: Release, *, verify: bool = False) -> list[ReleaseFile]:
        """The files of a release whose blobs are not here, each content once; damaged blobs are thrown away.

        Args:
            release: What is to be assembled.
            verify: Hash those again that were found right before by this object.
        """
        if verify:
            self._verified.clear()
        wanted = {file.sha256: file for file in release.files}
        return [file for file in wanted.values() if not self._has(file)]

    def adopt(self, bundle: Path, wanted: Iterable[ReleaseFile]) -> None:
        """Take over the blobs that another bundle on this machine has, such as the one the app was shipped with."""
        hashes = {file.sha256 for file in wanted}
        with contextlib.suppress(BundleError, OSError):
            opened = Bundle.open(bundle, verify=True)
            for name, info in opened.manifest.files.items():
                if info.sha256 in hashes and not (self._blobs / info.sha256).exists():
                    part = self._parts / info.sha256
                    shutil.copyfile(opened.root / name, part)
                    _sync(part)
                    part.replace(self._blobs / info.sha256)
            sync_directory(self._blobs)

    def part(self, file: ReleaseFile) -> Path:
        """Where a blob is collected."""
        return self._parts / file.sha256

    def keep(self, file: ReleaseFile) -> None:
        """Make a collected, verified and synced part a blob."""
        self.part(file).replace(self._blobs / file.sha256)
        self._verified.add(file.sha256)

    def assemble(self, release: Release, name: int | str) -> Path:
        """Put the bundle of a release together from its blobs, in its directory.

        Raises:
            ReleaseError: The blobs are not the bundle that the release names.
        """
        target = self.directory(name)
        fresh = self.releases / f".{name}.new"
        for old in (fresh, target):
            shutil.rmtree(old, ignore_errors=True)
        sync_directory(self._blobs)
        fresh.mkdir()
        for file in release.files:
            _link(self._blobs / file.sha256, fresh / file.name)
        sync_directory(fresh)
        try:
            found = Bundle.open(fresh, verify=True)
        except BundleError as error:
            raise ReleaseError(f"release {release.model_version} is no whole bundle; it is left out") from error
        if (found.sha256, found.manifest.model_version) != (release.bundle, release.model_version):
            raise ReleaseError(f"release {release.model_version} holds another bundle than it names; it is left out")
        fresh.rename(target)
        _write(self.releases / f"{name}.json", release.encode())
        sync_directory(self.releases)
        return target

    def release(self, name: int | str) -> Release | None:
        """What the repository said of a release or candidate that was assembled here."""
        try:
            return Release.decode((self.releases / f"{name}.json").read_bytes())
        except (OSError, HushrecError):
            return None

    def tidy(self, release: Release | None = None) -> None:
        """Remove all that state.json does not name, and the blobs and parts that neither that nor `release` needs.

        What cannot be removed, as an open file on Windows, is left for the next time.
        """
        state = self.state()
        candidate = "" if state.verdict == "fails" else state.candidate
        kept = {str(name) for name in (state.current, state.previous, candidate) if name}
        for path in self.releases.iterdir():
            if path.name.removesuffix(".json") not in kept:
                with contextlib.suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        known = [release, *map(self.release, kept)]
        needed = {file.sha256 for one in known if one is not None for file in one.files}
        for path in (*self._blobs.iterdir(), *self._parts.iterdir()):
            if path.name not in needed:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _has(self, file: ReleaseFile) -> bool:
        blob = self._blobs / file.sha256
        if not blob.exists():
            return False
        if file.sha256 not in self._verified:
            with blob.open("rb") as opened:
                whole = hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
            if not whole or blob.stat().st_size != file.size:
                blob.unlink()
                return False
            self._verified.add(file.sha256)
        return True


def bundle_version(bundle: Path) -> int:
    """Model version of a bundle, from its manifest alone; 0: there is no bundle."""
    try:
        with (bundle / MANIFEST_NAME).open("rb") as file:
            return decode_manifest(file.read(MAX_MANIFEST_BYTES + 1))[0].model_version
    except (OSError, BundleError):
        return 0


def _link(blob: Path, name: Path) -> None:
    try:
        os.link(blob, name)
    except OSError:  # a file system without hard links, or at their limit
        shutil.copyfile(blob, name)
        _sync(name)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
