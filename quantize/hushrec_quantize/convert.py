"""From the trained torch model to the plain arrays that the graphs are built from."""

import numpy as np
import torch
from hushrec.weights.encoder import HEAD_WIDTH, EncoderWeights, LayerWeights
from hushrec_model.model import Model
from hushrec_model.network import Block
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["encoder_weights"]


def encoder_weights(model: Model) -> EncoderWeights:
    """The encoder's weights in the layout of the graphs; torch keeps its matrices transposed.

    Raises:
        ConfigError: A weight is not finite.
    """
    encoder = model.encoder
    return EncoderWeights(
        layers=tuple(_layer(block) for block in encoder.layers),
        norm_scale=_array(encoder.norm.weight),
        norm_bias=_array(encoder.norm.bias),
        adapter_down=_array(encoder.adapter_down.weight.t()),
        adapter_up=_array(encoder.adapter_up.weight.t()),
        scale=float(encoder.scale.weight.detach()),
        behaviors=None if encoder.behavior is None else _array(encoder.behavior.weight),
    )


def _layer(block: Block) -> LayerWeights:
    query, gate = torch.split(block.query_gate.weight, [HEAD_WIDTH * block.heads, block.merge.weight.shape[0]])
    return LayerWeights(
        norm1_scale=_array(block.norm1.weight),
        norm1_bias=_array(block.norm1.bias),
        w1=_array(torch.cat([query, block.key_value.weight, gate]).t()),
        wo=_array(block.merge.weight.t()),
        bias=_array(block.distance.weight.t()),
        norm2_scale=_array(block.norm2.weight),
        norm2_bias=_array(block.norm2.bias),
        w2=_array(block.expand.weight.t()),
        w3=_array(block.contract.weight.t()),
    )


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype=np.float32)
