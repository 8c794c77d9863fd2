"""Write the graphs of a bundle and the two binary files they read.

`encoder.onnx`: a history becomes a user vector; it reads `encoder.bin` and gathers item vectors from `items.bin`.
`scorer.onnx` goes on to a score for every row of the table, by one int8 product. `blocks.onnx` does so block by block,
with another operator: slower while the table fits into a processor's caches, faster above, and while it is opened no
more than one block is in memory twice. A graph depends on the architecture (layers, heads, channels, behaviours, Lmax,
capacity) only: new weights of the same architecture rewrite the `.bin` files alone.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from hushrec.tables import WIDTH, capacity_for, items_layout
from hushrec.weights.encoder import EncoderWeights
from hushrec.weights.packed import round_encoder, round_items
from hushrec.weights.tensors import Precision, pack_encoder
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray

from hushrec_quantize.builder import FLOAT, INT8, GraphBuilder
from hushrec_quantize.encoder_graph import ENCODER_BIN, ITEMS_BIN, Encoder

__all__ = ["BLOCK_ROWS", "ENCODER_BIN", "ITEMS_BIN", "Graphs", "build_graphs"]

BLOCK_ROWS = 65_536
"""Rows of the item table that `blocks.onnx` multiplies at once."""


class Graphs(NamedTuple):
    """The engine's files, as bytes.

    Attributes:
        capacity: Rows of the item table.
        encoder_onnx: `encoder.onnx`.
        scorer_onnx: `scorer.onnx`.
        blocks_onnx: `blocks.onnx`; empty in float32, where nothing reads it.
        encoder_bin: `encoder.bin`.
        items_bin: `items.bin`.
        rotation: Basis of the rows of the item table, shape (64, 64).
    """

    capacity: int
    encoder_onnx: bytes
    scorer_onnx: bytes
    blocks_onnx: bytes
    encoder_bin: bytes
    items_bin: bytes
    rotation: NDArray[np.float32]

    def files(self) -> dict[str, bytes]:
        """Name to content, as they lie in a bundle."""
        return {
            "encoder.onnx": self.encoder_onnx,
            "scorer.onnx": self.scorer_onnx,
            "blocks.onnx": self.blocks_onnx,
            ENCODER_BIN: self.encoder_bin,
            ITEMS_BIN: self.items_bin,
        }

    def write(self, folder: Path) -> None:
        """Write all into an existing folder."""
        for name, content in self.files().items():
            (folder / name).write_bytes(content)


def build_graphs(
    weights: EncoderWeights,
    rows: NDArray[np.float32],
    *,
    capacity: int | None = None,
    precision: Precision = "int8",
) -> Graphs:
    """Build graphs and binary files of one model.

    Args:
        weights: The encoder.
        rows: Item vectors of unit length, row 0 zeros (padding), shape (V + 1, 64).
        capacity: Rows of the table; None: `capacity_for(V)`.
        precision: "int8" is what ships; "fp32" is the same network without any rounding, for comparison.

    Raises:
        ConfigError: `rows` has the wrong shape, a row 0 that is not zero, a value that is not finite, or more rows than
            `capacity`.
    """
    if rows.ndim != 2 or rows.shape[1] != WIDTH or len(rows) < 2:
        raise ConfigError(f"rows has shape {rows.shape}; it must be (items + 1, {WIDTH}), with row 0 for padding")
    if rows[0].any():
        raise ConfigError("row 0 of the item table is not zero; it stands for padding, and items begin at row 1")
    if not np.isfinite(rows).all():
        raise ConfigError("the item table holds NaN or infinity; export item vectors of a run that converged")
    capacity = capacity_for(len(rows) - 1) if capacity is None else capacity
    encoder, scorer = _encoder(weights, capacity, precision), _scorer(weights, capacity, precision)
    if precision == "fp32":
        table, basis = _pack_float_items(rows, capacity), np.eye(WIDTH, dtype=np.float32)
        return Graphs(capacity, encoder, scorer, b"", pack_encoder(weights, "fp32"), table, basis)
    items = round_items(weights, rows)
    blocks, encoder_bin = _blocks(weights, capacity), round_encoder(weights, items)
    return Graphs(capacity, encoder, scorer, blocks, encoder_bin, items.pack(capacity), items.rotation)


def _encoder(weights: EncoderWeights, capacity: int, precision: Precision) -> bytes:
    """`encoder.onnx`, with the output `user`, float32 [B, 64]."""
    graph = GraphBuilder("encoder")
    Encoder(graph, weights, capacity, precision).build("user")
    return graph.model({"user": ["B", WIDTH]})


def _scorer(weights: EncoderWeights, capacity: int, precision: Precision) -> bytes:
    """`scorer.onnx`, with the output `scores`, float32 [B, capacity]. Row 0 and spare rows score 0: whoever ranks
    leaves them out.

    The table's codes become signed and are turned when the graph is opened: bytes of unlike sign are what processors
    multiply fastest. Without VNNI a sum of two such products can leave its 16 bits. The output `largest_sum`, in int8
    only, is such a sum made by this processor; `hushrec.scorer` knows what it should be.
    """
    graph = GraphBuilder("scorer")
    encoder = Encoder(graph, weights, capacity, precision)
    user = encoder.build()
    outputs: dict[str, list[int | str]] = {"scores": ["B", capacity]}
    if precision == "fp32":
        graph.op("Gemm", user, encoder.table, name="scores", transB=1)
        return graph.model(outputs)
    signed = graph.op("Cast", graph.op("BitwiseXor", encoder.table, encoder.zero_point), to=INT8)  # code - 128
    columns = graph.op("Transpose", signed, perm=[1, 0])
    graph.contrib("DynamicQuantizeMatMul", user, columns, encoder.step, name="scores")
    largest = graph.array("largest_user", np.full((1, WIDTH), 255, np.uint8))
    table = graph.array("largest_codes", np.full((WIDTH, 16), 127, np.int8))
    graph.op("Cast", graph.op("MatMulInteger", largest, table), name="largest_sum", to=FLOAT)
    return graph.model(outputs | {"largest_sum": [1, 16]})


def _blocks(weights: EncoderWeights, capacity: int) -> bytes:
    """`blocks.onnx`, with outputs `scores.0`, `scores.1`, … of consecutive rows, float32 [B, rows].

    It is given rows, not items: pages of the table that it gathered from would stay in memory beside its own copy.
    """
    graph = GraphBuilder("blocks")
    encoder = Encoder(graph, weights, capacity, gathered=True)
    user = encoder.build()
    outputs: dict[str, list[int | str]] = {}
    for number, start in enumerate(range(0, capacity, BLOCK_ROWS)):
        rows = min(BLOCK_ROWS, capacity - start)
        place = items_layout(capacity).codes_offset + start * WIDTH
        codes = graph.external(f"table.{number}", "uint8", [rows, 1, WIDTH], ITEMS_BIN, place)
        scales = graph.op("Expand", encoder.step, graph.constant(rows))
        graph.matmul_nbits(user, codes, scales, WIDTH, rows, name=f"scores.{number}")
        outputs[f"scores.{number}"] = ["B", rows]
    return graph.model(outputs)


def _pack_float_items(rows: NDArray[np.float32], capacity: int) -> bytes:
    if len(rows) > capacity:
        raise ConfigError(f"{len(rows)} rows do not fit into a capacity of {capacity}; build for a larger one")
    table = np.zeros((capacity, WIDTH), np.float32)
    table[: len(rows)] = rows
    return table.tobytes()
