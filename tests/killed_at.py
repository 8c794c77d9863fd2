"""Kill a process at every change it makes to the disk: a fork for each, ended from an audit hook as by SIGKILL.

The hook sees a file opened, renamed, linked, made or removed just before it happens (PEP 578); what was written and not
flushed by then is lost, as it is when a process dies. SQLite opens its files past Python; its statements count instead,
if they are wanted. A driver runs in a process of its own, without threads, because it forks.
"""

import os
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["KILLED", "killed_at"]

KILLED = 137
_connect = sqlite3.connect
_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink"}
_left = 0
_below = ""


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if not _left:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if (writes or event in _CHANGES) and any(str(one).startswith(_below) for one in arguments[:2]):
        _count()


def _count() -> None:
    global _left
    if not _left:
        return
    _left -= 1
    if not _left:
        os._exit(KILLED)


def _counted(*arguments: Any, **named: Any) -> sqlite3.Connection:
    opened: sqlite3.Connection = _connect(*arguments, **named)
    opened.set_trace_callback(lambda _: _count())
    return opened


def killed_at(change: int, folder: Path, work: Callable[[], object], *, statements: bool = False) -> bool:
    """Run some work in a fork that dies at the given change below a folder, counted from 1.

    Args:
        change: At which.
        folder: What is changed.
        work: Makes the changes.
        statements: The statements of SQLite count, too, wherever its file lies; it dies before the given one is run.

    Returns:
        Whether it died; False: it ended before it came so far.
    """
    global _left, _below
    if not _below:
        sys.addaudithook(_watch)
    child = os.fork()
    if not child:
        _left, _below = change, str(folder)
        if statements:
            sqlite3.connect = _counted  # type: ignore[assignment]  # in this fork alone
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
