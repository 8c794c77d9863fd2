"""Kill a process at every change it makes to the disk: a fork for each, ended from an audit hook as by SIGKILL.

The hook sees a file opened, renamed, linked, made or removed just before it happens (PEP 578); what was written and not
flushed by then is lost, as it is when a process dies. A driver runs in a process of its own, without threads, because
it forks.
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

__all__ = ["KILLED", "killed_at"]

KILLED = 137
_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink"}
_left = 0
_below = ""


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    global _left
    if not _left:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (writes or event in _CHANGES) and any(str(one).startswith(_below) for one in arguments[:2]):
        _left -= 1
        if not _left:
            os._exit(KILLED)


def killed_at(change: int, folder: Path, work: Callable[[], object]) -> bool:
    """Run some work in a fork that dies at the given change below a folder, counted from 1.

    Returns:
        Whether it died; False: it ended before it came so far.
    """
    global _left, _below
    if not _below:
        sys.addaudithook(_watch)
    child = os.fork()
    if not child:
        _left, _below = change, str(folder)
        code = 1
        try:
            work()
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    _below = str(folder)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), f"the child failed with {code}"
    return code == KILLED
