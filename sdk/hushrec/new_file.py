"""A file that appears whole or not at all: filled beside its place, then given its name, which no other may have.

So a process that is killed leaves nothing in that place, and an empty file there is never a new one.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from hushrec.staging import sync_directory

__all__ = ["new_file"]


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give an empty file, its owner's alone, which stands at `path` when the body ends.

    If another process put one there meanwhile, that one stays. A killed process leaves, beside `path`, a file whose
    name ends in ".new" (and what SQLite keeps beside such a file); it is of no use.

    Raises:
        OSError: It cannot be made.
    """
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(6)}.new")
    os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield fresh
        try:
            os.link(fresh, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            fresh.rename(path)
        sync_directory(path.parent)
    finally:
        fresh.unlink(missing_ok=True)
