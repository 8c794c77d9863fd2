"""Rounding to int8 never moves a value by more than half a step."""

import numpy as np
from hushrec.tables import capacity_for, dequantize_rows, quantize_rows
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

some_rows = arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.just(64)),
    elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
)


@given(rows=some_rows)
def test_no_value_moves_by_more_than_half_a_step(rows: NDArray[np.float32]) -> None:
    scale = float(np.float32(np.abs(rows).max(initial=1e-3) / 127))
    codes = quantize_rows(rows, scale)
    moved = np.abs(dequantize_rows(codes, scale).astype(np.float64) - rows)
    assert (moved <= scale * (0.5 + 1e-4)).all()
    assert codes.min(initial=1) >= 1


@given(rows=some_rows, scale=st.floats(1e-3, 1e3))
def test_what_lies_outside_the_steps_becomes_the_last_one(rows: NDArray[np.float32], scale: float) -> None:
    codes = quantize_rows(rows, scale).astype(np.int64) - 128
    outside = np.abs(rows) > 127.6 * scale
    assert (codes[outside] == 127 * np.sign(rows[outside])).all()
    assert np.abs(codes).max(initial=0) <= 127


@given(items=st.integers(1, 10**7))
def test_every_capacity_holds_its_items_with_a_few_to_spare(items: int) -> None:
    capacity = capacity_for(items)
    assert capacity % 64 == 0
    assert 1 + items + items // 32 <= capacity < 1 + items + items // 32 + 64
