"""The int8 item table: one row an item, 64 unsigned codes around 128 and one float32 scale.

Row v stands for `(codes[v] − 128) · scales[v]`, item vector v in a rotated basis that whoever made the table chose, so
that no value of a row, nor of a user vector, stands out: then int8 loses least. Encoder and scorer share the basis, and
products of two rows are those of the item vectors. The encoder gathers rows of the table, the scorer multiplies with
all of it, both from one file (`items.bin`: codes, then scales). Row 0 (padding) and the spare rows above V are zeros;
spare rows let a later release add items without a new graph.
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
    "row_scales",
]

WIDTH = 64
ZERO_POINT = 128
_ROW_STEP = 64  # rows; keeps the scales aligned to 4,096 bytes and lets top-k cut the scores in equal strips
_SPARE = 32  # one spare row per this many items


class ItemsLayout(NamedTuple):
    """Where things are in `items.bin`, in bytes."""

    codes_offset: int
    scales_offset: int
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
    ItemsLayout(codes_offset=0, scales_offset=4096, size=4352)
    """
    if capacity < _ROW_STEP or capacity % _ROW_STEP:
        raise ConfigError(f"capacity is {capacity}; it must be a multiple of {_ROW_STEP}, as capacity_for() returns it")
    return ItemsLayout(0, capacity * WIDTH, capacity * (WIDTH + 4))


def quantize_rows(rows: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round every row to 255 levels, symmetric about zero, with a scale of its own.

    Args:
        rows: Item vectors, shape (V, 64), finite. A row of zeros gets the scale 0.

    Returns:
        Codes, uint8, shape (V, 64), and scales, float32, shape (V,). No value moves by more than half a scale, to
        float32 rounding.

    Raises:
        ConfigError: The shape is not (V, 64), or a value is not finite.

    >>> codes, scales = quantize_rows(np.full((1, 64), -0.5, np.float32))
    >>> int(codes[0, 0]), round(float(scales[0]) * 127, 3)
    (1, 0.5)
    """
    if rows.ndim != 2 or rows.shape[1] != WIDTH:
        raise ConfigError(f"rows has shape {rows.shape}; it must be (items, {WIDTH})")
    scales = row_scales(rows)
    steps = np.divide(rows, scales[:, None], out=np.zeros(rows.shape, np.float32), where=scales[:, None] > 0)
    np.rint(steps, out=steps)
    np.clip(steps, -127, 127, out=steps)
    steps += ZERO_POINT
    return steps.astype(np.uint8), scales


def row_scales(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale of each row: its largest value is 127 steps.

    Args:
        rows: Shape (V, 64).

    Returns:
        Float32, shape (V,).

    Raises:
        ConfigError: A value is not finite.

    >>> row_scales(np.array([[-254.0, 1.0]], np.float32))
    array([2.], dtype=float32)
    """
    largest = np.abs(rows).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all():
        raise ConfigError("rows holds NaN or infinity; item vectors must be finite")
    scales: NDArray[np.float32] = (largest / np.float32(127)).astype(np.float32)
    return scales


def dequantize_rows(codes: NDArray[np.uint8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo `quantize_rows` up to its rounding.

    Args:
        codes: Shape (V, 64).
        scales: Shape (V,).

    Returns:
        Float32 rows, shape (V, 64).

    >>> dequantize_rows(np.array([[129, 128]], np.uint8), np.array([0.5], np.float32))
    array([[0.5, 0. ]], dtype=float32)
    """
    rows = codes.astype(np.float32)
    rows -= ZERO_POINT
    rows *= scales[:, None]
    return rows


def pack_items(codes: NDArray[np.uint8], scales: NDArray[np.float32], capacity: int) -> bytes:
    """Write `items.bin`.

    Args:
        codes: Of row 0 (padding) and the items, shape (V + 1, 64).
        scales: Shape (V + 1,).
        capacity: Rows of the file, from `capacity_for`; those above V become zeros.

    Raises:
        ConfigError: The rows do not fit into `capacity`.

    >>> len(pack_items(*quantize_rows(np.zeros((3, 64), np.float32)), 64))
    4352
    """
    items_layout(capacity)
    spare = capacity - len(codes)
    if spare < 0:
        raise ConfigError(f"{len(codes)} rows do not fit into a capacity of {capacity}; build for a larger one")
    return b"".join(
        [
            np.ascontiguousarray(codes).tobytes(),
            bytes([ZERO_POINT]) * (spare * WIDTH),
            np.ascontiguousarray(scales, "<f4").tobytes(),
            bytes(spare * 4),
        ]
    )
