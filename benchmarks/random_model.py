"""A model with random weights, for measuring time and memory; its recommendations mean nothing."""

import numpy as np
from hushrec.tables import WIDTH
from hushrec.weights.encoder import ADAPTER_RANK, HEAD_WIDTH, EncoderWeights, LayerWeights
from numpy.typing import NDArray

__all__ = ["random_rows", "random_weights"]

Floats = NDArray[np.float32]


def random_weights(seed: int, *, layers: int, heads: int, channels: int, max_history: int) -> EncoderWeights:
    """Weights of about the size that training gives them."""
    rng = np.random.default_rng(seed)

    def matrix(inputs: int, outputs: int) -> Floats:
        return rng.standard_normal((inputs, outputs), np.float32) / np.float32(np.sqrt(inputs))

    def layer() -> LayerWeights:
        inner, ones = HEAD_WIDTH * heads, np.ones(WIDTH, np.float32)
        return LayerWeights(
            norm1_scale=ones,
            norm1_bias=0.1 * matrix(1, WIDTH)[0],
            w1=matrix(WIDTH, 3 * inner + WIDTH),
            wo=matrix(inner, WIDTH),
            bias=0.3 * matrix(1, heads * max_history).reshape(heads, max_history),
            norm2_scale=ones,
            norm2_bias=0.1 * matrix(1, WIDTH)[0],
            w2=matrix(WIDTH, 2 * channels + WIDTH),
            w3=matrix(channels, WIDTH),
        )

    return EncoderWeights(
        layers=tuple(layer() for _ in range(layers)),
        norm_scale=np.ones(WIDTH, np.float32),
        norm_bias=0.1 * matrix(1, WIDTH)[0],
        adapter_down=matrix(WIDTH, ADAPTER_RANK),
        adapter_up=0.1 * matrix(ADAPTER_RANK, WIDTH),
        scale=20.0,
    )


def random_rows(items: int, seed: int) -> Floats:
    """Unit vectors in loose groups of forty, row 0 zeros, shape (V + 1, 64)."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((items // 40 + 1, WIDTH), np.float32)
    rows = centres[rng.integers(len(centres), size=items + 1)]
    rows += np.float32(0.7) * rng.standard_normal(rows.shape, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[0] = 0
    return rows
