"""Structured pruning: whole layers, attention heads and feed-forward channels leave the encoder.

Unstructured zeros would make no processor faster. What goes first is what the loss would miss least per parameter: the
squared first-order change of the loss when the unit is removed (Molchanov et al. 2019, arXiv:1906.10771, equation 8),
averaged over training batches. Works on a copy: the model given stays as it is.
"""

import copy
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from hushrec_model.batches import Windows
from hushrec_model.losses import product_dtype
from hushrec_model.model import Model
from hushrec_model.network import HEAD_WIDTH, Block, Encoder
from hushrec_model.splits import Split
from hushrec_privacy import checks
from torch import Tensor, nn

__all__ = ["CHANNEL_STEP", "encoder_parameters", "prune"]

CHANNEL_STEP = 16  # channels go in groups of this many, the width of a vector register
_BATCHES = 40
_LAYER_SHARE = 0.45  # from this share on, a two-layer encoder gives up a layer first


@dataclass
class _Unit:
    """Something that can be removed: a head, or a group of channels, of one layer."""

    layer: int
    kind: str
    members: list[int]
    parameters: int
    importance: float


def encoder_parameters(encoder: Encoder) -> int:
    """Weights of the encoder; the item table is not part of it."""
    return sum(p.numel() for p in encoder.parameters())


def prune(model: Model, split: Split, share: float, *, seed: int = 0) -> Model:
    """Remove a share of the encoder's weights.

    Args:
        model: A trained model; not changed.
        split: Its training data; importance is measured on it.
        share: Of the encoder's weights, 0 (nothing) to below 1; at least one head and 16 channels of each layer stay.
        seed: Chooses the batches.

    Returns:
        A smaller model, not fine-tuned.

    Raises:
        ConfigError: `share` is outside its range.
    """
    checks.share(prune=share)
    smaller = copy.deepcopy(model)
    before = encoder_parameters(model.encoder)
    if share >= _LAYER_SHARE and len(smaller.encoder.blocks) > 1:
        _drop_layer(smaller, split, seed)
    budget = encoder_parameters(smaller.encoder) - round(before * (1 - share))
    if budget <= 0:
        return smaller
    heads, channels = _importance(smaller, split, seed)
    keep_heads = [list(range(block.heads)) for block in smaller.encoder.layers]
    keep_channels = [list(range(block.channels)) for block in smaller.encoder.layers]
    while budget > 0:
        units = _removable(smaller, keep_heads, keep_channels, heads, channels)
        if not units:
            break
        unit = min(units, key=lambda unit: unit.importance / unit.parameters)
        kept = keep_heads if unit.kind == "head" else keep_channels
        kept[unit.layer] = [member for member in kept[unit.layer] if member not in unit.members]
        budget -= unit.parameters
    for block, head_list, channel_list in zip(smaller.encoder.layers, keep_heads, keep_channels, strict=True):
        _shrink(block, head_list, channel_list)
    _restate(smaller.encoder)
    return smaller


def _removable(
    model: Model,
    keep_heads: list[list[int]],
    keep_channels: list[list[int]],
    heads: list[Tensor],
    channels: list[Tensor],
) -> list[_Unit]:
    """The next candidate of each kind in each layer: its least important head and its least important channels."""
    width, units = model.encoder.shape.width, []
    distances = model.encoder.shape.max_history
    for layer, (head_list, channel_list) in enumerate(zip(keep_heads, keep_channels, strict=True)):
        if len(head_list) > 1:
            weakest = min(head_list, key=lambda h: float(heads[layer][h]))
            size = 4 * HEAD_WIDTH * width + distances
            units.append(_Unit(layer, "head", [weakest], size, float(heads[layer][weakest])))
        if len(channel_list) > CHANNEL_STEP:
            weak = sorted(channel_list, key=lambda c: float(channels[layer][c]))[:CHANNEL_STEP]
            total = float(channels[layer][weak].sum())
            units.append(_Unit(layer, "channels", weak, 3 * len(weak) * width, total))
    return units


def _importance(model: Model, split: Split, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Importance of every head and every channel, one tensor a layer."""
    model = copy.deepcopy(model).eval()
    windows = Windows(split.train, model.encoder.shape.max_history)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    heads = [torch.zeros(block.heads) for block in model.encoder.layers]
    channels = [torch.zeros(block.channels) for block in model.encoder.layers]
    for batch in islice(windows.batches(1536, rng), _BATCHES):
        model.zero_grad(set_to_none=True)
        model.loss(batch, generator, product_dtype("cpu")).backward()  # type: ignore[no-untyped-call]
        for layer, block in enumerate(model.encoder.layers):
            merge, contract = block.merge.weight, block.contract.weight
            assert merge.grad is not None
            assert contract.grad is not None
            heads[layer] += (merge * merge.grad).detach().view(merge.shape[0], block.heads, HEAD_WIDTH).sum((0, 2)) ** 2
            channels[layer] += (contract * contract.grad).detach().sum(0) ** 2
    return heads, channels


def _drop_layer(model: Model, split: Split, seed: int) -> None:
    """Remove the layer whose branches matter least to the loss."""
    heads, channels = _importance(model, split, seed)
    totals = [float(h.sum() + c.sum()) for h, c in zip(heads, channels, strict=True)]
    gone = totals.index(min(totals))
    model.encoder.blocks = nn.ModuleList(b for i, b in enumerate(model.encoder.layers) if i != gone)
    _restate(model.encoder)


def _shrink(block: Block, heads: list[int], channels: list[int]) -> None:
    """Keep only some heads and channels of a layer, in place."""
    inner = block.heads * HEAD_WIDTH
    rows = torch.tensor([h * HEAD_WIDTH + i for h in heads for i in range(HEAD_WIDTH)])
    width = block.merge.weight.shape[0]
    _keep(block.query_gate, torch.cat([rows, torch.arange(inner, inner + width)]), 0)
    _keep(block.key_value, torch.cat([rows, rows + inner]), 0)
    _keep(block.merge, rows, 1)
    block.distance.weight = nn.Parameter(block.distance.weight.detach()[:, heads].clone())
    block.distance.embedding_dim = len(heads)
    kept = torch.tensor(channels)
    gate = torch.arange(2 * block.channels, 2 * block.channels + width)
    _keep(block.expand, torch.cat([kept, kept + block.channels, gate]), 0)
    _keep(block.contract, kept, 1)
    block.heads, block.channels = len(heads), len(channels)


def _keep(linear: nn.Linear, index: Tensor, dim: int) -> None:
    linear.weight = nn.Parameter(linear.weight.detach().index_select(dim, index).clone())
    linear.out_features, linear.in_features = linear.weight.shape


def _restate(encoder: Encoder) -> None:
    """Make the encoder's shape say what its layers are now."""
    encoder.shape = replace(
        encoder.shape,
        heads=tuple(block.heads for block in encoder.layers),
        channels=tuple(block.channels for block in encoder.layers),
    )
