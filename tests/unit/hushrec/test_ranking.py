"""The chain of stages gives exactly the best of what may be shown."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hushrec.batch import Histories
from hushrec.bundle import Bundle
from hushrec.counts import Blend
from hushrec.engine import Engine
from hushrec.manifest import BlendPart, ModelInfo
from hushrec.ranking import (
    BlendCounts,
    Candidates,
    Ranking,
    Request,
    Rules,
    Scores,
    bundle_ranking,
    ranking_arrays,
)
from hushrec_privacy.errors import BundleError
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.tiny_bundle import tiny_bundle

ITEMS, CAPACITY = 6, 10
MODEL = ModelInfo(width=4, layers=1, max_history=5, items=ITEMS, capacity=CAPACITY, filter_seen=False, times=True)
POPULARITY = np.array([9, 1, 2, 3, 4, 5, 6], np.float32)


class FakeScorer:
    """Scores an item by its distance from the last one; rows that are no items would win."""

    def scores(self, items: NDArray[np.int64], behaviors: NDArray[np.int64]) -> Scores:
        assert len(behaviors) == len(items)
        scores: Scores = -np.abs(np.arange(CAPACITY) - items[-1]).astype(np.float32)
        scores[0] = scores[ITEMS + 1 :] = 100
        return scores

    def scores_many(self, histories: Histories, *, threads: int | None = None) -> Iterator[tuple[int, Scores]]:
        assert threads == 2
        pairs = list(histories)
        for at in reversed(range(len(pairs))):
            items, behaviors = pairs[at]
            assert behaviors is not None
            yield at, self.scores(items, behaviors)


def request(
    items: list[int], k: int = 10, hidden: list[int] | None = None, allowed: list[int] | None = None
) -> Request:
    mask = None
    if allowed is not None:
        mask = np.zeros(ITEMS + 1, np.bool_)
        mask[allowed] = True
    history = np.array(items, np.int64)
    return Request(history, np.zeros_like(history), k, None if hidden is None else np.array(hidden, np.int64), mask)


def ranking(*parts: BlendPart) -> Ranking:
    blend = Blend(parts, {"popularity": POPULARITY})
    return Ranking(Candidates(FakeScorer(), POPULARITY, MODEL), (BlendCounts(blend), Rules(ITEMS)))


def test_many_requests_are_ranked_as_each_alone() -> None:
    asked = [request([3]), request([], k=2), request([1, 5], hidden=[5]), request([]), request([6], allowed=[2, 4])]
    chain = ranking(BlendPart("own", 2, 0.5, 0.8, 0))
    for many, request_ in zip(chain.rank_many(asked, threads=2), asked, strict=True):
        one = chain.rank(request_)
        assert many.items.tolist() == one.items.tolist()
        assert many.scores.tolist() == one.scores.tolist()
    assert chain.rank_many([], threads=2) == []


def test_rows_that_are_no_items_never_show() -> None:
    assert ranking().rank(request([3])).items.tolist() == [3, 2, 4, 1, 5, 6]


def test_a_shopper_of_whom_nothing_is_known_gets_what_is_popular() -> None:
    ranked = ranking().rank(request([], k=3))
    assert ranked.items.tolist() == [6, 5, 4]
    assert ranked.scores.tolist() == [6, 5, 4]


def test_counts_are_blended_in() -> None:
    ranked = ranking(BlendPart("own", 10, 1)).rank(request([1, 5], k=2))
    assert ranked.items.tolist() == [5, 1]
    assert ranked.scores.tolist() == pytest.approx([10 * np.log(2), 10 * np.log(2) - 4])


def test_hidden_items_and_what_is_not_allowed_never_show() -> None:
    assert ranking().rank(request([3], hidden=[3, 1])).items.tolist() == [2, 4, 5, 6]
    assert ranking().rank(request([3], allowed=[6, 1])).items.tolist() == [1, 6]
    assert ranking().rank(request([3], hidden=[1], allowed=[1])).items.tolist() == []
    assert ranking().rank(request([], hidden=[], allowed=[2])).items.tolist() == [2]


def test_the_popularity_is_left_as_it_is() -> None:
    before = POPULARITY.copy()
    ranking().rank(request([], hidden=[6]))
    assert np.array_equal(POPULARITY, before)


def test_stages_run_in_order() -> None:
    def double(_: Request, scores: Scores) -> Scores:
        return scores * 2

    def add(_: Request, scores: Scores) -> Scores:
        return scores + 1

    first, rules = Candidates(FakeScorer(), POPULARITY, MODEL), Rules(ITEMS)
    assert Ranking(first, (rules, double, add)).rank(request([], k=1)).scores.tolist() == [13]
    assert Ranking(first, (rules, add, double)).rank(request([], k=1)).scores.tolist() == [14]


@given(
    items=st.lists(st.integers(1, ITEMS), max_size=5),
    k=st.integers(0, 12),
    hidden=st.none() | st.lists(st.integers(1, ITEMS), max_size=4),
    allowed=st.none() | st.lists(st.integers(1, ITEMS), max_size=4),
)
def test_the_list_is_that_of_sorting_everything(
    items: list[int], k: int, hidden: list[int] | None, allowed: list[int] | None
) -> None:
    scores = POPULARITY if not items else FakeScorer().scores(np.array(items), np.array(items))
    possible = [i for i in range(1, ITEMS + 1) if i not in (hidden or []) and (allowed is None or i in allowed)]
    best = sorted(possible, key=lambda i: (-scores[i], i))[:k]
    ranked = ranking().rank(request(items, k, hidden, allowed))
    assert ranked.items.tolist() == best
    assert ranked.scores.tolist() == [scores[i] for i in best]


def test_the_chain_of_a_bundle_takes_its_blend_or_another(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    history = Request(np.array([3, 9]), np.array([0, 0]), 5)
    engine = Engine(bundle)  # one for all: which of two scorers an engine takes, it measures
    own, alone = (bundle_ranking(bundle, engine, blend).rank(history) for blend in (None, ()))
    assert own.scores.tolist() != alone.scores.tolist()
    engine_scores = engine.scores(history.items, history.behaviors)
    assert alone.scores.tolist() == engine_scores[alone.items].tolist()


def test_a_blend_with_a_part_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    with pytest.raises(BundleError, match=r"'weather'.*update hushrec"):
        bundle_ranking(bundle, FakeScorer(), [BlendPart("weather", 1, 1)])


def test_arrays_for_later_items_are_not_mapped(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    assert set(ranking_arrays(bundle)) == set(bundle.manifest.arrays)
    bundle.manifest.arrays["features.words"] = bundle.manifest.arrays["popularity"]
    assert "features.words" not in ranking_arrays(bundle)
