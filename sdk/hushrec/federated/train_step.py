"""The gradient of one shopper's loss, computed by a bundle's `train_step.onnx` on one thread.

What goes in and comes out is in the graph's own description (docs/bundle-format.md). The session is opened by the rules
of `hushrec.ort`; weights and rows are arguments, so one session serves any number of shoppers and steps.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hushrec_privacy.errors import BundleError
from numpy.typing import NDArray

from hushrec import ort

__all__ = ["Gradients", "Sample", "TrainBatch", "TrainStep", "Vectors"]

Floats = NDArray[np.float32]
Indexes = NDArray[np.int64]


class Sample(NamedTuple):
    """One history, oldest event first: every event but the first is asked for after those before it.

    Attributes:
        items: Item indexes, 1 to V, shape (n,).
        behaviors: Their behaviours, shape (n,); that of the last is not read.
    """

    items: Indexes
    behaviors: Indexes

    def __repr__(self) -> str:
        """Nothing of what the shopper did."""
        return "Sample()"


class TrainBatch(NamedTuple):
    """Histories of like length, padded to the longest.

    Attributes:
        items: Shape (B, L + 1); 0 after the end.
        behaviors: Shape (B, L).
        shares: Weight of the loss of each position, shape (B, L).
    """

    items: Indexes
    behaviors: Indexes
    shares: Floats

    def __repr__(self) -> str:
        """Nothing of what the shopper did."""
        return "TrainBatch()"

    @classmethod
    def of(cls, samples: Sequence[Sample], positions: int) -> "TrainBatch":
        """Pad some histories of a shopper whose histories have `positions` positions to ask at in all."""
        longest = max(len(sample.items) for sample in samples)
        items = np.zeros((len(samples), longest), np.int64)
        behaviors = np.zeros((len(samples), longest - 1), np.int64)
        shares = np.zeros((len(samples), longest - 1), np.float32)
        for row, sample in enumerate(samples):
            length = len(sample.items)
            items[row, :length] = sample.items
            behaviors[row, : length - 1] = sample.behaviors[: length - 1]
            shares[row, : length - 1] = 1 / positions
        return cls(items, behaviors, shares)


class Vectors(NamedTuple):
    """The items of one step.

    Attributes:
        order: Item of each row, candidates first, then the others of the histories, each once, shape (R,).
        rows: Their vectors, shape (R, 64).
        offset: Added to the score of each, shape (R,).
        candidates: M, how many of them are candidates.
        correction: Added to the scores of candidates, which stand for the whole catalogue: log((V − 1) / M).
    """

    order: Indexes
    rows: Floats
    offset: Floats
    candidates: int
    correction: float

    def places(self, items: Indexes) -> Indexes:
        """Row of each item; any for 0."""
        by_item = np.argsort(self.order)
        found = np.searchsorted(self.order, items, sorter=by_item)
        return by_item[np.minimum(found, len(self.order) - 1)]


class Gradients(NamedTuple):
    """What one batch adds to the gradient.

    Attributes:
        loss: Its part of the mean loss, in nats.
        encoder: By the names of `EncoderWeights.arrays`.
        rows: Of the item vectors given, shape (R, 64).
    """

    loss: float
    encoder: dict[str, Floats]
    rows: Floats


class TrainStep:
    """An opened train step.

    Args:
        graph: Path of train_step.onnx.

    Raises:
        BundleError: ONNX Runtime cannot open it.
    """

    def __init__(self, graph: Path) -> None:
        self._session = ort.open_session(graph)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._inputs = {given.name for given in self._session.get_inputs()}

    def gradients(self, encoder: Mapping[str, Floats], vectors: Vectors, batch: TrainBatch) -> Gradients:
        """Differentiate the loss of one batch.

        Args:
            encoder: Weights.
            vectors: Vectors of all items of the batch and of the candidates.
            batch: What is asked.

        Raises:
            BundleError: ONNX Runtime cannot run it.
        """
        places = vectors.places(batch.items)
        candidates = vectors.candidates
        feed = {
            "rows": vectors.rows,
            "slots": places,
            "behaviors": batch.behaviors,
            "shares": batch.shares,
            "target_offset": vectors.offset[places[:, 1:]],
            "candidate_offset": vectors.offset[:candidates] + np.float32(vectors.correction),
            **encoder,
        }
        try:
            found = self._session.run(None, {name: array for name, array in feed.items() if name in self._inputs})
        except Exception as error:
            raise BundleError("the train step of this bundle cannot be run; fetch the bundle again") from error
        outputs = {name.removeprefix("d."): array for name, array in zip(self._outputs, found, strict=True)}
        loss, rows = float(outputs.pop("loss")[0]), outputs.pop("rows")
        return Gradients(loss, outputs, rows)
