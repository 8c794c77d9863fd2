"""An export in ONNX Runtime, run as well as it can be: fixed buffers like the engine's, one thread, nothing spinning.

Loads what answering needs and nothing else: the memory of a process with it is measured.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hushrec import ort
from hushrec.tables import WIDTH
from numpy.typing import NDArray

__all__ = ["GraphPeer"]

Floats = NDArray[np.float32]


class GraphPeer:
    """`items` in, `scores` or `user` out, through one graph or two.

    Args:
        graphs: Paths, in order; what one puts out is the input of the next.
        outputs: Length of what the last one puts out.
        max_history: Longest history.
        level: Graph optimisation of ONNX Runtime: "basic", "extended" or "all".
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


def _session(graph: Path, level: str) -> Any:
    runtime = ort.load()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
