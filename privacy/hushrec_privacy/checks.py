"""Argument checks shared by all packages: each raises `ConfigError` with the name, the value and what was expected."""

import math
from collections.abc import Iterable

from hushrec_privacy.errors import ConfigError

_LARGEST = 2**64

__all__ = ["at_least", "nearest", "one_of", "positive", "share"]


def positive(**values: float) -> None:
    """Require finite numbers above 0.

    Raises:
        ConfigError: One of them is not.

    >>> positive(width=64)
    """
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {value!r}; it must be a finite number above 0")


def at_least(minimum: int, **values: int) -> None:
    """Require integers of at least `minimum`, and at most 2^64, which no count exceeds and every float can follow.

    Raises:
        ConfigError: One of them is not.

    >>> at_least(1, k=10)
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {minimum}")
        if value > _LARGEST:
            raise ConfigError(f"{name} is above 2^64; no count is as large")


def share(**values: float) -> None:
    """Require numbers in 0 (included) to 1 (excluded).

    Raises:
        ConfigError: One of them is not.

    >>> share(prune=0.25)
    """
    for name, value in values.items():
        if not 0 <= value < 1:  # also refuses NaN
            raise ConfigError(f"{name} is {value!r}; it must be at least 0 and below 1")


def one_of(allowed: Iterable[str], **values: str) -> None:
    """Require one of the allowed words.

    Raises:
        ConfigError: One of them is not; the nearest allowed word is named.

    >>> one_of(("a", "b"), letter="a")
    """
    words = list(allowed)
    for name, value in values.items():
        if value not in words:
            raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(words)}{nearest(value, words)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known word a wrong one may have meant: " (did you mean 'x'?)", or nothing.

    >>> nearest("colour", ["color", "brand"])
    " (did you mean 'color'?)"
    """
    import difflib  # slow to import, and needed only for an error text

    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
