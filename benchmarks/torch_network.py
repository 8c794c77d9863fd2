"""The network in plain torch, float32: what a user of torch would write, for torch eager and for every exporter.

Only the last position is computed, and what does not depend on the history (joined matrices) is made once. Knows torch
and NumPy, not hushrec: other environments export it, too.

Shapes: L events of a history, V items (row 0 of the table is padding).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Network"]

Floats = NDArray[np.float32]
HEAD_WIDTH, INPUT_SCALE = 32, 8.0
PADDING = -1e4  # finite: a position that sees padding only must not become NaN


class Network(nn.Module):
    """`items` [1, L] in, `scores` [1, V + 1] out.

    Args:
        weights: Of the encoder, as `EncoderWeights.arrays` names them.
        rows: Item vectors, row 0 zeros, shape (V + 1, 64); the same memory is used.
        fused: Attention by torch's own operator, not written out.
        padded: Histories are filled up with zeros in front, for runtimes that know one length only.
    """

    def __init__(
        self, weights: Mapping[str, Floats], rows: Floats, *, fused: bool = False, padded: bool = False
    ) -> None:
        super().__init__()
        self.padded = padded
        self.register_buffer("table", torch.from_numpy(rows))
        self.table: Tensor
        self.scale = float(weights["scale"][0])
        count = 1 + max(int(name.split(".")[0]) for name in weights if name[0].isdigit())
        self.layers: Any = nn.ModuleList(_Layer(_of_layer(weights, number), fused=fused) for number in range(count))
        for name in ("norm_scale", "norm_bias", "adapter_down", "adapter_up"):
            self.register_buffer(name, torch.from_numpy(weights[name]))
        self.norm_scale: Tensor
        self.norm_bias: Tensor
        self.adapter_down: Tensor
        self.adapter_up: Tensor

    def user(self, items: Tensor) -> Tensor:
        """The user vector after a history, shape (1, 64)."""
        events = functional.embedding(items, self.table) * INPUT_SCALE
        mask = (items == 0)[:, None, None, :] * PADDING if self.padded else None
        x = events[:, -1:]
        for layer in self.layers:
            x = layer(x, events, mask)
        h = functional.layer_norm(x[:, 0], (x.shape[-1],), self.norm_scale, self.norm_bias)
        u = h + (h @ self.adapter_down) @ self.adapter_up
        return functional.normalize(u, dim=-1) * self.scale

    def forward(self, items: Tensor) -> Tensor:
        """Score all rows."""
        return functional.linear(self.user(items), self.table)


class _Layer(nn.Module):
    w1_query: Tensor
    w1_keys: Tensor
    wo: Tensor
    bias: Tensor
    norm1_scale: Tensor
    norm1_bias: Tensor
    norm2_scale: Tensor
    norm2_bias: Tensor
    w2: Tensor
    w3: Tensor

    def __init__(self, weights: Mapping[str, Floats], *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.width = weights["w3"].shape[1]
        self.heads, longest = weights["bias"].shape
        self.rows = longest + 1  # one more than is ever used: a slice of all of it would bind an export to that length
        self.inner, self.channels = weights["wo"].shape[0], weights["w3"].shape[0]
        arrays = {name: array for name, array in weights.items() if name != "w1"}
        query, keys, gate = np.split(weights["w1"], [self.inner, 3 * self.inner], axis=1)
        arrays |= {"w1_query": np.concatenate([query, gate], axis=1), "w1_keys": np.ascontiguousarray(keys)}
        arrays["bias"] = np.pad(weights["bias"][:, None, ::-1], ((0, 0), (0, 0), (1, 0)))
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(array))

    def forward(self, x: Tensor, events: Tensor, mask: Tensor | None) -> Tensor:
        n = functional.layer_norm(x, (self.width,), self.norm1_scale, self.norm1_bias)
        q, gate = torch.split(n @ self.w1_query, [self.inner, self.width], -1)
        k, v = torch.split(events @ self.w1_keys, [self.inner, self.inner], -1)
        bias = self.bias[:, :, self.rows - events.shape[1] :]
        if mask is not None:
            bias = bias + mask
        x = x + torch.sigmoid(gate) * (self._attend(q, k, v, bias) @ self.wo)
        n = functional.layer_norm(x, (self.width,), self.norm2_scale, self.norm2_bias)
        a, b, gate = torch.split(n @ self.w2, [self.channels, self.channels, self.width], -1)
        return x + torch.sigmoid(gate) * ((functional.silu(a) * b) @ self.w3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (torch.unflatten(t, -1, (self.heads, HEAD_WIDTH)).transpose(1, 2) for t in (q, k, v))
        if self.fused:
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(1, -1, -1, -1))
        else:
            mixed = torch.softmax(q * HEAD_WIDTH**-0.5 @ k.transpose(2, 3) + bias, -1) @ v
        return mixed.transpose(1, 2).flatten(2)


def _of_layer(weights: Mapping[str, Floats], number: int) -> dict[str, Floats]:
    start = f"{number}."
    return {name.removeprefix(start): array for name, array in weights.items() if name.startswith(start)}
