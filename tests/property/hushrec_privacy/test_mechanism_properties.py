"""Bounds that a guarantee rests on hold for every input."""

import math
from fractions import Fraction

import numpy as np
from hushrec_privacy.mechanisms.clipping import clip_update
from hushrec_privacy.mechanisms.rounding import round_conditionally, rounded_norm_bound
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.fixed_random import FixedRandom

any_update = arrays(np.float32, st.integers(1, 64), elements=st.floats(width=32))  # NaN and infinity too
finite_update = arrays(np.float64, st.integers(1, 64), elements=st.floats(-1e6, 1e6))
seeds = st.integers(0, 2**60)


@given(update=any_update, clip_norm=st.floats(1e-30, 1e30))
def test_no_update_passes_the_clip_norm(update: NDArray[np.float32], clip_norm: float) -> None:
    clipped = clip_update(update, clip_norm=clip_norm)
    assert np.linalg.norm(clipped.astype(np.float64)) <= clip_norm * (1 + 1e-6)


@given(update=finite_update, clip_norm=st.floats(0.01, 1e6), beta=st.floats(0, 0.9), seed=seeds)
def test_no_rounded_vector_passes_its_bound_and_each_coordinate_is_a_neighbour(
    update: NDArray[np.float64], clip_norm: float, beta: float, seed: int
) -> None:
    norm = float(np.linalg.norm(update))
    clipped = update * min(1.0, clip_norm / norm) if norm else update
    rounded = round_conditionally(FixedRandom(seed), clipped, clip_norm=clip_norm, beta=beta)
    bound = Fraction(rounded_norm_bound(clip_norm, len(update), beta))
    assert sum(int(v) ** 2 for v in rounded) <= bound**2
    assert (np.abs(rounded - clipped) < 1).all()


@given(clip_norm=st.floats(1e-3, 2**30), dimension=st.integers(1, 2**40), beta=st.floats(0, 0.999))
def test_the_bound_is_at_least_its_formula_and_hardly_more(clip_norm: float, dimension: int, beta: float) -> None:
    import mpmath

    with mpmath.workdps(60):
        c, d = mpmath.mpf(clip_norm), mpmath.mpf(dimension)
        exact = c + mpmath.sqrt(d)
        if beta > 0:
            excess = mpmath.sqrt(2 * mpmath.log(1 / mpmath.mpf(beta))) * (c + mpmath.sqrt(d) / 2)
            exact = min(exact, mpmath.sqrt(c * c + d / 4 + excess))
        ours = mpmath.mpf(rounded_norm_bound(clip_norm, dimension, beta))
        assert exact <= ours <= exact * (1 + mpmath.mpf(2) ** -47)


@settings(max_examples=30)
@given(chance=st.floats(0.01, 0.99), seed=seeds)
def test_rounding_is_unbiased_when_the_condition_always_holds(chance: float, seed: int) -> None:
    vector = np.full(20_000, 7 + chance)
    rounded = round_conditionally(FixedRandom(seed), vector, clip_norm=float(np.linalg.norm(vector)), beta=0.0)
    allowed = 6 * math.sqrt(chance * (1 - chance) / len(vector)) + 20 / len(vector)
    assert abs(rounded.mean() - vector[0]) < allowed
