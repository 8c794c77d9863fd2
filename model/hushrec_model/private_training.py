"""Central training under user-level differential privacy: a fixed number of noised steps over Poisson samples of users.

DP-SGD with one sequence a user as the sample (Abadi et al. 2016, arXiv:1607.00133, Algorithm 1). Everything is chosen
before the first step: nothing is stopped, kept or printed by a loss or a score, because both are computed from private
data; the weights kept are the average of the steps', which costs nothing. Initial weights come from the seed, not from
the log, and every item of the catalogue counts as trained. What this does not do: choose z (see the accounting of
`hushrec_privacy`), keep the ledger (its owner passes `spend`), or hide how many users there are.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

from hushrec_model.checkpoint import fingerprint, load_state, save_state
from hushrec_model.features import ItemFeatures
from hushrec_model.model import Model
from hushrec_model.network import HEAD_WIDTH, Encoder, EncoderShape
from hushrec_model.poisson import PoissonSampler
from hushrec_model.private_optimizer import PrivateOptimizer
from hushrec_model.progress import Progress, silent
from hushrec_model.splits import Split
from hushrec_model.user_sequences import UserSequences
from hushrec_model.user_step import GROUPS, Candidates, UserStep, Weights

__all__ = [
    "BudgetSpentError",
    "PrivateSettings",
    "PrivatelyTrained",
    "Spend",
    "Watch",
    "build_public_model",
    "train_private",
]

_WARM_UP = 0.05
_DECAY = 0.5  # of a starting attention, in nats an event
_EPSILON = 1e-12  # of Adam: means of clipped gradients are far below its usual 1e-8

Spend = Callable[[int, int], None]
Watch = Callable[[Model, Candidates, Weights], None]


class BudgetSpentError(Exception):
    """Raised by `spend` to say that no further step is paid for: training ends with what it has."""


@dataclass(frozen=True)
class PrivateSettings:
    """Everything that shapes a private run; all of it public, and chosen before the first step.

    Attributes:
        shape: Sizes of the encoder.
        groups: What is trained, some of `user_step.GROUPS`.
        sampling_rate: q, the probability of a user to be in a step.
        steps: T.
        noise_multiplier: z, noise over clip norm.
        population: N, users that q N is made of; public, and need not be exact.
        max_grad_norm: C.
        learning_rate: Highest learning rate.
        negatives: Candidates of a step, from the catalogue.
        score_scale: What cosines are multiplied by at the start.
        start: Encoder before the first step: "random", or "mean", the decayed mean of the history.
        averaging: Share of the steps, at the end, that the kept weights are an average of.
        block: Steps that are spent and saved together.
        seed: Of initial weights and candidates; never of noise or sampling.
    """

    shape: EncoderShape
    groups: tuple[str, ...]
    sampling_rate: float
    steps: int
    noise_multiplier: float
    population: int
    max_grad_norm: float = 0.1
    learning_rate: float = 0.02
    negatives: int = 1024
    score_scale: float = 10.0
    start: str = "mean"
    averaging: float = 0.25
    block: int = 10
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ConfigError: A number is out of range, or a group unknown.
        """
        checks.at_least(1, steps=self.steps, population=self.population, negatives=self.negatives, block=self.block)
        checks.positive(max_grad_norm=self.max_grad_norm, learning_rate=self.learning_rate)
        checks.positive(score_scale=self.score_scale)
        checks.one_of(("random", "mean"), start=self.start)
        checks.share(averaging=self.averaging)
        if not self.groups:
            raise ConfigError(f"groups is empty; name at least one of {', '.join(GROUPS)}")
        if not 0 <= self.noise_multiplier < math.inf:
            raise ConfigError(f"noise_multiplier is {self.noise_multiplier!r}; it must be finite and at least 0")


@dataclass(frozen=True)
class PrivatelyTrained:
    """A finished run.

    Attributes:
        model: Averaged weights, in evaluation mode.
        steps: Steps behind them; fewer than planned if the budget ended first or a run was resumed.
    """

    model: Model
    steps: int


def build_public_model(features: ItemFeatures, settings: PrivateSettings) -> Model:
    """An untrained model that knows nothing of the log: no count, no dropout, every item taken as trained."""
    torch.manual_seed(settings.seed)
    every = np.ones(len(features.price_bucket), np.int64)
    model = Model(settings.shape, features, every, dropout=0.0, attention_dropout=0.0, id_dropout=0.0)
    if "rows" not in settings.groups and not isinstance(model.items.content(), float):
        with torch.no_grad():
            model.items.id.weight.zero_()  # random rows that stay would only blur the content
    with torch.no_grad():
        model.encoder.scale.weight.fill_(settings.score_scale)
        if settings.start == "mean":
            _start_as_mean(model.encoder)
    return model


def _start_as_mean(encoder: Encoder) -> None:
    """Weights by which the user vector is the newest item plus the decayed mean of the history, and nothing else."""
    first = encoder.layers[0]
    inner = first.heads * HEAD_WIDTH
    for block in encoder.layers:
        block.merge.weight.zero_()
        block.contract.weight.zero_()
    keys, values = torch.split(first.key_value.weight, inner)
    first.query_gate.weight[:inner].mul_(0.1)
    keys.mul_(0.1)
    values.copy_(torch.eye(inner, encoder.shape.width))
    first.merge.weight.copy_(2 * torch.eye(encoder.shape.width, inner))
    first.distance.weight.copy_(-_DECAY * torch.arange(encoder.shape.max_history)[:, None])


