"""Find the place where reading a file failed: the wrong byte, the row with too many fields, the line that is no JSON.

Only called when reading has failed already, so it may take its time: it goes through the file line by line.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from hushrec_privacy.errors import DataError

__all__ = ["UTF8_ADVICE", "explained"]

UTF8_ADVICE = "if the file is Latin-1, convert it: iconv -f LATIN1 -t UTF-8"


def explained(path: Path, file: str, error: Exception, *, names: Sequence[str] = (), separator: str = "") -> DataError:
    """Make the error that names file, row and column from one that does not.

    Args:
        path: The file, unpacked.
        file: Its name for the text.
        error: Why reading failed.
        names: Its columns, if it has a header.
        separator: What separates the fields of a line, empty if nothing does.
    """
    found = None
    if path.suffix != ".parquet":
        found = _wrong_byte(path, names, separator)
    if found is None and separator:
        found = _too_many_fields(path, names, separator)
    if found is None and path.suffix in (".jsonl", ".ndjson"):
        found = _no_json(path)
    if found is not None:
        return DataError(f"{file}, {found}")
    reason = str(error).strip().split("\n", 1)[0]
    return DataError(f"{file}: cannot be read as {path.suffix[1:]}: {reason}")


def _wrong_byte(path: Path, names: Sequence[str], separator: str) -> str | None:
    with path.open("rb") as raw:
        for number, line in enumerate(raw):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as wrong:
                place = f"line {number + 1}: byte {wrong.start + 1}"
                if separator and number:
                    column = names[min(line[: wrong.start].count(separator.encode()), len(names) - 1)]
                    place = f"row {number}, column {column!r}: byte {wrong.start + 1} of the line"
                return f"{place} is not UTF-8; {UTF8_ADVICE}"
    return None


def _too_many_fields(path: Path, names: Sequence[str], separator: str) -> str | None:
    with path.open(encoding="utf-8", newline="") as text:
        for row, fields in enumerate(csv.reader(text, delimiter=separator)):
            if len(fields) > len(names):
                return f"row {row}: {len(fields)} fields, but the header names {len(names)} columns"
    return None


def _no_json(path: Path) -> str | None:
    with path.open(encoding="utf-8") as text:
        for row, line in enumerate(text):
            try:
                if line.strip() and not isinstance(json.loads(line), dict):
                    return f"line {row + 1}: is JSON, but no object"
            except json.JSONDecodeError as wrong:
                return f"line {row + 1}: is no JSON at character {wrong.pos + 1}"
    return None
