"""The int8 item table: one row an item, 64 unsigned codes around 128; one float32 step for the whole table.

Row v stands for `(codes[v] − 128) · scale`, item vector v in a rotated basis that whoever made the table chose, so that
no value of a row, nor of a user vector, stands out: then int8 loses least, and rows of unit length need no steps of
their own. Encoder and scorer share the basis, and products of two rows are those of the item vectors. The encoder
gathers rows of the table, the scorer multiplies with all of it, both from one file (`items.bin`: codes, then the step).
Row 0 (padding) and the spare rows above V are zeros; spare rows let a later release add items without a new graph.
"""

from typing import NamedTuple

import numpy as np
from hushrec_privacy.checks import at_least
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray

__all__ = [
    "WIDTH",
    "ZERO_POINT",
    "ItemsLayout",
    "capacity_for",
    "dequantize_rows",
    "items_layout",
    "pack_items",
    "quantize_rows",
    "table_scale",
]

WIDTH = 64
ZERO_POINT = 128
_ROW_STEP = 64  # rows; keeps the step aligned to 4,096 bytes and lets top-k cut the scores in equal strips
_SPARE = 32  # one spare row per this many items
_LARGEST = 127
_COVERED = 0.9999  # share of values inside the steps' range; steps for the largest of all would be a quarter coarser
_SAMPLE = 65_536  # rows that the step is chosen from


class ItemsLayout(NamedTuple):
    """Where things are in `items.bin`, in bytes."""

    codes_offset: int
    scale_offset: int
    size: int


def capacity_for(items: int) -> int:
    """Rows of the table of a catalogue of `items` items: row 0, one row an item, about 3 % spare, rounded up to 64.

    Raises:
        ConfigError: `items` is below 1.

    >>> capacity_for(10_000)
    10368
    """
    at_least(1, items=items)
    return -(-(1 + items + items // _SPARE) // _ROW_STEP) * _ROW_STEP


def items_layout(capacity: int) -> ItemsLayout:
    """Offsets inside `items.bin`; they depend on nothing but the capacity.

    Raises:
        ConfigError: `capacity` is no multiple of 64.

    >>> items_layout(64)
    ItemsLayout(codes_offset=0, scale_offset=4096, size=4100)
    """
    if capacity < _ROW_STEP or capacity % _ROW_STEP:
        raise ConfigError(f"capacity is {capacity}; it must be a multiple of {_ROW_STEP}, as capacity_for() returns it")
    return ItemsLayout(0, capacity * WIDTH, capacity * WIDTH + 4)


def quantize_rows(rows: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
    """Round rows to the nearest of 255 levels, symmetric about zero.

    Args:
        rows: Item vectors, shape (V, 64), finite.
        scale: The step, above 0.

    Returns:
        Codes, uint8, shape (V, 64). No value within 127 steps moves by more than half of one; others become ±127.

    Raises:
        ConfigError: The shape is not (V, 64), or a value is not finite.

    >>> int(quantize_rows(np.full((1, 64), -0.5, np.float32), 0.25)[0, 0])
    126
    """
    _check(rows)
    steps = rows / np.float32(scale)
    np.rint(steps, out=steps)
    np.clip(steps, -_LARGEST, _LARGEST, out=steps)
    steps += ZERO_POINT
    return steps.astype(np.uint8)


def table_scale(rows: NDArray[np.float32]) -> float:
    """Choose the step of a table: 127 of them reach all but one in ten thousand values.

    Args:
        rows: Shape (V, 64); rows of zeros do not count.

    Raises:
        ConfigError: The shape is not (V, 64), or a value is not finite.

    >>> table_scale(np.full((1, 64), -254.0, np.float32))
    2.0
    """
    _check(rows)
    known = np.flatnonzero(rows.any(axis=1))
    if not len(known):
        return 1.0
    few = known[np.linspace(0, len(known) - 1, min(len(known), _SAMPLE)).astype(np.int64)]
    return float(np.float32(np.quantile(np.abs(rows[few]), _COVERED, method="higher") / _LARGEST))


def _check(rows: NDArray[np.float32]) -> None:
    if rows.ndim != 2 or rows.shape[1] != WIDTH:
        raise ConfigError(f"rows has shape {rows.shape}; it must be (items, {WIDTH})")
    if not np.isfinite(rows).all():
        raise ConfigError("rows holds NaN or infinity; item vectors must be finite")


def dequantize_rows(codes: NDArray[np.uint8], scale: float) -> NDArray[np.float32]:
    """Undo `quantize_rows` up to its rounding.

    Args:
        codes: Shape (V, 64).
        scale: The step.

    Returns:
        Float32 rows, shape (V, 64).

    >>> dequantize_rows(np.array([[129, 128]], np.uint8), 0.5)
    array([[0.5, 0. ]], dtype=float32)
    """
    rows = codes.astype(np.float32)
    rows -= ZERO_POINT
    rows *= np.float32(scale)
    return rows


def pack_items(codes: NDArray[np.uint8], scale: float, capacity: int) -> bytes:
    """Write `items.bin`.

    Args:
        codes: Of row 0 (padding) and the items, shape (V + 1, 64).
        scale: The step.
        capacity: Rows of the file, from `capacity_for`; those above V become zeros.

    Raises:
        ConfigError: The rows do not fit into `capacity`.

    >>> len(pack_items(quantize_rows(np.zeros((3, 64), np.float32), 1.0), 1.0, 64))
    4100
    """
    items_layout(capacity)
    spare = capacity - len(codes)
    if spare < 0:
        raise ConfigError(f"{len(codes)} rows do not fit into a capacity of {capacity}; build for a larger one")
    parts = [np.ascontiguousarray(codes).tobytes(), bytes([ZERO_POINT]) * (spare * WIDTH)]
    return b"".join([*parts, np.array([scale], "<f4").tobytes()])
