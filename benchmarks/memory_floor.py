"""Ways to read bytes from memory once, on one thread: the fastest of them is what no pass over a table can beat.

NumPy's reductions and the search for a byte are vector code at the speed of memory; the copy goes block by block into a
buffer that stays in the cache, so that only reading reaches the memory.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["WAYS", "reader"]

_BLOCK = 1 << 18  # bytes; fits into the second-level cache

WAYS = ("uint64 sum", "uint64 max", "uint64 or", "search for a byte", "copy into a small buffer")


def reader(codes: NDArray[np.uint8], way: str) -> Callable[[], object]:
    """A function that reads every byte of an array once.

    Args:
        codes: Contiguous, without a byte of 0, its size a multiple of 8.
        way: One of `WAYS`.
    """
    words = codes.view(np.uint64)
    if way == "search for a byte":
        content = codes.tobytes()
        return lambda: content.find(b"\0")
    if way == "copy into a small buffer":
        blocks, buffer = (
            [codes[start : start + _BLOCK] for start in range(0, len(codes), _BLOCK)],
            codes[:_BLOCK].copy(),
        )

        def copy() -> NDArray[np.uint8]:
            for block in blocks:
                np.copyto(buffer[-len(block) :], block)
            return buffer

        return copy
    reductions: dict[str, Callable[[], object]] = {
        "uint64 sum": lambda: np.add.reduce(words),
        "uint64 max": lambda: np.maximum.reduce(words),
        "uint64 or": lambda: np.bitwise_or.reduce(words),
    }
    return reductions[way]
