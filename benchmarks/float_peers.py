"""Float32 exports of the same weights, run as well as they can be: the peers of the engine benchmark.

Bound to fixed buffers like the engine's graphs, one thread, nothing spinning, and for each export the graph
optimisation level of ONNX Runtime that is fastest for it.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hushrec import ort
from hushrec.tables import WIDTH
from hushrec.weights.encoder import HEAD_WIDTH, EncoderWeights
from hushrec_quantize.graphs import build_graphs
from numpy.typing import NDArray
from plain_export import plain_encoder, plain_scorer

__all__ = ["FloatPeer", "best_of", "plain_files", "rearranged_files", "torch_file"]

Floats = NDArray[np.float32]
LEVELS = ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


class FloatPeer:
    """One float export: `items` in, `scores` out, through one graph or two.

    Args:
        graphs: Paths, in order; what one puts out is the input of the next.
        capacity: Length of the scores.
        max_history: Longest history.
        level: Name of ONNX Runtime's graph optimisation level.
    """

    def __init__(self, graphs: Sequence[Path], capacity: int, max_history: int, level: str) -> None:
        self._items = np.zeros(max_history, np.int64)
        self._scores = np.zeros((1, capacity), np.float32)
        user = ort.shared_value(np.zeros((1, WIDTH), np.float32))
        self._views: dict[int, Any] = {}
        self._runs: list[tuple[Any, Any]] = []
        for graph in graphs:
            session = _session(graph, level)
            binding = session.io_binding()
            if session.get_inputs()[0].name == "user":
                binding.bind_ortvalue_input("user", user)
            output = session.get_outputs()[0].name
            binding.bind_ortvalue_output(output, user if output == "user" else ort.shared_value(self._scores))
            self._runs.append((session, binding))

    def scores(self, items: NDArray[np.int64]) -> Floats:
        """Score all rows after a history, shape (capacity,)."""
        length = len(items)
        self._items[:length] = items
        if length not in self._views:
            self._views[length] = ort.shared_value(self._items[None, :length])
        self._runs[0][1].bind_ortvalue_input("items", self._views[length])
        for session, binding in self._runs:
            session.run_with_iobinding(binding)
        scores: Floats = self._scores[0]
        return scores


def best_of(make: Callable[[str], FloatPeer], history: NDArray[np.int64], calls: int = 30) -> tuple[str, FloatPeer]:
    """Open an export at every optimisation level and keep the fastest."""
    found = []
    for level in LEVELS:
        peer, times = make(level), []
        for _ in range(calls):
            began = time.perf_counter()
            peer.scores(history)
            times.append(time.perf_counter() - began)
        found.append((float(np.median(times)), level, peer))
    _, level, peer = min(found, key=lambda one: one[0])
    return level, peer


def plain_files(folder: Path, weights: EncoderWeights, rows: Floats, capacity: int) -> list[Path]:
    """Write the export by hand of `plain_export.py`."""
    table = np.zeros((capacity, WIDTH), np.float32)
    table[: len(rows)] = rows
    encoder, content = plain_encoder(weights, capacity)
    files = {"encoder.onnx": encoder, "encoder.bin": content, "scorer.onnx": plain_scorer(capacity)}
    files |= {"items.bin": table.tobytes(), "items_t.bin": np.ascontiguousarray(table.T).tobytes()}
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / "encoder.onnx", folder / "scorer.onnx"]


def rearranged_files(folder: Path, weights: EncoderWeights, rows: Floats, capacity: int) -> list[Path]:
    """Write hushrec's own graphs with float32 matrices: what its rearrangement gives without int8."""
    folder.mkdir()
    build_graphs(weights, rows, capacity=capacity, precision="fp32").write(folder)
    return [folder / "scorer.onnx"]


def torch_file(folder: Path, weights: EncoderWeights, rows: Floats, capacity: int) -> list[Path]:
    """Export the network by `torch.onnx`, last position only in the last layer."""
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(capacity, WIDTH))
            self.table.data[: len(rows)] = torch.from_numpy(rows)
            self.layers: Any = nn.ModuleList(
                nn.ParameterDict({name: torch.from_numpy(value) for name, value in vars(layer).items()})
                for layer in weights.layers
            )
            rest = ("norm_scale", "norm_bias", "adapter_down", "adapter_up")
            self.rest = nn.ParameterDict({name: torch.from_numpy(getattr(weights, name)) for name in rest})

        def forward(self, items: Tensor) -> Tensor:
            x = self.table[items] * 8.0
            for number, layer in enumerate(self.layers):
                x = self.attend(x, layer, last=number == len(self.layers) - 1)
                n = functional.layer_norm(x, (WIDTH,), layer["norm2_scale"], layer["norm2_bias"])
                channels = layer["w3"].shape[0]
                a, b, gate = (n @ layer["w2"]).split((channels, channels, WIDTH), -1)
                x = x + torch.sigmoid(gate) * ((functional.silu(a) * b) @ layer["w3"])
            h = functional.layer_norm(x[:, -1], (WIDTH,), self.rest["norm_scale"], self.rest["norm_bias"])
            user = h + (h @ self.rest["adapter_down"]) @ self.rest["adapter_up"]
            return functional.normalize(user, dim=-1) * weights.scale @ self.table.T

        def attend(self, x: Tensor, layer: Any, *, last: bool) -> Tensor:
            heads, inner, steps = layer["bias"].shape[0], layer["wo"].shape[0], torch.arange(x.shape[1])
            n = functional.layer_norm(x, (WIDTH,), layer["norm1_scale"], layer["norm1_bias"])
            wq, wkv, wg = layer["w1"].split((inner, 2 * inner, WIDTH), 1)
            gap = steps[:, None] - steps
            if last:
                k, v = (n @ wkv).split((inner, inner), -1)
                q, gate = (n[:, -1:] @ torch.cat([wq, wg], 1)).split((inner, WIDTH), -1)  # type: ignore[no-untyped-call]
                x, bias = x[:, -1:], layer["bias"][:, gap[-1:]]
            else:
                q, k, v, gate = (n @ layer["w1"]).split((inner, inner, inner, WIDTH), -1)
                bias = layer["bias"][:, gap.clamp(min=0)].masked_fill(gap < 0, float("-inf"))
            q, k, v = (t.unflatten(-1, (heads, HEAD_WIDTH)).transpose(1, 2) for t in (q, k, v))
            mixed = torch.softmax(q * HEAD_WIDTH**-0.5 @ k.transpose(2, 3) + bias, -1) @ v
            return x + torch.sigmoid(gate) * (mixed.transpose(1, 2).flatten(2) @ layer["wo"])  # type: ignore[no-any-return]

    folder.mkdir()
    path = folder / "model.onnx"
    length = {"items": {1: torch.export.Dim("L", min=2, max=weights.max_history)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Network().eval(),
            (torch.ones(1, 20, dtype=torch.int64),),
            path,
            input_names=["items"],
            output_names=["scores"],
            dynamic_shapes=length,
            verbose=False,
        )
    return [path]


def _session(graph: Path, level: str) -> Any:
    runtime = ort.load()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
