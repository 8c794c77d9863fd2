"""Training of one model: epochs, early stopping on validation NDCG@10, and checkpoints that resume to the same result.

Central training without a privacy budget. `--seed` repeats a run on the same machine with the same number of threads;
a run that was killed goes on from its last finished epoch with the same random state, so it ends where it would have
ended.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hushrec_model.batches import Windows
from hushrec_model.checkpoint import fingerprint, load_state, save_state
from hushrec_model.evaluate import evaluate
from hushrec_model.features import ItemFeatures
from hushrec_model.losses import product_dtype
from hushrec_model.model import Model, ModelScorer, Teacher
from hushrec_model.progress import Progress, silent
from hushrec_model.settings import Settings
from hushrec_model.splits import Queries, Split
from hushrec_model.svd import svd_start

__all__ = ["Trained", "build_model", "train_model", "validation_sample"]

_WARM_UP = 0.05
_WEIGHT_DECAY = 0.01
_BETAS = (0.9, 0.98)
_CLIP = 1.0
_VALIDATION_QUERIES = 20_000
_VALIDATING = 0.5  # epochs that validating takes at most, as far as a time limit is concerned
_PROBE = 20  # steps after which the length of the first epoch is guessed, by the second half of them


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        model: Weights of the best epoch, in evaluation mode.
        history: One entry an epoch: loss in nats, validation NDCG@10, seconds.
        best_epoch: The epoch kept, counted from 1.
        seconds: Time spent, resumed parts included.
    """

    model: Model
    history: list[dict[str, float]]
    best_epoch: int
    seconds: float


@dataclass
class _State:
    """What a checkpoint holds beside weights."""

    epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    best: float = -1.0
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def build_model(
    split: Split,
    features: ItemFeatures,
    settings: Settings,
    *,
    seen: NDArray[np.float32] | None = None,
) -> Model:
    """An untrained model for a split; initial weights come from torch's global generator.

    Args:
        split: Decides the catalogue and which items training sees.
        features: Content of its V items.
        settings: Sizes and dropout.
        seen: How often each item is taken to have been trained, shape (V,); None: counted in the training part.
    """
    counted = np.bincount(split.train.item, minlength=len(split.items) + 1) if seen is None else np.append(0, seen)
    return Model(
        settings.shape,
        features,
        counted[1 : len(split.items) + 1].astype(np.int64),
        dropout=settings.dropout,
        attention_dropout=settings.attention_dropout,
        id_dropout=settings.id_dropout,
    )


