"""Random numbers that protect someone: a keystream under a key from the operating system, never a seed.

AES-256 in counter mode (NIST SP 800-38A, section 6.5) over zeros, its 32-byte key from `os.urandom`. Simulations and
initial weights use NumPy's seeded generators instead; the two types cannot be swapped.
"""

import os
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

__all__ = ["OsRandom"]

_WORDS_UNDER_ONE_KEY = 2**40  # 8 TiB; counter mode stays indistinguishable from random far beyond (2^64 blocks)


class OsRandom:
    """A source of uniform 64-bit words for noise, sampling and rounding.

    It cannot be seeded, copied or sent to another process; after a fork the child takes a key of its own, so that no
    two processes ever draw the same noise. Not for use from several threads at once.

    >>> OsRandom().words(3).shape
    (3,)
    """

    def __init__(self) -> None:
        self._rekey()

    def _rekey(self) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # slow to import

        self._stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
        self._left, self._process = _WORDS_UNDER_ONE_KEY, os.getpid()

    def words(self, count: int) -> NDArray[np.uint64]:
        """Independent uniform words, 0 to 2^64 - 1.

        Args:
            count: How many.

        Returns:
            Shape (count,), uint64.
        """
        if count > self._left or os.getpid() != self._process:
            self._rekey()
        self._left -= count
        out = np.empty(count * 8 + 15, np.uint8)  # update_into wants room for one block more
        self._stream.update_into(bytes(count * 8), out.data)
        return out[: count * 8].view(np.uint64)

    def below(self, bound: int, count: int) -> NDArray[np.int64]:
        """Independent uniform whole numbers 0 to `bound` - 1, without bias.

        Words that would make some numbers likelier are drawn again.

        Args:
            bound: 1 to 2^62.
            count: How many.

        Returns:
            Shape (count,), int64.

        >>> bool((OsRandom().below(6, 1000) < 6).all())
        True
        """
        if bound & (bound - 1) == 0:
            return (self.words(count) & np.uint64(bound - 1)).view(np.int64)
        fair = np.uint64(2**64 // bound * bound - 1)  # the last word of the last whole cycle
        drawn = self.words(count)
        wrong = np.flatnonzero(drawn > fair)
        while len(wrong):
            drawn[wrong] = self.words(len(wrong))
            wrong = wrong[drawn[wrong] > fair]
        return (drawn % np.uint64(bound)).view(np.int64)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Independent floats on the grid of 2^-53 in [0, 1), shape (count,)."""
        return (self.words(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def __repr__(self) -> str:
        """Nothing of the key."""
        return "OsRandom()"

    def __reduce__(self) -> NoReturn:
        """A copy would draw the same noise."""
        raise TypeError("OsRandom cannot be copied or pickled: two copies would draw the same noise")
