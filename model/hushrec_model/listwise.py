"""Weights of a sum of features, by the likelihood of what was chosen: the softmax regression behind the blend.

Convex, so there is one answer, and far less noisy than a search on NDCG@10, which jumps when two items change places.
The softmax runs over a part of the catalogue: some items for certain, and a random few that stand for all others
(importance sampling, as in Bengio and Senecal 2008, "Adaptive importance sampling"). Without these few the fit would be
biased: the certain ones have high scores, and what was chosen would seem to be chosen for a low one.

Shapes: Q questions, C items a question, T chosen items, K features.
"""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

__all__ = ["Chosen", "fit_weights", "loss"]

_LEAST = 0.01  # weight of the first feature, in whose units the others are stated afterwards
_RIDGE = 1e-4  # of the squared weights of features scaled to a standard deviation of 1
_ROUNDS = 100

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Chosen:
    """What was asked and what was chosen.

    Attributes:
        share: Logarithm of how many items each one stands for, shape (Q, C): 0 for an item that stands for itself;
            minus infinity for one that is only there because it was chosen, and for filling.
        owner: Question of each chosen item, shape (T,).
        place: Its position among that question's items, shape (T,).
        worth: Weight of each chosen item, shape (T,); those of a question add up to at most 1.
    """

    share: Floats
    owner: NDArray[np.int64]
    place: NDArray[np.int64]
    worth: Floats


def loss(weights: NDArray[np.float64], features: Floats, chosen: Chosen) -> tuple[float, NDArray[np.float64]]:
    """Mean negative log-likelihood of the chosen items in nats, and its gradient.

    Args:
        weights: Shape (K,).
        features: Finite, shape (K, Q, C).
        chosen: See `Chosen`.

    Two items, one feature that only the chosen one has, and weight 0: a likelihood of one half.

    >>> chosen = Chosen(np.zeros((1, 2), np.float32), np.array([0]), np.array([1]), np.ones(1, np.float32))
    >>> value, gradient = loss(np.zeros(1), np.array([[[0, 1]]], np.float32), chosen)
    >>> round(value, 4), gradient.tolist()
    (0.6931, [-0.5])
    """
    questions = len(chosen.share)
    scores = np.tensordot(weights.astype(np.float32), features, 1)
    wanted = scores[chosen.owner, chosen.place]
    scores += chosen.share
    top = np.full(questions, -np.inf, np.float32)
    np.maximum.at(top, chosen.owner, wanted)
    top = np.maximum(top, scores.max(1))
    top[~np.isfinite(top)] = 0
    np.exp(scores - top[:, None], out=scores)
    total = scores.sum(1)
    own = np.where(np.isneginf(chosen.share[chosen.owner, chosen.place]), np.exp(wanted - top[chosen.owner]), 0)
    total = total[chosen.owner] + own  # one that was not drawn stands for itself
    likelihood = wanted - top[chosen.owner] - np.log(total)
    pull = chosen.worth / total
    scores *= np.bincount(chosen.owner, pull, questions).astype(np.float32)[:, None]
    at = features[:, chosen.owner, chosen.place]
    gradient = features.reshape(len(features), -1) @ scores.ravel() - at @ (chosen.worth - pull * own)
    count = max(1, questions)
    return -float((likelihood * chosen.worth).sum()) / count, gradient.astype(np.float64) / count


def fit_weights(
    features: Floats, chosen: Chosen, start: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], float]:
    """The weights, none below 0 and the first not below .01, under which what was chosen is most likely.

    Args:
        features: Finite, shape (K, Q, C).
        chosen: See `Chosen`.
        start: Where to begin, shape (K,); None: 1 for the first and 0 for the others.

    Returns:
        The weights, shape (K,), and the loss in nats.
    """
    real = ~np.isneginf(chosen.share)
    spread = np.array([max(float(feature[real].std()), 1e-6) for feature in features])
    begin = np.eye(len(features))[0] if start is None else start

    def penalised(scaled: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = loss(scaled / spread, features, chosen)
        return value + _RIDGE / 2 * float(scaled @ scaled), gradient / spread + _RIDGE * scaled

    found = scipy.optimize.minimize(
        penalised,
        begin * spread,
        jac=True,
        method="L-BFGS-B",
        bounds=[(_LEAST * float(spread[0]), None)] + [(0, None)] * (len(features) - 1),
        options={"maxiter": _ROUNDS},
    )
    weights = np.asarray(found.x / spread)
    return weights, loss(weights, features, chosen)[0]
