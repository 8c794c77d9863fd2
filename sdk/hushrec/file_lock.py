"""One process at a time: a lock that the operating system holds on a file and drops when the process dies."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["file_lock"]

_POLL_S = 0.02


@contextlib.contextmanager
def file_lock(path: Path, wait_s: float, clock: Callable[[], float] = time.monotonic) -> Iterator[bool]:
    """Hold the lock of a file while the body runs; for threads of one process too.

    Args:
        path: The file; made if it does not exist, and left there.
        wait_s: Seconds to wait for another holder at most.
        clock: Seconds, monotonic.

    Returns:
        Whether the lock is held; False: somebody else kept it for longer than that.

    Raises:
        OSError: The file cannot be made.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = clock() + wait_s
        held = _take(handle)
        while not held and clock() < until:
            time.sleep(_POLL_S)
            held = _take(handle)
        yield held
    finally:
        os.close(handle)  # gives the lock back


def _take(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
