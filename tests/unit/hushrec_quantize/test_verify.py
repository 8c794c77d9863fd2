"""What quantizing may cost: figures by hand, bounds at their edges, and times of answers."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hushrec_model.model import ModelScorer
from hushrec_model.sequences import Queries
from hushrec_privacy.errors import ToleranceError
from hushrec_quantize.verify import Tolerance, Verification, check, measure, overlap
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.planted import queries, small_model

LISTS = st.lists(st.permutations(range(1, 8)).map(lambda items: items[:4]), min_size=2, max_size=2)
GOOD = Verification(
    queries=10_000, model_overlap=0.99, blend_overlap=0.99, model_lost=0.0, blend_lost=0.0, total_lost=0.0
)
BOUNDS = Tolerance(overlap=0.97, int8=0.01, total=0.03)


def lists(*rows: list[int]) -> NDArray[np.int32]:
    return np.array(rows, np.int32)


def test_overlap_by_hand() -> None:
    """Three of four, one of four, and a short list of two of which one is kept."""
    one = lists([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 0, 0])
    other = lists([4, 3, 2, 9], [9, 8, 7, 4], [2, 0, 0, 0])
    assert overlap(one, other) == pytest.approx(float((Fraction(3, 4) + Fraction(1, 4) + Fraction(1, 2)) / 3))


def test_empty_places_are_nothing_in_common_and_order_does_not_matter() -> None:
    assert overlap(lists([0, 0]), lists([0, 0])) == 0.0
    assert overlap(lists([1, 2, 3]), lists([3, 1, 2])) == 1.0


@given(LISTS)
def test_overlap_equals_a_plain_loop(pair: list[list[int]]) -> None:
    one, other = pair
    assert overlap(lists(one), lists(other)) == len(set(one) & set(other)) / 4


def test_what_is_within_every_bound_passes() -> None:
    check(GOOD, BOUNDS)
    check(
        replace(GOOD, model_overlap=0.97, blend_overlap=0.97, model_lost=0.01, blend_lost=0.01, total_lost=0.03), BOUNDS
    )


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("model_overlap", 0.9689, "top-10 overlap of the Transformer is 0.9689, allowed >= 0.9690"),
        ("blend_overlap", 0.5, "top-10 overlap of the blend is 0.5000, allowed >= 0.9690"),
        ("model_lost", 0.02, "NDCG@10 lost by int8 is 0.0200, allowed <= 0.0110"),
        ("blend_lost", 0.02, "NDCG@10 lost by int8 in the blend is 0.0200, allowed <= 0.0110"),
        ("total_lost", 0.05, "NDCG@10 lost in all is 0.0500, allowed <= 0.0400"),
    ],
)
def test_each_figure_outside_its_bound_is_named_with_it(field: str, value: float, says: str) -> None:
    with pytest.raises(ToleranceError) as refused:
        check(replace(GOOD, **{field: value}), BOUNDS)  # type: ignore[arg-type]
    assert refused.value.message == (
        f"the bundle was not written: {says} (10,000 validation queries). "
        "Train longer, or prune less if --prune was given"
    )


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ToleranceError, match=r"of the Transformer is .*; top-10 overlap of the blend is .*lost in all"):
        check(replace(GOOD, model_overlap=0.1, blend_overlap=0.2, total_lost=0.9), BOUNDS)


def test_few_queries_widen_every_bound() -> None:
    few = replace(GOOD, queries=25)
    check(replace(few, model_overlap=0.951, model_lost=0.029, total_lost=0.22), BOUNDS)
    with pytest.raises(ToleranceError, match="lost in all"):
        check(replace(few, total_lost=0.24), BOUNDS)
    with pytest.raises(ToleranceError, match="overlap"):
        check(replace(few, model_overlap=0.949), BOUNDS)


class Fixed:
    """Lists the items 1 to k for everybody, and says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:  # noqa: ARG002
        self.asked += index.tolist()
        return np.tile(np.arange(1, k + 1, dtype=np.int32), (len(index), 1))


def test_measuring_keeps_the_first_ten_of_every_list_and_their_ndcg() -> None:
    scorer, index = Fixed(), np.array([3, 1, 0])
    found = measure(scorer, queries([[1]] * 4, [[1], [2], [3], [50]]), 200, index)
    assert scorer.asked == [3, 1, 0]
    assert found.lists.tolist() == [list(range(1, 11))] * 3
    assert found.ndcg == pytest.approx((0 + 1 / np.log2(3) + 1) / 3)


def test_a_model_compared_with_itself_overlaps_wholly() -> None:
    scorer = ModelScorer(small_model(20), filter_seen=False)
    asked = queries([[1, 2], [3], [4, 5, 6]], [[1], [2], [3]])
    found = measure(scorer, asked, 20, np.arange(3))
    assert overlap(found.lists, found.lists) == 1.0