def validation_sample(queries: Queries, most: int = _VALIDATION_QUERIES) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Evenly spaced validation queries, at most `most`; the same ones at every call."""
    count = len(queries.start)
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).astype(np.int64)


def train_model(
    split: Split,
    features: ItemFeatures,
    settings: Settings,
    *,
    start: Model | None = None,
    teacher: Model | None = None,
    checkpoint: Path | None = None,
    max_minutes: float | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> Trained:
    """Train until the last epoch, until validation stops improving, or until the time is up.

    Args:
        split: Training and validation data.
        features: Content of the split's items.
        settings: How to train.
        start: A model to go on from, changed in place; None builds one and starts its ID table from co-occurrence.
        teacher: A trained model of the same items, whose softmax over the catalogue takes the place of a share of each
            target; of any size, left as it is.
        checkpoint: File written after every epoch and read at the start if it exists.
        max_minutes: Shortens the schedule so that it fits, to a part of one epoch if need be but not below 20 steps.
            The learning rate falls to 0 all the same, unless validating takes longer than half an epoch.
        device: A torch device.
        progress: Told after every batch.

    Returns:
        The model of the best epoch.

    Raises:
        CheckpointError: `checkpoint` belongs to other data, settings, or another teacher.
    """
    return _Run(split, features, settings, start, teacher, checkpoint, max_minutes, device, progress).run()


class _Run:
    def __init__(
        self,
        split: Split,
        features: ItemFeatures,
        settings: Settings,
        start: Model | None,
        teacher: Model | None,
        checkpoint: Path | None,
        max_minutes: float | None,
        device: str,
        progress: Progress,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.split, self.settings, self.device, self.progress = split, settings, device, progress
        self.path, self.max_minutes, self.warm = checkpoint, max_minutes, 0.0
        self.rng = np.random.default_rng(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.model = start or self._fresh(features)
        self.model.to(device)
        self.teacher = None if teacher is None else Teacher(teacher.to(device))
        decayed = [p for p in self.model.parameters() if p.requires_grad and p.dim() == 2]
        plain = [p for p in self.model.parameters() if p.requires_grad and p.dim() != 2]
        groups = [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=_BETAS, fused=True)
        self.trainable = decayed + plain
        self.windows = Windows(split.train, settings.shape.max_history)
        self.sample = validation_sample(split.valid)
        self.state, self.best_weights = _State(epochs=settings.epochs), dict[str, Tensor]()
        self.identity = {"settings": asdict(settings), "data": _data_identity(split, features)}
        if teacher is not None:
            self.identity["teacher"] = fingerprint(*(weight.cpu().numpy() for weight in teacher.state_dict().values()))

    def _fresh(self, features: ItemFeatures) -> Model:
        model = build_model(self.split, features, self.settings)
        ids = svd_start(self.split.train, len(self.split.items), self.settings.shape.width, self.generator)
        with torch.no_grad():
            model.items.id.weight.copy_(ids)
        return model

    def run(self) -> Trained:
        self._resume()
        while self.state.epoch < self.state.epochs and not self._out_of_patience():
            began = time.monotonic()
            loss = self._epoch(began)
            score = self._validate()
            state = self.state
            state.epoch += 1
            if score > state.best or math.isnan(score):
                state.best, state.best_epoch = score, state.epoch
                self.best_weights = {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
            seconds = time.monotonic() - began
            state.seconds += seconds
            state.history.append({"loss": loss, "ndcg@10": score, "seconds": seconds})
            self._fit_time(seconds)
            self._save()
            note = f"loss {loss:.3f}, validation NDCG@10 {score:.4f}"
            self.progress("train", state.epoch, state.epochs, note)
        self.model.load_state_dict(self.best_weights)
        state = self.state
        return Trained(self.model.cpu().eval(), state.history, state.best_epoch, state.seconds)

    def _epoch(self, began: float) -> float:
        """One pass that began at a moment, in seconds; the mean loss in nats."""
        self.model.train()
        dtype = product_dtype(self.device)
        plan = self.windows.plan(self.settings.tokens, self.rng)
        length, total = len(plan), 0.0
        for step, group in enumerate(plan):
            if step in (_PROBE // 2, _PROBE):
                length = self._fit_first_epoch(step, length, began)
            if step >= length:
                break
            self._set_rate((self.state.epoch + step / length) / self.state.epochs)
            batch = self.windows.batch(group, self.rng).to(self.device)
            if not len(batch.targets):
                continue
            loss = self.model.loss(batch, self.generator, dtype, self.teacher)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.trainable, _CLIP)
            self.optimizer.step()
            total += float(loss.detach())
            self.progress("train", self.state.epoch + (step + 1) / length, self.state.epochs)
        return total / max(1, length)

    def _set_rate(self, done: float) -> None:
        """Warm-up, then a cosine to 0; `done` is the share of the schedule behind us."""
        share = done / _WARM_UP
        if done >= _WARM_UP:
            share = 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * max(share, 1e-3)

    def _validate(self) -> float:
        """NDCG@10 on validation; NaN if there is nothing to validate on: then the last epoch is kept."""
        if not len(self.sample):
            return math.nan
        scorer = ModelScorer(self.model, filter_seen=self.split.filter_seen)
        return evaluate(scorer, self.split.valid, len(self.split.items), index=self.sample).ndcg

    def _out_of_patience(self) -> bool:
        return self.state.epoch - self.state.best_epoch >= self.settings.patience

    def _fit_first_epoch(self, step: int, steps: int, began: float) -> int:
        """How many steps the first epoch has; the schedule ends there if the time limit allows no second one."""
        if self.max_minutes is None or self.state.epoch:
            return steps
        now = time.monotonic()
        if step < _PROBE:
            self.warm = now  # the steps before are slower: memory is fetched, kernels are chosen
            return steps
        left = self.max_minutes * 60 - (now - began)
        more = int(left * (step - _PROBE // 2) / max(now - self.warm, 1e-6))
        if step + more >= (2 + _VALIDATING) * steps:
            return steps
        self.state.epochs = 1
        return min(steps, step + max(0, more))

    def _fit_time(self, seconds: float) -> None:
        """After the first epoch, shorten the schedule to what the time limit allows."""
        if self.max_minutes is not None and self.state.epoch == 1:
            affordable = int(self.max_minutes * 60 / max(seconds, 1e-3))
            self.state.epochs = max(1, min(self.state.epochs, affordable))

    def _save(self) -> None:
        if self.path is None:
            return
        save_state(
            self.path,
            {
                "identity": self.identity,
                "state": asdict(self.state),
                "model": self.model.state_dict(),
                "best": self.best_weights,
                "optimizer": self.optimizer.state_dict(),
                "torch_rng": torch.get_rng_state(),
                "generator": self.generator.get_state(),
                "numpy_rng": self.rng.bit_generator.state,
            },
        )

    def _resume(self) -> None:
        if self.path is None or not self.path.exists():
            return
        saved = load_state(self.path, self.identity)
        self.state = _State(**saved["state"])
        self.model.load_state_dict(saved["model"])
        self.best_weights = saved["best"]
        self.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["torch_rng"])
        self.generator.set_state(saved["generator"])
        self.rng.bit_generator.state = saved["numpy_rng"]


def _data_identity(split: Split, features: ItemFeatures) -> str:
    """A hash of all that training reads, so that a checkpoint goes on with the very same data only."""
    train, valid = split.train, split.valid
    return fingerprint(
        *(train.offsets, train.item, train.behavior, train.basket),
        *(valid.events.item, valid.events.behavior, valid.start, valid.stop, valid.target_offsets, valid.target),
        *(features.attributes.offsets, features.attributes.values, features.words.offsets, features.words.values),
        *(features.price_bucket, features.vectors),
    )
