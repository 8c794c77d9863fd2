"""Masks: the keystream of AES-256 in counter mode as numbers of the ring, added to a vector or taken from it.

Mask function 1: the key encrypts counter blocks 0, 1, 2, ... (NIST SP 800-38A, section 6.5, first block all zeros).
The stream is read as little-endian integers of 1, 2 or 4 bytes, the narrowest that hold `bits` bits, and of each its
lowest `bits` bits count. The numbers are uniform modulo 2^bits, so a vector plus a mask whose key is unknown says
nothing about the vector. A key makes one mask only; `keys.py` sees to it.
"""

import numpy as np

from hushrec_privacy.secagg.packing import Elements

__all__ = ["MASK_FUNCTION", "add_mask"]

MASK_FUNCTION = 1
_CHUNK = 2**16  # bytes; stays in the cache of one core
_BLOCK = 16
_ZEROS = memoryview(bytes(_CHUNK))


def add_mask(vector: Elements, key: bytes, *, subtract: bool = False) -> None:
    """Add the mask of a key to a vector, or take it away, in place and modulo the width of its type.

    Args:
        vector: Shape (d,), of `element_type(bits)`, writable.
        key: 32 bytes.
        subtract: Take it away.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # slow to import

    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(_BLOCK))).encryptor()
    buffer = np.empty(_CHUNK + _BLOCK, np.uint8)  # update_into wants room for one block more
    work = np.subtract if subtract else np.add
    step = _CHUNK // vector.itemsize
    for start in range(0, len(vector), step):
        part = vector[start : start + step]
        stream.update_into(_ZEROS[: part.nbytes], buffer.data)
        work(part, buffer[: part.nbytes].view(vector.dtype), out=part)
