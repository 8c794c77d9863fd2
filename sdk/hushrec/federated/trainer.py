"""Local training: from a shopper's histories to the change of the weights that a round asks for.

A few steps of gradient descent, each over all histories, on the mean loss of every next event against candidates that
are drawn from a seed (`local SGD`: McMahan et al. 2017, arXiv:1602.05629, Algorithm 1, ClientUpdate). It runs in
the caller's thread, shares nothing with a `Recommender` and takes none of its locks, so the app answers meanwhile; its
memory grows neither with the histories nor with the steps: it holds the items of one step at a time. The change is as
private as they are: it is for clipping, rounding and masking, and never leaves the device as it is.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.plans.plan import Plan
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.federated.candidates import draw_candidates
from hushrec.federated.content import Content
from hushrec.federated.layout import ITEM_ROWS, PARAMS, ParameterLayout
from hushrec.federated.start import Start
from hushrec.federated.train_step import Gradients, Sample, TrainBatch, TrainStep, Vectors

__all__ = ["LocalTrainer", "TrainSettings"]

_POSITIONS_AT_ONCE = 400  # 8 windows of 50; memory grows with them, speed hardly

Floats = NDArray[np.float32]
Indexes = NDArray[np.int64]
ContentOf = Callable[[Indexes], Content]


@dataclass(frozen=True)
class TrainSettings:
    """How a device trains; the same for all devices of a plan.

    Attributes:
        local_steps: Steps of gradient descent.
        local_rate: Their learning rate.
        candidates: M, items that a step scores against.
        windows: Stretches of Lmax + 1 events that a shopper's histories are cut into, at most; the newest are used.
        limit_s: Seconds after which training gives up.
    """

    local_steps: int = 1
    local_rate: float = 0.1
    candidates: int = 1024
    windows: int = 32
    limit_s: float = 60.0

    def __post_init__(self) -> None:
        checks.at_least(1, local_steps=self.local_steps, candidates=self.candidates, windows=self.windows)
        checks.positive(local_rate=self.local_rate, limit_s=self.limit_s)

    @classmethod
    def of(cls, plan: Plan) -> "TrainSettings":
        """What a plan asks of its devices.

        Raises:
            ConfigError: It is a plan for something else than training.
        """
        return cls(plan.local_steps, float(plan.local_rate), plan.candidates)


class LocalTrainer:
    """Computes updates of one part of a bundle's model; for one thread at a time.

    Args:
        start: What all devices start from.
        layout: What is trained.
        step: The opened train step.
        settings: How.
        content: The items' sums of feature tables; needed if the layout has feature tables.
        max_history: L at most.
        clock: Seconds, rising.
    """

    def __init__(
        self,
        start: Start,
        layout: ParameterLayout,
        step: TrainStep,
        settings: TrainSettings,
        *,
        content: ContentOf,
        max_history: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start, self._layout, self._step, self._settings = start, layout, step, settings
        self._content, self._longest, self._clock = content, max_history + 1, clock

    @classmethod
    def open(
        cls, bundle: Bundle, part: str, settings: TrainSettings, clock: Callable[[], float] = time.monotonic
    ) -> "LocalTrainer":
        """Open the train step of a bundle.

        Raises:
            BundleError: The bundle has none, or ONNX Runtime cannot open it.
            ConfigError: No such part, or it has more than 500,000 parameters.
        """
        layout = ParameterLayout.of(bundle.manifest, part)
        return cls(
            Start.of(bundle),
            layout,
            TrainStep(bundle.path("train_step.onnx")),
            settings,
            content=lambda items: Content(bundle, items),
            max_history=bundle.manifest.model.max_history,
            clock=clock,
        )

    def update(
        self, histories: Sequence[Sample], seed: str, *, stop: Callable[[], bool] = lambda: False
    ) -> Floats | None:
        """Train on one shopper's histories.

        Args:
            histories: Oldest first. Events outside the catalogue (index 0 or above V) are passed over; a history with
                fewer than two others is left out. Private.
            seed: Of the candidates; another one for each device and round, or their noise does not average out.
            stop: Asked before the candidates of a step are drawn and before every batch, some milliseconds apart; once
                it says True, training ends.

        Returns:
            Weights after minus weights before, shape (P,); zeros without any history. Private. None if stopped or out
            of time: then nothing is to be sent.

        Raises:
            ConfigError: Items and behaviours of a history are not equally many, or a behaviour does not exist.
        """
        samples = self._samples(histories)
        if not samples:
            return np.zeros(self._layout.size, np.float32)
        until = self._clock() + self._settings.limit_s
        run = _Run(self._start, self._layout, self._settings, self._content, samples)
        for number in range(self._settings.local_steps):
            if stop() or self._clock() > until:
                return None
            vectors = run.begin(draw_candidates(run.catalogue, self._settings.candidates, f"{seed}/{number}"))
            encoder, total = run.encoder(), run.nothing()
            for batch in _batches(samples):
                if stop() or self._clock() > until:
                    return None
                run.add(total, self._step.gradients(encoder, vectors, batch), vectors)
            run.descend(total)
        return self._layout.flatten(run.change)

    def _samples(self, histories: Sequence[Sample]) -> list[Sample]:
        return list(islice(self._windows(histories), self._settings.windows))

    def _windows(self, histories: Sequence[Sample]) -> Iterator[Sample]:
        """Known events in windows, newest first; one begins with the last event of the one before, so that every
        event but the first is asked for once."""
        for sample in reversed(histories):
            items = np.asarray(sample.items, np.int64)
            known = np.flatnonzero((items > 0) & (items < len(self._start.offset)))
            items, behaviors = items[known], self._checked(sample)[known]
            stop = len(items)
            while stop > 1:
                start = max(0, stop - self._longest)
                yield Sample(items[start:stop], behaviors[start:stop])
                stop = start + 1

    def _checked(self, sample: Sample) -> Indexes:
        behaviors, rows = np.asarray(sample.behaviors, np.int64), self._start.encoder.get("behavior_rows")
        if len(behaviors) != len(sample.items):
            raise ConfigError(f"{len(sample.items)} items but {len(behaviors)} behaviours; every event has one of each")
        if rows is not None and not ((behaviors >= 0) & (behaviors < len(rows))).all():
            raise ConfigError(f"a behaviour index is not among the bundle's {len(rows)} behaviours")
        return behaviors


class _Rows:
    """Some items as all devices have them before training.

    Attributes:
        items: Rising, shape (n,).
        base: Their vectors, shape (n, 64).
        lengths: Of these before they were made unit length, shape (n, 1).
        content: Their sums of feature tables; None: none is trained.
    """

    def __init__(self, start: Start, items: Indexes, content: ContentOf | None) -> None:
        self.items, self.base = items, start.vectors(items)
        self.lengths = start.lengths[items][:, None]
        self.content = None if content is None else content(items)


class _Run:
    """The values of one update while it is made: what they were, and by how much they changed.

    Attributes:
        catalogue: V.
        change: By the names of the layout.
    """

    def __init__(
        self,
        start: Start,
        layout: ParameterLayout,
        settings: TrainSettings,
        content: ContentOf,
        samples: Sequence[Sample],
    ) -> None:
        self._start, self._rate = start, np.float32(settings.local_rate)
        self.catalogue = len(start.offset) - 1
        self._own = np.unique(np.concatenate([sample.items for sample in samples]))
        self.change = {name: np.zeros(shape, np.float32) for name, shape in layout.shapes.items()}
        self._tables = [name for name in self.change if name.startswith("features.")]
        self._content = content if self._tables else None
        self._rows = _Rows(start, self._own, self._content)

    def begin(self, candidates: Indexes) -> Vectors:
        """Take a step's candidates; gives the vectors of its items as they are now."""
        items = np.union1d(self._own, candidates)
        if not np.array_equal(items, self._rows.items):  # the same in every step where a draw is the whole catalogue
            self._rows = _Rows(self._start, items, self._content)
        known = self._rows
        order = np.concatenate([candidates, np.setdiff1d(self._own, candidates, assume_unique=True)])
        at = np.searchsorted(known.items, order)
        rows = known.base[at]
        if ITEM_ROWS in self.change:
            rows = rows + self.change[ITEM_ROWS][order - 1] / known.lengths[at]
        if known.content is not None:
            content = known.content.vectors({name: self.change[name] for name in self._tables})
            rows = rows + content[at] / known.lengths[at]
        correction = float(np.log(max(1.0, (self.catalogue - 1) / len(candidates))))
        return Vectors(order, rows, self._start.offset[order], len(candidates), correction)

    def encoder(self) -> dict[str, Floats]:
        """The encoder's weights as they are now."""
        now = {}
        for name, weight in self._start.encoder.items():
            change = self.change.get(PARAMS + name)
            now[name] = weight if change is None else weight + change
        return now

    def nothing(self) -> dict[str, Floats]:
        """Where a step's gradients are added up; those of its items as a part of `change` is, in rising order."""
        total = {name: np.zeros_like(array) for name, array in self.change.items() if name.startswith(PARAMS)}
        total[ITEM_ROWS] = np.zeros_like(self._rows.base)
        return total

    def add(self, total: dict[str, Floats], found: Gradients, vectors: Vectors) -> None:
        """Add what one batch found."""
        for name in total:
            if name != ITEM_ROWS:
                total[name] += found.encoder[name.removeprefix(PARAMS)]
        total[ITEM_ROWS][np.searchsorted(self._rows.items, vectors.order)] += found.rows

    def descend(self, total: dict[str, Floats]) -> None:
        """Take one step."""
        known = self._rows
        of_items = total.pop(ITEM_ROWS) / known.lengths
        for name, gradient in total.items():
            self.change[name] -= self._rate * gradient
        if ITEM_ROWS in self.change:
            self.change[ITEM_ROWS][known.items - 1] -= self._rate * of_items
        if known.content is not None:
            for name in self._tables:
                self.change[name] -= self._rate * known.content.gradients(name, of_items, len(self.change[name]))


def _batches(samples: Sequence[Sample]) -> Iterator[TrainBatch]:
    positions = sum(len(sample.items) - 1 for sample in samples)
    by_length = sorted(samples, key=lambda sample: len(sample.items))
    at_once = max(1, _POSITIONS_AT_ONCE // (len(by_length[-1].items) - 1))
    for first in range(0, len(by_length), at_once):
        yield TrainBatch.of(by_length[first : first + at_once], positions)
