"""Create, publish, roll back, refresh, rotate, prune: each one change that clients see whole or not at all.

A change writes new files beside the old ones and then replaces timestamp.json, the only file whose content ever
changes. Whoever is killed before that has changed nothing; what is left over is written again or tidied up by the next
writer. All writers hold one lock, so any number of processes may publish and refresh.

Beside the releases there may be one candidate: signed, there to be fetched, and not in use. It is staged over the
newest release, and gone with the next one, whichever that is.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from hushrec.bundle import Bundle, write_bundle
from hushrec.manifest import MANIFEST_NAME, decode_manifest
from hushrec.releases import CANDIDATE, NEWEST, Release, ReleaseFile, blob_target, release_target
from hushrec_privacy import checks
from hushrec_privacy.errors import ReleaseError
from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]  # exported there without saying so

from hushrec_server.releases.files import PUT_BACK, RepositoryFiles
from hushrec_server.releases.keys import ReleaseKeys
from hushrec_server.releases.roles import ROLES, Lifetimes, State, read_state
from hushrec_server.releases.writer import RoleWriter

__all__ = ["Refreshed", "ReleaseRepository"]

_Seen = TypeVar("_Seen")

WARNED_S = 14 * 24 * 3600
"""So long before an offline role expires, or a quarter of its life if that is shorter, `refresh` starts to complain."""


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did.

    Attributes:
        renewed: Roles that were signed again.
        expires_at: When each role expires now, in seconds since 1970-01-01 UTC.
    """

    renewed: tuple[str, ...]
    expires_at: dict[str, int]


