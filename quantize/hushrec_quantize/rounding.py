"""Rounding to int8 that keeps products: each value is rounded so that the error of the products so far is made good.

A row r of weights meets inputs x with second moment C = E[x xᵀ]. Rounding to the nearest step makes every value's error
as small as can be; what counts is the error of r·x, that is δᵀ C δ. Frantar et al. 2023 (GPTQ, arXiv:2210.17323,
section 3, Algorithm 1) round one value after the other and spread each error over the values that follow.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["round_columns", "round_rows", "shared_axis"]

_DAMPING = 0.01  # of the mean second moment: directions that calibration never saw still cost something
_LARGEST = 127
_CHUNK = 1 << 16  # rows


def round_rows(rows: NDArray[np.float32], scales: NDArray[np.float32], moment: NDArray[np.float64]) -> NDArray[np.int8]:
    """Round rows to steps of their scales.

    Args:
        rows: Shape (N, K).
        scales: Size of a step of each row, shape (N,); a row of zeros may have 0.
        moment: Second moment C of what the rows are multiplied with, shape (K, K).

    Returns:
        Steps from −127 to 127, int8, shape (N, K).
    """
    spread = _spread(moment)
    steps = np.empty(rows.shape, np.int8)
    for start in range(0, len(rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        size = np.where(scales[chunk] > 0, scales[chunk], 1)[:, None]
        steps[chunk] = _round((rows[chunk] / size).astype(np.float32), spread)
    return steps


def round_columns(
    matrix: NDArray[np.float32], moment: NDArray[np.float64]
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a matrix to int8 with one scale a column.

    Args:
        matrix: Shape (inputs, outputs).
        moment: Second moment of the inputs, shape (inputs, inputs).

    Returns:
        Steps from −127 to 127, shape (inputs, outputs), and scales, float32, shape (outputs,).
    """
    largest = np.abs(matrix).max(axis=0)
    scales = np.where(largest > 0, largest / np.float32(_LARGEST), np.float32(1)).astype(np.float32)
    return np.ascontiguousarray(round_rows(matrix.T, scales, moment).T), scales


def shared_axis(users: NDArray[np.float64], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Choose the axis of `hushrec.tables.turn_rows`: the strongest common direction of user vectors.

    Stretching items and shrinking users by t along it balances what rounding both loses: with energies U of users and E
    of items along the axis and Uʹ, Eʹ across it, the product of the lengths is smallest at t⁴ = U Eʹ / (Uʹ E). Rounding
    that knows users (see above) repairs part of the items' side, and the root of that t measured best.

    Args:
        users: Second moment of user vectors, shape (64, 64).
        rows: Item vectors, shape (V, 64).

    Returns:
        The axis a with 1 / (1 − a·a) = t, float32, shape (64,); zeros if users share no direction.
    """
    items = (rows.T @ rows).astype(np.float64)
    direction = np.linalg.eigh(users)[1][:, -1]
    users_along, items_along = direction @ users @ direction, direction @ items @ direction
    users_across, items_across = np.trace(users) - users_along, np.trace(items) - items_along
    if min(users_across, items_along, items_across) <= 0:
        return np.zeros(len(users), np.float32)
    stretch = max((users_along * items_across / (users_across * items_along)) ** 0.125, 1.0)
    axis: NDArray[np.float32] = (direction * np.sqrt(1 - 1 / stretch)).astype(np.float32)
    return axis


def _spread(moment: NDArray[np.float64]) -> NDArray[np.float32]:
    """Row i says how the error of value i is spread over the values after it."""
    size = len(moment)
    damped = moment + np.eye(size) * (_DAMPING * np.trace(moment) / size or 1.0)
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    spread: NDArray[np.float32] = (upper / np.diag(upper)[:, None]).astype(np.float32)
    return spread


def _round(values: NDArray[np.float32], spread: NDArray[np.float32]) -> NDArray[np.int8]:
    columns = np.ascontiguousarray(values.T, dtype=np.float32)  # one value of all rows is contiguous
    steps = np.empty(columns.shape, np.int8)
    for place, column in enumerate(columns):
        rounded = np.clip(np.rint(column), -_LARGEST, _LARGEST)
        steps[place] = rounded
        columns[place + 1 :] -= spread[place, place + 1 :, None] * (column - rounded)
    rounded_rows: NDArray[np.int8] = steps.T
    return rounded_rows
