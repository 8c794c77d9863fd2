"""Vectors of the ring on the wire: d whole numbers of `bits` bits each, without gaps.

Bit i of coordinate j is bit j x bits + i of the stream; bit b of the stream is bit b mod 8 of byte b div 8, least
significant first. With 8, 16 or 32 bits these are little-endian integers. The bits after the last coordinate are 0.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.errors import SecAggError

__all__ = ["Elements", "check_packed", "element_type", "pack", "packed_bytes", "unpack"]

Elements: TypeAlias = NDArray[np.unsignedinteger]

_GROUP = 8  # coordinates that end on a whole byte, whatever the width


def element_type(bits: int) -> np.dtype[np.unsignedinteger]:
    """The narrowest type that holds a coordinate; arithmetic in it wraps, and 2^bits divides where it wraps."""
    return np.dtype("<u1" if bits <= 8 else "<u2" if bits <= 16 else "<u4")


def packed_bytes(coordinates: int, bits: int) -> int:
    """Bytes of a packed vector.

    >>> packed_bytes(524_288, 16), packed_bytes(3, 5)
    (1048576, 2)
    """
    return (coordinates * bits + 7) // 8


def pack(vector: Elements, bits: int) -> bytes:
    """Write a vector of `element_type(bits)`; higher bits of an element are cut off."""
    if bits == 8 * vector.itemsize:
        return vector.tobytes()
    groups = _groups(len(vector))
    padded = np.zeros((groups, _GROUP), np.uint64)
    padded.reshape(-1)[: len(vector)] = vector & ((1 << bits) - 1)
    words = np.zeros((groups, 4), "<u8")  # 8 coordinates of at most 32 bits
    for place in range(_GROUP):
        word, shift = divmod(place * bits, 64)
        words[:, word] |= padded[:, place] << np.uint64(shift)
        if shift + bits > 64:
            words[:, word + 1] |= padded[:, place] >> np.uint64(64 - shift)
    return words.view(np.uint8)[:, :bits].tobytes()[: packed_bytes(len(vector), bits)]


def unpack(data: bytes | memoryview, coordinates: int, bits: int) -> Elements:
    """Read a vector, shape (`coordinates`,), of `element_type(bits)`; read-only where no bit had to move.

    Raises:
        SecAggError: The length is not that of the vector, or a bit after the last coordinate is set.
    """
    check_packed(data, coordinates, bits)
    kind = element_type(bits)
    if bits == 8 * kind.itemsize:
        return np.frombuffer(data, kind)
    groups = _groups(coordinates)
    stream = np.zeros(groups * bits, np.uint8)
    stream[: len(data)] = np.frombuffer(data, np.uint8)
    rows = np.zeros((groups, 32), np.uint8)
    rows[:, :bits] = stream.reshape(groups, bits)
    words = rows.view("<u8")
    vector = np.empty((groups, _GROUP), kind)
    for place in range(_GROUP):
        word, shift = divmod(place * bits, 64)
        value = words[:, word] >> np.uint64(shift)
        if shift + bits > 64:
            value |= words[:, word + 1] << np.uint64(64 - shift)
        vector[:, place] = (value & np.uint64((1 << bits) - 1)).astype(kind)
    return vector.reshape(-1)[:coordinates]


def check_packed(data: bytes | memoryview, coordinates: int, bits: int) -> None:
    """Check a vector without reading it: its length, and the bits after the last coordinate.

    Raises:
        SecAggError: As `unpack`.
    """
    if len(data) != packed_bytes(coordinates, bits):
        raise SecAggError("a vector is not as long as the session says")
    used = coordinates * bits % 8
    if used and data[-1] >> used:
        raise SecAggError("a bit after the last coordinate of a vector is set")


def _groups(coordinates: int) -> int:
    return -(-coordinates // _GROUP)
