"""`train_step.onnx`: the gradient of one shopper's loss, so that a device learns without a training library.

The same as `hushrec_model.user_step` for a single user. Forward and backward are written out: the network is small, and
so the bytes follow from the architecture alone. Nothing is read from files; the weights are inputs, because local steps
change them. Shapes: B histories, L positions, K = L + 1 events, R rows, M candidates.

Inputs, float32 unless said:

    rows              [R, 64]  item vectors, each item once: the M candidates first, then the histories' other items
    slots             [B, K]   int64, row of every event, oldest first; after the end of a shorter history, any row
    behaviors         [B, L]   int64; only if the data has several
    shares            [B, L]   weight of the loss of each position; 0 where no next event is asked for
    target_offset     [B, L]   added to the score of the next event
    candidate_offset  [M]      added to the score of a candidate
    and every weight of the encoder, by the names of `EncoderWeights.arrays`

Outputs: `loss` [1] in nats, `d.rows` [R, 64], and `d.` and its name for every weight: gradients.

A row is an item vector of unit length, to its rounding, or shorter where an item has none of its own yet. One below .9
is taken as it is, where others are made unit length: the gradient of stretching nothing would be infinite. Nor does
such a row learn from having been looked at, only from being asked for: the first norm would stretch it instead.
"""

from typing import NamedTuple

from hushrec.weights.encoder import HEAD_WIDTH, INPUT_SCALE, NORM_EPSILON, WIDTH, EncoderWeights

from hushrec_quantize.builder import GraphBuilder

__all__ = ["TRAIN_STEP_ONNX", "build_train_step"]

TRAIN_STEP_ONNX = "train_step.onnx"
_SHORT = 0.9
_TINY = 1e-12  # keeps the direction of a user vector of zeros finite
_LEAST = 1e-37  # keeps the logarithm of a vanishing chance finite: the loss is for reading only
_END = 2**31


def build_train_step(weights: EncoderWeights) -> bytes:
    """Build the graph for the architecture of `weights`, whose values do not enter it."""
    return _TrainStep(weights).build()


class _Norm(NamedTuple):
    """What a layer norm leaves for the way back."""

    output: str
    normal: str
    deviation: str
    name: str


class _Attention(NamedTuple):
    """The same of gated attention, and its matrices."""

    norm: _Norm
    asking: str
    reading: str
    heads: int
    query: str
    key: str
    value: str
    chance: str
    mixed: str
    rows: str
    merged: str
    gate: str


class _Feed(NamedTuple):
    """The same of the gated feed-forward branch."""

    norm: _Norm
    a: str
    b: str
    sigmoid: str
    silu: str
    inner: str
    output: str
    gate: str


