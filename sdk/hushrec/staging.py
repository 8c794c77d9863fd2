"""A bundle directory that appears whole or not at all: filled beside its place, checked, then renamed into it."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
from hushrec_privacy.errors import BundleError

from hushrec.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES

__all__ = ["refuse_foreign", "staged_directory", "sync_directory"]


@contextlib.contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """Give an empty directory to fill, which becomes `target` if the body ends without an exception.

    At every moment `target` is the old bundle, the new one, or missing for the instant between two renames.

    Args:
        target: Absolute path. An earlier bundle there is replaced; anything else is left alone.

    Raises:
        BundleError: `target` exists and is not a bundle.
    """
    refuse_foreign(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(6)}.new")
    fresh.mkdir()
    try:
        yield fresh
        sync_directory(fresh)
        _replace(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def sync_directory(path: Path) -> None:
    """Make renames in it durable where the system allows it (Windows does not open directories)."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def refuse_foreign(target: Path) -> None:
    """Refuse a place that a bundle must not be written to; free ones, empty directories and bundles pass.

    Raises:
        BundleError: Something else is there.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise BundleError(f"{target}: is a file, not a bundle; it is left alone: name another place")
    if not any(target.iterdir()):
        return
    with contextlib.suppress(OSError, msgspec.MsgspecError, RecursionError, AttributeError):
        with (target / MANIFEST_NAME).open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES)
        if {"format", "model", "files"} <= msgspec.json.decode(data).keys():
            return
    raise BundleError(f"{target}: is not a bundle; it is left alone: name another place")


def _replace(fresh: Path, target: Path) -> None:
    aside = fresh.with_suffix(".old")
    if target.exists():
        target.rename(aside)
    try:
        fresh.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    sync_directory(target.parent)
    shutil.rmtree(aside, ignore_errors=True)
