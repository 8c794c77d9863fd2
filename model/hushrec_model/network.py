"""The compact causal Transformer that turns a shopper's history into a user vector scored against the item table.

Pre-norm, cosine scores with a learned scale, relative position bias, gated residual branches (LiGR: Borisyuk et al.
2024, arXiv:2407.13218, equation 1) and SwiGLU feed-forward (Shazeer 2020, arXiv:2002.05202, equation 6). Attention is
written out and every weight is used through a module, so that per-user gradients can be taken by hooks as well as by
`torch.func`. The same item table is input and output; it lives in `item_table.py`.

Shapes: B batch, L history, D width, H heads, F feed-forward channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["HEAD_WIDTH", "INPUT_GAIN", "Block", "Encoder", "EncoderShape", "Scale"]

HEAD_WIDTH = 32
INPUT_GAIN = 8.0  # unit-length item vectors enter with length sqrt(D) for D=64
ADAPTER_RANK = 16
START_SCALE = 20.0


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of an encoder.

    Attributes:
        heads: Attention heads of each layer; its length is the number of layers.
        channels: Feed-forward channels of each layer, as many entries as `heads`.
        max_history: Longest history, in events; also the number of distances with a bias of their own.
        behaviors: How many behaviours the data knows; with 1 there is no behaviour table.
        width: D, the length of item and user vectors.
    """

    heads: tuple[int, ...] = (2, 2)
    channels: tuple[int, ...] = (176, 176)
    max_history: int = 50
    behaviors: int = 1
    width: int = 64


class Block(nn.Module):
    """One layer: gated causal attention to the events, then a gated SwiGLU feed-forward."""

    def __init__(self, shape: EncoderShape, layer: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads, self.channels, width = shape.heads[layer], shape.channels[layer], shape.width
        inner = self.heads * HEAD_WIDTH
        self.norm1 = nn.LayerNorm(width)
        self.query_gate = nn.Linear(width, inner + width, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.distance = nn.Embedding(shape.max_history, self.heads)
        self.merge = nn.Linear(inner, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 2 * self.channels + width, bias=False)  # SwiGLU pair, gate
        self.contract = nn.Linear(self.channels, width, bias=False)
        self.dropout, self.attention_dropout = nn.Dropout(dropout), nn.Dropout(attention_dropout)
        nn.init.zeros_(self.distance.weight)

    def forward(self, x: Tensor, events: Tensor, distances: Tensor, future: Tensor) -> Tensor:
        """Shape (B, L, D) to (B, L, D); `events` are what `x` was before the first layer; `distances`, (L, L) or
        (B, L, L), and `future`, (L, L, bool), go with L."""
        batch, length, width = x.shape
        inner = self.heads * HEAD_WIDTH
        q, gate = self.query_gate(self.norm1(x)).split((inner, width), dim=-1)
        k, v = self.key_value(events).split((inner, inner), dim=-1)
        q, k, v = (t.view(batch, length, self.heads, HEAD_WIDTH).transpose(1, 2) for t in (q, k, v))
        bias = self.distance(distances).movedim(-1, -3).masked_fill(future, float("-inf"))
        weights = torch.softmax(torch.matmul(q * HEAD_WIDTH**-0.5, k.transpose(2, 3)) + bias, dim=-1)
        mixed = torch.matmul(self.attention_dropout(weights), v).transpose(1, 2).reshape(batch, length, inner)
        x = x + torch.sigmoid(gate) * self.dropout(self.merge(mixed))
        a, b, gate = self.expand(self.norm2(x)).split((self.channels, self.channels, width), dim=-1)
        grown: Tensor = x + torch.sigmoid(gate) * self.dropout(self.contract(functional.silu(a) * b))
        return grown


class Scale(nn.Module):
    """Multiplies by one learned number; a module of its own, because hooks do not see a parameter beside modules."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(START_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * self.weight


class Encoder(nn.Module):
    """History in, user vector out: scaled, so that a plain dot product with unit item vectors is the score.

    Attributes:
        hooked: Look distances up once a history instead of once for all, as hooks need that take the gradient of each
            user apart: they take the first axis of a module's input for the users. The result is the same.
    """

    def __init__(self, shape: EncoderShape, dropout: float = 0.2, attention_dropout: float = 0.1) -> None:
        super().__init__()
        self.shape, self.hooked = shape, False
        self.behavior = nn.Embedding(shape.behaviors, shape.width) if shape.behaviors > 1 else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(shape, i, dropout, attention_dropout) for i in range(len(shape.heads)))
        self.norm = nn.LayerNorm(shape.width)
        self.adapter_down = nn.Linear(shape.width, ADAPTER_RANK, bias=False)
        self.adapter_up = nn.Linear(ADAPTER_RANK, shape.width, bias=False)
        self.scale = Scale()
        if self.behavior is not None:
            nn.init.normal_(self.behavior.weight, std=0.05)
        nn.init.zeros_(self.adapter_up.weight)  # identity until a fleet trains it
        for part in (self.adapter_down, self.adapter_up):
            part.weight.requires_grad_(False)

    @property
    def layers(self) -> list[Block]:
        """The layers, first one first."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(self, vectors: Tensor, behaviors: Tensor) -> Tensor:
        """Encode every prefix of each history.

        Histories are padded on the right: a causal position never sees what follows it, so no padding mask is needed.

        Args:
            vectors: Unit-length item vectors, shape (B, L, D); L at most `shape.max_history`.
            behaviors: Behaviour of each event, shape (B, L), int64.

        Returns:
            Scaled user vectors after each event, shape (B, L, D).
        """
        x = vectors * INPUT_GAIN
        if self.behavior is not None:
            x = x + self.behavior(behaviors)
        x = self.dropout(x)
        steps = torch.arange(x.shape[1], device=x.device)
        gap = steps[:, None] - steps[None, :]
        distances = gap.clamp(min=0)
        if self.hooked:
            distances = distances.expand(len(x), -1, -1)
        events = x
        for block in self.layers:
            x = block(x, events, distances, gap < 0)
        hidden = self.norm(x)
        user: Tensor = hidden + self.adapter_up(self.adapter_down(hidden))
        scaled: Tensor = self.scale(functional.normalize(user, dim=-1))
        return scaled
