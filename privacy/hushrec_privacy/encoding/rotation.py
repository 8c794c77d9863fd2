"""Turn a vector so that no coordinate stands out: a randomised Walsh-Hadamard transform, the same for a whole plan.

turn(x) = H D x / sqrt(d): D multiplies by public random signs, H is the d x d Hadamard matrix in Sylvester's order
(Suresh et al. 2017, arXiv:1611.00429, section 3; Kairouz et al. 2021, arXiv:2102.06387, section 4). Orthogonal, so
norms and Gaussian noise stay what they are. It hides nothing: everybody knows the seed.
"""

import hashlib
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError

__all__ = ["Rotation"]

_DOMAIN = b"hushrec rotation v1\x00"
_BITS_AT_ONCE = 4  # of the transform: 16 x 16 matrices, the fastest of those tried (3 ms for 2^19 numbers)


class Rotation:
    """The rotation of one plan.

    Sign i is minus if bit i of SHAKE-256(domain, seed) is set, the most significant bit of each byte being first.

    Guarantee:
        `turn` keeps the L2 norm, and `back` undoes it, to 1e-14 relative (float64 rounding).

    >>> rotation = Rotation("00" * 32, parameters=3, coordinates=4)
    >>> turned = rotation.turn(np.array([3.0, 0.0, 4.0]))
    >>> float(np.linalg.norm(turned)), rotation.back(turned).round(12).tolist()
    (5.0, [3.0, 0.0, 4.0])
    """

    def __init__(self, seed: str, parameters: int, coordinates: int) -> None:
        """Make the signs.

        Args:
            seed: 64 hexadecimal digits, public: a plan's `rotation_seed`.
            parameters: P, numbers of a vector.
            coordinates: d, a power of two of at least P.

        Raises:
            ConfigError: An argument is not as it must be.
        """
        checks.at_least(1, parameters=parameters, coordinates=coordinates)
        if coordinates & (coordinates - 1) or coordinates < parameters:
            raise ConfigError(f"coordinates is {coordinates}; it must be a power of two of at least {parameters}")
        try:
            seed_bytes = bytes.fromhex(seed)
        except ValueError as error:
            raise ConfigError("the seed of a rotation must be hexadecimal digits") from error
        stream = hashlib.shake_256(_DOMAIN + seed_bytes).digest(-(-coordinates // 8))
        bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=coordinates)
        self._signs = (1 - 2 * bits.astype(np.int8)).astype(np.float64) / math.sqrt(coordinates)
        self._parameters = parameters

    def turn(self, vector: NDArray[np.floating]) -> NDArray[np.float64]:
        """Turn a vector, zeros being appended to it.

        Args:
            vector: Shape (P,).

        Returns:
            Shape (d,).

        Raises:
            ConfigError: It has another shape.
        """
        if vector.shape != (self._parameters,):
            raise ConfigError(f"a vector to turn has shape {vector.shape}; it must have {self._parameters} numbers")
        padded = np.zeros(len(self._signs))
        np.multiply(vector, self._signs[: self._parameters], out=padded[: self._parameters])
        return _hadamard_product(padded)

    def back(self, vector: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
        """Undo `turn`, and leave out what was appended.

        Args:
            vector: Shape (d,).

        Returns:
            Shape (P,).

        Raises:
            ConfigError: It has another shape.
        """
        if vector.shape != self._signs.shape:
            raise ConfigError(
                f"a vector to turn back has shape {vector.shape}; it must have {len(self._signs)} numbers"
            )
        turned = _hadamard_product(np.asarray(vector, np.float64))
        return turned[: self._parameters] * self._signs[: self._parameters]


def _hadamard_product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """H times a vector, shape (d,). H is a Kronecker product: each factor acts on one axis, which then goes last."""
    for bits in _factors(len(vector).bit_length() - 1):
        matrix = _hadamard(bits)
        vector = (vector.reshape(len(matrix), -1).T @ matrix).reshape(-1)
    return vector


def _factors(bits: int) -> list[int]:
    """Split the bits of an index as evenly as possible: after one turn of the axes each, all are where they were."""
    parts = -(-bits // _BITS_AT_ONCE)
    return [bits // parts + (part < bits % parts) for part in range(parts)]


@cache
def _hadamard(bits: int) -> NDArray[np.float64]:
    """Sylvester's matrix, shape (2^bits, 2^bits)."""
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix
