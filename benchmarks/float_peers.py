"""Exports of the same weights for ONNX Runtime, each as files in a folder: peers of the engine benchmark."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hushrec.weights.encoder import EncoderWeights
from hushrec_quantize.graphs import build_graphs
from numpy.typing import NDArray
from plain_export import plain_encoder, plain_scorer

__all__ = ["plain_files", "quantized_files", "rearranged_files", "torch_file"]

Floats = NDArray[np.float32]


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
    return [folder / "scorer.onnx"]


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


def quantized_files(graphs: Sequence[Path], folder: Path) -> list[Path]:
    """Quantize exports by ONNX Runtime's `quantize_dynamic`: every operator that it can, weights int8, one scale a
    tensor, which is the fastest it has.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir()
    logging.getLogger().setLevel(logging.ERROR)  # it advises to preprocess, which changes nothing here
    found = [folder / graph.name for graph in graphs]
    for graph, path in zip(graphs, found, strict=True):
        quantize_dynamic(graph, path, weight_type=QuantType.QInt8, use_external_data_format=True)
    return found
