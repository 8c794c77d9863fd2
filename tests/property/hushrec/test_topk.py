"""Top-k against a full sort."""

import numpy as np
import pytest
from hushrec.topk import top_k
from hushrec_privacy.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

any_score = st.one_of(st.just(-np.inf), st.just(np.inf), st.integers(-3, 3), st.floats(-1e6, 1e6, width=32))
any_scores = arrays(np.float32, st.integers(0, 3_000), elements=any_score, fill=st.sampled_from([0.0, 1.0, -np.inf]))


def by_sorting(scores: NDArray[np.float32], k: int) -> list[int]:
    shown = [index for index in range(len(scores)) if scores[index] > -np.inf]
    return sorted(shown, key=lambda index: (-scores[index], index))[:k]


@given(scores=any_scores, k=st.integers(0, 120))
def test_it_is_the_beginning_of_a_full_sort(scores: NDArray[np.float32], k: int) -> None:
    before = scores.copy()
    found, values = top_k(scores, k)
    assert found.tolist() == by_sorting(scores, k)
    assert np.array_equal(values, scores[found])
    assert np.array_equal(scores, before)
    assert [found.dtype.name, values.dtype.name] == ["int64", "float32"]


@given(
    seed=st.integers(0, 2**32),
    k=st.sampled_from([1, 10, 100, 1_000]),
    levels=st.sampled_from([5, 1_000, 10**6]),
    size=st.sampled_from([20_011, 70_011]),
)
def test_long_vectors_with_and_without_ties(seed: int, k: int, levels: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    scores = (rng.integers(levels, size=size) / levels).astype(np.float32)
    scores[rng.random(size) < 0.3] = -np.inf
    expected = np.lexsort((np.arange(size), -scores))[:k]
    assert np.array_equal(top_k(scores, k)[0], expected)


def test_a_negative_k_is_refused() -> None:
    with pytest.raises(ConfigError, match="k is -1"):
        top_k(np.zeros(3, np.float32), -1)
