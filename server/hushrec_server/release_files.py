"""Serve the files of the release repository, from the middle on if a device was interrupted (RFC 9110, section 14).

Only `metadata` and `targets`, only names that a repository uses, only plain files. Everything but timestamp.json is
named by version or content, so a cache may keep it for ever.
"""

import errno
import os
import re
import stat
from collections.abc import AsyncIterator
from typing import NamedTuple

from hushrec_privacy.errors import FleetError
from litestar import Response, get
from litestar.response import Stream

from hushrec_server.front import Asked, Front, front_of, in_path
from hushrec_server.routing import BINARY

__all__ = ["release_file"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_DEEPEST = 6
_FROM = re.compile(r"bytes=([0-9]{1,15})-")
_PIECE_BYTES = 1 << 17
_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class _Opened(NamedTuple):
    handle: int
    size: int


@get("/releases/{file:path}", name="releases")
async def release_file(request: Asked) -> Response[bytes] | Stream:
    """A file, or what is left of it from a place on."""
    front = front_of(request)
    names = in_path(request, "file").lstrip("/").split("/")
    opened = await front.run(_opened, front, names)
    begin = _begin(request.headers.get("range", ""), opened.size)
    headers = {
        "content-length": str(opened.size - begin),
        "accept-ranges": "bytes",
        "cache-control": "no-cache" if names[-1] == "timestamp.json" else "public, max-age=31536000, immutable",
    }
    if begin:
        headers["content-range"] = f"bytes {begin}-{opened.size - 1}/{opened.size}"
    status = 206 if begin else 200
    return Stream(_pieces(front, opened, begin), status_code=status, headers=headers, media_type=BINARY)


def _opened(front: Front, names: list[str]) -> _Opened:
    refusal = FleetError("there is nothing under this path", reason="not-found")
    right = names[0] in ("metadata", "targets") and len(names) <= _DEEPEST and all(map(_NAME.fullmatch, names))
    if front.releases is None or not right:
        raise refusal
    try:
        handle = os.open(front.releases.joinpath(*names), _FLAGS)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # it may be there all the same, and devices act on what is not
            raise FleetError("the server has too many files open; ask again", reason="busy", retry_after_s=2) from error
        raise refusal from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise refusal
    return _Opened(handle, found.st_size)


def _begin(wanted: str, size: int) -> int:
    """Where to begin; 0 for any range that is not simply the rest of the file, which is then sent whole."""
    found = _FROM.fullmatch(wanted)
    begin = int(found[1]) if found else 0
    return begin if begin < size else 0


async def _pieces(front: Front, opened: _Opened, begin: int) -> AsyncIterator[bytes]:
    """The bytes; of a file that shrinks meanwhile less, which ends the connection."""
    try:
        at = begin
        while at < opened.size:
            piece = await front.run(os.pread, opened.handle, min(_PIECE_BYTES, opened.size - at), at)
            if not piece:
                return
            at += len(piece)
            yield piece
    finally:
        os.close(opened.handle)
