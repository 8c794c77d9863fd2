"""The graphs against a plain loop, int8 against float, and the sizes that the project promises."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec import ort
from hushrec.tables import capacity_for
from hushrec.weights.encoder import EncoderWeights
from hushrec.weights.tensors import Precision
from hushrec_privacy.errors import ConfigError
from hushrec_quantize.graphs import Graphs, build_graphs
from numpy.typing import NDArray

from tests.encoder_reference import random_encoder, random_items, reference_user

Floats = NDArray[np.float32]

SHAPES: dict[str, dict[str, Any]] = {
    "one layer": {"heads": (2,), "channels": (176,)},
    "two layers": {},
    "pruned unevenly": {"heads": (1, 3), "channels": (20, 75)},
    "behaviours": {"behaviors": 3},
    "long histories": {"max_history": 200, "channels": (64, 64)},
}
ITEMS = 300


def run(folder: Path, graphs: Graphs, items: NDArray[np.int64], behaviors: NDArray[np.int64] | None = None) -> Floats:
    """Scores of a batch, shape (B, capacity)."""
    folder.mkdir(exist_ok=True)
    graphs.write(folder)
    feed = {"items": items} if behaviors is None else {"items": items, "behaviors": behaviors}
    (scores,) = ort.open_session(folder / "scorer.onnx").run(["scores"], feed)
    return np.asarray(scores)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [1, 2, 11, 50])
def test_float_graphs_score_like_the_plain_loop(shape: str, length: int, tmp_path: Path) -> None:
    weights, rows = random_encoder(**SHAPES[shape]), random_items(ITEMS)
    rng = np.random.default_rng(length)
    items, kinds = rng.integers(0, ITEMS + 1, (2, length)), rng.integers(0, 3, (2, length))
    behaviors = None if weights.behaviors is None else kinds
    scores = run(tmp_path, build_graphs(weights, rows, precision="fp32"), items, behaviors)
    for row in range(2):
        expected = rows @ reference_user(weights, rows, items[row].tolist(), kinds[row].tolist())
        np.testing.assert_allclose(scores[row, : ITEMS + 1], expected, atol=1e-4)
        assert not scores[row, ITEMS + 1 :].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_graphs_keep_the_float_top_ten(shape: str, tmp_path: Path) -> None:
    weights, rows = random_encoder(**SHAPES[shape]), random_items(2_000)
    rng = np.random.default_rng(3)
    items = rng.integers(1, 2_001, (100, 20))
    behaviors = None if weights.behaviors is None else rng.integers(0, 3, items.shape)
    exact = run(tmp_path / "fp32", build_graphs(weights, rows, precision="fp32"), items, behaviors)[:, 1:2_001]
    rounded = run(tmp_path / "int8", build_graphs(weights, rows), items, behaviors)[:, 1:2_001]
    assert np.abs(exact - rounded).max() < 0.6  # of 20; the largest values of a few rows are cut
    best, found = (np.argsort(-scores, axis=1)[:, :10] for scores in (exact, rounded))
    assert np.mean([len(set(a) & set(b)) for a, b in zip(best, found, strict=True)]) / 10 >= 0.97


def test_every_row_of_a_batch_is_scored_as_if_it_were_alone(tmp_path: Path) -> None:
    weights, rows = random_encoder(), random_items(ITEMS)
    graphs = build_graphs(weights, rows, precision="fp32")
    items = np.random.default_rng(0).integers(1, ITEMS + 1, (4, 9))
    together = run(tmp_path, graphs, items)
    alone = np.concatenate([run(tmp_path, graphs, items[row : row + 1]) for row in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_graphs_depend_on_the_shape_and_not_on_the_weights(precision: Precision) -> None:
    first = build_graphs(random_encoder(1), random_items(100, 1), precision=precision)
    second = build_graphs(random_encoder(2), random_items(101, 2), precision=precision)
    assert first[:4] == second[:4]  # capacity and graphs
    assert first.encoder_bin != second.encoder_bin
    assert len(first.encoder_bin) == len(second.encoder_bin)
    smaller = build_graphs(random_encoder(1, channels=(176, 88)), random_items(100, 1), precision=precision)
    assert smaller.encoder_onnx != first.encoder_onnx


def test_the_same_weights_give_the_same_bytes() -> None:
    one, two = (build_graphs(random_encoder(), random_items(ITEMS)) for _ in range(2))
    assert one.files() == two.files()


def test_the_largest_encoder_has_at_most_150_kilobytes() -> None:
    graphs = build_graphs(random_encoder(max_history=200), random_items(ITEMS))
    assert len(graphs.encoder_onnx) + len(graphs.encoder_bin) <= 150_000


@pytest.mark.parametrize("items", [3_416, 12_101, 36_968])
def test_an_item_takes_at_most_72_bytes_of_the_table(items: int) -> None:
    graphs = build_graphs(random_encoder(heads=(1,), channels=(16,)), random_items(items))
    assert len(graphs.items_bin) <= 72 * items


def test_a_capacity_may_be_given_and_must_suffice() -> None:
    weights = random_encoder(heads=(1,), channels=(16,))
    assert build_graphs(weights, random_items(100), capacity=256).capacity == 256
    with pytest.raises(ConfigError, match="101 rows do not fit into a capacity of 64"):
        build_graphs(weights, random_items(100), capacity=64)
    with pytest.raises(ConfigError, match="101 rows do not fit into a capacity of 64"):
        build_graphs(weights, random_items(100), capacity=64, precision="fp32")
    with pytest.raises(ConfigError, match="multiple of 64"):
        build_graphs(weights, random_items(100), capacity=130)


def test_a_bad_item_table_is_refused() -> None:
    weights, rows = random_encoder(heads=(1,), channels=(16,)), random_items(10)
    with pytest.raises(ConfigError, match=r"shape \(11, 32\)"):
        build_graphs(weights, rows[:, :32])
    with pytest.raises(ConfigError, match="row 0"):
        build_graphs(weights, rows[1:])
    rows[3, 3] = np.nan
    with pytest.raises(ConfigError, match="NaN"):
        build_graphs(weights, rows)


def _broken(weights: EncoderWeights, **change: Any) -> EncoderWeights:
    return replace(weights, layers=(replace(weights.layers[0], **change), *weights.layers[1:]))


def test_weights_that_do_not_fit_together_are_refused_by_name() -> None:
    weights = random_encoder()
    with pytest.raises(ConfigError, match=r"layers\[0\].wo is float32 \(64, 63\); it must be float32 \(64, 64\)"):
        _broken(weights, wo=weights.layers[0].wo[:, :63])
    with pytest.raises(ConfigError, match=r"layers\[0\].w3 is float64"):
        _broken(weights, w3=weights.layers[0].w3.astype(np.float64))
    with pytest.raises(ConfigError, match=r"layers\[1\].bias is float32 \(2, 50\); it must be float32 \(2, 49\)"):
        _broken(weights, bias=weights.layers[0].bias[:, :49])
    with pytest.raises(ConfigError, match="norm_bias holds NaN"):
        replace(weights, norm_bias=np.full(64, np.nan, np.float32))
    with pytest.raises(ConfigError, match="no layers"):
        replace(weights, layers=())
    with pytest.raises(ConfigError, match="behaviors"):
        replace(weights, behaviors=np.zeros((3, 32), np.float32))


def test_parameters_counts_everything_trained_but_the_items() -> None:
    weights = random_encoder(heads=(1,), channels=(16,), max_history=8)
    layer = 2 * 64 + 64 * 160 + 32 * 64 + 8 + 2 * 64 + 64 * 96 + 16 * 64
    assert weights.parameters == layer + 2 * 64 + 2 * 64 * 16 + 1


def test_the_table_has_room_for_more_items() -> None:
    assert [capacity_for(items) for items in (1, 62, 63, 10_000)] == [64, 64, 128, 10_368]
