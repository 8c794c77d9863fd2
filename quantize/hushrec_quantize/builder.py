"""A thin layer over `onnx.helper`: names intermediate values, and puts weights into external files at given offsets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from hushrec.tables import WIDTH
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["FLOAT", "INT8", "GraphBuilder"]

_CONTRIB = "com.microsoft"
FLOAT, INT8 = TensorProto.FLOAT, TensorProto.INT8
_OPSET = 18
_IR_VERSION = 8
_TYPES = {
    "float32": FLOAT,
    "float16": TensorProto.FLOAT16,
    "int8": INT8,
    "uint8": TensorProto.UINT8,
    "int64": TensorProto.INT64,
}


class GraphBuilder:
    """Collects nodes and initializers of one graph; `model` closes it.

    Values are referred to by their names, as in ONNX.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._values = 0

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input of the graph; strings in `shape` are free axes."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], shape))
        return name

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add one node with one output and return the output's name."""
        name = name or self._new_name()
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def contrib(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Like `op`, for an operator of ONNX Runtime's own."""
        return self.op(kind, *inputs, name=name, domain=_CONTRIB, **attributes)

    def op_many(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add one node with `count` outputs and return their names."""
        names = [self._new_name() for _ in range(count)]
        self._nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def matmul_nbits(self, x: str, codes: str, scales: str, inputs: int, outputs: int, *, name: str = "") -> str:
        """Multiply by an int8 matrix with one scale for 64 inputs of an output; other accuracy levels are slow."""
        sizes: dict[str, int] = {"K": inputs, "N": outputs, "bits": 8, "block_size": WIDTH, "accuracy_level": 4}
        return self.contrib("MatMulNBits", x, codes, scales, name=name, **sizes)

    def constant(self, *values: int, scalar: bool = False) -> str:
        """Return a small int64 constant, stored in the graph once however often it is asked for."""
        name = ("i" if scalar else "i_") + "_".join(map(str, values))
        if name not in self._initializers:
            shape = [] if scalar else [len(values)]
            self._initializers[name] = helper.make_tensor(name, TensorProto.INT64, shape, values)
        return name

    def number(self, name: str, value: float) -> str:
        """Return a float32 scalar."""
        self._initializers[name] = helper.make_tensor(name, FLOAT, [], [value])
        return name

    def byte(self, name: str, value: int) -> str:
        """Return a uint8 scalar."""
        self._initializers[name] = helper.make_tensor(name, TensorProto.UINT8, [], [value])
        return name

    def filled(self, name: str, value: float, length: int) -> str:
        """Return a float32 vector of one value."""
        self._initializers[name] = helper.make_tensor(name, FLOAT, [length], [value] * length)
        return name

    def array(self, name: str, values: NDArray[Any]) -> str:
        """Return a small array, stored in the graph."""
        self._initializers[name] = numpy_helper.from_array(values, name)
        return name

    def external(self, name: str, dtype: str, shape: Sequence[int], file: str, offset: int) -> str:
        """Refer to an array that lies in `file`, beside the graph, at `offset` bytes."""
        tensor = TensorProto(name=name, data_type=_TYPES[dtype], dims=shape, data_location=TensorProto.EXTERNAL)
        length = int(np.dtype(dtype).itemsize * np.prod(shape))
        for key, value in (("location", file), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        self._initializers[name] = tensor
        return name

    def weight(self, name: str, array: NDArray[Any], file: str, offset: int) -> str:
        """Like `external`, with dtype and shape of `array`, whose values are not looked at."""
        return self.external(name, array.dtype.name, array.shape, file, offset)

    def _new_name(self) -> str:
        self._values += 1
        return f"v{self._values}"

    def model(self, outputs: Mapping[str, Sequence[int | str]]) -> bytes:
        """Close the graph over its float32 outputs, with their shapes, and return its bytes, the same for the same
        calls."""
        values = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self._nodes, self._name, self._inputs, values, list(self._initializers.values()))
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="hushrec")
        return bytes(model.SerializeToString(deterministic=True))