def train_private(
    split: Split,
    features: ItemFeatures,
    settings: PrivateSettings,
    *,
    spend: Spend,
    prior: NDArray[np.float32] | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> PrivatelyTrained:
    """Train with `settings.steps` noised steps.

    Guarantee:
        The weights, checkpoints included, are those of T (q, z) Poisson-sampled Gaussian steps, per user under
        add-or-remove, where T is the number of steps that `spend` was told of. Floating-point slack: see
        `UserStep.clipped_sum` and `float_gaussian`.

    Args:
        split: Only its training part is read.
        features: Content of the split's items; public.
        settings: How to train.
        spend: Called as spend(first step, steps) before any user of these steps is drawn; must have made the spending
            durable when it returns. A step lost to a kill is drawn anew and told of again. Raises `BudgetSpentError` to
            end training; any other error passes through.
        prior: What is added to the scores while training, shape (V + 1,): log-popularity, released under its own
            guarantee. Whoever serves the model adds it too. None: nothing.
        checkpoint: File written after each block of steps and read at the start if it exists.
        progress: Told after every block; never of a loss.
        watch: Shown what the strongest attacker may see of each step, before its weights change: the model, the
            candidates and the noised mean gradient of each trained weight. Nothing that is not released already.

    Returns:
        The model.

    Raises:
        ConfigError: The settings cannot be trained, or no user has a target.
        CheckpointError: `checkpoint` belongs to other data or settings.
    """
    settings.check()
    run = _Run(split, features, settings, prior, checkpoint)
    if watch is not None:
        run.show_steps_to(watch)
    while run.step < settings.steps:
        count = min(settings.block, settings.steps - run.step)
        try:
            spend(run.step, count)
        except BudgetSpentError:
            break
        for _ in range(count):
            run.take_step()
        run.save()
        progress("train", run.step, settings.steps)
    return run.finished()


class _Run:
    def __init__(
        self,
        split: Split,
        features: ItemFeatures,
        settings: PrivateSettings,
        prior: NDArray[np.float32] | None,
        path: Path | None,
    ) -> None:
        self.settings, self.path, self.step = settings, path, 0
        self.model = build_public_model(features, settings)
        self.users = UserSequences(split.train, settings.shape.max_history)
        self.user_step = UserStep(self.model, settings.groups, settings.max_grad_norm)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.offset = torch.zeros(len(split.items) + 1) if prior is None else torch.from_numpy(prior)
        random = OsRandom()
        self.sampler = PoissonSampler(len(self.users), settings.sampling_rate, random)
        self.weights = self.user_step.weights
        self.optimizer = PrivateOptimizer(
            torch.optim.Adam(list(self.weights.values()), lr=settings.learning_rate, betas=(0.9, 0.99), eps=_EPSILON),
            noise_multiplier=settings.noise_multiplier,
            max_grad_norm=settings.max_grad_norm,
            expected_batch_size=settings.sampling_rate * settings.population,
            random=random,
        )
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.averaged = 0
        data = fingerprint(split.train.offsets, split.train.item, split.train.behavior, split.train.basket, prior)
        self.identity = {"settings": asdict(settings), "data": data}
        self._resume()

    def show_steps_to(self, watch: Watch) -> None:
        def show(*_: object) -> None:
            released = {name: weight.grad for name, weight in self.weights.items() if weight.grad is not None}
            watch(self.model, self.candidates, released)

        self.optimizer.original_optimizer.register_step_pre_hook(show)

    def take_step(self) -> None:
        self.candidates = Candidates.draw(self.settings.negatives, self.offset, self.generator)
        sums = self.user_step.clipped_sum(self.sampler.draw(), self.users, self.candidates)
        self._set_rate()
        self.optimizer.step_on({weight: sums[name] for name, weight in self.weights.items()})
        self.step += 1
        if self.step > self.settings.steps * (1 - self.settings.averaging):
            self.averaged += 1
            for name, weight in self.weights.items():
                self.average[name] += (weight.detach() - self.average[name]) / self.averaged

    def _set_rate(self) -> None:
        """Warm-up, then a line to a tenth."""
        done = (self.step + 0.5) / self.settings.steps
        share = min(done / _WARM_UP, 1 - 0.9 * done)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * share

    def finished(self) -> PrivatelyTrained:
        if self.averaged:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(self.average[name])
        return PrivatelyTrained(self.model.eval(), self.step)

    def save(self) -> None:
        if self.path is not None:
            state = {"identity": self.identity, "step": self.step, "averaged": self.averaged, "average": self.average}
            state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            save_state(self.path, {**state, "generator": self.generator.get_state()})

    def _resume(self) -> None:
        if self.path is None or not self.path.exists():
            return
        saved = load_state(self.path, self.identity)
        self.step, self.averaged, self.average = saved["step"], saved["averaged"], saved["average"]
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.generator.set_state(saved["generator"])
