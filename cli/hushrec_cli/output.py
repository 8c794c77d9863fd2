"""What the commands print: data on stdout, talk on stderr, tables and bars on a terminal, plain lines elsewhere.

A table on a terminal is aligned; piped into another program it is one tab-separated line a row. JSON never holds NaN
or infinity: they become null.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer
from hushrec_privacy.errors import ConfigError

__all__ = [
    "Cell",
    "as_json_text",
    "check_folder",
    "person_cell",
    "price_text",
    "print_data",
    "print_json",
    "print_table",
    "say",
    "say_heading",
    "table_text",
    "write_file",
]

Cell = str | int | float | None
"""One value of a table: numbers are aligned to the right, None and NaN are shown as a dash."""


def say(text: str = "") -> None:
    """Talk to the person at the terminal: stderr, never data."""
    typer.echo(text, err=True)


def say_heading(text: str) -> None:
    """Say a line that starts a new part, with a blank line before it; bold on a terminal."""
    typer.echo(err=True)
    typer.secho(text, err=True, bold=True)


def print_data(text: str) -> None:
    """Print a result for people or programs: stdout."""
    typer.echo(text)


def print_json(value: object) -> None:
    """Print one JSON object on stdout, on one line.

    Raises:
        TypeError: The value holds something that JSON cannot express; a bug of the caller.
    """
    typer.echo(as_json_text(value))


def as_json_text(value: object) -> str:
    """JSON without NaN and infinity, which are not JSON: both become null.

    >>> as_json_text({"ndcg@10": float("nan"), "users": 3, "parts": (1.5, None)})
    '{"ndcg@10": null, "users": 3, "parts": [1.5, null]}'
    """
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table on stdout: aligned on a terminal, tab-separated elsewhere."""
    typer.echo(table_text(columns, rows, aligned=sys.stdout.isatty()))


def table_text(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, aligned: bool) -> str:
    """A table as text.

    Args:
        columns: Names of the columns.
        rows: One value a column in each row.
        aligned: Pad to equal width for a person; otherwise tabs for a program.

    >>> print(table_text(["step", "bytes"], [["float", 1200], ["int8", 310]], aligned=True))
    step   bytes
    float  1,200
    int8     310
    """
    if not aligned:
        lines = [columns, *([_program_cell(cell) for cell in row] for row in rows)]
        return "\n".join("\t".join(line) for line in lines)
    cells = [list(columns), *([person_cell(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    right = [any(isinstance(row[i], (int, float)) for row in rows) for i in range(len(columns))]
    padded = (
        "  ".join(
            cell.rjust(width) if flag else cell.ljust(width)
            for cell, width, flag in zip(line, widths, right, strict=True)
        )
        for line in cells
    )
    return "\n".join(line.rstrip() for line in padded)


def person_cell(cell: Cell) -> str:
    """A value as a person reads it.

    >>> [person_cell(value) for value in (None, float("nan"), 1234567, 0.06123, 25.0, 0.0)]
    ['–', '–', '1,234,567', '0.0612', '25', '0']
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or cell.is_integer():
        return f"{int(cell):,}"
    return f"{cell:.4f}" if abs(cell) < 1 else f"{cell:,.1f}"


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file, whole or not at all.

    Raises:
        ConfigError: The path is a folder, or something else that is no file, or its folder is missing.
        OSError: The system refuses.
    """
    if not path.name or path.is_dir() or (path.exists() and not path.is_file()):
        raise ConfigError(f"{str(path)!r} is no place for a file; name a file in a folder that exists")
    check_folder(path.parent)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content if isinstance(content, bytes) else content.encode())
    part.replace(path)


def check_folder(folder: Path) -> None:
    """Say which folder is missing, before anything is done for what should go into it.

    Raises:
        ConfigError: It does not exist, or is no folder.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "this folder does not exist"
        raise ConfigError(f"{folder}: {what}; make it, or name another place")


def price_text(price: float | None) -> str:
    """A price as a person reads it, nothing if it is unknown.

    >>> price_text(11.0), price_text(None)
    ('11.00', '')
    """
    return "" if price is None or math.isnan(price) else f"{price:,.2f}"


def _program_cell(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return " ".join(cell.split()) if isinstance(cell, str) else repr(cell)
