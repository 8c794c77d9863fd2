"""Audit a private training run: canaries among made-up users, trained by the product's own code, and guessed.

Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, white box: `train_private` trains, and the auditor sees what the
strongest attacker may, the noised mean gradient of every step and the weights before it. A canary is a user of two
events whose gradient lies on the rows of its own two items, many times longer than the clip norm, so that canaries
hardly disturb each other and clipping matters. Its score is the sum over the steps of the inner product of its own
clipped gradient with what was released. Its loss, gradient and clipping are written out here a second time: a fault of
the product's must not deceive its auditor. Nobody real is in the log; what is audited is the code. What this cannot
see: most, see `audit/power.py` and docs/accounting.md.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from hushrec_privacy import checks
from hushrec_privacy.accounting import Guarantee, poisson_guarantee, poisson_noise_multiplier
from hushrec_privacy.audit.one_run import OneRunAudit, audit_one_run, epsilon_lower_bound
from hushrec_privacy.audit.power import best_guesses, detection_power, expected_epsilon
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hushrec_model.features import ItemFeatures, item_features
from hushrec_model.model import Model
from hushrec_model.private_pipeline import default_settings
from hushrec_model.private_training import PrivateSettings, train_private
from hushrec_model.progress import Progress, silent
from hushrec_model.sequences import Queries, Sequences
from hushrec_model.splits import Split
from hushrec_model.user_step import Candidates, Weights

__all__ = ["Canaries", "TrainingAudit", "audit_settings", "audit_training", "score_canaries"]

_USERS, _LONGEST, _ITEMS = 200, 20, 200  # ordinary users among the canaries, their events, and their items
_ROWS = "items.id.weight"
_AT_ONCE = 2048  # canaries scored at once
_FAULT = 2.0  # the fault that the number of guesses is chosen for: half of the noise, so twice the shift

_Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Canaries:
    """Users that the auditor made up, each in the log by a fair coin.

    Attributes:
        items: History and target of each, 1 to V, shape (m, 2).
        included: The coins, shape (m,).
    """

    items: _Ints
    included: NDArray[np.bool_]

    @classmethod
    def draw(cls, count: int, random: OsRandom) -> "Canaries":
        """Each has two items of the catalogue for itself.

        Args:
            count: m.
            random: Of the coins.
        """
        items = np.arange(1, 2 * count + 1, dtype=np.int64).reshape(count, 2)
        return cls(items, random.below(2, count).astype(bool))

    @property
    def catalog(self) -> int:
        """V: the items of the canaries, then those of the others."""
        return self.items.size + _ITEMS

    def split(self, seed: int = 0) -> Split:
        """The training log: ordinary users and the canaries that are in; nothing is asked of it."""
        rng = np.random.default_rng(seed)
        rows = [self.items.size + rng.integers(1, _ITEMS + 1, rng.integers(2, _LONGEST + 1)) for _ in range(_USERS)]
        train = _laid_out([*rows, *self.items[self.included]])
        none = np.zeros(0, np.int64)
        nothing = Queries(train, none, none, np.zeros(1, np.int64), none.astype(np.int32))
        return Split(
            protocol="leave-one-out",
            options={},
            protocol_sha256="",
            items=[str(item) for item in range(1, self.catalog + 1)],
            catalog=np.arange(1, self.catalog + 1, dtype=np.int32),
            train=train,
            valid=nothing,
            test=nothing,
            filter_seen=False,
            too_short=0,
            notes=[],
        )


@dataclass(frozen=True)
class TrainingAudit:
    """What one audited run showed, and what such a run can show.

    Attributes:
        claim: What the accountant says of the steps.
        found: The lower bound and the guesses behind it.
        mu: Shift of a canary's score that the claimed noise allows at most, in deviations.
        shift: The shift that was found: difference of the means, in deviations of those left out; NaN if the coins
            left nobody to compare.
        epsilon_if_sound: The lower bound to expect of a run as claimed.
        epsilon_if_halved: The same with half of the noise.
        epsilon_ceiling: The lower bound if every guess were right: faults that cost less stay unseen.
        chance_if_halved: Of refuting the claim where half of the noise is missing.
    """

    claim: Guarantee
    found: OneRunAudit
    mu: float
    shift: float
    epsilon_if_sound: float
    epsilon_if_halved: float
    epsilon_ceiling: float
    chance_if_halved: float

    @property
    def refuted(self) -> bool:
        """Whether the claim is false, with the confidence of `found`."""
        return self.found.refutes(self.claim.epsilon)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        power = {
            "epsilon_if_sound": self.epsilon_if_sound,
            "epsilon_if_halved": self.epsilon_if_halved,
            "epsilon_ceiling": self.epsilon_ceiling,
            "chance_if_halved": self.chance_if_halved,
        }
        shown = {"refuted": self.refuted, "mu": self.mu, "shift": self.shift, "power": power}
        return {**self.claim.to_dict(), **self.found.to_dict(), **shown}


def audit_settings(
    epsilon: float, delta: float, *, canaries: int, sampling_rate: float = 1.0, steps: int = 2
) -> PrivateSettings:
    """The settings of a private run, with noise by which the steps alone, without tables, have a given epsilon.

    By default few steps that everybody is in, where canaries show most in the shortest time. The schedule of a run
    (`private_pipeline.default_settings`) needs as many canaries and takes longer, but puts sampling to the test, too.

    Args:
        epsilon: Of the steps, above 0.
        delta: Above 0 and below 1.
        canaries: m; half of them count among the users.
        sampling_rate: q.
        steps: T.

    Raises:
        ConfigError: An argument is out of range, or no noise reaches this epsilon.

    >>> settings = audit_settings(2.0, 1e-5, canaries=1000)
    >>> settings.groups, round(settings.noise_multiplier, 2)
    (('rows', 'adapter'), 2.82)
    """
    checks.positive(epsilon=epsilon, sampling_rate=sampling_rate)
    checks.at_least(1, steps=steps)
    noise = poisson_noise_multiplier(sampling_rate, steps, epsilon, delta)
    chosen = default_settings(noise, _USERS + canaries // 2)
    return replace(chosen, sampling_rate=sampling_rate, steps=steps, block=1)


def audit_training(
    settings: PrivateSettings,
    delta: float,
    *,
    canaries: int,
    confidence: float = 0.95,
    progress: Progress = silent,
) -> TrainingAudit:
    """Train once with canaries and say what epsilon the run cannot have.

    How many coins are guessed depends on the settings alone: it is the number that shows halved noise best.

    Args:
        settings: How to train, for example `audit_settings`; "rows" must be among the groups.
        delta: Of the claim, above 0 and below 1.
        canaries: m, at least 2.
        confidence: Chance that a sound run is not refuted, at least.
        progress: Told of the steps.

    Raises:
        ConfigError: An argument is out of range, or the settings have no noise.
    """
    checks.at_least(2, canaries=canaries)
    checks.positive(noise_multiplier=settings.noise_multiplier, delta=delta)
    claim = poisson_guarantee(settings.sampling_rate, settings.steps, settings.noise_multiplier, delta)
    mu = settings.sampling_rate * math.sqrt(settings.steps) / settings.noise_multiplier
    level = {"delta": delta, "confidence": confidence}
    guesses = best_guesses(canaries, mu=_FAULT * mu, epsilon=claim.epsilon, **level)
    made = Canaries.draw(canaries, OsRandom())
    scores = score_canaries(made, settings, progress)
    return TrainingAudit(
        claim=claim,
        found=audit_one_run(scores, made.included, guesses=guesses, **level),
        mu=mu,
        shift=_shift(scores[made.included], scores[~made.included]),
        epsilon_if_sound=expected_epsilon(canaries, guesses, mu=mu, **level),
        epsilon_if_halved=expected_epsilon(canaries, guesses, mu=_FAULT * mu, **level),
        epsilon_ceiling=epsilon_lower_bound(canaries, guesses, guesses, **level),
        chance_if_halved=detection_power(canaries, guesses, mu=_FAULT * mu, epsilon=claim.epsilon, **level),
    )


def score_canaries(canaries: Canaries, settings: PrivateSettings, progress: Progress = silent) -> NDArray[np.float64]:
    """Train on the canaries that are in, and score all, shape (m,), without looking at who is in.

    Args:
        canaries: Who may be in.
        settings: How to train; "rows" must be among the groups.
        progress: Told of the steps.

    Raises:
        ConfigError: The settings cannot be trained or do not train the rows.
    """
    if "rows" not in settings.groups:
        raise ConfigError("a canary shows itself on the rows of its items: add rows to the groups")
    items, scores = torch.from_numpy(canaries.items), torch.zeros(len(canaries.items), dtype=torch.float64)

    def watch(model: Model, candidates: Candidates, released: Weights) -> None:
        rows = released[_ROWS].double()
        for first in range(0, len(items), _AT_ONCE):
            some = items[first : first + _AT_ONCE]
            own = _gradients(model, some, candidates.items).double()
            shares = settings.max_grad_norm / own.flatten(1).norm(dim=1).clamp(min=settings.max_grad_norm)
            scores[first : first + _AT_ONCE] += shares * (own * rows[some - 1]).sum((1, 2))

    train_private(
        canaries.split(settings.seed),
        _items_without_content(canaries.catalog),
        settings,
        spend=lambda _first, _steps: None,  # nobody real is in the log
        progress=progress,
        watch=watch,
    )
    return scores.numpy()


def _shift(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    if not len(inside) or len(outside) < 2:
        return math.nan
    return float((inside.mean() - outside.mean()) / outside.std())


def _gradients(model: Model, items: Tensor, candidates: Tensor) -> Tensor:
    """Gradient of each canary's loss by its own two rows, shape (B, 2, D): nearly all of its whole gradient.

    A canary that is also a candidate has a little more; the auditor does without.
    """
    table = model.items.id.weight.detach()
    own = table[items - 1].requires_grad_()
    with torch.enable_grad():
        history, target = functional.normalize(own, dim=2).unbind(1)
        user = model.encoder(history[:, None], torch.zeros(len(items), 1, dtype=torch.int64))[:, 0]
        wanted = (user * target).sum(1)
        others = user @ functional.normalize(table[candidates - 1], dim=1).t()
        others = others + math.log(max(1.0, (len(table) - 1) / len(candidates)))
        others = others.masked_fill(candidates == items[:, 1:], float("-inf"))
        loss = (torch.logaddexp(wanted, torch.logsumexp(others, 1)) - wanted).sum()
        return torch.autograd.grad(loss, own)[0]


def _laid_out(rows: list[_Ints]) -> Sequences:
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    item = np.concatenate(rows).astype(np.int32)
    return Sequences(offsets, item, np.zeros(len(item), np.int8), None, None)


def _items_without_content(count: int) -> ItemFeatures:
    return item_features([None] * count, np.full(count, math.nan), {})
