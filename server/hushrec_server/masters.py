"""What the server keeps of each model beside the repository: the float32 master, and the moments of its optimizers.

All of it is public, since it is computed from noised sums, and lies under the content that it belongs to: after a
roll-back the right master is gone on with. Moments belong to the parts that they move, not to the plan that moved them
last: the next plan for the same parts goes on with them, and a plan for other parts carries them along.
"""

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from hushrec.federated.fedadam import AdamSettings, FedAdam
from hushrec.federated.layout import ParameterLayout
from hushrec.federated.master import Master
from hushrec.manifest import MANIFEST_NAME
from hushrec.releases import Release
from hushrec_privacy.errors import ReleaseError
from hushrec_privacy.plans.plan import PARTS, Plan

__all__ = ["Masters", "content_of", "write_durably"]

_YOUNG_S = 86_400.0
_MASTER = "master"


class Masters:
    """Masters and moments in one folder.

    Args:
        folder: Made if it is missing, readable by its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def master(self, content: str) -> Master | None:
        """The master of a content; None: none is kept, so it is what the bundle says.

        Raises:
            ReleaseError: It cannot be read.
        """
        kept = self._read(content, _MASTER)
        return None if kept is None else Master.from_bytes(kept)

    def optimizer(self, content: str, plan: Plan, layout: ParameterLayout, settings: AdamSettings) -> FedAdam:
        """The optimizer of a plan's parts as it stands at a content; a new one if no kept one fits.

        Moments are in the unit of clipped updates: they fit a plan of the same size and clip norm.

        Raises:
            ReleaseError: It cannot be read.
        """
        clip_norm, _, state = (self._read(content, _moments(plan.parts)) or b"").partition(b"\n")
        if clip_norm == plan.clip_norm.encode():
            kept = FedAdam.from_bytes(state, settings)
            if kept.size == layout.size:
                return kept
        return FedAdam(layout.size, settings)

    def keep(self, content: str, master: Master, plan: Plan, optimizer: FedAdam, *, base: str) -> None:
        """Keep what belongs to a new content; durable on return.

        Args:
            content: Of the new model.
            master: Of it.
            plan: That made it.
            optimizer: Of the plan's parts, after its step.
            base: Content that it was made from, whose other optimizers go along.

        Raises:
            ReleaseError: The disk refused.
        """
        self._write(content, _MASTER, master.to_bytes())
        self._write(content, _moments(plan.parts), plan.clip_norm.encode() + b"\n" + optimizer.to_bytes())
        for parts in PARTS:
            kept = self._read(base, _moments(parts)) if parts != plan.parts else None
            if kept is not None:
                self._write(content, _moments(parts), kept)

    def forget(self, held: Collection[str]) -> None:
        """Delete what belongs to contents that are not held any more.

        Not what is young: it may belong to a model that another process is about to publish.
        """
        found = {path: path.stat().st_mtime for path in self.folder.glob(f"{'[0-9a-f]' * 64}.*")}
        for path, written_at in found.items():
            if path.name[:64] not in held and written_at < max(found.values()) - _YOUNG_S:
                path.unlink(missing_ok=True)

    def _read(self, content: str, name: str) -> bytes | None:
        try:
            return (self.folder / f"{content}.{name}").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ReleaseError(f"{self.folder}: the {name} of a release cannot be read ({error.strerror})") from error

    def _write(self, content: str, name: str, data: bytes) -> None:
        write_durably(self.folder / f"{content}.{name}", data)


def content_of(files: Release | Mapping[str, str]) -> str:
    """What a bundle holds, whatever its version says: a roll-back has the content that it goes back to.

    Args:
        files: A release, or the sha256 of each file by its name.

    >>> content_of({"items.bin": "ab" * 32}) == content_of({"items.bin": "ab" * 32, "manifest.json": "cd" * 32})
    True
    """
    hashes = {file.name: file.sha256 for file in files.files} if isinstance(files, Release) else files
    lines = "".join(f"{sha256} {name}\n" for name, sha256 in sorted(hashes.items()) if name != MANIFEST_NAME)
    return hashlib.sha256(lines.encode()).hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read; whole or not at all, and on the disk on return.

    Raises:
        ReleaseError: The disk refused.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be written ({error.strerror})") from error


def _moments(parts: str) -> str:
    """Name of the moments of some parts."""
    return f"{parts}.adam"