class _TrainStep:
    """Walks forward through the network, then back. `x` is the residual stream, [B·L, 64]; `dx` its gradient."""

    def __init__(self, weights: EncoderWeights) -> None:
        self._weights = weights
        self._arrays = weights.arrays()
        g = self._graph = GraphBuilder("train_step")
        g.input("rows", "float32", ["R", WIDTH])
        g.input("slots", "int64", ["B", "K"])
        if weights.behaviors is not None:
            g.input("behaviors", "int64", ["B", "L"])
        g.input("shares", "float32", ["B", "L"])
        g.input("target_offset", "float32", ["B", "L"])
        g.input("candidate_offset", "float32", ["M"])
        for name, array in self._arrays.items():
            g.input(name, "float32", array.shape)
        self._one = g.number("one", 1.0)
        self._never = g.number("never", -1e30)
        self._ones, self._zeros = g.filled("ones", 1.0, WIDTH), g.filled("zeros", 0.0, WIDTH)
        self._batch, self._length = (g.op("Shape", "shares", start=axis, end=axis + 1) for axis in (0, 1))
        self._history = self._flat(g.op("Slice", "slots", g.constant(0), g.constant(-1), g.constant(1)))
        self._target = self._flat(g.op("Slice", "slots", g.constant(1), g.constant(_END), g.constant(1)))

    def build(self) -> bytes:
        unit, long, length = self._unit_rows()
        events = x = self._embed(unit)
        distances, past = self._distances()
        kept = []
        for number, layer in enumerate(self._weights.layers):
            x, attention = self._attend(x, events, number, layer.heads, distances, past)
            x, feed = self._feed(x, number, layer.channels)
            kept.append((attention, feed))
        dx, d_candidates, d_targets = self._answer(x, unit)
        d_events = []
        for number in reversed(range(len(kept))):
            attention, feed = kept[number]
            dx = self._feed_back(dx, number, feed)
            dx, read = self._attend_back(dx, events, number, attention, distances)
            d_events.append(read)
        self._embed_back(self._graph.op("Sum", dx, *d_events), d_candidates, d_targets, long)
        self._rows_back(unit, long, length)
        shapes = {f"d.{name}": array.shape for name, array in self._arrays.items()}
        return self._graph.model({"loss": [1], "d.rows": ["R", WIDTH], **shapes})

    # Rows and events

    def _unit_rows(self) -> tuple[str, str, str]:
        """The rows, made unit length; which of them were; and what they were divided by."""
        g = self._graph
        length = g.op("ReduceL2", "rows", g.constant(1))
        long = g.op("Greater", length, g.number("short", _SHORT))
        length = g.op("Where", long, length, self._one)
        return g.op("Div", "rows", length), long, length

    def _rows_back(self, unit: str, long: str, length: str) -> None:
        g = self._graph
        along = g.op("Mul", unit, self._sum(g.op("Mul", "d.unit", unit), 1))
        d_rows = g.op("Where", long, g.op("Sub", "d.unit", along), "d.unit")
        g.op("Div", d_rows, length, name="d.rows")

    def _embed(self, unit: str) -> str:
        g = self._graph
        self._gain = g.number("gain", INPUT_SCALE)
        x = g.op("Mul", g.op("Gather", unit, self._history), self._gain)
        if self._weights.behaviors is not None:
            x = g.op("Add", x, g.op("Gather", "behavior_rows", self._flat("behaviors")))
        return x

    def _embed_back(self, dx: str, d_candidates: str, d_targets: str, long: str) -> None:
        """Bring together what each row gets as history, as target and as candidate."""
        g = self._graph
        count, candidates = g.op("Shape", "rows", start=0, end=1), g.op("Shape", "candidate_offset")
        rest = g.op("Concat", g.op("Sub", count, candidates), g.constant(WIDTH), axis=0)
        start = g.op("Concat", d_candidates, g.op("ConstantOfShape", rest), axis=0)
        places = g.op("Concat", self._history, self._target, axis=0)
        seen = g.op("Where", g.op("Gather", long, self._history), g.op("Mul", dx, self._gain), g.number("zero", 0.0))
        parts = g.op("Concat", seen, d_targets, axis=0)
        g.op("ScatterND", start, self._column(places), parts, name="d.unit", reduction="add")
        if self._weights.behaviors is not None:
            empty = g.op("Sub", "behavior_rows", "behavior_rows")
            kinds = self._column(self._flat("behaviors"))
            g.op("ScatterND", empty, kinds, dx, name="d.behavior_rows", reduction="add")

    # Attention

    def _distances(self) -> tuple[str, str]:
        """Distance from query i back to key j, 0 where j comes after i, and where it does not; [L, L]."""
        g = self._graph
        stop = g.op("Squeeze", self._length)
        steps = g.op("Range", g.constant(0, scalar=True), stop, g.constant(1, scalar=True))
        gap = g.op("Sub", self._column(steps), steps)
        zero = g.constant(0, scalar=True)
        return g.op("Max", gap, zero), g.op("GreaterOrEqual", gap, zero)

    def _attend(
        self, x: str, events: str, number: int, heads: int, distances: str, past: str
    ) -> tuple[str, _Attention]:
        g, inner = self._graph, heads * HEAD_WIDTH
        norm = self._norm(x, f"{number}.norm1")
        first, reading, last = self._split(f"{number}.w1", inner, 2 * inner, WIDTH)
        asking = g.op("Concat", first, last, axis=1)
        parts = [
            *self._split(g.op("MatMul", norm.output, asking), inner, WIDTH),
            *self._split(g.op("MatMul", events, reading), inner, inner),
        ]
        query, key, value = (self._by_head(parts[part], heads) for part in (0, 2, 3))
        bias = g.op("Where", past, g.op("Gather", f"{number}.bias", distances, axis=1), self._never)
        scores = g.contrib("FusedMatMul", query, key, transB=1, alpha=HEAD_WIDTH**-0.5)
        chance = g.op("Softmax", g.op("Add", scores, bias), axis=-1)
        mixed = g.op("MatMul", chance, value)
        rows = self._by_event(mixed, inner)
        merged = g.op("MatMul", rows, f"{number}.wo")
        gate = g.op("Sigmoid", parts[1])
        x = g.op("Add", x, g.op("Mul", gate, merged))
        return x, _Attention(norm, asking, reading, heads, query, key, value, chance, mixed, rows, merged, gate)

    def _attend_back(self, dx: str, events: str, number: int, kept: _Attention, distances: str) -> tuple[str, str]:
        """Gradients of the residual stream and of the events."""
        g, inner = self._graph, kept.heads * HEAD_WIDTH
        d_merged, d_gate = self._gate_back(dx, kept.gate, kept.merged)
        d_mixed = self._by_head(self._linear_back(d_merged, kept.rows, f"{number}.wo"), kept.heads)
        d_value = g.contrib("FusedMatMul", kept.chance, d_mixed, transA=1)
        d_chance = g.contrib("FusedMatMul", d_mixed, kept.value, transB=1)
        along = self._sum(g.op("Mul", d_mixed, kept.mixed), -1)  # the same as the sum of chance times its gradient
        d_scores = g.op("Mul", kept.chance, g.op("Sub", d_chance, along))
        d_query = g.contrib("FusedMatMul", d_scores, kept.key, alpha=HEAD_WIDTH**-0.5)
        d_key = g.contrib("FusedMatMul", d_scores, kept.query, transA=1, alpha=HEAD_WIDTH**-0.5)
        self._bias_back(d_scores, number, kept.heads, distances)
        d_query, d_key, d_value = (self._by_event(part, inner) for part in (d_query, d_key, d_value))
        d_asked, d_read = g.op("Concat", d_query, d_gate, axis=1), g.op("Concat", d_key, d_value, axis=1)
        first, last = self._split(g.contrib("FusedMatMul", kept.norm.output, d_asked, transA=1), inner, WIDTH)
        middle = g.contrib("FusedMatMul", events, d_read, transA=1)
        g.op("Concat", first, middle, last, name=f"d.{number}.w1", axis=1)
        d_norm = g.contrib("FusedMatMul", d_asked, kept.asking, transB=1)
        d_events = g.contrib("FusedMatMul", d_read, kept.reading, transB=1)
        return g.op("Add", dx, self._norm_back(d_norm, kept.norm)), d_events

    def _bias_back(self, d_scores: str, number: int, heads: int, distances: str) -> None:
        """Add up every diagonal; above them all gradients are zero."""
        g, name = self._graph, f"{number}.bias"
        total = g.op("Reshape", self._sum(d_scores, 0, keep=False), g.constant(heads, -1))
        shape = g.op("Concat", g.constant(heads), g.op("Shape", self._flat(distances)), axis=0)
        places = g.op("Expand", self._flat(distances), shape)
        g.op("ScatterElements", g.op("Sub", name, name), places, total, name=f"d.{name}", axis=1, reduction="add")

    def _by_head(self, rows: str, heads: int) -> str:
        """[B·L, H·32] to [B, H, L, 32]."""
        g = self._graph
        shape = g.op("Concat", self._batch, self._length, g.constant(heads, HEAD_WIDTH), axis=0)
        return g.op("Transpose", g.op("Reshape", rows, shape), perm=[0, 2, 1, 3])

    def _by_event(self, heads: str, inner: int) -> str:
        """[B, H, L, 32] to [B·L, H·32]."""
        g = self._graph
        return g.op("Reshape", g.op("Transpose", heads, perm=[0, 2, 1, 3]), g.constant(-1, inner))

    # Feed-forward

    def _feed(self, x: str, number: int, channels: int) -> tuple[str, _Feed]:
        g = self._graph
        norm = self._norm(x, f"{number}.norm2")
        a, b, opening = self._split(g.op("MatMul", norm.output, f"{number}.w2"), channels, channels, WIDTH)
        sigmoid, gate = g.op("Sigmoid", a), g.op("Sigmoid", opening)
        silu = g.op("Mul", a, sigmoid)
        inner = g.op("Mul", silu, b)
        output = g.op("MatMul", inner, f"{number}.w3")
        x = g.op("Add", x, g.op("Mul", gate, output))
        return x, _Feed(norm, a, b, sigmoid, silu, inner, output, gate)

    def _feed_back(self, dx: str, number: int, kept: _Feed) -> str:
        g = self._graph
        d_output, d_gate = self._gate_back(dx, kept.gate, kept.output)
        d_inner = self._linear_back(d_output, kept.inner, f"{number}.w3")
        # silu' = s + a s (1 - s)
        slope = g.op("Add", kept.sigmoid, g.op("Mul", kept.silu, g.op("Sub", self._one, kept.sigmoid)))
        d_a = g.op("Mul", g.op("Mul", d_inner, kept.b), slope)
        d_expanded = g.op("Concat", d_a, g.op("Mul", d_inner, kept.silu), d_gate, axis=1)
        return g.op(
            "Add", dx, self._norm_back(self._linear_back(d_expanded, kept.norm.output, f"{number}.w2"), kept.norm)
        )

    # The user vector and its loss

    def _answer(self, x: str, unit: str) -> tuple[str, str, str]:
        """From the last residual stream to the loss and back: gradients of the stream, the candidates, the targets."""
        g = self._graph
        norm = self._norm(x, "norm")
        down = g.op("MatMul", norm.output, "adapter_down")
        raw = g.op("Add", norm.output, g.op("MatMul", down, "adapter_up"))
        size = g.op("Max", g.op("ReduceL2", raw, g.constant(1)), g.number("tiny", _TINY))
        direction = g.op("Div", raw, size)
        d_user, d_candidates, d_targets = self._loss(g.op("Mul", direction, "scale"), unit)
        along = self._sum(g.op("Mul", d_user, direction), 1)
        self._sum(along, 0, name="d.scale", keep=False)
        d_raw = g.op("Sub", d_user, g.op("Mul", direction, along))
        d_raw = g.op("Div", g.op("Mul", d_raw, "scale"), size)
        d_down = self._linear_back(d_raw, down, "adapter_up")
        d_output = g.op("Add", d_raw, self._linear_back(d_down, norm.output, "adapter_down"))
        return self._norm_back(d_output, norm), d_candidates, d_targets

    def _loss(self, user: str, unit: str) -> tuple[str, str, str]:
        """Cross-entropy of every next event among the candidates, and its gradients.

        Column 0 of the scores is the next event, the last one belongs to nobody: there goes what would hide the next
        event among the candidates if it is none of them.
        """
        g = self._graph
        count = g.op("Shape", "candidate_offset")
        row, never = g.op("Unsqueeze", self._zeros, g.constant(0)), g.op("Unsqueeze", self._never, g.constant(0))
        candidates = g.op("Slice", unit, g.constant(0), count, g.constant(0))
        table = g.op("Concat", row, candidates, row, axis=0)
        offset = g.op("Concat", never, "candidate_offset", never, axis=0)
        target = g.op("Gather", unit, self._target)
        wanted = g.op("Add", self._sum(g.op("Mul", user, target), 1), self._column(self._flat("target_offset")))
        scores = g.op("Gemm", user, table, offset, transB=1)
        same = g.op("Add", g.op("Min", self._target, count), g.constant(1))
        here = g.op("Concat", self._column(g.op("Sub", same, same)), self._column(same), axis=1)
        values = g.op("Concat", wanted, g.op("Expand", never, g.op("Shape", wanted)), axis=1)
        chance = g.op("Softmax", g.op("ScatterElements", scores, here, values, axis=1), axis=1)
        first = g.op("Slice", chance, g.constant(0), g.constant(1), g.constant(1))
        shares = self._column(self._flat("shares"))
        surprise = g.op("Neg", g.op("Log", g.op("Max", first, g.number("least", _LEAST))))
        self._sum(g.op("Mul", surprise, shares), 0, name="loss", keep=False)
        weighted = g.op("Mul", user, shares)
        d_wanted = g.op("Mul", g.op("Sub", first, self._one), shares)
        d_user = g.op("Add", g.op("Mul", g.op("MatMul", chance, table), shares), g.op("Mul", target, d_wanted))
        d_table = g.contrib("FusedMatMul", chance, weighted, transA=1)
        d_candidates = g.op("Slice", d_table, g.constant(1), g.op("Add", count, g.constant(1)), g.constant(0))
        return d_user, d_candidates, g.op("Mul", user, d_wanted)

    # Pieces

    def _norm(self, x: str, name: str) -> _Norm:
        g = self._graph
        normal, _, deviation = g.op_many(
            "LayerNormalization", 3, x, self._ones, self._zeros, axis=-1, epsilon=NORM_EPSILON
        )
        output = g.op("Add", g.op("Mul", normal, f"{name}_scale"), f"{name}_bias")
        return _Norm(output, normal, deviation, name)

    def _norm_back(self, d_output: str, kept: _Norm) -> str:
        g = self._graph
        self._sum(g.op("Mul", d_output, kept.normal), 0, name=f"d.{kept.name}_scale", keep=False)
        self._sum(d_output, 0, name=f"d.{kept.name}_bias", keep=False)
        d_normal = g.op("Mul", d_output, f"{kept.name}_scale")
        mean = g.op("ReduceMean", d_normal, g.constant(1))
        along = g.op("Mul", kept.normal, g.op("ReduceMean", g.op("Mul", d_normal, kept.normal), g.constant(1)))
        return g.op("Mul", g.op("Sub", g.op("Sub", d_normal, mean), along), kept.deviation)

    def _linear_back(self, d_output: str, x: str, name: str) -> str:
        """Gradient of a matrix, left as an output of the graph, and of what it was multiplied with."""
        g = self._graph
        g.contrib("FusedMatMul", x, d_output, name=f"d.{name}", transA=1)
        return g.contrib("FusedMatMul", d_output, name, transB=1)

    def _gate_back(self, dx: str, gate: str, branch: str) -> tuple[str, str]:
        """Gradients of a gated branch, and of its gate before the sigmoid."""
        g = self._graph
        d_branch = g.op("Mul", dx, gate)
        return d_branch, g.op("Mul", g.op("Mul", d_branch, branch), g.op("Sub", self._one, gate))

    def _sum(self, x: str, axis: int, *, name: str = "", keep: bool = True) -> str:
        g = self._graph
        return g.op("ReduceSum", x, g.constant(axis), name=name, keepdims=int(keep))

    def _split(self, x: str, *sizes: int) -> list[str]:
        g = self._graph
        return g.op_many("Split", len(sizes), x, g.constant(*sizes), axis=1)

    def _flat(self, x: str) -> str:
        return self._graph.op("Reshape", x, self._graph.constant(-1))

    def _column(self, x: str) -> str:
        return self._graph.op("Unsqueeze", x, self._graph.constant(1))
