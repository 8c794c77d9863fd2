"""Items that training never saw, in the blend: what they share with the history, and a bonus.

They have no counts, and their vectors are guesses from content. In place of counts the part `similar` adds what each
event says by content: a table leads from every trained item to the unseen ones most like it. Where unseen items are few
it is left out: every call would pay for places in few lists. As a whole all that ranks too low or too high; so the part
`unseen` adds one bonus, or malus, to all of them: the largest with which they get at most the share of places that they
have of the catalogue, and with which validation NDCG@10 on the other items falls by at most 1 %. No event on an unseen
item is needed to choose it.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sparse
from hushrec.counts import Blend
from hushrec.manifest import BlendPart
from numpy.typing import NDArray

from hushrec_model.counting import Table, strongest
from hushrec_model.features import ItemFeatures
from hushrec_model.model import Model, ModelScorer
from hushrec_model.sequences import Queries
from hushrec_model.similar_items import most_alike

__all__ = ["fit_unseen", "unseen_tables"]

_QUERIES = 4_000
_PLACES = 10
_LOSS = 0.01  # of validation NDCG@10 on items that training saw
_MOST, _ROUNDS = 64.0, 16  # bounds of a bonus, and halvings of what lies between them
_SIMILAR = BlendPart("similar", 2.0, 1.0, 0.95, 50)  # not fitted: validation has no event on what is unseen
_NEAR = 4  # unseen items that a trained one leads to
_FEW = 0.01  # of the catalogue: below this `similar` is left out
_ONE = 1 / (math.e - 1)  # the epsilon with which log1p(1 / epsilon) is 1


def unseen_tables(model: Model, features: ItemFeatures) -> Table:
    """The arrays by which a blend knows unseen items.

    Args:
        model: Knows which items training never saw.
        features: Content of its V items.

    Returns:
        `unseen`: 1 for each item that training never saw though something is known of it, else 0, shape (V + 1,). If
        there is one, also `similar.*`: the unseen items most like each trained one, by the cosine of their content.
    """
    trained = model.items.trained.numpy()
    unseen = np.append(False, ~trained & (model.table()[1:].norm(dim=1) > 0).numpy())
    tables: Table = {"unseen": unseen.astype(np.float32)}
    if unseen.any():
        seen = np.flatnonzero(trained)
        near, cosine = most_alike(features, seen, np.flatnonzero(unseen) - 1, _NEAR)
        places = (1 + np.repeat(seen, near.shape[1]), 1 + near.ravel())
        pairs = sparse.coo_matrix((cosine.ravel(), places), shape=(len(unseen), len(unseen))).tocsr()
        tables |= {f"similar.{field}": array for field, array in strongest(pairs, near.shape[1]).items()}
    return tables


def fit_unseen(
    model: Model,
    parts: Sequence[BlendPart],
    arrays: Mapping[str, NDArray[np.generic]],
    valid: Queries,
    *,
    filter_seen: bool,
) -> tuple[list[BlendPart], str]:
    """Add the parts `similar`, unless unseen items are few, and `unseen` to a fitted blend.

    Args:
        model: The trained Transformer.
        parts: The other parts of the blend.
        arrays: Count tables of the training part, and those of `unseen_tables`.
        valid: Validation queries; test queries have no business here.
        filter_seen: Whether the ranking leaves out seen items.

    Returns:
        The parts, unchanged if there is no such item or nothing to judge by, and a sentence that says what was chosen.
    """
    unseen = np.asarray(arrays["unseen"]) > 0
    count, items = int(unseen.sum()), len(unseen) - 1
    if not count:
        return list(parts), "unseen items: none of which anything is known"
    alike = [*parts, *([_SIMILAR] if count >= _FEW * items else [])]
    found = _Lists(model, Blend(alike, arrays), valid, unseen, filter_seen)
    before = found.ndcg(-np.inf)
    if not before > 0:
        return list(parts), "unseen items: no bonus, since validation has nothing to judge it by"
    low, high = -_MOST, _MOST
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        fits = found.share(middle) <= count / items and found.ndcg(middle) >= (1 - _LOSS) * before
        low, high = (middle, high) if fits else (low, middle)
    lost, share = 1 - found.ndcg(low) / before, found.share(low)
    return [*alike, BlendPart("unseen", low, _ONE)], (
        f"unseen items: a bonus of {low:+.2f} for {count:,} of {items:,} items; it gives them {share:.1%} of the "
        f"places in lists of {_PLACES} and costs the others {lost:.1%} of validation NDCG@{_PLACES}"
    )


class _Lists:
    """The best seen and the best unseen items of some queries, so that a bonus only has to merge them."""

    def __init__(
        self, model: Model, blend: Blend, valid: Queries, unseen: NDArray[np.bool_], filter_seen: bool
    ) -> None:
        asked = np.unique(np.linspace(0, len(valid) - 1, min(_QUERIES, len(valid))).astype(np.int64))
        self.seen, self.unseen = np.full((2, len(asked), _PLACES), -np.inf, np.float32)
        rank, score, owner = [], [], []
        for rows, block in ModelScorer(model, filter_seen=filter_seen).score_blocks(valid, asked):
            for row, scored in zip(rows.tolist(), block.cpu().numpy(), strict=True):
                history = valid.history(int(asked[row])).astype(np.int64)
                blend.add_to(scored, history[history > 0])
                scored[0] = -np.inf
                if filter_seen:
                    scored[history] = -np.inf
                others = np.where(unseen, -np.inf, scored)
                self.unseen[row] = _best(np.where(unseen, scored, -np.inf))
                self.seen[row] = _best(others)
                for target in valid.targets(int(asked[row])):
                    if target > 0 and not unseen[target]:
                        rank.append(int((others > others[target]).sum()))
                        score.append(scored[target])
                        owner.append(row)
        self._rank, self._score = np.array(rank, np.int64), np.array(score, np.float32)
        self._owner = np.array(owner, np.int64)
        wanted = np.bincount(self._owner, minlength=len(asked))
        best = np.append(0, np.cumsum(1 / np.log2(np.arange(_PLACES) + 2.0)))
        self._ideal = best[np.minimum(wanted, _PLACES)]

    def ndcg(self, bonus: float) -> float:
        """NDCG@10 on seen items when unseen ones get a bonus; 0 if no query has such a target."""
        rank = self._rank + (self.unseen[self._owner] + bonus > self._score[:, None]).sum(1)
        gain = np.where((rank < _PLACES) & np.isfinite(self._score), 1 / np.log2(rank + 2.0), 0.0)
        asked = self._ideal > 0
        total = np.bincount(self._owner, gain, len(self._ideal))[asked]
        return float((total / self._ideal[asked]).mean()) if asked.any() else 0.0

    def share(self, bonus: float) -> float:
        """Share of the first ten places that unseen items have with a bonus."""
        raised = self.unseen + bonus
        both = np.sort(np.concatenate([self.seen, raised], axis=1))[:, -_PLACES:]
        shown = np.isfinite(raised) & (raised >= both[:, :1])
        return float(shown.sum() / max(1, np.isfinite(both).sum()))


def _best(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The highest scores, shape (10,), filled up with minus infinity."""
    best = np.partition(scores, -_PLACES)[-_PLACES:] if len(scores) > _PLACES else scores
    return np.pad(best, (0, _PLACES - len(best)), constant_values=-np.inf)
