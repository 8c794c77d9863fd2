"""One value has one byte string, and every other byte string is refused."""

import json
import math
import sys
from decimal import Decimal
from fractions import Fraction

import pytest
from hushrec_privacy import canonical
from hushrec_privacy.errors import ConfigError, LedgerError


def test_keys_are_sorted_and_nothing_is_spaced() -> None:
    value = {"b": [1, -2, True, False], "a": {"z": 'é\n"', "Z": ""}}
    assert canonical.encode(value) == '{"a":{"Z":"","z":"é\\n\\""},"b":[1,-2,true,false]}'.encode()


@pytest.mark.parametrize("value", [{}, [], "", 0, True, {"a": [{"b": 2**53 - 1}]}, "\u2028\x00\x7f\\/", -(2**53) + 1])
def test_what_was_written_is_read_back(value: object) -> None:
    assert canonical.decode(canonical.encode(value)) == value


@pytest.mark.parametrize(
    "value",
    [1.0, math.nan, None, b"bytes", {1: 2}, {"é": 1}, {'"': 1}, {"": 1}, 2**53, -(2**53), "\ud800", Decimal(1), {1, 2}],
)
def test_what_other_languages_would_read_differently_is_not_written(value: object) -> None:
    with pytest.raises(ConfigError):
        canonical.encode({"nested": [value]})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a": 1}',
        b'{"a":1}\n',
        b'\xef\xbb\xbf{"a":1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":-0}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":null}',
        b'{"a":9007199254740992}',
        b'{"a":"\\u0061"}',
        b'{"a":"\\/"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b'{"a":01}',
        b'{"a":1}{"a":1}',
        '{"é":1}'.encode(),
        '{"a":1}'.encode("utf-16"),
        b"[" * 100_000,
        b"1" * 5_000,
    ],
)
def test_any_other_writing_is_refused_by_the_error_that_was_asked_for(data: bytes) -> None:
    with pytest.raises(LedgerError, match="entry 7 is not canonical JSON"):
        canonical.decode(data, name="entry 7", error=LedgerError)


def test_deep_nesting_is_refused_when_written_too() -> None:
    deep: list[object] = []
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    with pytest.raises(ConfigError, match="nested"):
        canonical.encode(deep)


@pytest.mark.parametrize("text", ["0", "1", "10", "0.5", "0.000001", "12.25", "1" * 1_100])
def test_a_decimal_is_read_exactly(text: str) -> None:
    assert Fraction(canonical.decimal(text)) == Fraction(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "01",
        "1.",
        ".5",
        "1.0",
        "0.50",
        "1e3",
        "inf",
        "nan",
        " 1",
        "1\n",
        "١",
        "1_0",
        1,
        None,
        "1" * 1_101,
    ],
)
def test_a_decimal_has_one_notation(text: object) -> None:
    with pytest.raises(ConfigError, match="delta is "):
        canonical.decimal(text, name="delta")


@pytest.mark.parametrize("value", [0.0, 5e-324, sys.float_info.min, 1e-15, 0.1, 1 / 3, 8.35, 1e4, sys.float_info.max])
def test_a_float_is_written_so_that_it_reads_back_the_same(value: float) -> None:
    text = canonical.float_text(value)
    assert float(text) == value
    assert Fraction(canonical.decimal(text)) == Fraction(text)


def test_a_float_is_written_as_people_write_it() -> None:
    assert [canonical.float_text(value) for value in (8.35, 1e-15, 1e22, 0.0, -0.0)] == [
        "8.35",
        "0.000000000000001",
        "1" + "0" * 22,
        "0",
        "0",
    ]


@pytest.mark.parametrize("value", [5e-324, 1e-15, 0.1, 0.7, 1 / 3, 0.014342572, 8.35, 1e4, sys.float_info.max])
def test_rounded_up_it_is_never_below_the_float_and_hardly_above(value: float) -> None:
    written = Fraction(canonical.decimal(canonical.float_text_up(value)))
    assert Fraction(value) <= written <= Fraction(value) * (1 + Fraction(1, 10**16))


def test_the_shortest_decimal_may_lie_below_the_float() -> None:
    assert Fraction(canonical.float_text(0.1)) < Fraction(0.1) <= Fraction(canonical.float_text_up(0.1))


@pytest.mark.parametrize("value", [math.inf, math.nan, -1.0, -5e-324, True])
@pytest.mark.parametrize("write", [canonical.float_text, canonical.float_text_up])
def test_no_decimal_is_written_for(value: float, write: object) -> None:
    with pytest.raises(ConfigError, match="decimal string"):
        write(value)  # type: ignore[operator]


def test_sums_are_exact_where_floats_are_not() -> None:
    assert 0.1 * 3 != 0.3
    assert canonical.add_decimals("0.1", "0.1", "0.1") == "0.3"
    smallest, largest = canonical.float_text(5e-324), canonical.float_text(sys.float_info.max)
    assert canonical.subtract_decimals(canonical.add_decimals(largest, smallest), largest) == smallest
    with pytest.raises(ConfigError, match="negative"):
        canonical.subtract_decimals("0.1", "0.2")


def test_python_s_own_reader_agrees() -> None:
    data = canonical.encode({"plan": "ab", "rounds": [1, 2]})
    assert json.loads(data) == {"plan": "ab", "rounds": [1, 2]}
