"""The fit keeps the parts that the planted data rewards, and the scorer adds them as defined."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hushrec.counts import Blend
from hushrec.manifest import BlendPart
from hushrec_model.blend import BlendScorer, _Candidates, _fitted, fit_blend
from hushrec_model.counting import count_tables
from hushrec_model.evaluate import evaluate
from hushrec_model.listwise import Chosen
from hushrec_model.model import Model, ModelScorer
from hushrec_model.sequences import Queries
from hushrec_model.training import train_model
from numpy.typing import NDArray

from tests.planted import SETTINGS, chain, nothing_known, queries, sequences, small_model, split_of

Arrays = dict[str, NDArray[np.generic]]
RNG = np.random.default_rng(0)
ITEMS = 30
PARTS = [
    BlendPart("own", 2.0, 0.1, 0.7, 0),
    BlendPart("transitions", 0.6, 0.01, 0.6, 3),
    BlendPart("transitions", 0.3, 2.0, 0.6, 3),
    BlendPart("successors", 0.5, 0.1, 0.1, 4),
    BlendPart("item_knn", 0.4, 1.0, 1.0, 5),
    BlendPart("popularity", 0.2, 3.0),
]


def anything(count: int, items: int = ITEMS, seed: int = 1) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, items + 1, rng.integers(2, 12)).tolist() for _ in range(count)]


@pytest.fixture(scope="module")
def untrained() -> Model:
    """Knows nothing, and says so quietly."""
    model = small_model(ITEMS)
    torch.nn.init.ones_(model.encoder.scale.weight)
    return model


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    """Tables of shoppers who do anything at all."""
    return count_tables(sequences(anything(200)), ITEMS)


def plain_counts(part: BlendPart, arrays: Arrays, history: list[int]) -> list[float]:
    """The definition of one part, shape (V + 1,)."""
    counts = [0.0] * (ITEMS + 1)
    if part.name == "popularity":
        return [float(count) for count in arrays["popularity"]]
    for age, event in enumerate(reversed(history[-part.window :] if part.window else history)):
        if part.name == "own":
            counts[event] += part.decay**age
        else:
            near, weights, scales = (arrays[f"{part.name}.{field}"] for field in ("items", "weights", "scales"))
            for item, weight in zip(near[event], weights[event], strict=True):
                counts[int(item)] += part.decay**age * float(weight) * float(scales[event])
    return counts


@pytest.mark.parametrize("filter_seen", [False, True])
def test_the_scorer_equals_a_plain_loop(untrained: Model, arrays: Arrays, filter_seen: bool) -> None:
    histories = [[3], [5, 5, 0, 7], *anything(20, seed=2)]
    asked = queries(histories, [[1]] * len(histories))
    alone = ModelScorer(untrained, filter_seen=False)
    index = np.arange(len(histories))
    found = BlendScorer(alone, Blend(PARTS, arrays), filter_seen=filter_seen).top(asked, index, 10)
    scores = np.zeros((len(histories), ITEMS + 1))
    for rows, block in ModelScorer(untrained, filter_seen=False).score_blocks(asked, index):
        scores[rows] = block.numpy()
    for row, history, scored in zip(found, histories, scores, strict=True):
        known = [item for item in history if item]
        for part in PARTS:
            counts = plain_counts(part, arrays, known)
            scored += [part.weight * math.log1p(count / part.epsilon) for count in counts]
        hidden = {0, *known} if filter_seen else {0}
        assert row.tolist() == [item for item in np.argsort(-scored).tolist() if item not in hidden][:10]


def test_a_blend_of_nothing_is_the_transformer(untrained: Model, arrays: Arrays) -> None:
    asked, index = queries(anything(9), [[1]] * 9), np.arange(9)
    alone = ModelScorer(untrained, filter_seen=False)
    blended = BlendScorer(alone, Blend([], arrays), filter_seen=False)
    np.testing.assert_array_equal(alone.top(asked, index, 10), blended.top(asked, index, 10))


def names(parts: list[BlendPart]) -> set[str]:
    return {part.name for part in parts}


def test_shoppers_who_return_to_their_items_make_the_fit_keep_their_own_counts(
    untrained: Model, arrays: Arrays
) -> None:
    histories = [[often[0], often[0], *often] for often in anything(60, seed=3)]
    parts, scores = fit_blend(untrained, queries(histories, [h[:1] for h in histories]), arrays, filter_seen=False)
    assert names(parts) == {"own"}
    assert scores["blend"] > 0.95 > scores["model"] + 0.2


def test_an_order_of_items_makes_the_fit_keep_successors(untrained: Model) -> None:
    rows = chain(60, ITEMS, 6)
    tables = count_tables(sequences(rows), ITEMS)
    asked = queries([row[:-1] for row in rows], [row[-1:] for row in rows])
    parts, scores = fit_blend(untrained, asked, tables, filter_seen=True)
    assert names(parts) == {"successors"}
    assert scores["blend"] > 0.95 > 0.5 > scores["model"]


def test_a_favourite_of_all_makes_the_fit_keep_popularity(untrained: Model) -> None:
    train = sequences([[item] for item in [7] * 500 + list(range(1, ITEMS + 1))])
    histories = anything(60, seed=4)
    parts, scores = fit_blend(untrained, queries(histories, [[7]] * 60), count_tables(train, ITEMS), filter_seen=False)
    assert names(parts) == {"popularity"}
    assert scores["blend"] > 0.95


def test_where_the_transformer_knows_everything_no_part_is_kept() -> None:
    split = split_of(chain(60, 12, 9))
    model = train_model(split, nothing_known(12), replace(SETTINGS, epochs=15, patience=15)).model
    parts, scores = fit_blend(model, split.valid, count_tables(split.train, 12), filter_seen=True)
    assert scores["model"] > 0.99
    assert parts == []
    assert scores["blend"] == scores["model"]


def test_own_counts_are_never_fitted_where_seen_items_are_left_out(untrained: Model, arrays: Arrays) -> None:
    histories = anything(40, seed=5)
    parts, _ = fit_blend(untrained, queries(histories, [[h[0]] for h in histories]), arrays, filter_seen=True)
    assert "own" not in names(parts)


def blend_asked(items: int, targets: list[list[int]]) -> Queries:
    histories = anything(len(targets), items, seed=6)
    return queries([history[:-1] for history in histories], targets)


@pytest.mark.parametrize(("items", "filter_seen"), [(ITEMS, False), (ITEMS, True), (600, False), (600, True)])
def test_the_fitted_score_is_what_an_evaluation_finds(items: int, filter_seen: bool) -> None:
    """Candidates are a part of 600 items, and still no item that reaches a top ten is missing."""
    rows = anything(300, items, seed=7)
    tables = count_tables(sequences(rows), items)
    one, two, unknown = ([int(RNG.integers(1, items + 1))] for _ in range(3))
    targets = [row[-1:] for row in rows[:80]] + [[*one, *two], [*unknown, 0], [0]]
    asked = blend_asked(items, [sorted(set(target)) for target in targets])
    model = small_model(items)
    parts, scores = fit_blend(model, asked, tables, filter_seen=filter_seen)
    alone = ModelScorer(model, filter_seen=filter_seen)
    found = evaluate(BlendScorer(alone, Blend(parts, tables), filter_seen=filter_seen), asked, items)
    assert scores["blend"] == pytest.approx(found.ndcg, abs=1e-6)
    assert scores["model"] == pytest.approx(evaluate(alone, asked, items).ndcg, abs=1e-6)
    assert scores["blend"] >= scores["model"]


def test_many_queries_are_thinned_out_evenly(untrained: Model, arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hushrec_model.blend._QUERIES", 10)
    histories = anything(100, seed=8)
    asked = queries(histories, [[h[-1]] for h in histories])
    _, scores = fit_blend(untrained, asked, arrays, filter_seen=False)
    sample = np.linspace(0, 99, 10).astype(np.int64)
    found = evaluate(ModelScorer(untrained, filter_seen=False), asked, ITEMS, index=sample)
    assert scores["model"] == pytest.approx(found.ndcg, abs=1e-6)


def test_fitting_changes_neither_model_nor_tables_and_repeats(untrained: Model, arrays: Arrays) -> None:
    before = {name: array.copy() for name, array in arrays.items()}
    weights = {name: value.clone() for name, value in untrained.state_dict().items()}
    histories = anything(30, seed=9)
    asked = queries(histories, [[h[-1]] for h in histories])
    assert fit_blend(untrained, asked, arrays, filter_seen=False) == fit_blend(
        untrained, asked, arrays, filter_seen=False
    )
    assert all((arrays[name] == before[name]).all() for name in before)
    assert all((value == weights[name]).all() for name, value in untrained.state_dict().items())


def returning(share: float) -> _Candidates:
    """Some of the answers are one of two items that the shopper had, of which the Transformer thinks now much, now
    little; the others are one of twelve of which it thinks much."""
    rng, questions = np.random.default_rng(3), 600
    model = rng.normal(size=(questions, 30)).astype(np.float32)
    model[:, :12] += 14
    model[:, -2:] = rng.normal(6, 6, (questions, 2))
    place = np.where(rng.random(questions) < share, rng.integers(28, 30, questions), rng.integers(0, 12, questions))
    owned = np.zeros_like(model)
    owned[:, -2:] = rng.uniform(0.5, 1.5, (questions, 2))
    counts = [(BlendPart("own", 1.0, 1.0, 0.7, 0), owned)]
    one = np.ones(questions)
    return _Candidates(
        model, counts, Chosen(np.zeros_like(model), np.arange(questions), place, one.astype(np.float32)), one
    )


def test_own_counts_lead_where_that_ranks_better_though_it_is_less_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    found = returning(0.4)
    moved, scores = _fitted(found)
    monkeypatch.setattr("hushrec_model.blend._MOVES", 0)
    likely, before = _fitted(found)
    assert found.ndcg(scores) > found.ndcg(before) + 0.005
    assert sum(part.weight for part in moved) > sum(part.weight for part in likely)


def test_a_step_by_the_ranking_must_gain_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    found = returning(0.4)
    monkeypatch.setattr("hushrec_model.blend._GAIN", 10.0)
    _, scores = _fitted(found)
    monkeypatch.setattr("hushrec_model.blend._MOVES", 0)
    np.testing.assert_array_equal(scores, _fitted(found)[1])
