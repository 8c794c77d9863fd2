"""Times of answers: measured in turn, over whole histories, and none where there is nothing to ask."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hushrec.weights.tensors import Precision
from hushrec_quantize.convert import encoder_weights
from hushrec_quantize.graphs import build_graphs
from hushrec_quantize.latency import graph_answer, in_turn_us, scorer_answer

from tests.planted import SMALL, queries, small_model

HISTORIES = queries([[1], [2] * 30, [], [3, 4]], [[1]] * 4)


@pytest.mark.parametrize("behaviors", [1, 2])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_graphs_of_any_precision_answer_histories_of_any_length(
    behaviors: int, precision: Precision, tmp_path: Path
) -> None:
    model = small_model(20, replace(SMALL, behaviors=behaviors))
    graphs = build_graphs(encoder_weights(model), model.table().numpy(), precision=precision)
    answer = graph_answer(graphs, tmp_path, HISTORIES, SMALL.max_history, behaviors)
    (time_us,) = in_turn_us([answer], HISTORIES, np.arange(4))
    assert 0 < time_us < 1e6


def test_every_model_is_asked_the_same_in_turn_and_nobody_without_events() -> None:
    asked: list[tuple[str, int]] = []
    models = [lambda query, name=name: asked.append((name, query)) for name in "ab"]
    assert len(in_turn_us(models, HISTORIES, np.arange(4))) == 2
    first, second = asked[:20], asked[20:40]
    assert {name for name, _ in first} == {"a"}
    assert {name for name, _ in second} == {"b"}
    assert [query for _, query in first] == [query for _, query in second]
    assert {query for _, query in asked} == {0, 1, 3}


def test_without_any_history_there_is_no_time() -> None:
    nothing = queries([[]], [[1]])
    assert in_turn_us([lambda query: 1 / (query - query)], nothing, np.zeros(1, np.int64)) == [0.0]


def test_a_scorer_is_asked_for_ten() -> None:
    class Scorer:
        def top(self, queries: object, index: np.ndarray, k: int) -> np.ndarray:
            assert queries is HISTORIES
            return np.full((len(index), k), 7, np.int32)

    answer = scorer_answer(Scorer(), HISTORIES)
    assert np.asarray(answer(3)).shape == (1, 10)
