"""A start for the ID table: the singular vectors of the shifted positive PMI matrix of nearby items.

Levy and Goldberg 2014, "Neural Word Embedding as Implicit Matrix Factorization", equation 11, with context smoothing
as in Levy, Goldberg and Dagan 2015. It reads the log: with a privacy budget it is not used.
"""

import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from hushrec_model.splits import Sequences

__all__ = ["nearby_pairs", "svd_start"]

_WINDOW = 5
_CONTEXT_POWER = 0.75


def nearby_pairs(
    sequences: Sequences, items: int, weights: NDArray[np.float64], *, reverse: float, repeats: bool = False
) -> "sparse.csr_matrix":
    """Count ordered pairs of items that are near each other in a sequence.

    Args:
        sequences: Events; index 0 is skipped.
        items: V, the number of items.
        weights: What a pair at distance 1, 2, ... adds.
        reverse: Share of it that the pair in the other order gets.
        repeats: Count pairs of an item with itself too.

    Returns:
        Sparse float64 matrix, shape (V + 1, V + 1); entry [i, j] for j after i.
    """
    owner = np.repeat(np.arange(len(sequences.offsets) - 1, dtype=np.int32), np.diff(sequences.offsets))
    total = sparse.csr_matrix((items + 1, items + 1), dtype=np.float64)
    for gap, weight in enumerate(weights, start=1):
        earlier, later = sequences.item[:-gap], sequences.item[gap:]
        together = (owner[:-gap] == owner[gap:]) & (earlier > 0) & (later > 0)
        if not repeats:
            together &= earlier != later
        if not together.any():
            continue
        pair = (np.full(int(together.sum()), weight), (earlier[together], later[together]))
        total = total + sparse.csr_matrix(sparse.coo_matrix(pair, shape=total.shape))
    return (total + reverse * total.T).tocsr() if reverse else total


def svd_start(sequences: Sequences, items: int, width: int, generator: torch.Generator, std: float = 0.05) -> Tensor:
    """Start values of the ID table, scaled to a standard deviation of `std`.

    Args:
        sequences: Training events.
        items: V.
        width: D.
        generator: Source of the randomised factorisation.
        std: Standard deviation of the entries that are not zero.

    Returns:
        Shape (V, D), float32; small noise for items without neighbours.
    """
    counts = nearby_pairs(sequences, items, np.ones(_WINDOW), reverse=1.0)[1:, 1:].tocoo()
    rows = np.asarray(counts.sum(1)).ravel()
    context = rows**_CONTEXT_POWER
    pmi = np.log(counts.data * context.sum() / (rows[counts.row] * context[counts.col]))
    keep = pmi > 0
    noise = torch.randn(items, width, generator=generator) * std
    if keep.sum() < width or items <= 2 * width:
        return noise
    matrix = sparse.csr_matrix((pmi[keep], (counts.row[keep], counts.col[keep])), shape=counts.shape)
    left, values = _randomised_svd(matrix, width, generator)
    vectors = left * np.sqrt(values)
    known = np.abs(vectors).sum(1) > 0
    vectors *= std / vectors[known].std()
    start = torch.from_numpy(vectors.astype(np.float32))
    return torch.where(torch.from_numpy(known)[:, None], start, noise * 0.1)


def _randomised_svd(
    matrix: "sparse.csr_matrix", rank: int, generator: torch.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Halko, Martinsson and Tropp 2011, algorithm 4.4 with three power iterations: left vectors and singular values."""
    basis = torch.randn(matrix.shape[1], rank + 16, generator=generator).double().numpy()
    basis, _ = np.linalg.qr(matrix @ basis)
    for _ in range(3):
        basis, _ = np.linalg.qr(matrix.T @ basis)
        basis, _ = np.linalg.qr(matrix @ basis)
    inner, values, _ = np.linalg.svd((matrix.T @ basis).T, full_matrices=False)
    return basis @ inner[:, :rank], values[:rank]
