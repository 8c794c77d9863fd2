"""What encoder and item table are multiplied with, so that rounding can be fitted to it.

Histories come from the caller, or the encoder makes them itself: it starts at random items and draws each next one from
its own scores. Then calibration reads nothing but the weights, and a bundle's guarantee stays what it was. Inputs
are taken at every position, since every position is the last of some history.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from hushrec.weights.encoder import INPUT_SCALE, NORM_EPSILON, WIDTH, EncoderWeights
from hushrec.weights.rounding import flattening_rotation
from hushrec.weights.tensors import Fit, encoder_tensors

__all__ = ["History", "fit_rounding", "own_histories"]

History = NDArray[np.int64]
Floats = NDArray[np.float32]

_BATCH = 256
_TINY = 1e-12
_OWN_HISTORIES = 256
_OWN_LENGTH = 24
_OWN_POOL = 20_000  # items that own histories draw from


def fit_rounding(
    weights: EncoderWeights, rows: Floats, histories: Iterable[History], rotation: Floats | None = None
) -> Fit:
    """Run the float encoder over histories and see what its matrices and the item table are multiplied with.

    Args:
        weights: The encoder.
        rows: Item vectors, row 0 for padding, shape (V + 1, 64).
        histories: Item indexes, oldest first, each of shape (L,); the last Lmax count, all events as behaviour 0.
        rotation: Basis of the table if it is there already, shape (64, 64).

    Returns:
        Moments by name of a matrix ("0.query", …) and "user" for user vectors, these in the basis of the table; and
        that basis, in which values of users and items alike are as equal as can be.
    """
    encoder = _Encoder(weights, watch=True)
    users = np.concatenate([encoder.run(rows[items]).reshape(-1, WIDTH) for items in _batches(histories, weights)])
    if rotation is None:
        few = np.linspace(1, len(rows) - 1, min(len(users), len(rows) - 1)).astype(np.int64)
        rotation = flattening_rotation(np.concatenate([users, rows[few]]))
    turned = users @ rotation
    turn = rotation.astype(np.float64)
    moments = {name: _turned(moment, turn) if name.endswith(".mix") else moment for name, moment in encoder.moments()}
    moments["user"] = (turned.T @ turned).astype(np.float64) / len(turned)
    return Fit(moments, rotation)


def own_histories(weights: EncoderWeights, rows: Floats, *, seed: int = 0) -> list[History]:
    """Let the encoder make up histories from its own scores, without repeats inside one.

    Args:
        weights: The encoder.
        rows: Item vectors, row 0 for padding, shape (V + 1, 64).
        seed: Of first items and draws.
    """
    rng = np.random.default_rng(seed)
    items = len(rows) - 1
    pool = rng.permutation(items)[:_OWN_POOL] + 1
    length = min(_OWN_LENGTH, weights.max_history, len(pool))
    encoder, columns = _Encoder(weights, watch=False), np.arange(_OWN_HISTORIES)
    places = rng.integers(len(pool), size=(_OWN_HISTORIES, 1))
    while places.shape[1] < length:
        users = encoder.run(rows[pool[places]])[:, -1]
        scores = users @ rows[pool].T
        scores += rng.gumbel(size=scores.shape).astype(np.float32)  # the largest is then a draw from the softmax
        scores[columns[:, None], places] = -np.inf
        places = np.concatenate([places, scores.argmax(axis=1)[:, None]], axis=1)
    return list(pool[places].astype(np.int64))


def _batches(histories: Iterable[History], weights: EncoderWeights) -> Iterator[History]:
    """Stack the last Lmax events of histories of one length, at most 256 together; empty ones are left out."""
    cut = sorted((history[-weights.max_history :] for history in histories if len(history)), key=len)
    for _, group in groupby(cut, key=len):
        same = np.stack(list(group))
        yield from (same[start : start + _BATCH] for start in range(0, len(same), _BATCH))


class _Encoder:
    """The network of `tensors.py` in NumPy at every position, remembering what its matrices were given."""

    def __init__(self, weights: EncoderWeights, *, watch: bool) -> None:
        self._watch = watch
        self._tensors = encoder_tensors(weights, "fp32")
        self._heads = [layer.heads for layer in weights.layers]
        self._bias = [layer.bias for layer in weights.layers]
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}

    def moments(self) -> Iterator[tuple[str, NDArray[np.float64]]]:
        return ((name, total / self._counts[name]) for name, total in self._sums.items())

    def run(self, vectors: Floats) -> Floats:
        """Item vectors (B, L, 64) to user vectors (B, L, 64)."""
        events = vectors
        if "behavior.rows" in self._tensors:
            events = events + self._tensors["behavior.rows"][0]
        x = events * np.float32(INPUT_SCALE)
        for number, heads in enumerate(self._heads):
            n = self._norm(x, f"{number}.norm1")
            mixed = self._mixed(n, events, number, heads)
            x = x + _sigmoid(self._linear(n, f"{number}.gate1")) * self._linear(mixed, f"{number}.mix")
            n = self._norm(x, f"{number}.norm2")
            a = self._linear(n, f"{number}.silu")
            inner = a * _sigmoid(a) * self._linear(n, f"{number}.linear")
            x = x + _sigmoid(self._linear(n, f"{number}.gate2")) * self._linear(inner, f"{number}.down")
        h = self._norm(x, "norm")
        u = h + h @ self._tensors["adapter.down"] @ self._tensors["adapter.up"]
        size = np.sqrt((u**2).mean(axis=-1, keepdims=True) + _TINY)
        users: Floats = (u * (self._tensors["length"] / size)).astype(np.float32)
        return users

    def _mixed(self, n: Floats, events: Floats, number: int, heads: int) -> Floats:
        batch, length, _ = n.shape
        query = self._linear(n, f"{number}.query").reshape(batch, length, heads, WIDTH)
        gap = np.arange(length)[:, None] - np.arange(length)
        bias = np.where(gap >= 0, self._bias[number][:, np.maximum(gap, 0)], -np.inf)
        scores = np.einsum("bihd,bjd->bhij", query, events, optimize=True) + bias.astype(np.float32)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed: Floats = np.einsum("bhij,bjd->bihd", weights, events, optimize=True)
        return mixed.reshape(batch, length, heads * WIDTH)

    def _norm(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + NORM_EPSILON)
        normal: Floats = centred / deviation * self._tensors[f"{name}.scale"] + self._tensors[f"{name}.bias"]
        return normal

    def _linear(self, x: Floats, name: str) -> Floats:
        self._see(name, x)
        product: Floats = x @ self._tensors[name]
        return product

    def _see(self, name: str, x: Floats) -> None:
        if not self._watch:
            return
        flat = x.reshape(-1, x.shape[-1])
        self._sums[name] = self._sums.get(name, 0.0) + (flat.T @ flat).astype(np.float64)
        self._counts[name] = self._counts.get(name, 0) + len(flat)


def _turned(moment: NDArray[np.float64], rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """The moment of the same inputs, one event after the other, each in the basis of the table."""
    events = len(moment) // WIDTH
    parts = moment.reshape(events, WIDTH, events, WIDTH)
    turned: NDArray[np.float64] = np.einsum("ip,aibj,jq->apbq", rotation, parts, rotation, optimize=True)
    return turned.reshape(moment.shape)


def _sigmoid(x: Floats) -> Floats:
    opened: Floats = (1 / (1 + np.exp(-x))).astype(np.float32)
    return opened
