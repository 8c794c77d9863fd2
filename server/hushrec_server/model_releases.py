"""From a round's noised sum to the release that devices get next: mean, server optimizer, master, guard, repository.

What is published names its round and where the ledger stood, in the model card and in the signed release: that is how a
round is recognised that was published already, and how a database that was set back is found out. Master and optimizer
are kept beside the repository under the content that they belong to, so that after a roll-back the right ones are gone
on with. A round whose devices started from a release that is not the newest any more is refused.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hushrec.bundle import Bundle
from hushrec.federated.content import Content
from hushrec.federated.fedadam import AdamSettings, FedAdam
from hushrec.federated.layout import ParameterLayout
from hushrec.federated.master import Master
from hushrec.federated.release import CHANGED_FILES, write_release
from hushrec.manifest import MANIFEST_NAME, Manifest, decode_manifest, unguaranteed
from hushrec.releases import Release, blob_target
from hushrec_privacy.accounting.guarantee import rounded_up
from hushrec_privacy.encoding.sums import decode_sum
from hushrec_privacy.errors import ReleaseError
from hushrec_privacy.ledger import Anchor
from hushrec_privacy.ledger.openings import guarantee_after, plan_opening
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.schema import UPDATE

from hushrec_server.publishing import Newest, RoundResult, StoredResults, Verdict
from hushrec_server.releases import ReleaseRepository
from hushrec_server.releases.files import RepositoryFiles

__all__ = ["Guard", "ModelReleases"]

Guard = Callable[[Bundle, Bundle], str]
"""Old and new model to the reason why the new one must not go out; empty: it may."""

_ENCODER_FILES = ("encoder.bin", "params.bin")
_YOUNG_S = 86_400.0
_KEPT_FACTS = ("name", "protocol", "parameters")


@dataclass(frozen=True)
class _Base:
    """The release that a round starts from."""

    release: Release
    bundle: Bundle
    content: str


class ModelReleases:
    """A `Publisher` over a release repository. Sums that are no updates stay in the database.

    Args:
        repository: Where releases go; its targets key and online key must be at hand.
        folder: For masters and optimizers; readable by its owner alone, on the repository's file system.
        guard: Judges each new model; None: each goes out.
        optimizer: Of the server.
    """

    def __init__(
        self,
        repository: ReleaseRepository,
        folder: Path,
        *,
        guard: Guard | None = None,
        optimizer: AdamSettings | None = None,
    ) -> None:
        self._repository, self._folder, self._guard = repository, folder, guard
        self._files, self._optimizer = RepositoryFiles(repository.folder), optimizer or AdamSettings()
        self._seen: tuple[object, Sequence[Release]] = (None, ())
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def newest(self) -> Newest:
        """See `Publisher`.

        Raises:
            ReleaseError: The repository is damaged.
        """
        releases = self._releases()
        return Newest(releases[-1].model_version, releases[-1].bundle) if releases else Newest()

    def anchor(self) -> Anchor | None:
        """See `Publisher`.

        Raises:
            ReleaseError: The repository is damaged.
        """
        rounds = (self._round_of(release) for release in self._releases())
        heads = [Anchor.parse(found["ledger"]) for found in rounds if found]
        return max(heads, key=lambda head: head.index, default=None)  # after a roll-back it is not the newest one's

    def last_published(self, plan_id: str) -> int:
        """See `Publisher`.

        Raises:
            ReleaseError: The repository is damaged.
        """
        rounds = (self._round_of(release) for release in self._releases())
        return max((int(found["number"]) for found in rounds if found.get("plan") == plan_id), default=0)

    def publish(self, result: RoundResult) -> Verdict:
        """See `Publisher`.

        Raises:
            BundleError: The newest release cannot be used.
            ConfigError: The plan does not fit the model.
            ReleaseError: The repository is damaged, a key is missing, or the disk refused.
        """
        if result.plan.purpose != UPDATE:
            return StoredResults().publish(result)
        if self.last_published(result.plan.plan_id) >= result.number:
            return Verdict()
        releases = self._releases()
        if not releases or releases[-1].bundle != result.release:
            return Verdict(refused="another release came out while the round ran; its devices trained the one before")
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="part-") as part:
            base = self._base(releases[-1], Path(part))
            new = self._next(base, result, Path(part) / "new.hush")
            refused = self._guard(base.bundle, new) if self._guard else ""
            if not refused:
                demo = result.plan.demo or base.release.demo
                self._repository.publish(new.root, ledger_head=str(result.anchor), demo=demo)
                self._forget()
        return Verdict(refused=refused)

    def _next(self, base: _Base, result: RoundResult, out: Path) -> Bundle:
        """The next bundle; its master and optimizer are kept before anybody hears of it."""
        plan, bundle = result.plan, base.bundle
        layout = ParameterLayout.of(bundle.manifest, plan.parts)
        optimizer_file = f"{plan.plan_id[:16]}.adam"
        kept = self._kept(base.content, optimizer_file)
        adam = FedAdam(layout.size, self._optimizer) if kept is None else FedAdam.from_bytes(kept, self._optimizer)
        kept = self._kept(base.content, "master")
        master = Master.of(bundle) if kept is None else Master.from_bytes(kept)
        master.apply(layout, adam.step(decode_sum(plan, result.noised)), lambda: Content.whole(bundle))
        origins = _origins(bundle.manifest, plan)
        new = write_release(bundle, out, master, card=_card(bundle, result, origins), origins=origins)
        content = _content({name: info.sha256 for name, info in new.manifest.files.items()})
        self._keep(content, "master", master.to_bytes())
        self._keep(content, optimizer_file, adam.to_bytes())
        return new

    def _base(self, release: Release, part: Path) -> _Base:
        """A release as a bundle, from the repository's blobs."""
        root = part / "base.hush"
        root.mkdir()
        for file in release.files:
            blob = self._files.target_path(blob_target(file.sha256), file.sha256)
            try:
                os.link(blob, root / file.name)
            except OSError as error:
                raise ReleaseError(f"{blob}: cannot be used ({error.strerror}); restore the repository") from error
        return _Base(release, Bundle.open(root, verify=True), _held(release))

    def _releases(self) -> Sequence[Release]:
        """All releases, read anew when the repository has changed."""
        try:
            found = (self._files.metadata / "timestamp.json").stat()
        except OSError as error:
            raise ReleaseError(f"{self._files.metadata}: cannot be read ({error.strerror})") from error
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if self._seen[0] != stamp:
            self._seen = (stamp, self._repository.list())
        return self._seen[1]

    def _round_of(self, release: Release) -> dict[str, Any]:
        """Which round a release came of, from its model card; empty: none."""
        sha256 = next(file.sha256 for file in release.files if file.name == MANIFEST_NAME)
        path = self._files.target_path(blob_target(sha256), sha256)
        try:
            manifest, found = decode_manifest(path.read_bytes(), str(path))
        except OSError as error:
            raise ReleaseError(f"{path}: cannot be read ({error.strerror}); restore the repository") from error
        if found != release.bundle:
            raise ReleaseError(f"{path}: is not the manifest of release {release.model_version}")
        told = manifest.card.get("round")
        return told if isinstance(told, dict) else {}

    def _forget(self) -> None:
        """Delete masters and optimizers of what no release holds any more, since releases were pruned.

        Not the young ones: they may belong to a release that another process is about to publish.
        """
        held = {_held(release) for release in self._repository.list()}
        found = {path: path.stat().st_mtime for path in self._folder.glob(f"{'[0-9a-f]' * 64}.*")}
        for path, written_at in found.items():
            if path.name[:64] not in held and written_at < max(found.values()) - _YOUNG_S:
                path.unlink(missing_ok=True)

    def _kept(self, content: str, name: str) -> bytes | None:
        try:
            return (self._folder / f"{content}.{name}").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ReleaseError(f"{self._folder}: the {name} of a release cannot be read ({error.strerror})") from error

    def _keep(self, content: str, name: str, data: bytes) -> None:
        part = self._folder / f"{content}.{name}.{os.getpid()}.part"
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._folder / f"{content}.{name}")
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise ReleaseError(f"{self._folder}: the {name} cannot be written ({error.strerror})") from error


