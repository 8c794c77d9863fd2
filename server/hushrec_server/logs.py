"""The server's log: one JSON object a line on stderr, with nothing about any device.

A line of a request has its route's name, status and milliseconds: no address, no pseudonym, no path. A fault is logged
as its type and the places in the code it went through, never with its text, which may quote what a device sent.
"""

import json
import logging
import sys
import traceback
from collections import deque
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["JsonLines", "log_event", "log_fault", "log_progress", "log_request", "start_logging"]

_LOGGER = logging.getLogger("hushrec_server")
_MOST_FRAMES = 12


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, event, and the fields it was logged with."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.msg if record.name == _LOGGER.name else "library",
        }
        if record.name != _LOGGER.name:  # a library's text may hold anything: only where it comes from is kept
            line["logger"] = record.name
            if record.exc_info and record.exc_info[1] is not None:
                line |= _fault(record.exc_info[1])
        line |= getattr(record, "fields", {})
        return json.dumps(line, ensure_ascii=True)


def start_logging(stream: TextIO | None = None, *, requests: bool = True) -> None:
    """Write the log of this process as JSON lines.

    Args:
        stream: Where to; default: stderr.
        requests: Also one line a request; without it, only what goes wrong.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in ((_LOGGER.name, logging.INFO if requests else logging.WARNING), ("", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
    _LOGGER.propagate = False


def log_request(route: str, status: int, taken_ms: float) -> None:
    """Log one answered request."""
    _LOGGER.info("request", extra={"fields": {"route": route, "status": status, "ms": round(taken_ms, 1)}})


def log_progress(event: str, **fields: str | int | float) -> None:
    """Log that something went on as it should."""
    _LOGGER.info(event, extra={"fields": fields})


def log_event(event: str, **fields: str | int | float) -> None:
    """Log something that the operator should see; never called with anything a device sent."""
    _LOGGER.warning(event, extra={"fields": fields})


def log_fault(event: str, error: BaseException) -> None:
    """Log an error without its text."""
    _LOGGER.error(event, extra={"fields": _fault(error)})


def _fault(error: BaseException) -> dict[str, Any]:
    # Not `extract_tb`: it reads the sources of all frames, and an error that many requests share has those of each.
    frames = deque(traceback.walk_tb(error.__traceback__), _MOST_FRAMES)
    places = [f"{'/'.join(frame.f_code.co_filename.split('/')[-2:])}:{line}" for frame, line in frames]
    cause = error.__cause__ or error.__context__
    found: dict[str, Any] = {"error": type(error).__name__, "at": places}
    return found | ({"cause": type(cause).__name__} if cause is not None else {})
