"""Write the two graphs of a bundle and the two binary files they read.

`encoder.onnx` + `encoder.bin`: a history becomes a user vector. `scorer.onnx`: a user vector becomes a score for every
row of `items.bin`, the same bytes from which the encoder gathers item vectors. A graph depends on the architecture
(layers, heads, channels, behaviours, Lmax, capacity) only: new weights of the same architecture rewrite the `.bin`
files alone.
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

from hushrec_quantize.builder import GraphBuilder
from hushrec_quantize.encoder_graph import ENCODER_BIN, ITEMS_BIN, build_encoder

__all__ = ["ENCODER_BIN", "ITEMS_BIN", "Graphs", "build_graphs", "build_scorer"]


class Graphs(NamedTuple):
    """The engine's files, as bytes.

    Attributes:
        capacity: Rows of the item table.
        encoder_onnx: `encoder.onnx`.
        encoder_bin: `encoder.bin`.
        scorer_onnx: `scorer.onnx`.
        items_bin: `items.bin`.
        rotation: Basis of the rows of the item table, shape (64, 64).
    """

    capacity: int
    encoder_onnx: bytes
    encoder_bin: bytes
    scorer_onnx: bytes
    items_bin: bytes
    rotation: NDArray[np.float32]

    def files(self) -> dict[str, bytes]:
        """Name to content, as they lie in a bundle."""
        return {
            "encoder.onnx": self.encoder_onnx,
            ENCODER_BIN: self.encoder_bin,
            "scorer.onnx": self.scorer_onnx,
            ITEMS_BIN: self.items_bin,
        }

    def write(self, folder: Path) -> None:
        """Write all four into an existing folder."""
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
    encoder, scorer = build_encoder(weights, capacity, precision), build_scorer(capacity, precision)
    if precision == "fp32":
        table, basis = _pack_float_items(rows, capacity), np.eye(WIDTH, dtype=np.float32)
        return Graphs(capacity, encoder, pack_encoder(weights, "fp32"), scorer, table, basis)
    items = round_items(weights, rows)
    return Graphs(capacity, encoder, round_encoder(weights, items), scorer, items.pack(capacity), items.rotation)


def build_scorer(capacity: int, precision: Precision = "int8") -> bytes:
    """Build `scorer.onnx`: input `user` float32 [B, 64], output `scores` float32 [B, capacity], table in `items.bin`.

    Row 0 and spare rows score 0: whoever ranks leaves them out.
    """
    graph = GraphBuilder("scorer")
    user = graph.input("user", "float32", ["B", WIDTH])
    if precision == "fp32":
        table = graph.external("table", "float32", [capacity, WIDTH], ITEMS_BIN, 0)
        graph.op("Gemm", user, table, name="scores", transB=1)
    else:
        layout = items_layout(capacity)
        codes = graph.external("codes", "uint8", [capacity, 1, WIDTH], ITEMS_BIN, layout.codes_offset)
        scales = graph.external("scales", "float32", [capacity], ITEMS_BIN, layout.scales_offset)
        graph.matmul_nbits(user, codes, scales, WIDTH, capacity, name="scores")
    return graph.model({"scores": ["B", capacity]})


def _pack_float_items(rows: NDArray[np.float32], capacity: int) -> bytes:
    if len(rows) > capacity:
        raise ConfigError(f"{len(rows)} rows do not fit into a capacity of {capacity}; build for a larger one")
    table = np.zeros((capacity, WIDTH), np.float32)
    table[: len(rows)] = rows
    return table.tobytes()
