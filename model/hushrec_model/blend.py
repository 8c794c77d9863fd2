"""The blend of Transformer and counts: its weights, fitted on validation, and the scorer that uses it.

Coordinate search on validation NDCG@10 over up to 8,000 queries. For each query only candidates are scored: the best
of the Transformer and of each count source. An item that is among none of them does not reach a top ten.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from hushrec.counts import Blend
from hushrec.manifest import BlendPart
from numpy.typing import NDArray

from hushrec_model.model import Model, ModelScorer, best_items
from hushrec_model.progress import Progress, silent
from hushrec_model.splits import Queries

__all__ = ["BlendScorer", "fit_blend"]

_QUERIES = 8_000
_FROM_MODEL, _FROM_SOURCE = 100, 50
_WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
_EPSILONS = (0.003, 0.03, 0.1, 0.3, 1.0)
_STARTS: tuple[tuple[BlendPart, tuple[float, ...]], ...] = (
    (BlendPart("transitions", 0.6, 0.01, 0.6, 20), (0.3, 0.6, 0.8)),
    (BlendPart("item_knn", 0.6, 0.01, 0.95, 50), (0.8, 0.95, 1.0)),
    (BlendPart("own", 1.0, 0.1, 0.7, 0), (0.5, 0.7, 0.9, 1.0)),
    (BlendPart("popularity", 0.0, 1.0, 1.0, 0), (1.0,)),
)
_GAIN = 1.0005  # a change must multiply NDCG@10 by this: smaller ones are the noise of the sample
_SWEEPS = 2
_FACTORS, _ROUNDS = (0.7, 1.4), 8  # of the last adjustment of weights
_WORTH = 0.002  # a part that adds less than this share of NDCG@10 is left out


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
        counts: Counts x by part name and decay, each of shape (Q, C).
        target: Position of each target among its query's candidates, shape (T,).
        owner: Its query, shape (T,).
        ideal: Best possible DCG of each query, shape (Q,).
    """

    model: NDArray[np.float32]
    counts: dict[tuple[str, float], NDArray[np.float32]]
    target: NDArray[np.int64]
    owner: NDArray[np.int64]
    ideal: NDArray[np.float64]

    def scores(self, parts: list[BlendPart]) -> NDArray[np.float32]:
        """Blended scores, shape (Q, C)."""
        scores = self.model.copy()
        for part in parts:
            if part.weight:
                counts = self.counts[part.name, part.decay]
                scores += np.float32(part.weight) * np.log1p(counts / np.float32(part.epsilon))
        return scores

    def ndcg(self, parts: list[BlendPart]) -> float:
        """NDCG@10 with some parts."""
        return self.ndcg_of(self.scores(parts))

    def ndcg_of(self, scores: NDArray[np.float32]) -> float:
        """NDCG@10 of given scores, shape (Q, C)."""
        wanted = scores[self.owner, self.target]
        rank = (scores[self.owner] > wanted[:, None]).sum(1)
        gain = np.where((rank < 10) & np.isfinite(wanted), 1 / np.log2(rank + 2.0), 0.0)
        return float((np.bincount(self.owner, gain, len(self.ideal)) / self.ideal).mean())


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
    starts = [(part, decays) for part, decays in _STARTS if not (filter_seen and part.name == "own")]
    found = _candidates(ModelScorer(model, filter_seen=filter_seen), valid, arrays, starts)
    parts = [part for part, _ in starts]
    best = found.ndcg(parts)
    alone = found.ndcg([])
    for sweep in range(_SWEEPS):
        for at, (_, decays) in enumerate(starts):
            progress("blend", sweep * len(starts) + at, _SWEEPS * len(starts))
            others = [*parts[:at], *parts[at + 1 :]]
            base = found.scores(others)
            for decay in decays:
                trial, score = _best_weight(found, base, msgspec.structs.replace(parts[at], decay=decay))
                if score > best * _GAIN:
                    parts, best = [*parts[:at], trial, *parts[at + 1 :]], score
    parts, best = _scaled(found, parts, best)
    for part in sorted(parts, key=lambda part: part.weight):
        fewer = [other for other in parts if other is not part]
        if (score := found.ndcg(fewer)) >= best * (1 - _WORTH):
            parts, best = fewer, score
    progress("blend", 1, 1, f"validation NDCG@10 {alone:.4f} alone, {best:.4f} blended")
    return parts, {"model": alone, "blend": best}


