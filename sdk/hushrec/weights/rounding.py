"""Rounding to int8 that keeps products.

A row r of weights meets inputs x with second moment C = E[x xᵀ]. Rounding to the nearest step makes every value's error
as small as can be; what counts is the error of r·x, that is δᵀ C δ. Frantar et al. 2023 (GPTQ, arXiv:2210.17323,
section 3, Algorithm 1) round one value after the other and spread each error over the values that follow.

Steps are as large as the largest value of a vector demands, so vectors are rotated first into a basis in which their
values are alike (QuaRot: Ashkboos et al. 2024, arXiv:2404.00456, section 3), here one fitted to them: the rotation that
brings them nearest to the corners of a cube (ITQ: Gong and Lazebnik 2011, doi:10.1109/CVPR.2011.5995432, section 3.2).
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["flattening_rotation", "round_columns", "round_rows"]

_DAMPING = 0.01  # of the mean second moment: directions that calibration never saw still cost something
_LARGEST = 127  # steps of int8 in either direction

_CHUNK = 1 << 16  # rows
_ROUNDS = 50


def round_rows(rows: NDArray[np.float32], scales: NDArray[np.float32], moment: NDArray[np.float64]) -> NDArray[np.int8]:
    """Round rows to steps of their scales.

    Args:
        rows: Shape (N, K).
        scales: Size of a step of each row, shape (N,); a row of zeros may have 0.
        moment: Second moment C of what the rows are multiplied with, shape (K, K).

    Returns:
        Steps, int8, shape (N, K).
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
        Steps, int8, shape (inputs, outputs), and scales, float32, shape (outputs,).
    """
    values = np.abs(matrix).max(axis=0)
    scales = np.where(values > 0, values / np.float32(_LARGEST), np.float32(1)).astype(np.float32)
    return np.ascontiguousarray(round_rows(matrix.T, scales, moment).T), scales


def flattening_rotation(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find a basis in which the values of each vector are alike.

    Args:
        vectors: Shape (N, K), K a power of two; their lengths do not matter, zeros are left out.

    Returns:
        An orthogonal matrix R, float32, shape (K, K): `vectors @ R` are the vectors in the new basis.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float64)
    rotation = _hadamard(vectors.shape[1])
    for _ in range(_ROUNDS):
        left, _, right = np.linalg.svd(directions.T @ np.sign(directions @ rotation))
        rotation = left @ right
    return rotation.astype(np.float32)


def _hadamard(size: int) -> NDArray[np.float64]:
    """Sylvester's Hadamard matrix, orthogonal: where the search begins."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]]) / np.sqrt(2)
    return matrix


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
