"""Several arrays in one file of a bundle, each at an aligned place that the manifest names."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hushrec.manifest import ALIGNMENT, ArrayInfo

__all__ = ["pack_arrays"]

_DTYPES = {"float32": "<f4", "uint8": "|u1", "uint32": "<u4"}


def pack_arrays(file: str, arrays: Mapping[str, NDArray[np.generic]]) -> tuple[bytes, dict[str, ArrayInfo]]:
    """Lay arrays end to end, each at a multiple of 64 bytes.

    Args:
        file: Name of the file they will be in.
        arrays: float32, uint8 or uint32, by name.

    Returns:
        The file's content, and where each array is in it.

    >>> content, where = pack_arrays("a.bin", {"x": np.ones(3, np.uint8), "y": np.ones(2, np.float32)})
    >>> len(content), where["y"].offset
    (72, 64)
    """
    content, where = bytearray(), {}
    for name, array in arrays.items():
        content += bytes(-len(content) % ALIGNMENT)
        where[name] = ArrayInfo(file, len(content), _DTYPES[array.dtype.name], array.shape)  # type: ignore[arg-type]
        content += np.ascontiguousarray(array).tobytes()
    return bytes(content), where
