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
    codes, scales = quantize_rows(rows)
    moved = np.abs(dequantize_rows(codes, scales).astype(np.float64) - rows)
    assert (moved <= scales.astype(np.float64)[:, None] * (0.5 + 1e-4)).all()
    assert codes.min(initial=1) >= 1


@given(items=st.integers(1, 10**7))
def test_every_capacity_holds_its_items_with_a_few_to_spare(items: int) -> None:
    capacity = capacity_for(items)
    assert capacity % 64 == 0
    assert 1 + items + items // 32 <= capacity < 1 + items + items // 32 + 64
