"""The part of every graph that makes a user vector of a history of item indices.

Inputs `items` int64 [B, L] and, if the data has several behaviours, `behaviors` int64 [B, L], oldest event first,
1 ≤ L ≤ Lmax, never padded; the result is float32 [B, 64]. The arrays come from `tensors.py`, which says how they were
rearranged. Every layer looks at the events as they are gathered, so only the last position is computed; on one row
int8 products gain nothing, so the matrices become float32 when a graph is opened.
"""

from collections.abc import Mapping
from typing import Any

from hushrec.tables import ZERO_POINT, items_layout
from hushrec.weights.encoder import INPUT_SCALE, NORM_EPSILON, WIDTH, EncoderWeights
from hushrec.weights.tensors import Precision, encoder_tensors, offsets
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
        self._oldest = ""
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
        events = self._events()
        x = self._last(events)
        for number, layer in enumerate(self._weights.layers):
            n = self._norm(x, f"{number}.norm1")
            x = self._add(x, self._attend(n, events, number, layer.heads), f"{number}.gate1", n)
            n = self._norm(x, f"{number}.norm2")
            x = self._add(x, self._feed_forward(n, number), f"{number}.gate2", n)
        n = self._norm(x, "norm")
        return self._answer(n, name)

    def _events(self) -> str:
        """The events in the basis of the item table, of unit length, [B, L, 64]."""
        g = self._graph
        if self.table:
            x = g.op("Gather", self.table, g.input("items", "int64", ["B", "L"]))
        else:
            x = g.input("codes", "uint8", ["B", "L", WIDTH])
        if self._precision == "int8":
            x = g.op("DequantizeLinear", x, g.op("Squeeze", self.step), self.zero_point)
        if self._weights.behaviors is not None:
            behaviors = g.input("behaviors", "int64", ["B", "L"])
            x = g.op("Add", x, g.op("Gather", self._weight("behavior.rows"), behaviors))
        self._oldest = g.op("Neg", g.op("Shape", x, start=1, end=2))
        return x

    def _last(self, events: str) -> str:
        """The last event as it enters the residual stream, [B, 64]."""
        g = self._graph
        last = g.op("Gather", events, g.constant(-1, scalar=True), axis=1)
        if self._precision == "fp32":
            return g.op("Mul", last, g.number("gain", INPUT_SCALE))
        return g.op("MatMul", last, g.op("Transpose", self._rotation()))

    def _attend(self, n: str, events: str, number: int, heads: int) -> str:
        """The queries of all heads are rows of one [B, H, 64] matrix; the events are keys and values."""
        g = self._graph
        stop = g.constant(self._weights.max_history)
        bias = g.op("Slice", self._weight(f"{number}.distance"), self._oldest, stop, g.constant(1))
        query = g.op("Reshape", self._linear(n, f"{number}.query"), g.constant(-1, heads, WIDTH))
        scores = g.contrib("FusedMatMul", query, events, transB=1)
        mixed = g.op("MatMul", g.op("Softmax", g.op("Add", scores, bias), axis=-1), events)
        return self._linear(g.op("Reshape", mixed, g.constant(-1, WIDTH * heads)), f"{number}.mix")

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
        """Multiply by a matrix of the encoder."""
        g = self._graph
        if self._precision == "fp32":
            return g.op("MatMul", x, self._weight(name))
        codes, scales = self._weight(f"{name}.codes"), self._weight(f"{name}.scales")
        return g.op("MatMul", x, g.op("Mul", g.op("Cast", codes, to=FLOAT), scales))

    def _weight(self, name: str) -> str:
        return self._graph.weight(name, self._tensors[name], ENCODER_BIN, self._offsets[name])
