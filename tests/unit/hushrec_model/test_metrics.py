"""Metrics on lists whose values can be derived by hand."""

from math import log2

import numpy as np
import pytest
from hushrec_model.metrics import coverage, hit_rate, hits, ndcg, reciprocal_rank

# list, targets, NDCG@3, first rank
CASES = [
    ([4, 7, 9], [4], 1, 1),
    ([7, 4, 9], [4], 1 / log2(3), 2),
    ([7, 9, 4], [4], 1 / 2, 3),
    ([7, 9, 8], [4], 0, None),
    ([7, 0, 0], [4], 0, None),
    ([0, 0, 0], [0], 0, None),
    ([4, 9, 7], [4, 7], (1 + 1 / 2) / (1 + 1 / log2(3)), 1),
    ([4, 9, 7], [4, 0], 1 / (1 + 1 / log2(3)), 1),
    ([1, 2, 3], [3, 1, 2, 5, 6], 1, 1),
]


@pytest.mark.parametrize(("listed", "targets", "gain", "rank"), CASES)
def test_one_query_by_hand(listed: list[int], targets: list[int], gain: float, rank: int | None) -> None:
    hit = hits(np.array([listed], np.int32), np.array(targets, np.int32), np.array([0, len(targets)]))
    assert ndcg(hit, np.array([len(targets)]), 3) == pytest.approx([gain], abs=1e-15)
    assert hit_rate(hit, 3).tolist() == [float(rank is not None)]
    assert reciprocal_rank(hit).tolist() == [1 / rank if rank else 0]


def test_a_target_beyond_k_counts_for_the_reciprocal_rank_only() -> None:
    hit = np.array([[False, False, True]])
    assert hit_rate(hit, 2).tolist() == [0]
    assert ndcg(hit, np.array([1]), 2).tolist() == [0]
    assert reciprocal_rank(hit).tolist() == [1 / 3]


def test_a_list_shorter_than_k_is_no_error() -> None:
    assert ndcg(np.array([[True]]), np.array([1]), 10).tolist() == [1]


def test_targets_belong_to_their_own_query() -> None:
    ranked = np.array([[1, 2], [1, 2]], np.int32)
    assert hits(ranked, np.array([1, 2], np.int32), np.array([0, 1, 2])).tolist() == [[True, False], [False, True]]


def test_coverage_counts_items_not_padding() -> None:
    assert coverage(np.array([True, True, True, False]), 3) == 2 / 3
