"""Evaluation asks every query once and averages what can be checked by hand."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hushrec_model.evaluate import LIST_LENGTH, cold_items, evaluate
from hushrec_model.sequences import Queries, Sequences
from hushrec_model.splits import split_log
from hushrec_privacy.errors import ConfigError, DataError
from numpy.typing import NDArray

from tests.small_log import small_log


@dataclass
class FixedScorer:
    """Gives the list that was written down for each query."""

    lists: list[list[int]]
    asked: list[int] = field(default_factory=list)

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:  # noqa: ARG002
        self.asked += index.tolist()
        ranked = np.zeros((len(index), k), np.int32)
        for row, query in zip(ranked, index, strict=True):
            row[: len(self.lists[query])] = self.lists[query]
        return ranked


def queries(targets: list[list[int]]) -> Queries:
    events = Sequences(np.array([0, 1]), np.array([1], np.int32), np.zeros(1, np.int8), None, None)
    starts = np.zeros(len(targets), np.int64)
    offsets = np.append(0, np.cumsum([len(of) for of in targets]))
    return Queries(events, starts, starts + 1, offsets, np.array([item for of in targets for item in of], np.int32))


def test_means_are_over_queries() -> None:
    found = evaluate(FixedScorer([[3, 1], [1, 2], [2]]), queries([[3], [2], [4]]), 4)
    assert found.to_dict() == {
        "users": 3,
        "items": 4,
        "hr@10": 2 / 3,
        "ndcg@10": pytest.approx((1 + 1 / np.log2(3)) / 3),
        "mrr": (1 + 1 / 2) / 3,
        "coverage@10": 3 / 4,
        "cold_queries": 0,
        "cold_hr@10": None,
        "cold_ndcg@10": None,
    }


def test_a_target_outside_the_catalogue_is_a_miss_that_counts() -> None:
    found = evaluate(FixedScorer([[3], [1]]), queries([[3], [0]]), 3)
    assert (found.hr, found.queries) == (1 / 2, 2)


def test_mrr_looks_at_a_hundred_items() -> None:
    listed = list(range(2, LIST_LENGTH + 1))
    found = evaluate(FixedScorer([[*listed, 1], listed]), queries([[1], [1]]), 200)
    assert (found.hr, found.mrr) == (0, 1 / 100 / 2)


def test_some_queries_can_be_asked_alone() -> None:
    scorer = FixedScorer([[3], [1], [2]])
    found = evaluate(scorer, queries([[3], [2], [2]]), 3, index=np.array([2, 1]))
    assert scorer.asked == [2, 1]
    assert found.hr == 1 / 2


def test_the_cold_slice_counts_cold_targets_only() -> None:
    cold = np.array([False, False, False, True, True])
    found = evaluate(FixedScorer([[3, 1], [1, 2], [1]]), queries([[1, 3], [2], [4]]), 4, cold=cold)
    assert (found.cold_queries, found.cold_hr, found.cold_ndcg) == (2, 1 / 2, 1 / 2)


def test_cold_items_are_those_of_the_catalogue_without_a_training_event() -> None:
    split = split_log(small_log([("u", item) for item in "abcd"], listed="q"), "leave-one-out")
    assert split.items == ["q", "a", "b", "c"]
    assert cold_items(split).tolist() == [False, True, False, False, True]


def test_more_queries_than_a_batch_give_the_same_means(monkeypatch: pytest.MonkeyPatch) -> None:
    lists, targets = [[n % 5 + 1, 6] for n in range(50)], [[n % 3 + 1] for n in range(50)]
    at_once = evaluate(FixedScorer(lists), queries(targets), 6)
    monkeypatch.setattr("hushrec_model.evaluate._BATCH", 7)
    in_batches = evaluate(FixedScorer(lists), queries(targets), 6)
    assert in_batches.to_dict() == pytest.approx(at_once.to_dict())


def test_lists_longer_than_asked_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="k is 101; scorers are asked for 100 items"):
        evaluate(FixedScorer([[1]]), queries([[1]]), 3, 101)


def test_nothing_to_ask_is_refused() -> None:
    with pytest.raises(DataError, match="there is no query to evaluate"):
        evaluate(FixedScorer([[1]]), queries([[1]]), 3, index=np.zeros(0, np.int64))
