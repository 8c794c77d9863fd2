"""The candidates of the engine benchmark that need an environment of their own: ExecuTorch and LiteRT, float32.

Run as a script by the interpreter of such an environment this is the process of one of them. Beside the runtime an
environment needs what exports for it: `executorch`, or `ai-edge-litert` and `litert-torch`; NumPy and torch come along.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from engine_process import K, Kind, serve, shop_size
from numpy.typing import NDArray

__all__ = ["KINDS"]

Indexes = NDArray[np.int64]


class ExecuTorch:
    """The network lowered to XNNPACK, any length of history; answers through ExecuTorch's Python runtime."""

    imports: tuple[str, ...] = ("torch", "executorch.runtime")

    def write(self, root: Path) -> None:
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        network, longest = _network(root, padded=False)
        length = {"items": {1: torch.export.Dim("L", min=2, max=longest)}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(network, (torch.ones(1, 20, dtype=torch.int64),), dynamic_shapes=length)
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        with (root / "model.pte").open("wb") as file:
            lowered.write_to_file(file)

    def open(self, root: Path, variant: str) -> Sequence[Path]:  # noqa: ARG002
        import torch
        from executorch.runtime import Runtime

        torch.set_num_threads(1)
        _, self._longest = shop_size(root)
        self._program = Runtime.get().load_program(root / "model.pte")  # the method does not keep it alive
        self._method = self._program.load_method("forward")
        return [root / "model.pte"]

    def answer(self, history: Indexes) -> Indexes:
        import torch

        scores = self._method.execute([torch.from_numpy(history[-self._longest :])[None]])[0][0]
        scores[0] = -torch.inf
        found: Indexes = torch.topk(scores, K).indices.numpy()
        return found


class LiteRT:
    """The network as a .tflite file, run by XNNPACK; one length of history, shorter ones are filled up and masked."""

    imports: tuple[str, ...] = ("ai_edge_litert.interpreter", "hushrec.topk")

    def write(self, root: Path) -> None:
        import litert_torch
        import torch

        network, longest = _network(root, padded=True)
        model = litert_torch.convert(network, (torch.ones(1, longest, dtype=torch.int32),))
        model.export(str(root / "model.tflite"))

    def open(self, root: Path, variant: str) -> Sequence[Path]:  # noqa: ARG002
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(root / "model.tflite"), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._items = np.zeros((1, shop_size(root)[1]), np.int32)
        return [root / "model.tflite"]

    def answer(self, history: Indexes) -> Indexes:
        from hushrec.topk import top_k

        recent = history[-self._items.shape[1] :]
        self._items[0, : -len(recent)] = 0
        self._items[0, -len(recent) :] = recent
        self._interpreter.set_tensor(self._input, self._items)
        self._interpreter.invoke()
        scores = self._interpreter.tensor(self._output)()[0]
        scores[0] = -np.inf
        return top_k(scores, K)[0]


def _network(root: Path, *, padded: bool) -> tuple[Any, int]:
    """The network of a shop, and Lmax."""
    from torch_network import Network

    with np.load(root / "weights.npz") as saved:
        weights = {name: saved[name] for name in saved.files}
    return Network(weights, np.load(root / "rows.npy"), padded=padded).eval(), weights["0.bias"].shape[1]


KINDS: dict[str, Kind] = {
    "ExecuTorch": Kind(ExecuTorch, "exact", needs="executorch"),
    "LiteRT": Kind(LiteRT, "exact", needs="ai_edge_litert"),
}


if __name__ == "__main__":
    serve(KINDS)
