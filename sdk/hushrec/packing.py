"""One zip of a bundle, for mail and USB sticks, and back.

The same bundle gives the same bytes. A zip from elsewhere is believed in nothing: names, kinds and sizes are checked
against the manifest before a file is written, and what was unpacked is opened like any bundle before it is kept.
"""

import os
import secrets
import shutil
import stat
import zipfile
import zlib
from pathlib import Path
from typing import IO

from hushrec_privacy.errors import BundleError

from hushrec.bundle import Bundle
from hushrec.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, decode_manifest
from hushrec.staging import staged_directory

__all__ = ["pack", "unpack"]

MAX_FILES = 1_000
CHUNK_BYTES = 1 << 20
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
PLAIN_FILE = (stat.S_IFREG | 0o644) << 16


def pack(bundle: str | os.PathLike[str], zip_path: str | os.PathLike[str]) -> Path:
    """Write a bundle as one zip, compressed.

    Guarantee:
        The same bundle gives the same bytes, with the same version of zlib.

    Args:
        bundle: The directory; it is verified first.
        zip_path: The file to make; one that is there is replaced.

    Returns:
        The path of the zip.

    Raises:
        BundleError: The bundle is damaged (see `Bundle.open`), or the zip cannot be written.
    """
    opened = Bundle.open(bundle, verify=True)
    target = Path(os.path.realpath(zip_path))
    if target.is_relative_to(opened.root):
        raise BundleError(f"{target}: lies inside the bundle, which is never written to; name another place")
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(6)}.new")
    try:
        with zipfile.ZipFile(fresh, "x", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name in (MANIFEST_NAME, *sorted(opened.manifest.files)):
                entry = zipfile.ZipInfo(name, ZIP_EPOCH)
                entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, PLAIN_FILE, 3
                with (opened.root / name).open("rb") as source, archive.open(entry, "w") as packed:
                    shutil.copyfileobj(source, packed, CHUNK_BYTES)
        fresh.replace(target)
    except OSError as error:
        raise BundleError(f"{target}: cannot be written ({error.strerror}); check the folder and its rights") from error
    finally:
        fresh.unlink(missing_ok=True)
    return target


def unpack(zip_path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Bundle:
    """Unpack such a zip into a bundle.

    Guarantee:
        Nothing is written outside `out`, and never more bytes than the manifest says plus one chunk of 1 MiB; `out` is
        either the whole verified bundle or as it was before.

    Args:
        zip_path: The zip.
        out: The directory to make. An earlier bundle there is replaced; anything else is left alone.

    Returns:
        The bundle, opened and verified.

    Raises:
        BundleError: Not such a zip, damaged, or with entries that are no part of a bundle; or `out` is not a bundle.
    """
    source, target = Path(zip_path), Path(os.path.realpath(out))
    try:
        with zipfile.ZipFile(source) as archive, staged_directory(target) as fresh:
            for name, size in _check_entries(archive, source).items():
                with archive.open(name) as packed, (fresh / name).open("xb") as file:
                    _copy_exactly(packed, file, size, source / name)
            Bundle.open(fresh, verify=True)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleError(f"{source}: is not a packed bundle, or damaged ({error}); fetch it again") from error
    except OSError as error:
        raise BundleError(f"{source}: cannot be unpacked to {target} ({error.strerror})") from error
    return Bundle.open(target)


def _check_entries(archive: zipfile.ZipFile, source: Path) -> dict[str, int]:
    """Refuse anything but exactly the files of the manifest, each once, and give their sizes."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    if not len(entries) == len(archive.infolist()) <= MAX_FILES:
        raise BundleError(f"{source}: names a file twice, or more than {MAX_FILES} files; fetch it again")
    if MANIFEST_NAME not in entries or entries[MANIFEST_NAME].file_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{source}: has no {MANIFEST_NAME} of a sensible size, so it is no packed bundle")
    with archive.open(MANIFEST_NAME) as packed:
        manifest, _ = decode_manifest(packed.read(MAX_MANIFEST_BYTES + 1), f"{source}/{MANIFEST_NAME}")
    sizes = {MANIFEST_NAME: entries[MANIFEST_NAME].file_size}
    sizes.update((name, info.size) for name, info in manifest.files.items())
    for name, entry in entries.items():
        if name not in sizes:
            raise BundleError(f"{source}: holds {name[:120]!r}, which the manifest does not list")
        if entry.is_dir() or stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise BundleError(f"{source}: {name} is a link or no plain file")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(f"{source}: {name} is compressed in a way that bundles are not")
        if entry.file_size != sizes[name]:
            raise BundleError(f"{source}: {name} has {entry.file_size} bytes, the manifest says {sizes[name]}")
    missing = sorted(set(sizes) - set(entries))
    if missing:
        raise BundleError(f"{source}: lacks {', '.join(missing)}")
    return sizes


def _copy_exactly(packed: IO[bytes], file: IO[bytes], size: int, where: Path) -> None:
    """Copy `size` bytes; more or fewer are an error, found without reading on."""
    left = size
    while chunk := packed.read(CHUNK_BYTES):
        left -= len(chunk)
        if left < 0:
            break
        file.write(chunk)
    if left:
        raise BundleError(f"{where}: has not the {size} bytes that the manifest says")
    file.flush()
    os.fsync(file.fileno())
