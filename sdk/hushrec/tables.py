"""The int8 item table: one row an item, 64 unsigned codes around 128 and one float32 scale.

Row v stands for `(codes[v] − 128) · scales[v]`, which is item vector v turned: stretched along one axis, the direction
that all users share, and rotated by a Hadamard matrix. User vectors are shrunk along the axis and rotated, so products
are what they were; but none of a user's 64 values stands out any more, and rounding them to int8 (QuaRot: Ashkboos et
al. 2024, arXiv:2404.00456, section 3) loses half as much. The encoder gathers rows of the table, the scorer multiplies
with all of it, both from one file (`items.bin`: codes, scales, axis). Row 0 (padding) and the spare rows above V are
zeros; spare rows let a later release add items without a new graph.
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
    "hadamard",
    "items_layout",
    "pack_items",
    "quantize_rows",
    "row_scales",
    "turn_back",
    "turn_rows",
]

WIDTH = 64
ZERO_POINT = 128
_ROW_STEP = 64  # rows; keeps the scales aligned to 4,096 bytes and lets top-k cut the scores in equal strips
_SPARE = 32  # one spare row per this many items


class ItemsLayout(NamedTuple):
    """Where things are in `items.bin`, in bytes."""

    codes_offset: int
    scales_offset: int
    axis_offset: int
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
    ItemsLayout(codes_offset=0, scales_offset=4096, axis_offset=4352, size=4608)
    """
    if capacity < _ROW_STEP or capacity % _ROW_STEP:
        raise ConfigError(f"capacity is {capacity}; it must be a multiple of {_ROW_STEP}, as capacity_for() returns it")
    return ItemsLayout(0, capacity * WIDTH, capacity * (WIDTH + 4), capacity * (WIDTH + 4) + WIDTH * 4)


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


def hadamard() -> NDArray[np.int8]:
    """Sylvester's Hadamard matrix of order 64: entries ±1, symmetric, and its square is 64 times the identity.

    >>> hadamard()[:3, :4]
    array([[ 1,  1,  1,  1],
           [ 1, -1,  1, -1],
           [ 1,  1, -1, -1]], dtype=int8)
    """
    matrix = np.ones((1, 1), np.int8)
    while len(matrix) < WIDTH:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def turn_rows(rows: NDArray[np.float32], axis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn item vectors as the table holds them: r · (I − a aᵀ)⁻¹ · H / 8 for axis a and Hadamard matrix H.

    Args:
        rows: Shape (V, 64).
        axis: Shape (64,), shorter than 1; zeros only rotate.

    Returns:
        Float32, shape (V, 64).

    >>> rows = np.eye(2, 64, dtype=np.float32)
    >>> np.abs(turn_back(turn_rows(rows, rows[0] / 2), rows[0] / 2) - rows).max() < 1e-6
    np.True_
    """
    stretch = (rows @ axis) / (1 - axis @ axis)
    return _rotate((rows + stretch[:, None] * axis).astype(np.float32))


def turn_back(rows: NDArray[np.float32], axis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo `turn_rows`: r · H / 8 · (I − a aᵀ).

    Args:
        rows: Shape (V, 64).
        axis: Shape (64,).

    Returns:
        Float32, shape (V, 64).
    """
    rotated = _rotate(rows)
    return rotated - (rotated @ axis)[:, None] * axis


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


def pack_items(
    codes: NDArray[np.uint8], scales: NDArray[np.float32], axis: NDArray[np.float32], capacity: int
) -> bytes:
    """Write `items.bin`.

    Args:
        codes: Of row 0 (padding) and the items, turned, shape (V + 1, 64).
        scales: Shape (V + 1,).
        axis: Of the turn, shape (64,).
        capacity: Rows of the file, from `capacity_for`; those above V become zeros.

    Raises:
        ConfigError: The rows do not fit into `capacity`.

    >>> len(pack_items(*quantize_rows(np.zeros((3, 64), np.float32)), np.zeros(64, np.float32), 64))
    4608
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
            np.ascontiguousarray(axis, "<f4").tobytes(),
        ]
    )


def _rotate(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return (rows @ hadamard().astype(np.float32)) / np.float32(8)
