"""Open a shop's file as a lazy table, whatever its format, and say plainly what is wrong with it.

CSV (comma, semicolon, tab or bar), Parquet, JSON lines, and text with one line a user ("user item item …"). `.gz` and
`.xz` are unpacked to a temporary file. All text is UTF-8. Columns of text formats come as text; nothing is guessed from
their first rows.
"""

import gzip
import lzma
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from hushrec_privacy.errors import DataError

from hushrec_model.file_faults import UTF8_ADVICE, explained

__all__ = ["Table", "open_table"]

_SEPARATORS = (",", ";", "\t", "|")
_NO_SEPARATOR = "\x1f"  # does not occur in text: a line stays one column
_PACKED = (".gz", ".xz")


@dataclass(frozen=True)
class Table:
    """An open file.

    Attributes:
        file: Its name, for messages.
        path: Where it is, unpacked.
        frame: Its rows, lazily.
        schema: Its columns.
        per_user: Whether it is one-line-per-user text; its columns are then `user` and `item`, one row an event.
        separator: What separates the columns of a line; empty if nothing does.
    """

    file: str
    path: Path
    frame: pl.LazyFrame
    schema: pl.Schema
    per_user: bool = False
    separator: str = ""

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """Run a query over the file.

        Raises:
            DataError: The file cannot be read; names the row, and the column where the encoding is wrong.
        """
        try:
            return frame.collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise explained(self.path, self.file, error, names=self.schema.names(), separator=self.separator) from error


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Open a file by the ending of its name.

    Raises:
        DataError: There is no such file, its ending is unknown, it is empty, or it is not what its ending says.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if path.suffix in _PACKED:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / path.with_suffix("").name
            _unpack(path, plain)
            yield _open(plain, str(path))
    else:
        yield _open(path, str(path))


def _unpack(path: Path, plain: Path) -> None:
    try:
        with gzip.open(path) if path.suffix == ".gz" else lzma.open(path) as packed, plain.open("wb") as out:
            shutil.copyfileobj(packed, out)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be unpacked: {error}") from error


def _open(path: Path, file: str) -> Table:
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        raise DataError(f"{file}: unknown kind of file; names end in {', '.join(_OPENERS)}, text also in .gz or .xz")
    if not path.stat().st_size:
        raise DataError(f"{file}: the file is empty")
    try:
        return opener(path, file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise explained(path, file, error) from error


def _open_csv(path: Path, file: str) -> Table:
    header = _first_text_line(path, file)
    separator = max(_SEPARATORS, key=header.count)
    frame = pl.scan_csv(path, separator=separator, infer_schema=False)
    return Table(file, path, frame, frame.collect_schema(), separator=separator)


def _open_parquet(path: Path, file: str) -> Table:
    frame = pl.scan_parquet(path)
    return Table(file, path, frame, frame.collect_schema())


def _open_json_lines(path: Path, file: str) -> Table:
    _first_text_line(path, file)
    guessed = pl.scan_ndjson(path, infer_schema_length=None).collect_schema()
    schema = pl.Schema({name: _loosened(dtype) for name, dtype in guessed.items()})
    return Table(file, path, pl.scan_ndjson(path, schema=schema), schema)


def _open_per_user(path: Path, file: str) -> Table:
    _first_text_line(path, file)
    lines = pl.scan_csv(
        path, separator=_NO_SEPARATOR, has_header=False, new_columns=["line"], quote_char=None, infer_schema=False
    )
    words = lines.select(words=pl.col("line").str.extract_all(r"\S+")).filter(pl.col("words").list.len() > 1)
    events = words.select(user=pl.col("words").list.first(), item=pl.col("words").list.slice(1)).explode("item")
    return Table(file, path, events, pl.Schema({"user": pl.String(), "item": pl.String()}), per_user=True)


_OPENERS: dict[str, Callable[[Path, str], Table]] = {
    ".csv": _open_csv,
    ".tsv": _open_csv,
    ".parquet": _open_parquet,
    ".jsonl": _open_json_lines,
    ".ndjson": _open_json_lines,
    ".txt": _open_per_user,
}


def _loosened(dtype: pl.DataType) -> pl.DataType:
    """Text for every single value, so that a later row of another type still reads; lists stay lists."""
    if not isinstance(dtype, pl.List):
        return pl.String()
    inner = dtype.inner
    return pl.List(pl.Float64() if isinstance(inner, pl.DataType) and inner.is_numeric() else pl.String())


def _first_text_line(path: Path, file: str) -> str:
    with path.open("rb") as raw:
        line = raw.readline()
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{file}: is UTF-16, not UTF-8; save it as UTF-8")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, first line: byte {error.start + 1} is not UTF-8; {UTF8_ADVICE}") from error
