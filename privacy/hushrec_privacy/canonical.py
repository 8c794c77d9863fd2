"""Canonical JSON: one value has one byte string, so that it can be hashed and signed and read in any language.

The subset of RFC 8785 (JSON Canonicalization Scheme) without floats and null: objects with ASCII keys in ascending
order, arrays, strings, true, false, and whole numbers of at most 2^53 - 1. No whitespace, UTF-8, the shortest escapes.
Other numbers are strings in decimal notation, such as "0.000001". Signs and hashes nothing itself.
"""

import json
import math
import re
from decimal import ROUND_CEILING, Context, Decimal, Inexact, InvalidOperation, Overflow
from functools import lru_cache
from typing import Any, NoReturn

from hushrec_privacy.errors import ConfigError, HushrecError

__all__ = [
    "add_decimals",
    "add_exactly",
    "decimal",
    "decimal_text",
    "decode",
    "encode",
    "float_text",
    "float_text_up",
    "subtract_decimals",
]

LARGEST_INTEGER = 2**53 - 1  # larger ones change silently in languages whose only number is a float64
LONGEST_DECIMAL = 1_100  # characters; the longest float64 has 1,076
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]*[1-9])?", re.ASCII)
_KEY = re.compile(r"[ !#-\[\]-~]+", re.ASCII)  # printable and never escaped
_EXACT = Context(prec=4 * LONGEST_DECIMAL, traps=[Inexact, InvalidOperation, Overflow])
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
_UP = Context(prec=17, rounding=ROUND_CEILING)  # 17 digits: at most 1e-16 relative above


def encode(value: object) -> bytes:
    """Give the one byte string of a value.

    Args:
        value: Dicts with ASCII keys, lists, strings, booleans and whole numbers of at most 2^53 - 1, nested or not.

    Raises:
        ConfigError: It holds anything else, such as a float or None.

    >>> encode({"rounds": 2000, "delta": "0.000001"})
    b'{"delta":"0.000001","rounds":2000}'
    """
    try:
        _check(value)
        return _JSON.encode(value).encode()
    except UnicodeEncodeError as error:
        raise ConfigError("a string for canonical JSON is no valid Unicode (half of a surrogate pair)") from error
    except RecursionError as error:
        raise ConfigError("a value for canonical JSON is nested too deeply") from error


def decode(data: bytes, *, name: str = "the document", error: type[HushrecError] = ConfigError) -> Any:
    """Read a value back, and refuse every byte string but the one that `encode` gives for it.

    Args:
        data: Untrusted bytes.
        name: What they are, for the message.
        error: What to raise.

    Raises:
        HushrecError: Of the given type: not JSON, or not canonical: whitespace, floats, null, duplicate or unsorted
            keys, needless escapes.

    >>> decode(b'{"a":1}')
    {'a': 1}
    """
    try:
        value = json.loads(data.decode(), parse_float=_no_float, parse_constant=_no_float)
        canonical = encode(value) == data
    except (ValueError, RecursionError, ConfigError) as fault:  # also a wrong code unit of UTF-8
        raise error(f"{name} is not canonical JSON ({fault})") from fault
    if not canonical:
        raise error(
            f"{name} is not canonical JSON (whitespace, keys out of order or there twice, or a needless escape)"
        )
    return value


def decimal(text: object, *, name: str = "the number", error: type[HushrecError] = ConfigError) -> Decimal:
    """Read a number that is at least 0 from its one decimal notation, exactly.

    Args:
        text: Digits, with a point and at most 1,100 characters; no sign, exponent, or needless 0.
        name: What it is, for the message.
        error: What to raise.

    Raises:
        HushrecError: Of the given type: it is written in another way.

    >>> decimal("0.25")
    Decimal('0.25')
    """
    number = _number(text) if isinstance(text, str) else None
    if number is None:
        shown = repr(text)
        shown = shown if len(shown) <= 40 else f"{shown[:40]}…"
        raise error(f"{name} is {shown}; it must be a decimal string such as '0.25' or '3', without needless zeros")
    return number


def float_text(value: float) -> str:
    """Write a float as the shortest decimal that reads back as exactly this float, by `float(text)`.

    Args:
        value: Finite, at least 0.

    Raises:
        ConfigError: It is not.

    >>> float_text(8.35), float_text(1e-6), float_text(3.0)
    ('8.35', '0.000001', '3')
    """
    return decimal_text(Decimal(repr(_finite(value))))


def float_text_up(value: float) -> str:
    """Write a float as a decimal of 17 digits that is never below it: for amounts that must not be understated.

    A float stands for a binary fraction; its shortest decimal may lie half a unit of the last place lower.

    Args:
        value: Finite, at least 0.

    Raises:
        ConfigError: It is not.

    >>> float_text_up(0.1), float_text_up(0.5)
    ('0.10000000000000001', '0.5')
    """
    return decimal_text(_UP.create_decimal(Decimal(_finite(value))))


def decimal_text(value: Decimal) -> str:
    """Write a number that is at least 0 in its one decimal notation.

    >>> decimal_text(Decimal("2.50"))
    '2.5'
    """
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def add_decimals(*texts: str) -> str:
    """Add decimals exactly.

    Raises:
        ConfigError: One of them is no decimal.

    >>> add_decimals("0.1", "0.2", "0.7")
    '1'
    """
    total = Decimal(0)
    for text in texts:
        total = add_exactly(total, decimal(text))
    return decimal_text(total)


def add_exactly(one: Decimal, other: Decimal) -> Decimal:
    """Add two numbers as `decimal` reads them, or such sums, without rounding.

    >>> add_exactly(Decimal("1"), Decimal("1e-60")) > 1
    True
    """
    return _EXACT.add(one, other)


def subtract_decimals(whole: str, part: str) -> str:
    """Subtract one decimal from another exactly.

    Raises:
        ConfigError: One of them is no decimal, or the difference is negative.

    >>> subtract_decimals("1", "0.3")
    '0.7'
    """
    left = _EXACT.subtract(decimal(whole), decimal(part))
    if left < 0:
        raise ConfigError(f"{part} cannot be taken from {whole}: the difference would be negative")
    return decimal_text(left)


@lru_cache(maxsize=1_024)  # the rounds of a plan mostly cost the same
def _number(text: str) -> Decimal | None:
    return Decimal(text) if len(text) <= LONGEST_DECIMAL and _DECIMAL.fullmatch(text) else None


def _finite(value: float) -> float:
    if isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{value!r} cannot be written as a decimal string; it must be finite and at least 0")
    return abs(float(value))  # no sign at 0


def _check(value: object) -> None:
    if isinstance(value, bool | str):
        return
    if isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            raise ConfigError("a whole number for canonical JSON is above 2^53 - 1; write it as a decimal string")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not (isinstance(key, str) and _KEY.fullmatch(key)):
                raise ConfigError(f"the key {key!r} cannot be in canonical JSON; keys are printable ASCII")
            _check(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item)
    else:
        raise ConfigError(f"a {type(value).__name__} cannot be in canonical JSON; leave it out or write it as a string")


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"the number {text[:40]} is no whole number")
