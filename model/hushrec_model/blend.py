"""The blend of Transformer and counts: its weights, fitted on validation, and the scorer that uses it.

Softmax regression on up to 8,000 queries (`listwise`), then parts that explain next to nothing leave, then a few
large steps by NDCG@10, as far as the gain is clear. For each query only candidates are scored: the best of the
Transformer and of each count source, and a random few that stand for all others. An item that is among none of the best
does not reach a top ten.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from hushrec.counts import Blend
from hushrec.manifest import BlendPart
from numpy.typing import NDArray

from hushrec_model.listwise import Chosen, fit_weights, loss
from hushrec_model.model import Model, ModelScorer, best_items
from hushrec_model.progress import Progress, silent
from hushrec_model.splits import Queries

__all__ = ["BlendScorer", "fit_blend"]

_QUERIES = 8_000
_FROM_MODEL, _FROM_SOURCE, _OTHERS = 100, 50, 100
_BENDS = (0.01, 0.3, 3.0)  # of the median of a part's counts: where its logarithm may bend
_VARIANTS = (
    BlendPart("transitions", 1.0, 1.0, 0.6, 10),
    BlendPart("transitions", 1.0, 1.0, 0.3, 5),
    BlendPart("transitions", 1.0, 1.0, 0.8, 20),
    BlendPart("successors", 1.0, 1.0, 0.6, 10),
    BlendPart("successors", 1.0, 1.0, 0.1, 3),
    BlendPart("item_knn", 1.0, 1.0, 0.95, 50),
    BlendPart("item_knn", 1.0, 1.0, 1.0, 50),
    BlendPart("own", 1.0, 1.0, 0.7, 0),
    BlendPart("own", 1.0, 1.0, 0.5, 0),
    BlendPart("own", 1.0, 1.0, 0.9, 0),
    BlendPart("own", 1.0, 1.0, 1.0, 0),
    BlendPart("popularity", 1.0, 1.0, 1.0, 0),
)
"""How each source may count; the first of each finds candidates. A window ends where events hardly count any more."""
_FACTORS, _OWN_WEIGHTS, _MOVES = (0.0, 0.5, 0.7, 1.4, 2.0), (1.0, 4.0), 12  # of the steps by NDCG@10
_GAIN = 1.005  # what such a step must multiply NDCG@10 by: smaller ones are the noise of the queries
_WORTH = 0.002  # a part that lowers the loss by less than this, in nats a query, is left out


class BlendScorer:
    """Ranks by Transformer and counts together, in float32 with torch.

    Args:
        scorer: The Transformer.
        blend: The counts.
        filter_seen: Leave out the items of the history.
    """

    def __init__(self, scorer: ModelScorer, blend: Blend, *, filter_seen: bool) -> None:
        self._scorer, self._blend, self._filter_seen = scorer, blend, filter_seen

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """The k best items of some queries, shape (B, k), int32, best first; 0 where there are no more."""
        result = np.zeros((len(index), k), np.int32)
        for rows, block in self._scorer.score_blocks(queries, index):
            scores = block.cpu().numpy()
            for scored, query in zip(scores, index[rows], strict=True):
                history = _known(queries, query)
                self._blend.add_to(scored, history)
                scored[0] = -np.inf
                if self._filter_seen:
                    scored[history] = -np.inf
            result[rows] = best_items(scores, k)
        return result


@dataclass(frozen=True)
class _Candidates:
    """Scores of Q queries with C candidates each.

    Attributes:
        model: The Transformer's scores, shape (Q, C); minus infinity fills.
        counts: Counts x of every variant of a part, each of shape (Q, C).
        chosen: The T targets among the candidates.
        ideal: Best possible DCG of each query, shape (Q,).
    """

    model: NDArray[np.float32]
    counts: list[tuple[BlendPart, NDArray[np.float32]]]
    chosen: Chosen
    ideal: NDArray[np.float64]

    def features(self) -> tuple[list[BlendPart], NDArray[np.float32]]:
        """Every part that may enter, with weight 1, and what it would add, shape (1 + parts, Q, C); first the
        Transformer's scores."""
        filled = np.where(np.isfinite(self.model), self.model, 0)
        parts, found = [], [filled]
        for variant, counts in self.counts:
            positive = counts[counts > 0]
            for epsilon in float(np.median(positive)) * np.array(_BENDS) if len(positive) else ():
                parts.append(msgspec.structs.replace(variant, epsilon=float(epsilon)))
                found.append(np.log1p(counts * np.float32(1 / epsilon)))
        return parts, np.stack(found)

    def ndcg(self, scores: NDArray[np.float32]) -> float:
        """NDCG@10 of given scores, shape (Q, C)."""
        owner = self.chosen.owner
        wanted = scores[owner, self.chosen.place]
        rank = (scores[owner] > wanted[:, None]).sum(1)
        gain = np.where((rank < 10) & np.isfinite(wanted), 1 / np.log2(rank + 2.0), 0.0)
        return float((np.bincount(owner, gain, len(self.ideal)) / self.ideal).mean())


