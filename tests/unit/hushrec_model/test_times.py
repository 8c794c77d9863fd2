"""Every usual spelling of a time gives the same microseconds."""

from datetime import date, datetime

import polars as pl
import pytest
from hushrec_model.times import any_time, usual_time

MOMENT = 1_714_557_600_000_000  # 2024-05-01T10:00:00Z
MIDNIGHT = 1_714_521_600_000_000

SPELLINGS = [
    (["2024-05-01T10:00:00Z"], MOMENT),
    (["2024-05-01T12:00:00+02:00"], MOMENT),
    (["2024-05-01 12:00:00+0200"], MOMENT),
    (["2024-05-01T10:00:00"], MOMENT),
    (["2024-05-01 10:00:00"], MOMENT),
    (["2024-05-01 10:00"], MOMENT),
    (["2024-05-01 10:00:00 UTC"], MOMENT),
    (["2024-05-01T10:00:00.25"], MOMENT + 250_000),
    (["2024-05-01"], MIDNIGHT),
    (["20240501"], MIDNIGHT),
    ([20240501], MIDNIGHT),
    (["1714557600"], MOMENT),
    ([1714557600], MOMENT),
    ([1714557600.5], MOMENT + 500_000),
    ([1714557600000], MOMENT),
    (["1714557600000"], MOMENT),
    ([1714557600000000], MOMENT),
    ([1714557600000000000], MOMENT),
    ([datetime(2024, 5, 1, 10)], MOMENT),  # noqa: DTZ001
    ([date(2024, 5, 1)], MIDNIGHT),
]


@pytest.mark.parametrize(("given", "expected"), SPELLINGS, ids=lambda value: str(value))
def test_a_usual_spelling_is_read(given: list[object], expected: int) -> None:
    column = pl.Series("time", given)
    assert column.to_frame().select(usual_time("time", column.dtype, column)).to_series().to_list() == [expected]


def test_a_zoned_column_is_read_as_its_moment() -> None:
    column = pl.Series("time", [datetime(2024, 5, 1, 10)]).dt.replace_time_zone("Europe/Berlin")  # noqa: DTZ001
    read = column.to_frame().select(usual_time("time", column.dtype, column)).to_series()
    assert read.to_list() == [MOMENT - 2 * 3_600_000_000]


@pytest.mark.parametrize("text", ["yesterday", "01/05/2024", "2024-13-01", "2024-02-30", "10:00", "nan"])
def test_what_is_no_time_gives_null(text: str) -> None:
    column = pl.Series("time", ["2024-05-01", text])
    assert column.to_frame().select(usual_time("time", column.dtype, column)).to_series().to_list() == [MIDNIGHT, None]
    assert column.to_frame().select(any_time("time")).to_series().to_list() == [MIDNIGHT, None]
