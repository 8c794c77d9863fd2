"""One network, three times: torch, a plain NumPy loop over the exported weights, and the float32 graphs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hushrec import ort
from hushrec.weights.encoder import EncoderWeights
from hushrec_model.model import Model
from hushrec_model.network import EncoderShape
from hushrec_privacy.errors import ConfigError
from hushrec_quantize.convert import encoder_weights
from hushrec_quantize.graphs import build_graphs
from hushrec_quantize.prune import prune
from numpy.typing import NDArray
from torch.nn import functional

from tests.planted import all_known, chain, small_model, split_of

ITEMS, LONGEST = 15, 8
SHAPES = {
    "one layer": EncoderShape((1,), (16,), LONGEST),
    "two layers": EncoderShape((2, 2), (48, 32), LONGEST),
    "uneven, behaviours": EncoderShape((1, 3), (64, 16), LONGEST, behaviors=3),
    "behaviours": EncoderShape((2,), (32,), LONGEST, behaviors=2),
}
Array = NDArray[np.float64]


def norm(x: Array, scale: NDArray[np.float32], bias: NDArray[np.float32]) -> Array:
    centred = x - x.mean()
    return np.asarray(centred / np.sqrt((centred**2).mean() + 1e-5) * scale + bias)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def reference(weights: EncoderWeights, rows: NDArray[np.float32], items: list[int], behaviors: list[int]) -> Array:
    """Scores after a history, shape (V + 1,): the definition, event by event, in float64."""
    events = [8.0 * rows[item].astype(np.float64) for item in items]
    if weights.behaviors is not None:
        events = [x + weights.behaviors[b] for x, b in zip(events, behaviors, strict=True)]
    stream = events
    for layer in weights.layers:
        inner = 32 * layer.heads
        asked = [norm(x, layer.norm1_scale, layer.norm1_bias) @ layer.w1 for x in stream]
        read = [x @ layer.w1 for x in events]
        after = []
        for i, x in enumerate(stream):
            mixed = []
            for h in range(layer.heads):
                q, k, v = (slice(part * inner + 32 * h, part * inner + 32 * h + 32) for part in range(3))
                logits = [asked[i][q] @ read[j][k] / np.sqrt(32) + layer.bias[h, i - j] for j in range(i + 1)]
                attention = np.exp(logits - np.max(logits))
                attention /= attention.sum()
                mixed.append(sum(a * read[j][v] for j, a in enumerate(attention)))
            x = x + sigmoid(asked[i][3 * inner :]) * (np.concatenate(mixed) @ layer.wo)
            a, b, gate = np.split(
                norm(x, layer.norm2_scale, layer.norm2_bias) @ layer.w2, [layer.channels, 2 * layer.channels]
            )
            after.append(x + sigmoid(gate) * ((a * sigmoid(a) * b) @ layer.w3))
        stream = after
    hidden = norm(stream[-1], weights.norm_scale, weights.norm_bias)
    user = hidden + (hidden @ weights.adapter_down) @ weights.adapter_up
    return np.asarray(rows @ (weights.scale * user / np.linalg.norm(user)))


def by_torch(model: Model, items: list[int], behaviors: list[int]) -> NDArray[np.float32]:
    with torch.no_grad():
        vectors = functional.embedding(torch.tensor([items]), model.table())
        user = model.encoder(vectors, torch.tensor([behaviors]))[0, -1]
        return np.asarray(torch.mv(model.table(), user), np.float32)


class Graphs:
    """The float32 graphs of a model in ONNX Runtime."""

    def __init__(self, model: Model, folder: Path) -> None:
        build_graphs(encoder_weights(model), model.table().numpy(), precision="fp32").write(folder)
        self.session = ort.open_session(folder / "scorer.onnx")
        self.behaviors = model.encoder.behavior is not None

    def scores(self, items: list[int], behaviors: list[int]) -> NDArray[np.float32]:
        feed: dict[str, Any] = {"items": np.array([items])}
        if self.behaviors:
            feed["behaviors"] = np.array([behaviors])
        (scores,) = self.session.run(None, feed)
        return np.asarray(scores[0, : ITEMS + 1])


def assert_all_equal(model: Model, folder: Path) -> None:
    """At every length; in units of scores, which reach 20."""
    rng = np.random.default_rng(0)
    weights, rows, graphs = encoder_weights(model), model.table().numpy(), Graphs(model, folder)
    for length in range(1, LONGEST + 1):
        items = rng.integers(0, ITEMS + 1, length).tolist()
        behaviors = rng.integers(0, model.encoder.shape.behaviors, length).tolist()
        wanted = reference(weights, rows, items, behaviors)
        np.testing.assert_allclose(by_torch(model, items, behaviors), wanted, atol=1e-4)
        np.testing.assert_allclose(graphs.scores(items, behaviors), wanted, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_torch_graphs_and_the_definition_agree_at_every_length(shape: EncoderShape, tmp_path: Path) -> None:
    assert_all_equal(small_model(ITEMS, shape, all_known(ITEMS)), tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_they_agree_after_pruning(share: float, tmp_path: Path) -> None:
    model = small_model(ITEMS, SHAPES["uneven, behaviours"], all_known(ITEMS))
    assert_all_equal(prune(model, split_of(chain(20, ITEMS, 9)), share), tmp_path)


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    model = small_model(ITEMS, replace(SHAPES["behaviours"], behaviors=2))
    with torch.no_grad():
        model.encoder.layers[0].expand.weight[0, 0] = float("nan")
    with pytest.raises(ConfigError, match=r"layers\[0\].w2 holds NaN or infinity"):
        encoder_weights(model)


def test_every_weight_of_the_encoder_is_exported() -> None:
    for shape in SHAPES.values():
        model = small_model(ITEMS, shape)
        assert encoder_weights(model).parameters == sum(weight.numel() for weight in model.encoder.parameters())