def fit_blend(
    model: Model,
    valid: Queries,
    arrays: Mapping[str, NDArray[np.generic]],
    *,
    filter_seen: bool,
    progress: Progress = silent,
) -> tuple[list[BlendPart], dict[str, float]]:
    """Choose the parts of the blend and their weights.

    Args:
        model: The trained Transformer.
        valid: Validation queries; test queries have no business here.
        arrays: Count tables of the training part.
        filter_seen: Whether the ranking leaves out seen items; own counts are useless then.
        progress: Told now and then.

    Returns:
        The parts kept, and the validation NDCG@10 of "model" alone and of the "blend".
    """
    variants = [part for part in _VARIANTS if not (filter_seen and part.name == "own")]
    progress("blend", 0, 2)
    found = _candidates(ModelScorer(model, filter_seen=filter_seen), valid, arrays, variants)
    progress("blend", 1, 2)
    alone = found.ndcg(found.model)
    parts, scores = _fitted(found)
    best = found.ndcg(scores)
    if best <= alone:  # too few queries to learn anything from
        parts, best = [], alone
    progress("blend", 2, 2, f"validation NDCG@10 {alone:.4f} alone, {best:.4f} blended")
    return parts, {"model": alone, "blend": best}


def _fitted(found: _Candidates) -> tuple[list[BlendPart], NDArray[np.float32]]:
    """The parts that the likelihood wants, in units of the Transformer's scores, moved to where NDCG@10 gains clearly;
    and the scores with them."""
    parts, features = found.features()
    weights = _likely(features, found.chosen)
    weights /= weights[0]
    own = [at for at, part in enumerate(parts, start=1) if part.name == "own"]
    scores = np.where(np.isfinite(found.model), np.tensordot(weights.astype(np.float32), features, 1), -np.inf)
    scores = _moved(found, features, weights, own, scores.astype(np.float32))
    pairs = zip(parts, weights[1:].tolist(), strict=True)
    return [msgspec.structs.replace(part, weight=weight) for part, weight in pairs if weight > 0], scores


def _likely(features: NDArray[np.float32], chosen: Chosen) -> NDArray[np.float64]:
    """Weights of all features by likelihood, 0 for those that explain next to nothing; features are (K, Q, C)."""
    weights, value = fit_weights(features, chosen)
    kept = np.flatnonzero(weights > 0)
    few, weights = features[kept], weights[kept]
    while len(weights) > 1:
        without = [loss(fewer, few, chosen)[0] for fewer in weights * (1 - np.eye(len(weights)))]
        least = 1 + int(np.argmin(without[1:]))
        fewer, after = fit_weights(np.delete(few, least, 0), chosen, np.delete(weights, least))
        if after > value + _WORTH:
            break
        few, weights, kept, value = np.delete(few, least, 0), fewer, np.delete(kept, least), after
    result = np.zeros(len(features))
    result[kept] = weights
    return result


