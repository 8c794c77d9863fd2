"""The item table: an ID embedding plus what is known of the item, as one unit-length vector an item.

Dropping the ID row at random in training lets content carry items that training saw rarely or never. An item that it
never saw takes the mean ID row of the trained items most like it.
"""

import torch
from hushrec.words import WORD_BUCKETS
from torch import Tensor, nn
from torch.nn import functional

from hushrec_model.features import Bags, ItemFeatures
from hushrec_model.similar_items import similar_items

__all__ = ["ItemTable"]

_START_STD = 0.05
_NEAR = 20  # trained items whose rows an untrained one takes the mean of


class ItemTable(nn.Module):
    """Vectors of V items, row 0 being padding.

    Attributes:
        trained: Items that training has seen, shape (V,), bool. The ID row of any other item is not read outside
            training: the loss only ever pushed it away.
    """

    trained: Tensor
    untrained: Tensor
    near: Tensor
    nearness: Tensor

    def __init__(self, features: ItemFeatures, trained: Tensor, width: int = 64, id_dropout: float = 0.3) -> None:
        super().__init__()
        self.items, self.id_dropout = len(features.price_bucket), id_dropout
        self.id = nn.Embedding(self.items, width)
        near, nearness = similar_items(features, trained.numpy(), _NEAR)
        for name, buffer in (
            ("trained", trained),
            ("untrained", torch.nonzero(~trained)[:, 0]),
            ("near", torch.from_numpy(near)),
            ("nearness", torch.from_numpy(nearness)),
        ):
            self.register_buffer(name, buffer, persistent=False)
        self.attributes = _bag(self, "attribute", features.attributes, len(features.attribute_names), width)
        self.words = _bag(self, "word", features.words, WORD_BUCKETS, width)
        self.price: nn.Embedding | None = None
        if len(features.price_edges):
            self.price = nn.Embedding(len(features.price_edges) + 2, width)
            self.register_buffer("price_bucket", torch.from_numpy(features.price_bucket), persistent=False)
        self.projection: nn.Linear | None = None
        if features.vectors is not None:
            vectors = functional.normalize(torch.from_numpy(features.vectors), dim=1)
            self.register_buffer("vectors", vectors, persistent=False)
            self.projection = nn.Linear(vectors.shape[1], width, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.EmbeddingBag):
                nn.init.normal_(module.weight, std=_START_STD)

    def content(self) -> Tensor | float:
        """Sum of the content parts, shape (V, D); 0.0 if nothing is known of any item."""
        total: Tensor | float = 0.0
        for name, bag in (("attribute", self.attributes), ("word", self.words)):
            if bag is not None:
                total = total + bag(getattr(self, f"{name}_values"), getattr(self, f"{name}_offsets"))
        if self.price is not None:
            total = total + self.price(self.price_bucket)
        if self.projection is not None:
            total = total + self.projection(self.vectors)
        return total

    def ids(self) -> Tensor:
        """ID rows as they are shipped, shape (V, D): of an untrained item the mean of those of similar trained ones, or
        zeros if no trained item is like it."""
        ids = self.id.weight * self.trained[:, None]
        if not self.near.numel():
            return ids
        means = functional.embedding_bag(self.near, self.id.weight, per_sample_weights=self.nearness, mode="sum")
        return ids.index_copy(0, self.untrained, means)

    def raw(self) -> Tensor:
        """Vectors before they are made unit length, shape (V + 1, D), row 0 zeros."""
        return functional.pad(self.ids() + self.content(), (0, 0, 1, 0))

    def forward(self, generator: torch.Generator | None = None) -> Tensor:
        """Vectors of all items, shape (V + 1, D): unit length, but zeros for row 0 and for an item without any part.

        Args:
            generator: Source of the ID dropout; None, as outside training, drops nothing.
        """
        if generator is None:
            return self._unit(self.ids() + self.content())
        ids: Tensor = self.id(torch.arange(self.items, device=self.trained.device))
        if not isinstance(content := self.content(), float):
            kept = torch.rand(self.items, 1, generator=generator) >= self.id_dropout
            return self._unit(ids * kept.to(ids.device) + content)
        return self._unit(ids + self.content())

    def _unit(self, vectors: Tensor) -> Tensor:
        return functional.pad(functional.normalize(vectors, dim=1, eps=1e-6), (0, 0, 1, 0))


def _bag(owner: nn.Module, name: str, bags: Bags, entries: int, width: int) -> nn.EmbeddingBag | None:
    """A mean-pooled embedding whose indexes are buffers of `owner`; None if no item has a value."""
    if not len(bags.values):
        return None
    owner.register_buffer(f"{name}_values", torch.from_numpy(bags.values), persistent=False)
    owner.register_buffer(f"{name}_offsets", torch.from_numpy(bags.offsets), persistent=False)
    return nn.EmbeddingBag(entries, width, mode="mean", include_last_offset=True)
