"""Times of any usual spelling as microseconds since 1970-01-01 UTC.

Read are ISO 8601 dates and times (with a blank or a T, with or without a zone), dates without dashes, and numbers of
seconds, milliseconds, microseconds or nanoseconds since 1970. A time without a zone is taken as UTC. Nothing else is
guessed: 3/4/2011 is a day in March or in April.
"""

import polars as pl

__all__ = ["any_time", "usual_time"]

_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f UTC",
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
)
_COMPACT_DAY = "%Y%m%d"
_COMPACT_DAYS = (19000101, 21001231)
# Largest number of each unit (year 5138 in seconds) and its length in microseconds.
_UNITS = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (float("inf"), 1e-3))


def usual_time(column: str, dtype: pl.DataType, sample: pl.Series) -> pl.Expr:
    """Read a column by the spelling of its first values; null where a value is spelt otherwise.

    Args:
        column: Its name.
        dtype: Its type.
        sample: Some of its values, none null.

    Returns:
        An expression of 64-bit integers.
    """
    values = pl.col(column)
    if dtype.is_temporal():
        return values.cast(pl.Datetime("us", dtype.time_zone if isinstance(dtype, pl.Datetime) else None)).cast(
            pl.Int64
        )
    numbers = sample.cast(pl.Float64, strict=False)
    if numbers.null_count() == 0 and len(numbers):
        middle = float(numbers.median() or 0.0)  # type: ignore[arg-type]  # a float: the series is one of floats
        if _COMPACT_DAYS[0] <= middle <= _COMPACT_DAYS[1]:
            return _spelt(values.cast(pl.Int64, strict=False).cast(pl.String), _COMPACT_DAY)
        unit = next(length for largest, length in _UNITS if abs(middle) < largest)
        return (values.cast(pl.Float64, strict=False) * unit).round().cast(pl.Int64, strict=False)
    spellings = [spelling for spelling in _FORMATS if _reads(sample, spelling)]
    return pl.coalesce([_spelt(values, spelling) for spelling in spellings or _FORMATS[:1]])


def any_time(column: str) -> pl.Expr:
    """Read a text column whose spelling changes on the way: slower; null where no spelling fits."""
    return pl.coalesce([_spelt(pl.col(column).str.strip_chars(), spelling) for spelling in _FORMATS])


def _spelt(values: pl.Expr, spelling: str) -> pl.Expr:
    return values.cast(pl.String).str.to_datetime(spelling, strict=False, time_unit="us").cast(pl.Int64)


def _reads(sample: pl.Series, spelling: str) -> bool:
    read = sample.to_frame("time").select(_spelt(pl.col("time"), spelling)).to_series()
    return read.null_count() < len(read)
