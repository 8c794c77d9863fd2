"""Which items are like which, by what is known of them.

Two items are alike by the cosines of their title words, of their attributes and of their precomputed vectors: the mean
of those that the shop has, words and attributes weighted by how rare they are. Prices are too coarse to tell.
"""

from typing import Any

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from hushrec_model.features import Bags, ItemFeatures

__all__ = ["most_alike", "similar_items"]

_ROWS = 1024  # items compared at once with all others
_POWER = 4  # of a cosine: near items count much more than far ones


def similar_items(
    features: ItemFeatures, trained: NDArray[np.bool_], most: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The trained items most like each untrained one, and what each of them counts.

    Args:
        features: Content of the V items.
        trained: Shape (V,).
        most: K, how many to find.

    Returns:
        Rows of `features`, shape (U, K), and weights that sum to 1, or to 0 where nothing is alike; U is the number of
        untrained items, in their order.
    """
    near, cosine = most_alike(features, np.flatnonzero(~trained), np.flatnonzero(trained), most)
    alike = cosine**_POWER
    return near, alike / np.maximum(alike.sum(1, keepdims=True), np.float32(1e-12))


def most_alike(
    features: ItemFeatures, items: NDArray[np.int64], among: NDArray[np.int64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each of some items the most like it among others, and their cosines.

    Args:
        features: Content of the V items.
        items: Rows of `features`, shape (N,).
        among: Rows of `features`, shape (M,).
        most: How many to find; fewer if M is smaller.

    Returns:
        Rows of `features`, in no order, and mean cosines, 0 where they are negative; both of shape (N, K).
    """
    most = min(most, len(among))
    near, found = np.zeros((len(items), most), np.int64), np.zeros((len(items), most), np.float32)
    kinds = _kinds(features)
    if not most or not kinds:
        return near, found
    columns = [kind[among].T for kind in kinds]
    for first in range(0, len(items), _ROWS):
        rows = items[first : first + _ROWS]
        cosine = np.zeros((len(rows), len(among)), np.float32)
        for kind, column in zip(kinds, columns, strict=True):
            cosine += _dense(kind[rows] @ column) / len(kinds)
        best = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
        near[first : first + len(rows)] = among[best]
        found[first : first + len(rows)] = np.maximum(np.take_along_axis(cosine, best, 1), 0)
    return near, found


def _kinds(features: ItemFeatures) -> list["sparse.csr_matrix | NDArray[np.float32]"]:
    """Each kind of content as rows of unit length, shape (V, n); an item without it has a row of zeros."""
    kinds = [_by_rarity(bags) for bags in (features.words, features.attributes) if len(bags.values)]
    if features.vectors is not None:
        lengths = np.linalg.norm(features.vectors, axis=1, keepdims=True)
        kinds.append(features.vectors / np.maximum(lengths, 1e-12))
    return kinds


def _by_rarity(bags: Bags) -> "sparse.csr_matrix":
    """Bags as rows of inverse document frequencies, made unit length."""
    items = len(bags.offsets) - 1
    held = sparse.csr_matrix((np.ones(len(bags.values), np.float32), bags.values, bags.offsets))
    held.resize((items, held.shape[1]))
    held.sum_duplicates()
    held.data[:] = 1
    rarity = np.log((1 + items) / (1 + np.asarray(held.sum(0)).ravel())).astype(np.float32)
    weighted = held @ sparse.diags(rarity)
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    return (sparse.diags((1 / np.maximum(lengths, 1e-12)).astype(np.float32)) @ weighted).tocsr()


def _dense(product: Any) -> NDArray[np.float32]:
    return np.asarray(product.toarray() if sparse.issparse(product) else product, np.float32)
