"""The int8 item table: turning, layout, refusals."""

import numpy as np
import pytest
from hushrec.tables import capacity_for, dequantize_rows, items_layout, pack_items, quantize_rows
from hushrec_privacy.errors import ConfigError

ROWS = np.random.default_rng(0).standard_normal((7, 64)).astype(np.float32)


def test_the_file_holds_codes_then_scales() -> None:
    codes, scales = quantize_rows(ROWS)
    layout = items_layout(64)
    packed = pack_items(codes, scales, 64)
    assert len(packed) == layout.size == 64 * 68
    found = np.frombuffer(packed, np.uint8, 64 * 64).reshape(64, 64)
    found_scales = np.frombuffer(packed, "<f4", 64, layout.scales_offset)
    assert np.array_equal(found[:7], codes)
    assert np.array_equal(found_scales[:7], scales)
    assert not dequantize_rows(found, found_scales)[7:].any()
    assert (found[7:] == 128).all()


@pytest.mark.parametrize("capacity", [0, 63, 65, -64])
def test_a_capacity_that_is_no_multiple_of_64_is_refused(capacity: int) -> None:
    with pytest.raises(ConfigError, match=f"capacity is {capacity}"):
        items_layout(capacity)


def test_capacity_needs_an_item() -> None:
    with pytest.raises(ConfigError, match="items is 0"):
        capacity_for(0)


def test_vectors_that_are_not_finite_or_of_another_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"shape \(2, 32\)"):
        quantize_rows(np.zeros((2, 32), np.float32))
    with pytest.raises(ConfigError, match="NaN or infinity"):
        quantize_rows(np.full((1, 64), np.inf, np.float32))


def test_no_rows_are_quantized_to_no_rows() -> None:
    codes, scales = quantize_rows(np.zeros((0, 64), np.float32))
    assert codes.shape == (0, 64)
    assert scales.shape == (0,)
