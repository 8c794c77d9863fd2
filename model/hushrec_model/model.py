"""Item table and encoder together, and the scorer that ranks a catalogue with them."""

from collections.abc import Iterator

import numpy as np
import torch
from hushrec.topk import top_k
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hushrec_model.batches import Batch
from hushrec_model.features import ItemFeatures
from hushrec_model.item_table import ItemTable
from hushrec_model.losses import FULL_SOFTMAX_ITEMS, Lesson, full_softmax, sampled_softmax
from hushrec_model.network import Encoder, EncoderShape
from hushrec_model.splits import Queries

__all__ = ["Model", "ModelScorer", "Teacher", "best_items"]

_NEGATIVES = 2048
_SCORES_AT_ONCE = 4_000_000
_POSITIONS_AT_ONCE = 4_000  # of histories; 1,170 of 200 events at once leave the cache and take 4 times as long


class Model(nn.Module):
    """The whole model of one shop.

    Args:
        shape: Sizes of the encoder.
        features: Content of the V items.
        seen: How often training saw each item as a target, shape (V,).
        dropout: Of the input and the branches.
        attention_dropout: Of the attention weights.
        id_dropout: Share of ID rows that one step does without.
    """

    log_q: Tensor
    chance: Tensor

    def __init__(
        self,
        shape: EncoderShape,
        features: ItemFeatures,
        seen: NDArray[np.int64],
        *,
        dropout: float = 0.2,
        attention_dropout: float = 0.1,
        id_dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.items = ItemTable(features, torch.from_numpy(seen > 0), shape.width, id_dropout)
        self.encoder = Encoder(shape, dropout, attention_dropout)
        chance = np.sqrt(seen + 1.0)
        chance /= chance.sum()
        self.register_buffer("chance", torch.from_numpy(chance.astype(np.float32)), persistent=False)
        self.register_buffer("log_q", torch.from_numpy(np.log(chance).astype(np.float32)), persistent=False)

    def loss(
        self, batch: Batch, generator: torch.Generator, dtype: torch.dtype, teacher: "Teacher | None" = None
    ) -> Tensor:
        """Mean cross-entropy of a batch's targets, in nats.

        Args:
            batch: Windows and targets.
            generator: Source of ID dropout and negatives.
            dtype: Type of the products in the softmax.
            teacher: Gives the loss its lesson; None: the targets alone do.
        """
        table = self.items(generator)
        hidden = self.encoder(functional.embedding(batch.items, table), batch.behaviors)
        users = hidden.flatten(0, 1)[batch.positions]
        lesson = None if teacher is None else teacher.lesson(batch)
        if self.items.items <= FULL_SOFTMAX_ITEMS:
            return full_softmax(users, table[1:], batch.targets - 1, dtype, lesson)
        negatives = torch.multinomial(self.chance.cpu(), _NEGATIVES, replacement=True, generator=generator)
        return sampled_softmax(users, table[1:], batch.targets - 1, negatives.to(users.device), self.log_q, lesson)

    @torch.no_grad()
    def table(self) -> Tensor:
        """Item vectors as they are shipped, shape (V + 1, D)."""
        vectors: Tensor = self.items()
        return vectors


class Teacher:
    """A trained model that says what it makes of the histories of others' batches.

    Args:
        model: Of the same items; set to evaluation mode.
    """

    def __init__(self, model: Model) -> None:
        self._encoder, self._table = model.eval().encoder, model.table()

    @torch.no_grad()
    def lesson(self, batch: Batch) -> Lesson:
        """Its user vectors at the positions of a batch that have a target, and its items."""
        hidden = self._encoder(functional.embedding(batch.items, self._table), batch.behaviors)
        return Lesson(hidden.flatten(0, 1)[batch.positions], self._table[1:])


class ModelScorer:
    """Ranks the whole catalogue by the Transformer alone.

    Args:
        model: A trained model; set to evaluation mode.
        filter_seen: Leave out the items of the history.
        table: Item vectors, shape (V + 1, D); the model's own if None.
    """

    def __init__(self, model: Model, *, filter_seen: bool, table: Tensor | None = None) -> None:
        self._model, self._filter_seen = model.eval(), filter_seen
        self._table = model.table() if table is None else table

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """The k best items of some queries.

        Args:
            queries: Histories.
            index: Which of them, shape (B,).
            k: How many items.

        Returns:
            Item indexes, shape (B, k), int32, best first; 0 where there are no more.
        """
        result = np.zeros((len(index), k), np.int32)
        for rows, scores in self.score_blocks(queries, index):
            result[rows] = best_items(scores.cpu().numpy(), k)
        return result

    @torch.no_grad()
    def score_blocks(self, queries: Queries, index: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield (positions in `index`, scores (b, V + 1)), by rising length; padding and filtered items are minus
        infinity. Events outside the catalogue are passed over, and without any other the popular items rank first,
        as on a device."""
        longest = self._model.encoder.shape.max_history
        known = queries.events.item > 0
        known_item, known_behavior = (np.append(a[known], 0) for a in (queries.events.item, queries.events.behavior))
        before = np.append(0, np.cumsum(known))
        stops = before[queries.stop[index]]
        lengths = np.minimum(stops - before[queries.start[index]], longest)
        order = np.argsort(lengths, kind="stable")
        most = max(1, _SCORES_AT_ONCE // len(self._table))
        first = 0
        while first < len(order):
            length = max(1, int(lengths[order[first : first + most][-1]]))
            rows = order[first : first + max(1, min(most, _POSITIONS_AT_ONCE // length))]
            first += len(rows)
            length = max(1, int(lengths[rows[-1]]))
            at = (stops - lengths)[rows][:, None] + np.arange(length)[None, :]
            valid = np.arange(length)[None, :] < lengths[rows][:, None]
            at = np.where(valid, at, 0)
            items = torch.from_numpy(np.where(valid, known_item[at], 0).astype(np.int64))
            behaviors = torch.from_numpy(np.where(valid, known_behavior[at], 0).astype(np.int64))
            items, behaviors = items.to(self._table.device), behaviors.to(self._table.device)
            hidden = self._model.encoder(functional.embedding(items, self._table), behaviors)
            last = torch.from_numpy(np.maximum(lengths[rows] - 1, 0)).to(hidden.device)
            users = hidden[torch.arange(len(rows), device=hidden.device), last]
            scores = users @ self._table.t()
            scores[torch.from_numpy(lengths[rows] == 0), 1:] = self._model.chance  # by popularity, as a device does
            scores[:, 0] = float("-inf")
            if self._filter_seen:
                _forget_seen(scores, queries, index[rows])
            yield rows, scores


def best_items(scores: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """The k best items of each row, in the order in which a device lists them: equal scores by index.

    Args:
        scores: Shape (B, V + 1); minus infinity takes an item out.
        k: How many items.

    Returns:
        Item indexes, shape (B, k), best first; 0 where there are no more.

    >>> best_items(np.array([[-np.inf, 1, 3, 3]], np.float32), 4)
    array([[2, 3, 1, 0]], dtype=int32)
    """
    best = np.zeros((len(scores), k), np.int32)
    for row, scored in zip(best, scores, strict=True):
        found, _ = top_k(scored, k)
        row[: len(found)] = found
    return best


def _forget_seen(scores: Tensor, queries: Queries, index: NDArray[np.int64]) -> None:
    """Set every item of the whole history to minus infinity."""
    counts = queries.stop[index] - queries.start[index]
    row = np.repeat(np.arange(len(index)), counts)
    at = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(queries.start[index], counts)
    scores[torch.from_numpy(row), torch.from_numpy(queries.events.item[at].astype(np.int64))] = float("-inf")
