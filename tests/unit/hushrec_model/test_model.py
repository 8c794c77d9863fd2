"""The scorer of the Transformer: every query as if asked alone, as the device sees it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hushrec_model.features import item_features
from hushrec_model.model import Model, ModelScorer
from hushrec_model.sequences import Queries
from numpy.typing import NDArray
from torch.nn import functional

from tests.planted import SMALL, all_known, queries, small_model

ITEMS = 20
RNG = np.random.default_rng(0)
HISTORIES = [RNG.integers(1, ITEMS + 1, length).tolist() for length in (1, 3, 8, 9, 20, 2)]


@pytest.fixture(scope="module")
def model() -> Model:
    return small_model(ITEMS, replace(SMALL, behaviors=2), all_known(ITEMS))


def asked(histories: list[list[int]]) -> Queries:
    behaviors = [[at % 2 for at in range(len(history))] for history in histories]
    return queries(histories, [[1]] * len(histories), behaviors=behaviors)


def alone(model: Model, history: list[int], behaviors: list[int]) -> NDArray[np.float32]:
    """Scores of one history without any batch, shape (V + 1,)."""
    table, longest = model.table(), SMALL.max_history
    with torch.no_grad():
        vectors = functional.embedding(torch.tensor([history[-longest:]]), table)
        user = model.encoder(vectors, torch.tensor([behaviors[-longest:]]))[0, -1]
    return np.asarray(torch.mv(table, user), np.float32)


@pytest.mark.parametrize(("scores", "positions"), [(10**6, 10**6), (1, 10**6), (10**6, 1), (10**6, 7)])
def test_every_query_is_answered_as_if_it_were_alone(
    model: Model, scores: int, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hushrec_model.model._SCORES_AT_ONCE", scores)
    monkeypatch.setattr("hushrec_model.model._POSITIONS_AT_ONCE", positions)
    found = np.zeros((len(HISTORIES), ITEMS + 1), np.float32)
    index = np.arange(len(HISTORIES))[::-1].copy()
    for rows, block in ModelScorer(model, filter_seen=False).score_blocks(asked(HISTORIES), index):
        assert len(rows) <= max(1, scores // (ITEMS + 1))
        assert len(rows) == 1 or len(rows) * max(len(HISTORIES[index[row]]) for row in rows) <= positions
        found[index[rows]] = block.numpy()
    for row, history in zip(found, HISTORIES, strict=True):
        wanted = alone(model, history, [at % 2 for at in range(len(history))])
        assert row[0] == -np.inf
        np.testing.assert_allclose(row[1:], wanted[1:], atol=1e-4)


def test_lists_are_distinct_falling_and_end_where_the_catalogue_does(model: Model) -> None:
    found = ModelScorer(model, filter_seen=False).top(asked(HISTORIES), np.arange(len(HISTORIES)), 30)
    for row, history in zip(found, HISTORIES, strict=True):
        wanted = alone(model, history, [at % 2 for at in range(len(history))])
        assert sorted(row[:ITEMS]) == list(range(1, ITEMS + 1))
        assert (row[ITEMS:] == 0).all()
        assert (np.diff(wanted[row[:ITEMS]]) <= 1e-4).all()


def test_seen_items_are_left_out_however_long_ago(model: Model) -> None:
    found = ModelScorer(model, filter_seen=True).top(asked(HISTORIES), np.arange(len(HISTORIES)), ITEMS)
    for row, history in zip(found, HISTORIES, strict=True):
        assert set(row[row > 0]) == set(range(1, ITEMS + 1)) - set(history)


def test_events_outside_the_catalogue_are_passed_over(model: Model) -> None:
    """Ten unknown events fill no place in the history, and the last known event stays the last."""
    known = asked([[3, 4, 5]])
    mixed = queries([[3, *[0] * 10, 4, 5, 0]], [[1]], behaviors=[[0, *[1] * 10, 1, 0, 1]])
    scorer = ModelScorer(model, filter_seen=True)
    np.testing.assert_array_equal(
        scorer.top(known, np.zeros(1, np.int64), 10), scorer.top(mixed, np.zeros(1, np.int64), 10)
    )


def test_a_history_of_unknown_events_only_is_answered(model: Model) -> None:
    found = ModelScorer(model, filter_seen=True).top(queries([[0, 0], []], [[1], [1]]), np.arange(2), 5)
    assert (found > 0).all()


def test_without_a_known_event_the_popular_items_rank_first_as_on_a_device() -> None:
    seen = np.arange(ITEMS)[::-1] // 3  # in threes equally popular: then by index
    model = Model(SMALL, item_features([None] * ITEMS, np.full(ITEMS, np.nan), {}, None), seen)
    found = ModelScorer(model, filter_seen=True).top(queries([[0, 0], [], [4]], [[1]] * 3), np.arange(3), ITEMS)
    assert found[0].tolist() == (1 + np.lexsort((np.arange(ITEMS), -seen))).tolist()
    assert found[1].tolist() == found[0].tolist() != found[2].tolist()


def test_another_table_can_be_scored_with(model: Model) -> None:
    table = model.table()[torch.tensor([0, *range(ITEMS, 0, -1)])]
    turned = queries([[ITEMS + 1 - item for item in HISTORIES[2]]], [[1]], behaviors=[[at % 2 for at in range(8)]])
    one = ModelScorer(model, filter_seen=False).top(asked([HISTORIES[2]]), np.zeros(1, np.int64), 10)
    two = ModelScorer(model, filter_seen=False, table=table).top(turned, np.zeros(1, np.int64), 10)
    np.testing.assert_array_equal(one, ITEMS + 1 - two)


def test_equal_scores_go_by_index_as_on_a_device() -> None:
    """Never-sold variants of one article have the same content, so the same score."""
    items = 47  # with row 0 a multiple of a vector register: products are rounded alike in all columns
    titles = [f"Thing {item}" if item < 10 else "Mug" for item in range(items)]
    model = small_model(items, features=item_features(titles, np.full(items, np.nan), {}))
    model.items.trained[10:] = False
    found = ModelScorer(model, filter_seen=False).top(asked(HISTORIES[:2]), np.arange(2), items)
    for row in found:
        variants = row[row > 10]
        assert variants.tolist() == list(range(11, items + 1))