def _scaled(found: _Candidates, parts: list[BlendPart], best: float) -> tuple[list[BlendPart], float]:
    """Scale all weights together, or one, as long as it helps: the weight of counts against the Transformer."""
    for _ in range(_ROUNDS):
        trials = [
            [
                msgspec.structs.replace(part, weight=part.weight * (factor if at in (i, None) else 1))
                for i, part in enumerate(parts)
            ]
            for at in (None, *range(len(parts)))
            for factor in _FACTORS
        ]
        score, parts_then = max(((found.ndcg(trial), trial) for trial in trials), key=lambda pair: pair[0])
        if score <= best * _GAIN:
            break
        parts, best = parts_then, score
    return parts, best


def _best_weight(found: _Candidates, base: NDArray[np.float32], part: BlendPart) -> tuple[BlendPart, float]:
    """The best weight and epsilon of one part over all others; one logarithm an epsilon serves every weight."""
    best, score = part, -1.0
    for epsilon in _EPSILONS:
        gain = np.log1p(found.counts[part.name, part.decay] / np.float32(epsilon))
        for weight in _WEIGHTS:
            trial = found.ndcg_of(base + np.float32(weight) * gain)
            if trial > score:
                best, score = msgspec.structs.replace(part, weight=weight, epsilon=epsilon), trial
    return best, score


def _candidates(
    scorer: ModelScorer,
    valid: Queries,
    arrays: Mapping[str, NDArray[np.generic]],
    starts: list[tuple[BlendPart, tuple[float, ...]]],
) -> _Candidates:
    """Score the candidates of up to `_QUERIES` evenly spaced validation queries by every source at every decay."""
    chosen = np.unique(np.linspace(0, len(valid.start) - 1, min(_QUERIES, len(valid.start))).astype(np.int64))
    starting = Blend([part for part, _ in starts], arrays)
    variants = [msgspec.structs.replace(part, decay=decay) for part, decays in starts for decay in decays]
    counting = Blend(variants, arrays)
    popular = np.argsort(-np.asarray(arrays["popularity"]), kind="stable")[:_FROM_SOURCE]
    rows: list[tuple[NDArray[np.float32], list[NDArray[np.float32]], NDArray[np.int64]]] = [None] * len(chosen)  # type: ignore[list-item]
    for block, scores in scorer.score_blocks(valid, chosen):
        best = torch.topk(scores, min(_FROM_MODEL, scores.shape[1]), dim=1).indices.numpy()
        for at, (scored, near) in zip(block, zip(scores.numpy(), best, strict=True), strict=True):
            history = _known(valid, chosen[at])
            wanted = _targets(valid, chosen[at])
            pool = [near, popular, wanted[wanted > 0], *(_strongest(s, starting, history) for s in range(len(starts)))]
            items = np.unique(np.concatenate(pool)).astype(np.int64)
            items = items[(items > 0) & np.isfinite(scored[items])]
            counts = [counting.values(source, history, items) for source in range(len(variants))]
            rows[at] = (scored[items], counts, items)
    width = max(len(items) for _, _, items in rows)
    model = np.full((len(rows), width), -np.inf, np.float32)
    stacked = np.zeros((len(variants), len(rows), width), np.float32)
    target, owner, ideal = [], [], np.zeros(len(rows))
    for at, (scored, counts, items) in enumerate(rows):
        model[at, : len(items)] = scored
        stacked[:, at, : len(items)] = counts
        wanted = _targets(valid, chosen[at])
        ideal[at] = (1 / np.log2(np.arange(min(len(wanted), 10)) + 2.0)).sum()
        place = np.flatnonzero(np.isin(items, wanted))
        target.append(place)
        owner.append(np.full(len(place), at))
    names = [(part.name, part.decay) for part in variants]
    return _Candidates(
        model, dict(zip(names, stacked, strict=True)), np.concatenate(target), np.concatenate(owner), ideal
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
