"""Values of the torch model under the names and shapes of an update."""

import copy

import numpy as np
import torch
from hushrec.federated.layout import ITEM_ROWS, PARAMS, ParameterLayout
from hushrec_model.model import Model
from hushrec_quantize.convert import encoder_weights
from numpy.typing import NDArray
from torch import Tensor

_TABLES = {
    "features.attributes": "items.attributes.weight",
    "features.prices": "items.price.weight",
    "features.words": "items.words.weight",
    ITEM_ROWS: "items.id.weight",
}


def updates_of(model: Model, values: dict[str, Tensor], layout: ParameterLayout) -> dict[str, NDArray[np.float32]]:
    """Rename some values of the model's parameters, such as their changes; what is not given counts as zero.

    Args:
        model: Says which parameters there are.
        values: By the names of the model.
        layout: What is wanted.
    """
    filled = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in filled.named_parameters():
            weight.copy_(values[name]) if name in values else weight.zero_()
    encoder = encoder_weights(filled).arrays()
    every = dict(filled.named_parameters())
    return {
        name: encoder[name.removeprefix(PARAMS)] if name.startswith(PARAMS) else every[_TABLES[name]].detach().numpy()
        for name in layout.shapes
    }
