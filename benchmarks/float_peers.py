"""Exports of the same weights for ONNX Runtime, run as well as they can be: peers of the engine benchmark.

Bound to fixed buffers like the engine's graphs, one thread, nothing spinning.
"""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hushrec import ort
from hushrec.tables import WIDTH
from hushrec.weights.encoder import EncoderWeights
from hushrec_quantize.graphs import build_graphs
from numpy.typing import NDArray
from plain_export import plain_encoder, plain_scorer

__all__ = ["LEVELS", "GraphPeer", "plain_files", "quantized_files", "rearranged_files", "torch_file"]

Floats = NDArray[np.float32]
LEVELS = ("basic", "extended", "all")
"""Graph optimisation of ONNX Runtime."""


class GraphPeer:
    """`items` in, `scores` or `user` out, through one graph or two.

    Args:
        graphs: Paths, in order; what one puts out is the input of the next.
        outputs: Length of what the last one puts out.
        max_history: Longest history.
        level: One of `LEVELS`.
    """

    def __init__(self, graphs: Sequence[Path], outputs: int, max_history: int, level: str) -> None:
        self._items = np.zeros(max_history, np.int64)
        self._output = np.zeros((1, outputs), np.float32)
        last = ort.shared_value(self._output)
        between = ort.shared_value(np.zeros((1, WIDTH), np.float32))
        self._views: dict[int, Any] = {}
        self._runs: list[tuple[Any, Any]] = []
        for graph in graphs:
            session = _session(graph, level)
            binding = session.io_binding()
            if session.get_inputs()[0].name == "user":
                binding.bind_ortvalue_input("user", between)
            binding.bind_ortvalue_output(session.get_outputs()[0].name, last if graph == graphs[-1] else between)
            self._runs.append((session, binding))

    def run(self, history: NDArray[np.int64]) -> Floats:
        """What comes out after a history, shape (outputs,); a buffer that the next call overwrites."""
        length = min(len(history), len(self._items))
        self._items[:length] = history[-length:]
        if length not in self._views:
            self._views[length] = ort.shared_value(self._items[None, :length])
        self._runs[0][1].bind_ortvalue_input("items", self._views[length])
        for session, binding in self._runs:
            session.run_with_iobinding(binding)
        output: Floats = self._output[0]
        return output


def plain_files(folder: Path, weights: EncoderWeights, rows: Floats) -> list[Path]:
    """Write the export by hand of `plain_export.py`."""
    encoder, content = plain_encoder(weights, len(rows))
    files = {"encoder.onnx": encoder, "encoder.bin": content, "scorer.onnx": plain_scorer(len(rows))}
    files |= {"items.bin": rows.tobytes(), "items_t.bin": np.ascontiguousarray(rows.T).tobytes()}
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / "encoder.onnx", folder / "scorer.onnx"]


def rearranged_files(folder: Path, weights: EncoderWeights, rows: Floats) -> list[Path]:
    """Write hushrec's own graphs with float32 matrices: what its rearrangement gives without int8."""
    folder.mkdir()
    build_graphs(weights, rows, capacity=len(rows), precision="fp32").write(folder)
    return [folder / "encoder.onnx", folder / "scorer.onnx"]


def torch_file(folder: Path, weights: EncoderWeights, rows: Floats) -> list[Path]:
    """Export the network by `torch.onnx`."""
    import torch
    from torch_network import Network

    folder.mkdir()
    path = folder / "model.onnx"
    length = {"items": {1: torch.export.Dim("L", min=2, max=weights.max_history)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Network(weights.arrays(), rows).eval(),
            (torch.ones(1, 20, dtype=torch.int64),),
            path,
            input_names=["items"],
            output_names=["scores"],
            dynamic_shapes=length,
            verbose=False,
        )
    return [path]


def quantized_files(graphs: Sequence[Path], folder: Path, *, per_channel: bool) -> list[Path]:
    """Quantize exports by ONNX Runtime's `quantize_dynamic`, every operator that it can, weights int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir()
    logging.getLogger().setLevel(logging.ERROR)  # it advises to preprocess, which changes nothing here
    found = [folder / graph.name for graph in graphs]
    for graph, path in zip(graphs, found, strict=True):
        quantize_dynamic(
            graph, path, per_channel=per_channel, weight_type=QuantType.QInt8, use_external_data_format=True
        )
    return found


def _session(graph: Path, level: str) -> Any:
    runtime = ort.load()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
