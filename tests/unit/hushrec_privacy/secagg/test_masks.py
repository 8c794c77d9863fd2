"""The mask is the documented keystream; what it covers looks uniform, and what it does not cover fails that test."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hushrec_privacy.secagg import Phase
from hushrec_privacy.secagg.masks import MASK_FUNCTION, add_mask
from hushrec_privacy.secagg.packing import element_type, unpack

from tests.curious_server import chi_square
from tests.secagg_round import Round, session

KEY = bytes(range(32))
HEAD = 18 + 64  # header and signature of MASK


def slow_mask(key: bytes, count: int, bits: int) -> list[int]:
    """Counter blocks one after the other, read a number at a time."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    size = 1 if bits <= 8 else 2 if bits <= 16 else 4
    stream = b"".join(block.update(counter.to_bytes(16, "big")) for counter in range(count * size // 16 + 1))
    return [int.from_bytes(stream[size * i : size * i + size], "little") % 2**bits for i in range(count)]


def test_the_mask_function_is_the_first() -> None:
    assert MASK_FUNCTION == 1


@pytest.mark.parametrize("bits", [2, 7, 8, 12, 16, 17, 31, 32])
@pytest.mark.parametrize("count", [1, 5, 16, 1000])
def test_a_mask_is_the_keystream_of_aes_in_counter_mode(bits: int, count: int) -> None:
    vector = np.zeros(count, element_type(bits))
    add_mask(vector, KEY)
    assert (vector & (2**bits - 1)).tolist() == slow_mask(KEY, count, bits)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_long_vectors_are_masked_piece_by_piece_with_one_stream(bits: int) -> None:
    count = 200_003 * 8 // bits
    whole, longer = np.zeros(count, element_type(bits)), np.zeros(2 * count, element_type(bits))
    add_mask(whole, KEY)
    add_mask(longer, KEY)
    np.testing.assert_array_equal(whole, longer[:count])
    assert whole[-20:].tolist() == slow_mask(KEY, count, bits)[-20:]


@pytest.mark.parametrize("bits", [5, 16, 20])
def test_taking_a_mask_away_gives_the_vector_back(bits: int) -> None:
    vector = np.arange(5_000).astype(element_type(bits))
    masked = vector.copy()
    add_mask(masked, KEY)
    assert (masked != vector).mean() > 0.5
    add_mask(masked, KEY, subtract=True)
    np.testing.assert_array_equal(masked, vector)


@pytest.mark.parametrize("bits", [6, 12, 16, 24, 32])
def test_a_captured_masked_vector_is_uniform_and_an_unmasked_one_is_not(bits: int) -> None:
    small = np.random.default_rng(1).integers(-3, 4, (4, 50_000), dtype=np.int64)
    captured = Round(session(coordinates=50_000, ring_bits=bits), small).until(Phase.MASK)
    captured.collect(Phase.MASK)
    for index, message in captured.messages[Phase.MASK].items():
        masked = unpack(message[HEAD:], 50_000, bits)
        assert abs(chi_square(masked, bits)) < 7
        difference = (masked.astype(np.int64) - small[index]) % 2**bits
        assert abs(chi_square(difference, bits)) < 7
    assert chi_square(small[0] % 2**bits, bits) > 100


def test_masked_vectors_of_two_devices_do_not_tell_their_difference() -> None:
    same = np.zeros((4, 50_000), np.int64)
    captured = Round(session(coordinates=50_000), same).until(Phase.MASK)
    captured.collect(Phase.MASK)
    one, other = (unpack(captured.messages[Phase.MASK][i][HEAD:], 50_000, 16).astype(np.int64) for i in (0, 1))
    assert abs(chi_square((one - other) % 2**16, 16)) < 7
    assert abs(chi_square((one + other) % 2**16, 16)) < 7
