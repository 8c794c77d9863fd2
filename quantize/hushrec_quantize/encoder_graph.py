"""The part of every graph that makes a user vector of a history of item indices.

Inputs `items` int64 [B, L] and, if the data has several behaviours, `behaviors` int64 [B, L], oldest event first,
1 ≤ L ≤ Lmax, never padded; the result is float32 [B, 64]. The arrays come from `tensors.py`, which says how they were
rearranged. The last layer answers the last position only.
"""

from collections.abc import Mapping
from typing import Any

from hushrec.tables import ZERO_POINT, items_layout
from hushrec.weights.encoder import INPUT_SCALE, NORM_EPSILON, WIDTH, EncoderWeights
from hushrec.weights.tensors import Precision, encoder_tensors, is_float, offsets
from numpy.typing import NDArray

from hushrec_quantize.builder import FLOAT, GraphBuilder

__all__ = ["ENCODER_BIN", "ITEMS_BIN", "Encoder"]

ENCODER_BIN = "encoder.bin"
ITEMS_BIN = "items.bin"
_TINY = 1e-12  # keeps a user vector of zeros finite


class Encoder:
    """Walks through the network once and leaves its nodes in a builder; `x` is the residual stream, `n` its norm.

    Args:
        graph: Where the nodes go.
        weights: Says how many layers, heads, channels and behaviours there are; its values do not enter the graph.
        capacity: Rows of the item table.
        precision: "int8", or "fp32" for the same nodes with float32 matrices and a float32 item table.
        gathered: Whether the graph is given the rows of the history's items, `codes` uint8 [B, L, 64], and not `items`.

    Attributes:
        table: Name of the item table in the graph, [capacity, 64]; empty if `gathered`.
        step: Name of its step, [1]; int8 only.
        zero_point: Name of the code of 0, a scalar; int8 only.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        weights: EncoderWeights,
        capacity: int,
        precision: Precision = "int8",
        *,
        gathered: bool = False,
    ) -> None:
        self._graph, self._weights, self._precision = graph, weights, precision
        self._tensors: Mapping[str, NDArray[Any]] = encoder_tensors(weights, precision)
        self._offsets = offsets(self._tensors)
        self._rounded: dict[str, list[str]] = {}
        self.table = self.step = self.zero_point = ""
        if precision == "fp32":
            self.table = graph.external("table", "float32", [capacity, WIDTH], ITEMS_BIN, 0)
        else:
            layout = items_layout(capacity)
            if not gathered:
                self.table = graph.external("table", "uint8", [capacity, WIDTH], ITEMS_BIN, layout.codes_offset)
            self.step = graph.external("step", "float32", [1], ITEMS_BIN, layout.scale_offset)
            self.zero_point = graph.byte("zero_point", ZERO_POINT)

    def build(self, name: str = "") -> str:
        """Add the whole network and return the name of its result, the one given or a new one."""
        x = self._embed()
        n = self._norm(x, "0.norm1")
        distances = self._distances() if len(self._weights.layers) > 1 else ""
        for number, layer in enumerate(self._weights.layers):
            last = number == len(self._weights.layers) - 1
            if last:
                x, n = self._attend_last(x, n, number, layer.heads)
            else:
                x, n = self._attend_all(x, n, number, layer.heads, distances)
            x = self._add(x, self._feed_forward(n, number), f"{number}.gate2", n)
            n = self._norm(x, "norm" if last else f"{number + 1}.norm1")
        return self._answer(n, name)

    def _embed(self) -> str:
        g = self._graph
        if self.table:
            rows = g.op("Gather", self.table, g.input("items", "int64", ["B", "L"]))
        else:
            rows = g.input("codes", "uint8", ["B", "L", WIDTH])
        if self._precision == "fp32":
            x = g.op("Mul", rows, g.number("gain", INPUT_SCALE))
        else:
            step = g.op("Squeeze", self.step)
            x = g.op("DequantizeLinear", rows, step, self.zero_point)
            x = g.op("MatMul", x, g.op("Transpose", self._rotation()))
        if self._weights.behaviors is not None:
            behaviors = g.input("behaviors", "int64", ["B", "L"])
            x = g.op("Add", x, g.op("Gather", self._weight("behavior.rows"), behaviors))
        return x

    def _distances(self) -> str:
        """Index of (query i, key j) into a row of biases: i − j, or Lmax where j is after i; [Lmax, Lmax].

        Constants only: ONNX Runtime folds it when it opens the graph, so the file holds the short rows.
        """
        g, longest = self._graph, self._weights.max_history
        steps = g.op("Range", g.constant(0, scalar=True), g.constant(longest, scalar=True), g.constant(1, scalar=True))
        distance = g.op("Sub", g.op("Unsqueeze", steps, g.constant(1)), steps)
        past = g.op("GreaterOrEqual", distance, g.constant(0, scalar=True))
        return g.op("Where", past, distance, g.constant(longest, scalar=True))

    def _attend_all(self, x: str, n: str, number: int, heads: int, distances: str) -> tuple[str, str]:
        """Every position attends: the queries of all heads are rows of one [B, L·H, 64] matrix, the events keys."""
        g, longest = self._graph, self._weights.max_history
        bias = g.op("Transpose", g.op("Gather", self._weight(f"{number}.distance"), distances, axis=1), perm=[1, 0, 2])
        bias = g.op("Reshape", bias, g.constant(longest * heads, longest))
        query = g.op("Reshape", self._linear(n, f"{number}.query"), g.constant(0, -1, WIDTH))
        scores = g.contrib("FusedMatMul", query, n, transB=1)
        bias = g.op("Slice", bias, g.constant(0, 0), g.op("Shape", scores, start=1, end=3))
        mixed = g.op("MatMul", g.op("Softmax", g.op("Add", scores, bias), axis=-1), n)
        mixed = g.op("Reshape", mixed, g.constant(0, -1, WIDTH * heads))
        x = self._add(x, self._linear(mixed, f"{number}.mix"), f"{number}.gate1", n)
        return x, self._norm(x, f"{number}.norm2")

    def _attend_last(self, x: str, n: str, number: int, heads: int) -> tuple[str, str]:
        """Only the last position attends; from here on there is one row a history."""
        g = self._graph
        stop, end = g.constant(self._weights.max_history), g.constant(-1, scalar=True)
        start = g.op("Neg", g.op("Shape", n, start=1, end=2))
        bias = g.op("Slice", self._weight(f"{number}.distance"), start, stop, g.constant(1))
        x, n_last = g.op("Gather", x, end, axis=1), g.op("Gather", n, end, axis=1)
        query = g.op("Reshape", self._linear(n_last, f"{number}.query"), g.constant(-1, heads, WIDTH))
        scores = g.contrib("FusedMatMul", query, n, transB=1)
        mixed = g.op("MatMul", g.op("Softmax", g.op("Add", scores, bias), axis=-1), n)
        mixed = g.op("Reshape", mixed, g.constant(-1, WIDTH * heads))
        x = self._add(x, self._linear(mixed, f"{number}.mix"), f"{number}.gate1", n_last)
        return x, self._norm(x, f"{number}.norm2")

    def _feed_forward(self, n: str, number: int) -> str:
        silu = self._graph.contrib("QuickGelu", self._linear(n, f"{number}.silu"), alpha=1.0)
        inner = self._graph.op("Mul", silu, self._linear(n, f"{number}.linear"))
        return self._linear(inner, f"{number}.down")

    def _answer(self, n: str, name: str) -> str:
        """Adapter, basis of the item table and length; products of weights are folded when the graph is opened."""
        g, down, up = self._graph, self._weight("adapter.down"), self._weight("adapter.up")
        if self._precision == "fp32":
            user = g.op("Add", n, g.op("MatMul", n, g.op("MatMul", down, up)))
        else:
            down, up, rotation = g.op("Cast", down, to=FLOAT), g.op("Cast", up, to=FLOAT), self._rotation()
            user = g.op("MatMul", n, g.op("Add", rotation, g.op("MatMul", down, g.op("MatMul", up, rotation))))
        return g.op("SimplifiedLayerNormalization", user, self._weight("length"), name=name, axis=-1, epsilon=_TINY)

    def _rotation(self) -> str:
        return self._graph.op("Cast", self._weight("rotation"), to=FLOAT)

    def _add(self, x: str, branch: str, gate: str, n: str) -> str:
        g = self._graph
        return g.op("Add", x, g.op("Mul", g.op("Sigmoid", self._linear(n, gate)), branch))

    def _norm(self, x: str, name: str) -> str:
        scale, bias = self._weight(f"{name}.scale"), self._weight(f"{name}.bias")
        return self._graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=NORM_EPSILON)

    def _linear(self, x: str, name: str) -> str:
        """Multiply by a matrix of the encoder; `x` is rounded to int8 once, however many matrices it meets."""
        g = self._graph
        if self._precision == "fp32":
            return g.op("MatMul", x, self._weight(name))
        codes, scales = self._weight(f"{name}.codes"), self._weight(f"{name}.scales")
        layer, part = name.split(".")
        if is_float(part, last=int(layer) == len(self._weights.layers) - 1):
            return g.op("MatMul", x, g.op("Mul", g.op("Cast", codes, to=FLOAT), scales))
        if x not in self._rounded:
            self._rounded[x] = g.op_many("DynamicQuantizeLinear", 3, x)
        rounded, step, zero_point = self._rounded[x]
        return g.contrib("MatMulIntegerToFloat", rounded, codes, step, scales, zero_point)

    def _weight(self, name: str) -> str:
        return self._graph.weight(name, self._tensors[name], ENCODER_BIN, self._offsets[name])
