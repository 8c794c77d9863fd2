"""The peer of the engine benchmark: the same weights in float32, as an exporter writes them down.

Standard ONNX operators only, attention with its own queries, keys and values, scores by a product with the transposed
table. Like the int8 graphs it computes the last position only.
"""

import numpy as np
from hushrec.weights.encoder import HEAD_WIDTH, INPUT_SCALE, NORM_EPSILON, WIDTH, EncoderWeights, LayerWeights
from hushrec_quantize.builder import GraphBuilder
from numpy.typing import NDArray

__all__ = ["plain_encoder", "plain_scorer"]

Array = NDArray[np.float32]


def plain_encoder(weights: EncoderWeights, capacity: int) -> tuple[bytes, bytes]:
    """Export the encoder: the graph, and the content of its `encoder.bin`; it gathers from a float32 `items.bin`."""
    return _Export(weights, capacity).build()


def plain_scorer(capacity: int) -> bytes:
    """Export the product with the item table; its `items_t.bin` is the float32 table transposed, (64, capacity)."""
    graph = GraphBuilder("scorer")
    user = graph.input("user", "float32", ["B", WIDTH])
    table = graph.external("table", "float32", [WIDTH, capacity], "items_t.bin", 0)
    graph.op("MatMul", user, table, name="scores")
    return graph.model({"scores": ["B", capacity]})


class _Export:
    def __init__(self, weights: EncoderWeights, capacity: int) -> None:
        self._weights, self._capacity = weights, capacity
        self._graph, self._content = GraphBuilder("encoder"), bytearray()

    def build(self) -> tuple[bytes, bytes]:
        g, w = self._graph, self._weights
        items = g.input("items", "int64", ["B", "L"])
        table = g.external("table", "float32", [self._capacity, WIDTH], "items.bin", 0)
        events = g.op("Mul", g.op("Gather", table, items), self._constant("input_scale", np.float32(INPUT_SCALE)))
        x = g.op("Gather", events, g.constant(-1), axis=1)
        length = g.op("Slice", g.op("Shape", items), g.constant(1), g.constant(2), g.constant(0))
        for number, layer in enumerate(w.layers):
            x = self._layer(x, events, length, layer, f"layer{number}")
        h = self._norm(x, w.norm_scale, w.norm_bias, "norm")
        u = g.op("Add", h, self._linear(self._linear(h, w.adapter_down, "down"), w.adapter_up, "up"))
        u = g.op("LpNormalization", g.op("Squeeze", u, g.constant(1)), axis=-1, p=2)
        g.op("Mul", u, self._constant("length", np.float32(w.scale)), name="user")
        return g.model({"user": ["B", WIDTH]}), bytes(self._content)

    def _layer(self, x: str, events: str, length: str, layer: LayerWeights, name: str) -> str:
        g, inner = self._graph, HEAD_WIDTH * layer.heads
        n = self._norm(x, layer.norm1_scale, layer.norm1_bias, f"{name}.norm1")
        wq, wk, wv, wg = np.split(layer.w1, [inner, 2 * inner, 3 * inner], axis=1)
        q, gate = self._split(n, np.concatenate([wq, wg], axis=1), (inner, WIDTH), f"{name}.w1q")
        k, v = self._split(events, np.concatenate([wk, wv], axis=1), (inner, inner), f"{name}.w1kv")
        mixed = self._attention(q, k, v, self._bias(layer, length, name), layer.heads)
        x = self._gated(x, gate, self._linear(mixed, layer.wo, f"{name}.wo"))
        n = self._norm(x, layer.norm2_scale, layer.norm2_bias, f"{name}.norm2")
        a, b, gate = self._split(n, layer.w2, (layer.channels, layer.channels, WIDTH), f"{name}.w2")
        inside = g.op("Mul", g.op("Mul", a, g.op("Sigmoid", a)), b)
        return self._gated(x, gate, self._linear(inside, layer.w3, f"{name}.w3"))

    def _attention(self, q: str, k: str, v: str, bias: str, heads: int) -> str:
        g, shape = self._graph, self._graph.constant(0, -1, heads, HEAD_WIDTH)
        q = g.op("Transpose", g.op("Reshape", q, shape), perm=[0, 2, 1, 3])
        k = g.op("Transpose", g.op("Reshape", k, shape), perm=[0, 2, 3, 1])
        v = g.op("Transpose", g.op("Reshape", v, shape), perm=[0, 2, 1, 3])
        q = g.op("Mul", q, self._constant("root", np.float32(HEAD_WIDTH**-0.5)))
        weights = g.op("Softmax", g.op("Add", g.op("MatMul", q, k), bias), axis=-1)
        mixed = g.op("Transpose", g.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        return g.op("Reshape", mixed, g.constant(0, -1, heads * HEAD_WIDTH))

    def _bias(self, layer: LayerWeights, length: str, name: str) -> str:
        g, longest = self._graph, self._weights.max_history
        row = self._constant(f"{name}.bias", np.ascontiguousarray(layer.bias[:, None, ::-1]))
        return g.op("Slice", row, g.op("Neg", length), g.constant(longest), g.constant(2))

    def _gated(self, x: str, gate: str, branch: str) -> str:
        g = self._graph
        return g.op("Add", x, g.op("Mul", g.op("Sigmoid", gate), branch))

    def _split(self, x: str, matrix: Array, parts: tuple[int, ...], name: str) -> list[str]:
        g = self._graph
        return g.op_many("Split", len(parts), self._linear(x, matrix, name), g.constant(*parts), axis=-1)

    def _norm(self, x: str, scale: Array, bias: Array, name: str) -> str:
        scale_name, bias_name = self._constant(f"{name}.scale", scale), self._constant(f"{name}.bias", bias)
        return self._graph.op("LayerNormalization", x, scale_name, bias_name, axis=-1, epsilon=NORM_EPSILON)

    def _linear(self, x: str, matrix: Array, name: str) -> str:
        return self._graph.op("MatMul", x, self._constant(name, matrix))

    def _constant(self, name: str, array: Array | np.float32) -> str:
        array = np.asarray(array)
        offset = len(self._content)
        content = array.tobytes()
        self._content += content + bytes(-len(content) % 64)
        return self._graph.weight(name, array, "encoder.bin", offset)
