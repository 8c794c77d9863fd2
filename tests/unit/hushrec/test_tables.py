"""The int8 item table: turning, layout, refusals."""

import numpy as np
import pytest
from hushrec.tables import capacity_for, dequantize_rows, items_layout, pack_items, quantize_rows, table_scale
from hushrec_privacy.errors import ConfigError

ROWS = np.random.default_rng(0).standard_normal((7, 64)).astype(np.float32)


def test_the_file_holds_codes_then_the_step() -> None:
    codes, scale = quantize_rows(ROWS, 0.03), 0.03
    layout = items_layout(64)
    packed = pack_items(codes, scale, 64)
    assert len(packed) == layout.size == 64 * 64 + 4
    found = np.frombuffer(packed, np.uint8, 64 * 64).reshape(64, 64)
    assert np.frombuffer(packed, "<f4", 1, layout.scale_offset) == np.float32(scale)
    assert np.array_equal(found[:7], codes)
    assert not dequantize_rows(found, scale)[7:].any()
    assert (found[7:] == 128).all()


def test_the_step_reaches_all_values_but_a_few_and_passes_over_rows_of_zeros() -> None:
    rows = np.random.default_rng(1).uniform(-1, 1, (2_000, 64)).astype(np.float32)
    assert 0.99 < 127 * table_scale(rows) < 1
    rows[::2] = 0
    assert 0.99 < 127 * table_scale(rows) < 1
    rows[1, :5] = 50  # 5 of 64,000 values
    assert 127 * table_scale(rows) < 1
    rows[1] = 50
    assert 127 * table_scale(rows) == pytest.approx(50)
    assert table_scale(np.zeros((3, 64), np.float32)) == 1


@pytest.mark.parametrize("capacity", [0, 63, 65, -64])
def test_a_capacity_that_is_no_multiple_of_64_is_refused(capacity: int) -> None:
    with pytest.raises(ConfigError, match=f"capacity is {capacity}"):
        items_layout(capacity)


def test_capacity_needs_an_item() -> None:
    with pytest.raises(ConfigError, match="items is 0"):
        capacity_for(0)


def test_vectors_that_are_not_finite_or_of_another_width_are_refused() -> None:
    for refuse in (table_scale, lambda rows: quantize_rows(rows, 1.0)):
        with pytest.raises(ConfigError, match=r"shape \(2, 32\)"):
            refuse(np.zeros((2, 32), np.float32))
        with pytest.raises(ConfigError, match="NaN or infinity"):
            refuse(np.full((1, 64), np.inf, np.float32))


def test_no_rows_are_quantized_to_no_rows() -> None:
    assert quantize_rows(np.zeros((0, 64), np.float32), 1.0).shape == (0, 64)
