"""A release: the small signed text that names every byte of one bundle, made by the shop and read by every device.

Canonical JSON, a target of the release repository. It says which blobs make up the bundle, where the shop's ledger
stood, and whether the release is a demonstration. Reads and writes no file: see `hushrec.updates` for a device's side.
"""

import re
from typing import Annotated, Any

import msgspec
from hushrec_privacy import canonical
from hushrec_privacy.errors import ConfigError, ReleaseError

from hushrec.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES

__all__ = [
    "CANDIDATE",
    "FORMAT",
    "MAX_RELEASE_BYTES",
    "NEWEST",
    "Release",
    "ReleaseFile",
    "blob_target",
    "release_target",
]

FORMAT = 1
"""A reader refuses another format, and ignores fields that it does not know."""

NEWEST = "release.json"
"""Target that holds the newest release; the same bytes as its numbered target."""

CANDIDATE = "candidate.json"
"""Target of a release that is not out: devices compare it with the newest one before it may be. At most one."""

MAX_RELEASE_BYTES = 1 << 18
MAX_FILES = 1_000
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9])?")
_HEX = re.compile(r"[0-9a-f]{64}")

Size = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Version = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class ReleaseFile(msgspec.Struct, frozen=True):
    """One file of the bundle, its manifest included.

    Attributes:
        name: Plain name inside the bundle.
        sha256: Of the whole file, lower-case hex; names its blob.
        size: Bytes.
    """

    name: str
    sha256: str
    size: Size


class Release(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a release repository says of one bundle.

    Attributes:
        model_version: Of the bundle; rises with every release.
        bundle: Hash that the bundle's manifest ends with; names this exact bundle.
        files: All files of the bundle, by name.
        demo: Whether it was made under limits that protect nobody.
        ledger_head: Head of the shop's privacy ledger when it was made (the text of an `Anchor`); "": it has none.
    """

    model_version: Version
    bundle: str
    files: tuple[ReleaseFile, ...]
    demo: bool
    ledger_head: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def encode(self) -> bytes:
        """Give the canonical bytes.

        Raises:
            ReleaseError: It would not be read back (see `decode`).
        """
        if problem := _problem(self):
            raise ReleaseError(f"release {self.model_version}: {problem}")
        data = canonical.encode({"format": FORMAT, **msgspec.to_builtins(self)})
        if len(data) > MAX_RELEASE_BYTES:
            raise ReleaseError(f"release {self.model_version}: {len(data)} bytes; at most {MAX_RELEASE_BYTES} are read")
        return data

    @classmethod
    def decode(cls, data: bytes) -> "Release":
        """Read a release from its bytes.

        Args:
            data: Whole target. Its hash was found right, but no name or number in it is believed yet.

        Raises:
            ReleaseError: Not canonical, of another format, a file name that could leave its folder or comes twice, no
                manifest, or a hash or number of the wrong form.
        """
        if len(data) > MAX_RELEASE_BYTES:
            raise ReleaseError(f"a release of {len(data)} bytes is refused; at most {MAX_RELEASE_BYTES} are read")
        fields: Any = canonical.decode(data, name="the release", error=ReleaseError)
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise ReleaseError(f"the release is not of format {FORMAT}, which this hushrec reads: update hushrec")
        try:
            release = msgspec.convert(fields, cls)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ReleaseError(f"the release is malformed ({error}); publish it again") from error
        if problem := _problem(release):
            raise ReleaseError(f"release {release.model_version}: {problem}")
        return release


def blob_target(sha256: str) -> str:
    """Name of a blob's target.

    >>> blob_target("ab" * 32)[:10]
    'blobs/abab'
    """
    return f"blobs/{sha256}"


def release_target(model_version: int) -> str:
    """Name of the target that keeps one release for good, so that it can be rolled back to.

    >>> release_target(7)
    'releases/7.json'
    """
    return f"releases/{model_version}.json"


def _problem(release: Release) -> str | None:
    if not _HEX.fullmatch(release.bundle):
        return "the hash of its bundle is not 64 lower-case hex digits"
    names = [file.name for file in release.files]
    if len(names) > MAX_FILES or names != sorted(set(names)):
        return f"its files are more than {MAX_FILES}, not sorted, or one is named twice"
    for file in release.files:
        if not _NAME.fullmatch(file.name):
            return f"file name {file.name[:120]!r} could leave the bundle; names are plain, lower-case, without folders"
        if not _HEX.fullmatch(file.sha256):
            return f"{file.name}: its sha256 is not 64 lower-case hex digits"
    if next((file.size for file in release.files if file.name == MANIFEST_NAME), MAX_MANIFEST_BYTES + 1) > (
        MAX_MANIFEST_BYTES
    ):
        return f"lists no {MANIFEST_NAME} of a sensible size"
    return _head_problem(release.ledger_head)


def _head_problem(head: str) -> str | None:
    from hushrec_privacy.ledger.chain import Anchor

    try:
        if head and str(Anchor.parse(head)) == head:
            return None
    except ConfigError:
        pass
    return None if not head else "its ledger head is no head, which looks like 41:5f0c…"
