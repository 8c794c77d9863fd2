"""The bonus of items that training never saw: as large as its two limits allow, and none where nothing is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hushrec.counts import Blend, Neighbours
from hushrec.manifest import BlendPart
from hushrec_model.blend import BlendScorer
from hushrec_model.features import item_features
from hushrec_model.model import Model, ModelScorer
from hushrec_model.sequences import Queries
from hushrec_model.unseen import fit_unseen, unseen_tables
from numpy.typing import NDArray

from tests.planted import SMALL, all_known, nothing_known, queries

ITEMS, UNSEEN = 60, (7, 20, 21)
Arrays = dict[str, NDArray[np.generic]]


def model_with(unseen: tuple[int, ...], *, known: bool = True) -> Model:
    torch.manual_seed(0)
    seen = np.where(np.isin(np.arange(1, ITEMS + 1), unseen), 0, 5)
    features = all_known(ITEMS) if known else nothing_known(ITEMS)
    return Model(SMALL, features, seen, dropout=0.0, attention_dropout=0.0, id_dropout=0.0).eval()


def arrays_of(model: Model) -> Arrays:
    features = all_known(ITEMS) if model.items.words is not None else nothing_known(ITEMS)
    return {"popularity": np.arange(ITEMS + 1, dtype=np.float32), **unseen_tables(model, features)}


def asked(model: Model, count: int = 300) -> Queries:
    """Histories, each followed by one of the items that the model puts first: so places are worth something."""
    rng = np.random.default_rng(0)
    seen = np.setdiff1d(np.arange(1, ITEMS + 1), UNSEEN)
    histories = [rng.choice(seen, 4).tolist() for _ in range(count)]
    lists = ModelScorer(model, filter_seen=True).top(queries(histories, [[1]] * count), np.arange(count), 12)
    return queries(histories, [[int(rng.choice(row[np.isin(row, seen)]))] for row in lists])


def share_and_ndcg(model: Model, parts: list[BlendPart], valid: Queries) -> tuple[float, float]:
    """By the scorer itself, list by list."""
    lists = BlendScorer(ModelScorer(model, filter_seen=True), Blend(parts, arrays_of(model)), filter_seen=True).top(
        valid, np.arange(len(valid)), 10
    )
    gain = [
        sum(1 / np.log2(rank + 2) for rank, item in enumerate(row) if item == valid.targets(query)[0])
        for query, row in enumerate(lists)
    ]
    return float(np.isin(lists, UNSEEN).mean()), float(np.mean(gain))


def test_the_bonus_is_the_largest_that_both_limits_allow() -> None:
    model = model_with(UNSEEN)
    valid, popular = asked(model), BlendPart("popularity", 0.01, 1.0)
    parts, said = fit_unseen(model, [popular], arrays_of(model), valid, filter_seen=True)
    similar, part = parts[1:]
    assert similar.name == "similar"
    assert parts[0] == popular
    assert part.name == "unseen"
    assert f"{part.weight:+.2f} for 3 of 60 items" in said
    _, before = share_and_ndcg(model, [popular, similar, replace_weight(part, -60)], valid)
    share, after = share_and_ndcg(model, parts, valid)
    assert share <= len(UNSEEN) / ITEMS
    assert after >= 0.99 * before
    more_share, more_after = share_and_ndcg(model, [popular, similar, replace_weight(part, part.weight + 0.5)], valid)
    assert more_share > len(UNSEEN) / ITEMS or more_after < 0.99 * before


def replace_weight(part: BlendPart, weight: float) -> BlendPart:
    return BlendPart(part.name, weight, part.epsilon, part.decay, part.window)


def test_a_limit_on_places_holds_where_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_with(UNSEEN)
    valid = asked(model)
    monkeypatch.setattr("hushrec_model.unseen._LOSS", 1.0)
    parts, _ = fit_unseen(model, [], arrays_of(model), valid, filter_seen=True)
    share, _ = share_and_ndcg(model, parts, valid)
    assert 0.8 * len(UNSEEN) / ITEMS < share <= len(UNSEEN) / ITEMS


def test_where_unseen_items_are_few_no_call_pays_for_what_they_share_with_the_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_with(UNSEEN)
    monkeypatch.setattr("hushrec_model.unseen._FEW", 0.051)
    parts, _ = fit_unseen(model, [], arrays_of(model), asked(model), filter_seen=True)
    assert [part.name for part in parts] == ["unseen"]
    monkeypatch.setattr("hushrec_model.unseen._FEW", 0.05)
    parts, _ = fit_unseen(model, [], arrays_of(model), asked(model), filter_seen=True)
    assert [part.name for part in parts] == ["similar", "unseen"]


def test_the_weight_is_what_each_unseen_item_gains_and_no_other() -> None:
    model = model_with(UNSEEN)
    parts, _ = fit_unseen(model, [], arrays_of(model), asked(model), filter_seen=True)
    scores = np.zeros(ITEMS + 1, np.float32)
    Blend(parts[1:], arrays_of(model)).add_to(scores, np.array([1]))
    np.testing.assert_allclose(scores[list(UNSEEN)], parts[1].weight, rtol=1e-5)
    assert not scores[~np.isin(np.arange(ITEMS + 1), UNSEEN)].any()


def test_items_of_which_nothing_is_known_get_no_bonus() -> None:
    model = model_with(UNSEEN, known=False)
    assert not arrays_of(model)["unseen"].any()
    parts, said = fit_unseen(model, [], arrays_of(model), asked(model), filter_seen=True)
    assert parts == []
    assert "none" in said


def test_where_training_saw_everything_the_blend_stays_as_it_is() -> None:
    model = model_with(())
    popular = [BlendPart("popularity", 0.2, 1.0)]
    assert fit_unseen(model, popular, arrays_of(model), asked(model), filter_seen=False)[0] == popular


def test_without_a_target_to_judge_by_there_is_no_bonus() -> None:
    model = model_with(UNSEEN)
    outside = replace(asked(model, 5), target=np.zeros(5, np.int32))
    parts, said = fit_unseen(model, [], arrays_of(model), outside, filter_seen=False)
    assert parts == []
    assert "nothing to judge" in said


def test_an_item_known_only_by_its_title_is_told_from_one_that_is_not_known() -> None:
    features = item_features(["a mug", None, "a kettle", None], np.full(4, np.nan), {})
    model = Model(SMALL, features, np.array([5, 5, 0, 0]))
    assert unseen_tables(model, features)["unseen"].tolist() == [0, 0, 0, 1, 0]


def test_each_trained_item_leads_to_the_unseen_ones_most_like_it() -> None:
    features = item_features(["red mug", "garden chair", "mug", "chair", "red mug"], np.full(5, np.nan), {})
    model = Model(SMALL, features, np.array([5, 5, 0, 0, 0]))
    tables = unseen_tables(model, features)
    assert row_of(tables, 1) == [5, 3]
    assert row_of(tables, 2) == [4]
    assert row_of(tables, 3) == []  # unseen itself


def row_of(tables: Arrays, item: int) -> list[int]:
    near, weights = Neighbours.named(tables, "similar", 1.0, 0).of(item)
    return [int(other) for other in near[weights > 0]]
