"""Sentences about rows of a file that are not as they should be: how many, what, and the first of them."""

from collections.abc import Sequence

__all__ = ["finding"]

_SHOWN = 3


def finding(place: str, rows: Sequence[int], what: str, *, unit: str = "row") -> list[str]:
    """Say what is the matter with some rows; nothing if there are none.

    Args:
        place: File, and column if one is to blame.
        rows: The rows, rising, from 0.
        what: What is the matter, read after their number.
        unit: What a row is called.

    Returns:
        One sentence, or none. Rows are numbered from 1 in it, header not counted.

    >>> finding("log.csv, column 'price'", [0, 4, 8, 9], "prices count as unknown")
    ["log.csv, column 'price': 4 prices count as unknown (rows 1, 5, 9, …)"]
    """
    if not len(rows):
        return []
    shown = ", ".join(str(int(row) + 1) for row in rows[:_SHOWN])
    more = ", …" if len(rows) > _SHOWN else ""
    return [f"{place}: {len(rows)} {what} ({unit}{'s' if len(rows) > 1 else ''} {shown}{more})"]
