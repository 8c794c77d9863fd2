"""Shamir's secret sharing of 32-byte secrets: any t of up to 255 shares recover one, fewer say nothing about it.

Shamir 1979, "How to share a secret", over the whole numbers modulo p = 65,521. A secret is 18 limbs of 15 bits, least
significant bit first; each limb is the value at 0 of a polynomial of its own with t - 1 random coefficients, and share
x holds the values at x = 1, 2, and so on. Detects no wrong share: who recovers compares the secret with what its owner
advertised.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.errors import SecAggError
from hushrec_privacy.randomness import OsRandom

__all__ = ["LIMBS", "PRIME", "SECRET_BYTES", "recover", "share_at", "split"]

PRIME = 65_521  # the largest below 2^16, so that a value of a share takes two bytes
SECRET_BYTES = 32
LIMBS = 18
_LIMB_BITS = 15
_MOST_SHARES = 255
_POWERS = 2 ** np.arange(_LIMB_BITS, dtype=np.int64)


def split(secret: bytes, shares: int, threshold: int, source: OsRandom) -> NDArray[np.uint16]:
    """Share one or more secrets of 32 bytes, laid end to end.

    Args:
        secret: A multiple of 32 bytes, S secrets. Private.
        shares: How many, K; at most 255.
        threshold: t, how many of them recover the secrets; 1 to K.
        source: Where the coefficients come from.

    Returns:
        Shape (K, 18 S), uint16; row i is the share at x = i + 1.

    Raises:
        SecAggError: An argument is outside its range.

    >>> recover([3, 1], split(bytes(range(32)), 3, 2, OsRandom())[[2, 0]]) == bytes(range(32))
    True
    """
    if not (1 <= threshold <= shares <= _MOST_SHARES and secret and len(secret) % SECRET_BYTES == 0):
        raise SecAggError("secrets of 32 bytes are shared among at most 255 holders, and as many recover them at most")
    limbs = _limbs(secret)
    coefficients = np.empty((threshold, len(limbs)))
    coefficients[0] = limbs
    coefficients[1:] = source.below(PRIME, (threshold - 1) * len(limbs)).reshape(threshold - 1, len(limbs))
    values = _powers(shares, threshold) @ coefficients  # exact: below 255 x 2^32, and a float64 holds 2^53
    return (values.astype(np.int64) % PRIME).astype(np.uint16)


def recover(points: Sequence[int], shares: NDArray[np.integer]) -> bytes:
    """Recover the secrets from exactly t shares.

    Args:
        points: The x of each, different, 1 to 255.
        shares: Shape (t, 18 S). Untrusted: wrong ones give a wrong secret, or none.

    Returns:
        32 S bytes.

    Raises:
        SecAggError: The points are not as they must be, or no secret of 32 bytes has these shares.
    """
    if not (0 < len(set(points)) == len(points) == len(shares) and all(1 <= x <= _MOST_SHARES for x in points)):
        raise SecAggError("shares that recover a secret have different places from 1 to 255")
    weights = np.array(_weights(points), np.int64)
    limbs = (weights @ shares.astype(np.int64)) % PRIME
    return _secret(limbs)


def share_at(x: int, points: Sequence[int], shares: NDArray[np.integer]) -> NDArray[np.uint16]:
    """The share at another x that goes with t right ones: whoever gave something else there has lied.

    Args:
        x: 1 to 255, none of `points`.
        points: As for `recover`.
        shares: As for `recover`.

    Returns:
        Shape (18 S,), uint16.
    """
    weights = np.array(_weights(points, x), np.int64)
    return ((weights @ shares.astype(np.int64)) % PRIME).astype(np.uint16)


def _weights(points: Sequence[int], at: int = 0) -> list[int]:
    """Lagrange's coefficients at a place that is none of the points, modulo p."""
    product = math.prod(at - x for x in points)
    return [
        product * pow((at - x) * math.prod(x - other for other in points if other != x), -1, PRIME) % PRIME
        for x in points
    ]


@lru_cache(maxsize=64)
def _powers(shares: int, threshold: int) -> NDArray[np.float64]:
    """x^j modulo p for x = 1 to K and j = 0 to t - 1, shape (K, t)."""
    return np.array([[pow(x, j, PRIME) for j in range(threshold)] for x in range(1, shares + 1)], np.float64)


def _limbs(secret: bytes) -> NDArray[np.int64]:
    bits = np.unpackbits(np.frombuffer(secret, np.uint8).reshape(-1, SECRET_BYTES), axis=1, bitorder="little")
    padded = np.pad(bits, ((0, 0), (0, LIMBS * _LIMB_BITS - 8 * SECRET_BYTES)))
    return np.asarray(padded.reshape(-1, _LIMB_BITS) @ _POWERS)


def _secret(limbs: NDArray[np.int64]) -> bytes:
    bits = (limbs[:, None] >> np.arange(_LIMB_BITS)) & 1
    rows = bits.reshape(-1, LIMBS * _LIMB_BITS)
    if (limbs >> _LIMB_BITS).any() or rows[:, 8 * SECRET_BYTES :].any():
        raise SecAggError("no secret has these shares: at least one of them is wrong")
    return np.packbits(rows[:, : 8 * SECRET_BYTES].astype(np.uint8), axis=1, bitorder="little").tobytes()
