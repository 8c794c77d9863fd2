"""Whatever a device puts in, what comes out keeps the bounds of the plan in exact arithmetic."""

import numpy as np
from hushrec_privacy.encoding.vectors import encode_update
from hushrec_privacy.randomness import OsRandom
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.fleet_plans import COUNTS, a_fleet_plan

PLANS = (a_fleet_plan(parameters=44), a_fleet_plan(vector=COUNTS), a_fleet_plan(parameters=44, cohort=10_000))
any_vector = arrays(np.float32, 44, elements=st.floats(width=32))  # NaN and infinity too


@given(vector=any_vector, which=st.sampled_from(PLANS))
def test_no_vector_passes_the_bounds(vector: NDArray[np.float32], which: object) -> None:
    plan = next(plan for plan in PLANS if plan is which)
    sent = encode_update(plan, vector, OsRandom())
    assert sum(int(value) ** 2 for value in sent) <= plan.rounded_norm_squared
    assert all(abs(int(value)) <= plan.coordinate_limit for value in sent)
    assert sent.shape == (plan.coordinates,)
