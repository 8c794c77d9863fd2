"""The arrays of `encoder.bin`: the encoder's weights, rearranged so that the device computes less, rounded to int8.

Three rearrangements change nothing but rounding:

* Query and key meet only as q·k, value and output only as a product, so each head h gets two 64 × 64 matrices instead
  of four of 64 × 32: `query_h = Wq_h Wk_hᵀ / √32` and `mix_h = Wv_h Wo_h`. Keys and values are then the events
  themselves, and no event is ever multiplied with a matrix.
* Events stay in the basis of the item table, of unit length, as they are gathered: the way back from it, `rotation`, 8
  times as long, is part of `query_h` and of `mix_h`, and the last event alone is turned. User vectors leave in it, too;
  the last norm takes the 8 out of them.
* The final scale becomes the weight of an RMS norm: `scale · u / |u| = (scale / 8) · u / rms(u)` at width 64.

NumPy only: a release that brings new weights rewrites `encoder.bin` by `pack_encoder` and leaves the graph alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hushrec.weights.encoder import HEAD_WIDTH, INPUT_SCALE, WIDTH, EncoderWeights, LayerWeights
from hushrec.weights.rounding import round_columns

__all__ = ["Fit", "Precision", "align", "encoder_tensors", "offsets", "pack_encoder"]

Precision = Literal["int8", "fp32"]
Array = NDArray[Any]

_ALIGNMENT = 64  # bytes


class Fit(NamedTuple):
    """What rounding is fitted to.

    Attributes:
        moments: Second moment E[x xᵀ] of the inputs of a matrix by its name, shape (inputs, inputs).
        rotation: Orthogonal basis of the item table, shape (64, 64): its rows are item vectors times this.
    """

    moments: Mapping[str, NDArray[np.float64]]
    rotation: NDArray[np.float32]


UNFITTED = Fit({}, np.eye(WIDTH, dtype=np.float32))
"""Every matrix rounded to the nearest steps, the table in the basis of training."""


class _Part(NamedTuple):
    name: str
    matrix: NDArray[np.float32]  # (inputs, outputs)


def encoder_tensors(weights: EncoderWeights, precision: Precision = "int8", fit: Fit = UNFITTED) -> dict[str, Array]:
    """Rearrange and round the weights.

    Args:
        weights: The encoder.
        precision: "int8", or "fp32" without rounding.
        fit: From `calibration`; not used for "fp32".

    Returns:
        Name to array, in file order. A matrix `m` is one array `m`, shape (inputs, outputs), in float32; in int8 it is
        `m.codes` of that shape, int8, and `m.scales`, one a column.
    """
    turn = INPUT_SCALE * (fit.rotation if precision == "int8" else np.eye(WIDTH, dtype=np.float32))
    tensors: dict[str, Array] = {}
    if weights.behaviors is not None:
        tensors["behavior.rows"] = weights.behaviors @ turn / INPUT_SCALE**2
    for number, layer in enumerate(weights.layers):
        tensors[f"{number}.norm1.scale"], tensors[f"{number}.norm1.bias"] = layer.norm1_scale, layer.norm1_bias
        tensors[f"{number}.distance"] = _by_position(layer.bias)
        for name, matrix in _parts(layer, turn.astype(np.float64)):
            tensors.update(_stored(f"{number}.{name}", matrix, precision, fit.moments))
        tensors[f"{number}.norm2.scale"], tensors[f"{number}.norm2.bias"] = layer.norm2_scale, layer.norm2_bias
    tensors["norm.scale"], tensors["norm.bias"] = weights.norm_scale, weights.norm_bias
    adapter = np.float32 if precision == "fp32" else np.float16
    tensors["adapter.down"] = weights.adapter_down.astype(adapter)
    tensors["adapter.up"] = weights.adapter_up.astype(adapter)
    tensors["length"] = np.full(WIDTH, weights.scale / np.sqrt(WIDTH), np.float32)
    if precision == "int8":
        tensors["rotation"] = turn.astype(np.float16)
    return tensors


def offsets(tensors: Mapping[str, Array]) -> dict[str, int]:
    """Place the arrays one after the other, each aligned to 64 bytes; depends on names, shapes and dtypes only."""
    places, position = {}, 0
    for name, array in tensors.items():
        places[name] = position
        position = align(position + array.nbytes)
    return places


def align(position: int) -> int:
    """Round a file position up to the alignment of 64 bytes.

    >>> align(65)
    128
    """
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def pack_encoder(weights: EncoderWeights, precision: Precision = "int8", fit: Fit = UNFITTED) -> bytes:
    """Write `encoder.bin`, for weights of an architecture whose graph may exist already; see `encoder_tensors`."""
    tensors = encoder_tensors(weights, precision, fit)
    packed = bytearray()
    for name, place in offsets(tensors).items():
        packed.extend(bytes(place - len(packed)))
        packed.extend(tensors[name].tobytes())
    return bytes(packed)


def _parts(layer: LayerWeights, turn: NDArray[np.float64]) -> Iterator[_Part]:
    inner, channels = HEAD_WIDTH * layer.heads, layer.channels
    query, key, value, gate1 = np.split(layer.w1.astype(np.float64), [inner, 2 * inner, 3 * inner], axis=1)
    output = layer.wo.astype(np.float64)
    heads = [slice(HEAD_WIDTH * h, HEAD_WIDTH * (h + 1)) for h in range(layer.heads)]
    absorbed = [query[:, h] @ key[:, h].T @ turn / np.sqrt(HEAD_WIDTH) for h in heads]
    mix = [turn.T @ value[:, h] @ output[h] for h in heads]
    yield _Part("query", np.concatenate(absorbed, axis=1).astype(np.float32))
    yield _Part("gate1", gate1.astype(np.float32))
    yield _Part("mix", np.concatenate(mix, axis=0).astype(np.float32))
    silu, linear, gate2 = np.split(layer.w2, [channels, 2 * channels], axis=1)
    yield _Part("silu", silu)
    yield _Part("linear", linear)
    yield _Part("gate2", gate2)
    yield _Part("down", layer.w3)


def _by_position(bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn distances into positions: the last L columns belong to the L events of a history, oldest first."""
    return np.ascontiguousarray(bias[:, ::-1])


def _stored(
    name: str,
    matrix: NDArray[np.float32],
    precision: Precision,
    moments: Mapping[str, NDArray[np.float64]],
) -> dict[str, Array]:
    if precision == "fp32":
        return {name: np.ascontiguousarray(matrix)}
    codes, scales = round_columns(matrix, moments.get(name, np.eye(len(matrix))))
    return {f"{name}.codes": codes, f"{name}.scales": scales}
