"""Metrics equal a plain loop, and do not care about the order of users."""

import math

import numpy as np
from hushrec_model.evaluate import Metrics, evaluate
from hushrec_model.sequences import Queries, Sequences
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

ITEMS = 15
lists = st.lists(st.integers(1, ITEMS), max_size=12, unique=True)
targets = st.lists(st.integers(0, ITEMS), min_size=1, max_size=4, unique=True)
cases = st.lists(st.tuples(lists, targets), min_size=1, max_size=12)
Case = tuple[list[int], list[int]]


class Written:
    """A scorer whose lists are given."""

    def __init__(self, given: list[list[int]]) -> None:
        self.given = given

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        assert len(queries) == len(self.given)
        return np.array([[*self.given[q], *[0] * (k - len(self.given[q]))] for q in index], np.int32)


def measured(given: list[Case], k: int) -> Metrics:
    nothing = np.zeros(0, np.int8)
    events = Sequences(np.zeros(1, np.int64), nothing.astype(np.int32), nothing, None, None)
    start = np.zeros(len(given), np.int64)
    offsets = np.append(0, np.cumsum([len(of) for _, of in given])).astype(np.int64)
    target = np.array([item for _, of in given for item in of], np.int32)
    return evaluate(Written([listed for listed, _ in given]), Queries(events, start, start, offsets, target), ITEMS, k)


def by_loop(given: list[Case], k: int) -> tuple[float, float, float]:
    hr = ndcg = mrr = 0.0
    for listed, wanted in given:
        ranks = [rank for rank, item in enumerate(listed, start=1) if item in wanted]
        hr += any(rank <= k for rank in ranks)
        ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, len(wanted)) + 1))
        ndcg += sum(1 / math.log2(1 + rank) for rank in ranks if rank <= k) / ideal
        mrr += 1 / ranks[0] if ranks else 0
    return hr / len(given), ndcg / len(given), mrr / len(given)


@given(cases, st.integers(1, 12))
def test_metrics_equal_the_plain_loop(given: list[Case], k: int) -> None:
    found = measured(given, k)
    np.testing.assert_allclose((found.hr, found.ndcg, found.mrr), by_loop(given, k), atol=1e-12)
    assert all(0 <= value <= 1 + 1e-12 for value in (found.hr, found.ndcg, found.mrr, found.coverage))
    assert found.ndcg <= found.hr + 1e-12


@given(cases, st.randoms(use_true_random=False), st.integers(1, 12))
def test_the_order_of_users_changes_no_metric(given: list[Case], random: object, k: int) -> None:
    shuffled = list(given)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    one, two = measured(given, k), measured(shuffled, k)
    np.testing.assert_allclose((one.hr, one.ndcg, one.mrr, one.coverage), (two.hr, two.ndcg, two.mrr, two.coverage))


@given(cases)
def test_longer_lists_never_lose_a_hit(given: list[Case]) -> None:
    rates = [measured(given, k).hr for k in range(1, 13)]
    assert rates == sorted(rates)
