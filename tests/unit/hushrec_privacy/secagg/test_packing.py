"""Vectors of every width are packed bit by bit without gaps, and read back from exactly that."""

import numpy as np
import pytest
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg.packing import element_type, pack, packed_bytes, unpack

WIDTHS = range(2, 33)


def slow_pack(values: list[int], bits: int) -> bytes:
    """One long number, coordinate after coordinate."""
    stream: int = sum(value % 2**bits << (bits * place) for place, value in enumerate(values))
    return stream.to_bytes((bits * len(values) + 7) // 8, "little")


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 100])
def test_packing_equals_one_long_number(bits: int, count: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**32, count).astype(element_type(bits))
    packed = pack(values, bits)
    assert packed == slow_pack(values.tolist(), bits)
    assert len(packed) == packed_bytes(count, bits)
    assert unpack(packed, count, bits).tolist() == [value % 2**bits for value in values.tolist()]


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_whole_bytes_are_little_endian_integers(bits: int) -> None:
    assert pack(np.array([1, 2], element_type(bits)), bits) == (1).to_bytes(bits // 8, "little") + (2).to_bytes(
        bits // 8, "little"
    )


@pytest.mark.parametrize("bits", WIDTHS)
def test_other_lengths_are_refused(bits: int) -> None:
    packed = pack(np.zeros(9, element_type(bits)), bits)
    for wrong in (packed[:-1], packed + b"\0", b""):
        with pytest.raises(SecAggError, match="not as long"):
            unpack(wrong, 9, bits)


@pytest.mark.parametrize("bits", [width for width in WIDTHS if width * 9 % 8])
def test_bits_after_the_last_coordinate_are_refused(bits: int) -> None:
    packed = bytearray(pack(np.zeros(9, element_type(bits)), bits))
    packed[-1] |= 0x80
    with pytest.raises(SecAggError, match="after the last"):
        unpack(bytes(packed), 9, bits)
