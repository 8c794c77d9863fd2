"""Carry per-user gradients of item vectors on to the tables that the vectors are summed from.

The content of an item is a linear map of each table (a mean of attribute or word rows, a price row, a projection), so
its gradient is the transposed map. Shapes: B users, R item vectors of each, n rows of a table, D width.
"""

from typing import Protocol

import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hushrec_model.item_table import ItemTable

__all__ = ["ContentMap", "content_maps"]


class ContentMap(Protocol):
    """How the vectors of the V items come from one table."""

    def gradients(self, items: Tensor, rows: Tensor) -> Tensor:
        """Gradient of the table for each user.

        Args:
            items: Item of each row, 1 to V, 0 for none, shape (B, R).
            rows: Gradient of the item's vector, shape (B, R, D); rows of one item add up, those without one are lost.

        Returns:
            Shape (B, n, D), or (B, D, n) for a projection.
        """
        ...


def content_maps(table: ItemTable) -> dict[str, ContentMap]:
    """The map of each content table that the model has, by the parameter's name in the item table."""
    maps: dict[str, ContentMap] = {}
    for name, bag, prefix in (("attributes", table.attributes, "attribute"), ("words", table.words, "word")):
        if isinstance(bag, nn.EmbeddingBag):
            offsets, values = table.get_buffer(f"{prefix}_offsets"), table.get_buffer(f"{prefix}_values")
            maps[f"{name}.weight"] = _Means(offsets.numpy(), values.numpy(), bag.num_embeddings)
    if table.price is not None:
        bucket = table.get_buffer("price_bucket").numpy()
        maps["price.weight"] = _Means(np.arange(len(bucket) + 1), bucket, table.price.num_embeddings)
    if table.projection is not None:
        maps["projection.weight"] = _Projection(table.get_buffer("vectors"))
    return maps


class _Means:
    """The mean of some rows: a sparse matrix of V + 1 by n."""

    def __init__(self, offsets: NDArray[np.int64], values: NDArray[np.int64], rows: int) -> None:
        counts = np.diff(offsets)
        shares = np.repeat(1.0 / np.maximum(counts, 1), counts)
        self._map = sparse.csr_matrix((shares, values, np.append(0, offsets)), shape=(len(offsets), rows))

    def gradients(self, items: Tensor, rows: Tensor) -> Tensor:
        users, slots, width = rows.shape
        entries = self._map.shape[1]
        flat = rows.reshape(users * slots, width).numpy()
        chosen = self._map[items.flatten().numpy()].tocoo()
        place = chosen.row // slots * entries + chosen.col  # one matrix for all users, each in a block of its own
        shape = (users * entries, users * slots)
        carry = sparse.csr_matrix((chosen.data.astype(flat.dtype), (place, chosen.row)), shape=shape)
        return torch.from_numpy(carry @ flat).view(users, entries, width)


class _Projection:
    """A matrix times a given vector of each item."""

    def __init__(self, vectors: Tensor) -> None:
        self._vectors = nn.functional.pad(vectors, (0, 0, 1, 0))

    def gradients(self, items: Tensor, rows: Tensor) -> Tensor:
        return rows.transpose(1, 2) @ self._vectors.to(rows.dtype)[items]
