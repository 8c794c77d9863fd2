"""The one place that imports ONNX Runtime: telemetry off, one thread unless more are asked for, nothing spinning.

ONNX Runtime sends telemetry by default from 1.29 on; `ORT_DISABLE_TELEMETRY=1`, set before it is loaded, keeps it from
making the uploader, the device identifier and the cache (its Privacy.md). Once it is loaded that cannot be undone, so a
host application that imported it first is told, once.
"""

import functools
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from hushrec_privacy.errors import BundleError
from numpy.typing import NDArray

__all__ = ["load", "open_session", "shared_value", "version"]

_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_FATAL = 4  # its messages go to the standard error of the host application and may hold item indexes


@functools.cache
def load() -> ModuleType:
    """Import ONNX Runtime with its telemetry off.

    Warns:
        RuntimeWarning: The process had imported it before with telemetry on; `hushrec` cannot turn it off any more.
    """
    if "onnxruntime" in sys.modules and os.environ.get(_TELEMETRY) != "1":
        warnings.warn(
            f"onnxruntime was imported before hushrec without {_TELEMETRY}=1, so its telemetry may be on; "
            "set the variable at the start of the program, or import hushrec.ort and call load() first",
            RuntimeWarning,
            stacklevel=2,
        )
    os.environ[_TELEMETRY] = "1"
    import onnxruntime  # here and nowhere else

    module: ModuleType = onnxruntime
    return module


def version() -> str:
    """Version of the ONNX Runtime that is loaded."""
    return str(load().__version__)


def open_session(graph: Path, threads: int = 1) -> Any:
    """Open a graph for threads that sleep while there is nothing to do.

    The graphs are written as they should run: only constants are folded, and no operator is fused into a slower one.

    Args:
        graph: Path of an .onnx file; it reads its weights from files beside it.
        threads: How many share the work of one operator.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        BundleError: ONNX Runtime cannot open the graph; names the file and says why.
    """
    runtime = load()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = _FATAL
    options.enable_cpu_mem_arena = False  # no slower here, and at a million items megabytes less
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(os.fspath(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no public base
        raise BundleError(f"{graph}: ONNX Runtime {version()} cannot open it ({error})") from error


def shared_value(array: NDArray[np.generic]) -> Any:
    """Wrap a C-contiguous array as an `OrtValue` over the same memory: what either side writes, the other reads."""
    return load().OrtValue.ortvalue_from_numpy(array)
