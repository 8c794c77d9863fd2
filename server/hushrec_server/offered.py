"""What a release repository offers, read anew only when it has changed, and which round each model came of."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from hushrec.bundle import Bundle
from hushrec.manifest import MANIFEST_NAME, Manifest, decode_manifest
from hushrec.releases import Release, blob_target
from hushrec_privacy.errors import ReleaseError

from hushrec_server.releases import ReleaseRepository
from hushrec_server.releases.files import PUT_BACK, RepositoryFiles

__all__ = ["OfRound", "Offered"]


class OfRound(msgspec.Struct, frozen=True):
    """The round that a model came of, as its card tells.

    Attributes:
        plan: Id of the plan.
        number: Of the round.
        base: Model version that its devices trained from.
        ledger: Where the ledger stood once the round was spent, the text of an `Anchor`.
        compared: Whether it or one before it went out only after devices had compared it.
    """

    plan: str
    number: int
    base: int
    ledger: str
    compared: bool = False


class Offered:
    """Releases and candidate of one repository. Takes no lock; safe to use from several threads."""

    def __init__(self, repository: ReleaseRepository) -> None:
        self._repository, self._files = repository, RepositoryFiles(repository.folder)
        self._read: tuple[object, Sequence[Release], Release | None] = (None, (), None)

    def releases(self) -> Sequence[Release]:
        """All releases, the newest last.

        Raises:
            ReleaseError: The repository is damaged.
        """
        return self._now()[1]

    def candidate(self) -> Release | None:
        """What is staged, if something is.

        Raises:
            ReleaseError: The repository is damaged.
        """
        return self._now()[2]

    def round_of(self, release: Release) -> OfRound | None:
        """Which round a release came of; None: none, the shop made it.

        Raises:
            ReleaseError: The repository is damaged, or the card tells of a round in a way of its own.
        """
        told = self.manifest(release).card.get("round")
        if not isinstance(told, dict):
            return None
        try:
            return msgspec.convert(told, OfRound)
        except msgspec.ValidationError as error:
            raise ReleaseError(
                f"release {release.model_version}: its card tells of a round that is none ({error}); publish another"
            ) from error

    def manifest(self, release: Release) -> Manifest:
        """What the bundle of a release says of itself.

        Raises:
            ReleaseError: The repository is damaged.
        """
        sha256 = next(file.sha256 for file in release.files if file.name == MANIFEST_NAME)
        path = self._files.target_path(blob_target(sha256), sha256)
        try:
            manifest, found = decode_manifest(path.read_bytes(), str(path))
        except OSError as error:
            raise ReleaseError(f"{path}: cannot be read ({error.strerror}); {PUT_BACK}") from error
        if found != release.bundle:
            raise ReleaseError(f"{path}: is not the manifest of release {release.model_version}")
        return manifest

    def bundle(self, release: Release, out: Path) -> Bundle:
        """A release as a bundle, from the repository's blobs.

        Args:
            release: One that is there.
            out: Folder to make, on the repository's file system.

        Raises:
            BundleError: It cannot be used.
            ReleaseError: A blob is missing.
        """
        out.mkdir()
        for file in release.files:
            blob = self._files.target_path(blob_target(file.sha256), file.sha256)
            try:
                os.link(blob, out / file.name)
            except OSError as error:
                raise ReleaseError(f"{blob}: cannot be used ({error.strerror}); {PUT_BACK}") from error
        return Bundle.open(out, verify=True)

    def _now(self) -> tuple[object, Sequence[Release], Release | None]:
        try:
            found = (self._files.metadata / "timestamp.json").stat()
        except OSError as error:
            raise ReleaseError(f"{self._files.metadata}: cannot be read ({error.strerror})") from error
        stamp, known = (found.st_mtime_ns, found.st_ino, found.st_size), self._read
        if known[0] != stamp:
            self._read = known = (stamp, self._repository.list(), self._repository.candidate())
        return known