def _moved(
    found: _Candidates,
    features: NDArray[np.float32],
    weights: NDArray[np.float64],
    own: list[int],
    scores: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Change one weight at a time, in place, as long as NDCG@10 gains clearly; gives the scores.

    Likelihood and ranking part where shoppers return to some of what they had: to put it all first costs the other
    answers a few places, but much of their likelihood. So the shopper's own counts may enter here.
    """
    best = found.ndcg(scores)
    for _ in range(_MOVES):
        moves = [(at, weights[at] * factor) for at in np.flatnonzero(weights)[1:] for factor in _FACTORS]
        moves += [(at, weight) for at in own if not weights[at] for weight in _OWN_WEIGHTS]
        trials = [found.ndcg(scores + np.float32(weight - weights[at]) * features[at]) for at, weight in moves]
        if not trials or max(trials) <= best * _GAIN:
            break
        at, weight = moves[int(np.argmax(trials))]
        scores, best = scores + np.float32(weight - weights[at]) * features[at], max(trials)
        weights[at] = weight
    return scores


def _candidates(
    scorer: ModelScorer,
    valid: Queries,
    arrays: Mapping[str, NDArray[np.generic]],
    variants: list[BlendPart],
) -> _Candidates:
    """Score the candidates of up to `_QUERIES` evenly spaced validation queries by every variant of every source."""
    chosen = np.unique(np.linspace(0, len(valid.start) - 1, min(_QUERIES, len(valid.start))).astype(np.int64))
    counting = Blend(variants, arrays)
    finders = [at for at, part in enumerate(variants) if part.name not in {other.name for other in variants[:at]}]
    popular = np.argsort(-np.asarray(arrays["popularity"]), kind="stable")[:_FROM_SOURCE]
    rng = np.random.default_rng(0)
    rows: list[_Row] = [None] * len(chosen)  # type: ignore[list-item]
    for block, scores in scorer.score_blocks(valid, chosen):
        best = torch.topk(scores, min(_FROM_MODEL, scores.shape[1]), dim=1).indices.numpy()
        for at, (scored, near) in zip(block, zip(scores.numpy(), best, strict=True), strict=True):
            history = _known(valid, chosen[at])
            pool = [near, popular, *(_strongest(at, counting, history) for at in finders)]
            items, share = _pooled(np.concatenate(pool), _targets(valid, chosen[at]), scored, rng)
            counts = [counting.values(source, history, items) for source in range(len(variants))]
            rows[at] = _Row(items, share, scored[items], counts)
    return _stacked(rows, [_targets(valid, query) for query in chosen], variants)


@dataclass(frozen=True)
class _Row:
    """Candidates of one query: items, what each stands for, the Transformer's scores, counts of every variant."""

    items: NDArray[np.int64]
    share: NDArray[np.float32]
    model: NDArray[np.float32]
    counts: list[NDArray[np.float32]]


def _pooled(
    pool: NDArray[np.int64], wanted: NDArray[np.int32], scored: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Candidates of one query and the logarithm of how many items each stands for: the pool, some of the others at
    random, and targets that are not in the pool."""
    allowed = np.isfinite(scored)
    allowed[0] = False
    items = np.unique(pool).astype(np.int64)
    items = items[allowed[items]]
    allowed[items] = False
    asked = wanted[allowed[wanted]].astype(np.int64)
    allowed[asked] = False
    others = np.flatnonzero(allowed)
    drawn = others if len(others) <= _OTHERS else np.unique(rng.choice(others, _OTHERS))
    share = np.zeros(len(items) + len(drawn) + len(asked), np.float32)
    share[len(items) : len(items) + len(drawn)] = np.log(len(others) / max(len(drawn), 1) or 1)
    share[len(items) + len(drawn) :] = -np.inf
    return np.concatenate([items, drawn, asked]), share


def _stacked(rows: list[_Row], targets: list[NDArray[np.int32]], variants: list[BlendPart]) -> _Candidates:
    """Rows of different lengths as arrays, and where the targets are in them."""
    width = max(len(row.items) for row in rows)
    model, share = np.full((2, len(rows), width), -np.inf, np.float32)
    stacked = np.zeros((len(variants), len(rows), width), np.float32)
    place, ideal = [], np.zeros(len(rows))
    for at, (row, wanted) in enumerate(zip(rows, targets, strict=True)):
        model[at, : len(row.items)], share[at, : len(row.items)] = row.model, row.share
        stacked[:, at, : len(row.items)] = row.counts
        ideal[at] = (1 / np.log2(np.arange(min(len(wanted), 10)) + 2.0)).sum()
        place.append(np.flatnonzero(np.isin(row.items, wanted)))
    owner = np.repeat(np.arange(len(rows)), [len(found) for found in place])
    worth = (1 / np.array([max(len(wanted), 1) for wanted in targets])).astype(np.float32)[owner]
    return _Candidates(
        model, list(zip(variants, stacked, strict=True)), Chosen(share, owner, np.concatenate(place), worth), ideal
    )


def _strongest(source: int, blend: Blend, history: NDArray[np.int64]) -> NDArray[np.int64]:
    """The items that one source counts most for a history."""
    counts = blend.touched(source, history)
    if len(counts[0]) <= _FROM_SOURCE:
        return counts[0]
    return counts[0][np.argpartition(-counts[1], _FROM_SOURCE)[:_FROM_SOURCE]]


def _known(queries: Queries, query: np.int64) -> NDArray[np.int64]:
    """History of one query without items outside the catalogue, oldest first, int64."""
    history = queries.events.item[queries.start[query] : queries.stop[query]].astype(np.int64)
    return history[history > 0]


def _targets(queries: Queries, query: np.int64) -> NDArray[np.int32]:
    return queries.target[queries.target_offsets[query] : queries.target_offsets[query + 1]]
