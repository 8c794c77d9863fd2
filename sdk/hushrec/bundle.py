"""Open and write a bundle: a directory of a manifest and the files it lists, checked before anything is read from it.

The only writer is `write_bundle`, which makes a whole directory and renames it into place; nothing is ever written into
a bundle. Checks find damage and anything that leaves the directory. They do not say who made the bundle.
"""

import mmap
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
from hushrec_privacy.errors import BundleError, ConfigError
from numpy.typing import NDArray

from hushrec.manifest import (
    GRAPHS,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    NO_GUARANTEE,
    REQUIRED_GRAPHS,
    FileInfo,
    Manifest,
    architecture_sha256,
    array_bytes,
    decode_manifest,
    encode_manifest,
    unguaranteed,
)

__all__ = ["Bundle", "FileStamp", "HashRecord", "write_bundle"]


class FileStamp(NamedTuple):
    """What a file looked like on disk when its hash was last found right."""

    name: str
    size: int
    mtime_ns: int
    inode: int
    sha256: str


class HashRecord(Protocol):
    """Remembers across runs which files were already hashed. A profile keeps one; it must never lie inside a bundle."""

    def get_stamps(self, bundle: str) -> tuple[FileStamp, ...]:
        """Give the stamps kept for the bundle at this absolute path; empty if there are none."""

    def put_stamps(self, bundle: str, stamps: tuple[FileStamp, ...]) -> None:
        """Keep the stamps of the bundle at this absolute path, in place of older ones."""