def _held(release: Release) -> str:
    """The content of a release."""
    return _content({file.name: file.sha256 for file in release.files if file.name != MANIFEST_NAME})


def _content(hashes: dict[str, str]) -> str:
    """What a bundle holds, whatever its version says: a roll-back has the content that it goes back to."""
    lines = "".join(f"{sha256} {name}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _origins(manifest: Manifest, plan: Plan) -> dict[str, str]:
    """Origin of the files that a round may change: its own run, if there was nothing but public facts before."""
    own = f"dp({plan.plan_id})"
    trained = _ENCODER_FILES if plan.parts in ("adapter", "encoder") else CHANGED_FILES
    found = {}
    for name in CHANGED_FILES:
        if name in manifest.files:
            before = manifest.files[name].origin
            after = own if before in ("public", own) else "private"  # what two runs made has no epsilon of its own here
            found[name] = after if name in trained else before
    return found


def _card(bundle: Bundle, result: RoundResult, origins: dict[str, str]) -> dict[str, Any]:
    """The model card: nothing of the old one that was measured on the old weights."""
    plan, old = result.plan, bundle.manifest
    others = [info.origin for name, info in old.files.items() if name not in origins]
    headline = str(old.card["headline"])
    if not unguaranteed((*others, *origins.values())):
        reached = guarantee_after(plan_opening(plan), result.number, result.number)
        headline = f"epsilon {rounded_up(reached.epsilon, 4)} at delta {plan.delta} for {reached.unit}"
    return {
        "headline": headline,
        **{name: old.card[name] for name in _KEPT_FACTS if name in old.card},
        "made_by": f"hushrec {version('hushrec')}",
        "round": {
            "plan": plan.plan_id,
            "number": result.number,
            "devices": result.survivors,
            "base": old.model_version,
            "ledger": str(result.anchor),
            "demo": plan.demo,
        },
    }