class ReleaseRepository:
    """A release repository in a folder; safe to use from several processes and threads at once.

    Args:
        folder: Where `create` made it. What lies in its `metadata` and `targets` is for everyone to read.
        keys: Those that are at hand; each method says which it needs.
        clock: Seconds since 1970-01-01 UTC.
        lifetimes: How long what is signed from now on is valid.
    """

    def __init__(
        self, folder: Path, keys: ReleaseKeys, *, clock: Callable[[], float], lifetimes: Lifetimes | None = None
    ) -> None:
        self._files, self._keys = RepositoryFiles(folder), keys
        self._clock, self._lifetimes = clock, lifetimes or Lifetimes()
        self._writer = RoleWriter(self._files, clock, self._lifetimes)

    @classmethod
    def create(
        cls, folder: Path, keys: ReleaseKeys, *, clock: Callable[[], float], lifetimes: Lifetimes | None = None
    ) -> "ReleaseRepository":
        """Make a repository without a release. Needs all three keys.

        Args:
            folder: Must not exist, or be empty.
            keys: As for the class, and so the other two.

        Raises:
            ReleaseError: The folder is not free, cannot be written, or a key is missing.
        """
        repository = cls(folder, keys, clock=clock, lifetimes=lifetimes)
        for need in (keys.need_root, keys.need_targets, keys.need_online):  # before anything is written
            need()
        with _written(folder):
            repository._files.create()
            with repository._files.alone():
                repository._writer.first(keys)
        return repository

    @staticmethod
    def check_place(folder: Path, *key_folders: Path) -> None:
        """Refuse what `create` would refuse, so that no keys are made for a repository that cannot be.

        Args:
            folder: Where the repository is to be. Folders above it are made.
            key_folders: Where its keys are to be.

        Raises:
            ReleaseError: The folder is not free, cannot be written, or keys would lie in it.
        """
        files = RepositoryFiles(folder)
        for keys in key_folders:
            if keys.resolve().is_relative_to(files.folder):
                raise ReleaseError(f"{keys}: lies in the repository, which is copied and served; keys belong elsewhere")
        with _written(folder):
            files.try_out()

    @property
    def folder(self) -> Path:
        """Absolute path; serve its `metadata` and `targets`, nothing else."""
        return self._files.folder

    def root_bytes(self) -> bytes:
        """The newest root metadata: what an app ships, so that its devices know whom to believe.

        Raises:
            ReleaseError: The repository is damaged.
        """
        return read_state(self._files).root.to_bytes()

    def list(self) -> tuple[Release, ...]:
        """The releases that are kept, oldest first; the last one is what devices get.

        Raises:
            ReleaseError: The repository is damaged.
        """
        return self._seen(self._releases)

    def candidate(self) -> Release | None:
        """What devices compare with the newest release before it may go out; None: there is nothing to compare.

        Raises:
            ReleaseError: The repository is damaged.
        """
        return self._seen(self._candidate)

    def expires_at(self) -> dict[str, int]:
        """When each role expires, in seconds since 1970-01-01 UTC; signs nothing.

        Raises:
            ReleaseError: The repository is damaged.
        """
        return self._seen(State.expires_at)

    def publish(self, bundle: Path, *, ledger_head: str | None, demo: bool) -> Release:
        """Make a bundle what devices get. Needs the targets key and the online key.

        Guarantee:
            At every moment clients see the release before or the new one. When it returns, the new one survives the
            loss of power. Publishing the newest bundle once more, as after a crash, changes nothing.

        Args:
            bundle: Its directory, verified first and copied. Its model version must be above the newest release's.
            ledger_head: Text of the `Anchor` that the shop's privacy ledger stands at; None: there is no ledger.
            demo: Whether it was made under limits that protect nobody; devices refuse it then.

        Raises:
            BundleError: The bundle is damaged.
            ReleaseError: Its model version does not rise, a key is missing or not the one that root names, or the disk
                refused.
        """
        opened = Bundle.open(bundle, verify=True)
        release = _described(opened, ledger_head, demo)
        with self._writing():
            return self._publish(opened.root, release)

    def stage(self, bundle: Path, *, ledger_head: str | None, demo: bool) -> Release:
        """Make a bundle the candidate: devices can fetch it, and none uses it. Needs targets and online key.

        Guarantee:
            As for `publish`. Staging the same bundle once more, as after a crash, changes nothing.

        Args:
            bundle: As for `publish`.
            ledger_head: As for `publish`; `accept` replaces it.
            demo: As for `publish`.

        Raises:
            BundleError: The bundle is damaged.
            ReleaseError: There is another candidate, or no release to compare it with; or as for `publish`.
        """
        opened = Bundle.open(bundle, verify=True)
        release = _described(opened, ledger_head, demo)
        with self._writing():
            state = read_state(self._files)
            releases, candidate = self._releases(state), self._candidate(state)
            if candidate is not None and (candidate.bundle, candidate.demo) == (release.bundle, release.demo):
                return candidate
            if candidate is not None:
                raise ReleaseError(
                    f"{self.folder}: there is a candidate already, model version {candidate.model_version}; accept or "
                    "withdraw it first"
                )
            if not releases:
                raise ReleaseError(f"{self.folder}: there is no release to compare a candidate with; publish one first")
            self._take_in(opened.root, release, releases)
            self._commit(state, releases, release)
            return release

    def accept(self, bundle: str, *, ledger_head: str | None) -> Release:
        """Make the candidate the newest release; nothing is copied. Needs the targets key and the online key.

        Guarantee:
            As for `publish`. Accepting the newest release once more changes nothing.

        Args:
            bundle: Hash that names the candidate's bundle.
            ledger_head: As for `publish`, after the round in which devices compared it.

        Raises:
            ReleaseError: It is not the candidate, or as for `publish`.
        """
        with self._writing():
            state = read_state(self._files)
            releases, candidate = self._releases(state), self._candidate(state)
            if releases and releases[-1].bundle == bundle:
                return releases[-1]
            if candidate is None or candidate.bundle != bundle:
                raise ReleaseError(f"{self.folder}: bundle {bundle[:16]} is not the candidate; stage it first")
            release = msgspec.structs.replace(candidate, ledger_head=ledger_head or "")
            self._commit(state, (*releases, release))
            return release

    def withdraw(self) -> None:
        """Let there be no candidate; again is nothing. Its blobs stay until `prune`. Needs targets and online key.

        Raises:
            ReleaseError: As for `publish`.
        """
        with self._writing():
            state = read_state(self._files)
            if self._candidate(state) is not None:
                self._commit(state, self._releases(state))

    def rollback(self, to_version: int) -> Release:
        """Publish the content of an earlier release under a version above the newest, which is how devices take it.

        The ledger does not roll back: the new release carries the newest head, and DEMO if the old content was one.

        Args:
            to_version: Model version of a release that `list` names.

        Raises:
            ReleaseError: There is no such release or it is the newest, or as for `publish`.
        """
        with self._writing():
            releases = self._releases(read_state(self._files))
            old = _earlier(releases, to_version)
            part = self._files.part()
            try:
                bundle = self._restored(old, releases[-1].model_version + 1, part / "shop.hush")
                return self._publish(bundle.root, _described(bundle, releases[-1].ledger_head, old.demo))
            finally:
                shutil.rmtree(part, ignore_errors=True)

    def refresh(self) -> Refreshed:
        """Sign timestamp and snapshot again once half of their life is over; targets too, if its key is at hand.

        Safe to call at any time, from any number of processes: most calls write nothing. Needs the online key.

        Raises:
            ReleaseError: After what could be renewed was renewed: root or targets has expired or will soon, or a key
                at hand is not the one that root names, also if nothing was to be signed with it. Or the repository is
                damaged, or the disk refused.
        """
        with self._writing():
            state, now = read_state(self._files), int(self._clock())
            roles = self._due(state, now)
            if roles:
                self._writer.resign(state, roles, self._keys)
                state = read_state(self._files)
        self._writer.check_keys(state.root.signed, self._keys)
        self._check_offline_roles(state, now)
        return Refreshed(roles, state.expires_at())

    def rotate_root(self, new_keys: ReleaseKeys | None = None) -> Refreshed:
        """Sign a new root: the same keys for another term, or other ones from now on. Needs the root key.

        Devices follow from the root that they were shipped with, through every one since. What is signed with the old
        keys after that is refused, so every server needs the new online key.

        Args:
            new_keys: All three that count from now on; None: those that count now, all three of which are needed then.
                Where the old targets or online key is lost, devices refuse what they see for a moment.

        Raises:
            ReleaseError: A key is missing or the old root key is not the one that root names; or the disk refused.
        """
        new = new_keys or self._keys
        with self._writing():
            self._writer.rotate(read_state(self._files), self._keys, new)
            self._keys = new
            return Refreshed(("root", *ROLES), read_state(self._files).expires_at())

    def prune(self, keep: int) -> int:
        """Forget all but the newest releases, and remove the blobs that only they used. Needs targets and online key.

        Args:
            keep: Releases that stay, at least 1; the others cannot be rolled back to any more.

        Returns:
            Bytes that became free.

        Raises:
            ConfigError: `keep` is below 1.
            ReleaseError: As for `publish`.
        """
        checks.at_least(1, keep=keep)
        with self._writing():
            state = read_state(self._files)
            releases = self._releases(state)
            if len(releases) > keep:
                self._commit(state, releases[-keep:], self._candidate(state))
                state = read_state(self._files)
            named = state.targets.signed.targets.values()
            return self._files.drop_targets_except(
                {self._files.target_path(target.path, target.hashes["sha256"]) for target in named}
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep every other writer out."""
        with _written(self.folder), self._files.alone():
            yield

    def _seen(self, read: Callable[[State], _Seen]) -> _Seen:
        """Read something without the lock."""
        try:
            return read(read_state(self._files))
        except ReleaseError:  # or another process signed or pruned between the two
            return read(read_state(self._files))

    def _publish(self, root: Path, release: Release) -> Release:
        state = read_state(self._files)
        releases = self._releases(state)
        if releases and (releases[-1].bundle, releases[-1].demo) == (release.bundle, release.demo):
            return releases[-1]
        self._take_in(root, release, releases)
        self._commit(state, (*releases, release))
        return release

    def _take_in(self, root: Path, release: Release, before: tuple[Release, ...]) -> None:
        """Check that a bundle may come after these releases, and copy what is new of it."""
        if before and release.model_version <= before[-1].model_version:
            raise ReleaseError(
                f"model version {release.model_version} does not rise: release {before[-1].model_version} is out; "
                "devices would refuse it. Give the bundle a higher one"
            )
        for file in release.files:
            self._files.put_blob(blob_target(file.sha256), file.sha256, root / file.name)

    def _commit(self, state: State, releases: tuple[Release, ...], candidate: Release | None = None) -> None:
        """Make these releases all that there is, the last of them the newest, and this the candidate."""
        targets: dict[str, TargetFile] = {}
        named = [(release, [release_target(release.model_version), NEWEST]) for release in releases]
        named += [] if candidate is None else [(candidate, [CANDIDATE])]
        for release, names in named:
            for file in release.files:
                name = blob_target(file.sha256)
                targets[name] = TargetFile(file.size, {"sha256": file.sha256}, name)
            data = release.encode()
            for name in names:
                targets[name] = TargetFile.from_data(name, data, ["sha256"])
                if release is releases[-1] or release is candidate:
                    self._files.put_target(name, data)
        state.targets.signed.targets = targets
        self._writer.resign(state, ROLES, self._keys)

    def _releases(self, state: State) -> tuple[Release, ...]:
        targets = state.targets.signed.targets
        found = [self._read(target) for name, target in targets.items() if name.startswith("releases/")]
        return tuple(sorted(found, key=lambda release: release.model_version))

    def _candidate(self, state: State) -> Release | None:
        target = state.targets.signed.targets.get(CANDIDATE)
        return None if target is None else self._read(target)

    def _read(self, target: TargetFile) -> Release:
        path = self._files.target_path(target.path, target.hashes["sha256"])
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ReleaseError(f"{path}: cannot be read ({error.strerror}); {PUT_BACK}") from error
        try:
            target.verify_length_and_hashes(data)
        except LengthOrHashMismatchError as error:
            raise ReleaseError(f"{path}: is damaged; {PUT_BACK}") from error
        return Release.decode(data)

    def _restored(self, release: Release, model_version: int, out: Path) -> Bundle:
        """The bundle of a release, from its blobs, under another version."""
        paths = {file.name: self._files.target_path(blob_target(file.sha256), file.sha256) for file in release.files}
        where = paths.pop(MANIFEST_NAME)
        manifest, sha256 = decode_manifest(where.read_bytes(), str(where))
        if sha256 != release.bundle:
            raise ReleaseError(f"{where}: is not the manifest of release {release.model_version}")
        renumbered = msgspec.structs.replace(manifest, model_version=model_version)
        restored = write_bundle(out, renumbered, paths, {name: info.origin for name, info in manifest.files.items()})
        if restored.manifest.files != manifest.files:
            named = sorted(name for name, info in manifest.files.items() if restored.manifest.files[name] != info)
            raise ReleaseError(f"{paths[named[0]]}: is damaged; {PUT_BACK}")
        return restored

    def _due(self, state: State, now: int) -> tuple[str, ...]:
        """Roles to sign again, each with those that vouch for it."""
        half_over = {
            role: at - now <= self._lifetimes.of(role) // 2 for role, at in state.expires_at().items() if role != "root"
        }
        order = ROLES if self._keys.targets else ROLES[1:]
        first = next((number for number, role in enumerate(order) if half_over[role]), len(order))
        return order[first:]

    def _check_offline_roles(self, state: State, now: int) -> None:
        advice = {
            "root": "sign a new root: hushrec release rotate, with root.key and the other two",
            "targets": "hushrec release refresh, or publish, with targets.key",
        }
        for role, what in advice.items():
            left = state.expires_at()[role] - now
            if left <= min(WARNED_S, self._lifetimes.of(role) // 4):
                when = f"expires in {left / 3600:.0f} hours" if left > 0 else "has expired: devices take nothing new"
                raise ReleaseError(f"{self.folder}: the {role} metadata {when}; {what}")


def _earlier(releases: tuple[Release, ...], version: int) -> Release:
    """The release to go back to."""
    for release in releases[:-1]:
        if release.model_version == version:
            return release
    if len(releases) < 2:
        there = f"only one release, {releases[0].model_version}" if releases else "no release"
        raise ReleaseError(f"release {version} cannot be rolled back to: there is {there}; nothing to go back to")
    what = "it is what devices get now" if version == releases[-1].model_version else "there is none"
    kept = ", ".join(str(release.model_version) for release in releases[:-1])
    raise ReleaseError(f"release {version} cannot be rolled back to: {what}; these can: {kept}")


def _described(bundle: Bundle, ledger_head: str | None, demo: bool) -> Release:
    """What a repository says of a bundle; refused before anything is written."""
    from hashlib import sha256

    manifest = (bundle.root / MANIFEST_NAME).read_bytes()
    files = [ReleaseFile(name, info.sha256, info.size) for name, info in bundle.manifest.files.items()]
    files.append(ReleaseFile(MANIFEST_NAME, sha256(manifest).hexdigest(), len(manifest)))
    release = Release(
        model_version=bundle.manifest.model_version,
        bundle=bundle.sha256,
        files=tuple(sorted(files, key=lambda file: file.name)),
        demo=demo,
        ledger_head=ledger_head or "",
    )
    release.encode()
    return release


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ReleaseError(
            f"{folder}: cannot be read or written ({reason}); what devices see is whole: try again"
        ) from error