class Bundle:
    """An opened bundle: its manifest, and its arrays as read-only views of mapped files.

    Attributes:
        root: Absolute path of the directory.
        manifest: What it holds.
        sha256: Hash that the manifest ends with; names this exact bundle.
        hashed: Names of the listed files that this opening hashed; empty if the record covered all.
    """

    def __init__(self, root: Path, manifest: Manifest, sha256: str, hashed: tuple[str, ...]) -> None:
        self.root = root
        self.manifest = manifest
        self.sha256 = sha256
        self.hashed = hashed
        self._maps: dict[str, mmap.mmap] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, record: HashRecord | None = None, verify: bool = False) -> "Bundle":
        """Open the bundle in a directory.

        Guarantee:
            Every file is listed, is a plain file inside the directory, and has the size and sha256 of the manifest. A
            file whose size, modification time and inode equal the record is not hashed again, the manifest included. A
            file may have other names elsewhere (hard links, as package installers and blob stores make them): only its
            content counts.

        Args:
            path: The directory.
            record: Where hashes that were found right are remembered; None hashes every file.
            verify: Hash every file, whatever the record says.

        Returns:
            The bundle; no array is read yet.

        Raises:
            BundleError: Not a bundle, damaged, too new, or reaching outside itself; names file and reason.
        """
        root = Path(os.path.realpath(path))
        known = {} if record is None or verify else {stamp.name: stamp for stamp in record.get_stamps(str(root))}
        manifest, own = _read_manifest(root, known.get(MANIFEST_NAME))
        found = _list_files(root, manifest)
        stamps = tuple(_stamp(name, seen, manifest.files[name].sha256) for name, seen in found.items())
        stale = tuple(stamp for stamp in stamps if known.get(stamp.name) != stamp)
        for stamp in stale:
            _check_hash(root / stamp.name, stamp.sha256)
        fresh = bool(stale) or known.get(MANIFEST_NAME) != own
        if fresh:
            _check_architecture(root, manifest)
        if fresh and record is not None:
            record.put_stamps(str(root), (own, *stamps))
        return cls(root, manifest, own.sha256, tuple(stamp.name for stamp in stale))

    def __repr__(self) -> str:
        return f"Bundle({str(self.root)!r}, model_version={self.manifest.model_version})"

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(info.size for info in self.manifest.files.values())

    def path(self, file: str) -> Path:
        """Give the path of a listed file.

        Raises:
            BundleError: The bundle has no such file.
        """
        if file not in self.manifest.files:
            raise BundleError(f"{self.root}: has no file {file!r}")
        return self.root / file

    def array(self, name: str) -> NDArray[Any]:
        """Give an array as a read-only view of its mapped file; pages are read when they are touched.

        Raises:
            BundleError: The bundle has no such array, or its file went away.
        """
        info = self.manifest.arrays.get(name)
        if info is None:
            raise BundleError(f"{self.root}: has no array {name!r}")
        dtype = np.dtype(info.dtype)
        if array_bytes(info) == 0:
            return np.zeros(info.shape, dtype)
        flat = np.frombuffer(self._map(info.file), dtype, array_bytes(info) // dtype.itemsize, info.offset)
        return flat.reshape(info.shape)

    def _map(self, file: str) -> mmap.mmap:
        mapped = self._maps.get(file)
        if mapped is None:
            try:
                with self.path(file).open("rb") as opened:
                    mapped = mmap.mmap(opened.fileno(), self.manifest.files[file].size, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:  # ValueError: the file shrank since it was checked
                raise BundleError(f"{self.root / file}: cannot be mapped ({error}); fetch the bundle again") from error
            self._maps[file] = mapped
        return mapped


def write_bundle(
    out: str | os.PathLike[str],
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    origins: Mapping[str, str],
) -> Bundle:
    """Write a bundle whole: at every moment `out` is the old bundle, the new one, or missing for the instant between
    two renames.

    Args:
        out: The directory to make. An earlier bundle there is replaced; anything else is left alone.
        manifest: What to write; `files` and `model.architecture` are filled in here, and the card's headline if a part
            is private.
        files: Content of every file, or a file to copy.
        origins: "public", "dp(run)" or "private" of every file.

    Returns:
        The new bundle, opened and verified.

    Raises:
        BundleError: `out` exists and is not a bundle, what was given would not be read back, or the disk refused.
        ConfigError: `files` and `origins` do not name the same files.
    """
    from hushrec.staging import staged_directory  # what only writing needs would slow down a device's start

    if set(files) != set(origins):
        raise ConfigError(f"every file needs an origin: {sorted(set(files) ^ set(origins))} is in only one of the two")
    target = Path(os.path.realpath(out))
    try:
        with staged_directory(target) as fresh:
            for name, content in files.items():
                if Path(name).name != name or name == MANIFEST_NAME:
                    raise BundleError(f"{target}: file name {name!r} could leave the bundle; give plain names")
                _write_file(fresh / name, content)
            _write_file(fresh / MANIFEST_NAME, encode_manifest(_complete(manifest, fresh, origins)))
            Bundle.open(fresh, verify=True)
    except OSError as error:
        raise BundleError(
            f"{target}: cannot be written ({error}); check the folder, its rights and the space"
        ) from error
    return Bundle.open(target)


def _stamp(name: str, seen: os.stat_result, sha256: str) -> FileStamp:
    return FileStamp(name, seen.st_size, seen.st_mtime_ns, seen.st_ino, sha256)


def _read_manifest(root: Path, known: FileStamp | None) -> tuple[Manifest, FileStamp]:
    """Read the manifest, and hash it unless it still looks like the one that is known."""
    if not root.is_dir():
        reason = "is not a directory (unpack it first)" if root.exists() else "does not exist"
        raise BundleError(f"{root}: {reason}")
    where = root / MANIFEST_NAME
    try:
        if not stat.S_ISREG(where.lstat().st_mode):
            raise BundleError(f"{where}: is not a plain file")
        with where.open("rb") as file:
            seen = os.fstat(file.fileno())
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{where}: cannot be read ({error.strerror}); the directory is not a bundle") from error
    verified = known.sha256 if known is not None and known == _stamp(MANIFEST_NAME, seen, known.sha256) else None
    manifest, sha256 = decode_manifest(data, str(where), verified_sha256=verified)
    return manifest, _stamp(MANIFEST_NAME, seen, sha256)


def _list_files(root: Path, manifest: Manifest) -> dict[str, os.stat_result]:
    """Look at every entry of the directory; the result has exactly the files of the manifest, in its order."""
    found: dict[str, os.stat_result] = {}
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name != MANIFEST_NAME and entry.name not in manifest.files:
                    raise BundleError(f"{root / entry.name}: the manifest does not list it; remove it")
                # Not DirEntry.stat: on Windows that has no inode and no link count.
                found[entry.name] = os.lstat(entry.path)
    except OSError as error:
        raise BundleError(f"{root}: cannot be listed ({error.strerror})") from error
    for name, seen in found.items():
        if not stat.S_ISREG(seen.st_mode):
            raise BundleError(f"{root / name}: is a link or not a plain file; a bundle holds its files itself")
    for name, info in manifest.files.items():
        if name not in found:
            raise BundleError(f"{root / name}: is missing; fetch the bundle again")
        if found[name].st_size != info.size:
            raise BundleError(
                f"{root / name}: has {found[name].st_size} bytes, the manifest says {info.size}; fetch the bundle again"
            )
    return {name: found[name] for name in manifest.files}


def _sha256(path: Path) -> str:
    import hashlib  # loads OpenSSL: 2.5 ms of a start that has nothing to hash

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_hash(path: Path, expected: str) -> None:
    try:
        digest = _sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
    if digest != expected:
        raise BundleError(f"{path}: is damaged, its sha256 differs from the manifest; fetch the bundle again")


def _check_architecture(root: Path, manifest: Manifest) -> None:
    graphs = [(root / name).read_bytes() for name in GRAPHS if name in manifest.files]
    if architecture_sha256(*graphs) != manifest.model.architecture:
        raise BundleError(f"{root / MANIFEST_NAME}: the graphs are of another architecture than it says")


def _complete(manifest: Manifest, root: Path, origins: Mapping[str, str]) -> Manifest:
    """Fill in what follows from the files themselves."""
    infos: dict[str, FileInfo] = {}
    for name, origin in origins.items():
        infos[name] = FileInfo((root / name).stat().st_size, _sha256(root / name), origin)
    missing = [name for name in REQUIRED_GRAPHS if name not in infos]
    if missing:
        raise BundleError(f"{MANIFEST_NAME}: a bundle needs {', '.join(missing)}")
    graphs = [(root / name).read_bytes() for name in GRAPHS if name in infos]
    model = msgspec.structs.replace(manifest.model, architecture=architecture_sha256(*graphs))
    card = {**manifest.card, **({"headline": NO_GUARANTEE} if unguaranteed(origins.values()) else {})}
    return msgspec.structs.replace(manifest, files=infos, model=model, card=card)


def _write_file(path: Path, content: bytes | Path) -> None:
    import shutil

    with path.open("xb") as file:
        if isinstance(content, Path):
            with content.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
        else:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
