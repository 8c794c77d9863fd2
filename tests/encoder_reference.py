"""Random encoders that resemble trained ones, and the encoder written as plain loops in float64."""

from collections.abc import Sequence

import numpy as np
from hushrec.weights.encoder import ADAPTER_RANK, HEAD_WIDTH, WIDTH, EncoderWeights, LayerWeights
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def random_encoder(
    seed: int = 0,
    *,
    heads: Sequence[int] = (2, 2),
    channels: Sequence[int] = (176, 176),
    max_history: int = 50,
    behaviors: int = 1,
) -> EncoderWeights:
    """Weights of the size that training gives them: branches as large as the residual stream, old events fade."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> Floats:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    def matrix(inputs: int, outputs: int) -> Floats:
        return normal(inputs, outputs, scale=inputs**-0.5)

    layers = []
    for h, f in zip(heads, channels, strict=True):
        fading = np.float32(-0.05) * np.arange(max_history, dtype=np.float32)
        layers.append(
            LayerWeights(
                norm1_scale=1 + normal(WIDTH, scale=0.1),
                norm1_bias=normal(WIDTH, scale=0.1),
                w1=matrix(WIDTH, 3 * HEAD_WIDTH * h + WIDTH),
                wo=matrix(HEAD_WIDTH * h, WIDTH),
                bias=normal(h, max_history, scale=0.3) + fading,
                norm2_scale=1 + normal(WIDTH, scale=0.1),
                norm2_bias=normal(WIDTH, scale=0.1),
                w2=matrix(WIDTH, 2 * f + WIDTH),
                w3=matrix(f, WIDTH),
            )
        )
    return EncoderWeights(
        layers=tuple(layers),
        norm_scale=1 + normal(WIDTH, scale=0.1),
        norm_bias=normal(WIDTH, scale=0.1),
        adapter_down=matrix(WIDTH, ADAPTER_RANK),
        adapter_up=normal(ADAPTER_RANK, WIDTH, scale=0.1),
        scale=20.0,
        behaviors=normal(behaviors, WIDTH, scale=0.3) if behaviors > 1 else None,
    )


def random_items(items: int, seed: int = 1) -> Floats:
    """Unit vectors in loose groups, as a shop's items are; row 0 zeros; shape (V + 1, 64)."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(items // 40, 1), WIDTH))
    rows = centres[rng.integers(len(centres), size=items + 1)] + 0.7 * rng.standard_normal((items + 1, WIDTH))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[0] = 0
    return rows.astype(np.float32)


def reference_user(
    weights: EncoderWeights, rows: Floats, items: Sequence[int], behaviors: Sequence[int] | None = None
) -> Doubles:
    """The user vector after a history, shape (64,): the docstring of `hushrec.weights.encoder`, event by event."""
    stream = [8.0 * rows[item].astype(np.float64) for item in items]
    if weights.behaviors is not None:
        kinds = behaviors or [0] * len(items)
        stream = [x + weights.behaviors[kind] for x, kind in zip(stream, kinds, strict=True)]
    events = stream
    for layer in weights.layers:
        stream = [_feed_forward(layer, x) for x in _attend(layer, stream, events)]
    h = _norm(stream[-1], weights.norm_scale, weights.norm_bias)
    user = h + (h @ weights.adapter_down) @ weights.adapter_up
    return np.asarray(weights.scale * user / np.linalg.norm(user))


def _attend(layer: LayerWeights, stream: list[Doubles], events: list[Doubles]) -> list[Doubles]:
    inner = HEAD_WIDTH * layer.heads
    wq, wk, wv, wg = np.split(layer.w1, [inner, 2 * inner, 3 * inner], axis=1)
    asked = [_norm(x, layer.norm1_scale, layer.norm1_bias) for x in stream]
    parts = [(n @ wq, event @ wk, event @ wv, n @ wg) for n, event in zip(asked, events, strict=True)]
    after = []
    for i, x in enumerate(stream):
        mixed = np.zeros(inner)
        for h in range(layer.heads):
            head = slice(HEAD_WIDTH * h, HEAD_WIDTH * (h + 1))
            scores = [
                parts[i][0][head] @ parts[j][1][head] / np.sqrt(HEAD_WIDTH) + layer.bias[h, i - j] for j in range(i + 1)
            ]
            weights = np.exp(scores - np.max(scores))
            for j in range(i + 1):
                mixed[head] += weights[j] / weights.sum() * parts[j][2][head]
        after.append(x + _sigmoid(parts[i][3]) * (mixed @ layer.wo))
    return after


def _feed_forward(layer: LayerWeights, x: Doubles) -> Doubles:
    n = _norm(x, layer.norm2_scale, layer.norm2_bias)
    a, b, gate = np.split(n @ layer.w2, [layer.channels, 2 * layer.channels])
    return np.asarray(x + _sigmoid(gate) * ((a * _sigmoid(a) * b) @ layer.w3))


def _norm(x: Doubles, scale: Floats, bias: Floats) -> Doubles:
    return np.asarray((x - x.mean()) / np.sqrt(x.var() + 1e-5) * scale + bias)


def _sigmoid(x: Doubles) -> Doubles:
    return np.asarray(1 / (1 + np.exp(-x)))
