"""From event and item files to a folder trained under user-level differential privacy: `hushrec train --epsilon`.

Everything that leaves the folder later (weights, tables of counts, the one decision) was noised; the ledger beside it
knows what that cost. Scores on validation and test are computed for the shop's own eyes, from private events, and go
into no bundle. `--seed` decides initial weights and candidates, never noise or sampling.
"""

import hashlib
import json
import math
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hushrec.counts import Blend
from hushrec_privacy import canonical
from hushrec_privacy.accounting import Guarantee, gaussian_mu, poisson_noise_multiplier
from hushrec_privacy.accounting.claims import USER
from hushrec_privacy.accounting.guarantee import WEAK_EPSILON, rounded_up
from hushrec_privacy.errors import BudgetError, CheckpointError, ConfigError, LedgerError
from hushrec_privacy.ledger import Ledger, SqliteLedgerStore
from hushrec_privacy.ledger.anchored import anchored_ledger, kept_anchor
from hushrec_privacy.ledger.entries import Open
from hushrec_privacy.ledger.openings import guarantee_after, run_id, training_opening
from hushrec_privacy.randomness import OsRandom

from hushrec_model.blend import BlendScorer
from hushrec_model.checkpoint import fingerprint
from hushrec_model.features import ItemFeatures
from hushrec_model.model import Model, ModelScorer
from hushrec_model.network import EncoderShape
from hushrec_model.private_counts import (
    COUNTS_FILE,
    COUNTS_NOISE,
    Counts,
    counts_mu,
    load_counts,
    release_counts,
    save_counts,
    transitions_deviation,
)
from hushrec_model.private_training import BudgetSpentError, PrivateSettings, train_private
from hushrec_model.progress import Progress, silent
from hushrec_model.settings import Settings
from hushrec_model.splits import Split
from hushrec_model.user_sequences import UserSequences

__all__ = [
    "CHECKPOINT",
    "LEDGER",
    "PrivateOptions",
    "PrivateRun",
    "default_delta",
    "default_settings",
    "train_with_privacy",
]

_FEW = 1000
LEDGER, CHECKPOINT = "ledger.db", "private.pt"
_RUN = "private.json"
_DECIDED = ("noise_multiplier", "released_mu", "transitions_deviation", "counts_weight", "nonce")

# Chosen on validation of public data (docs/benchmarks.md), the same for every shop: nothing here depends on the log.
_SHAPE = EncoderShape(heads=(2,), channels=(88,), max_history=50)
_GROUPS = ("rows", "adapter")  # under noise an encoder unlearns more than it learns: it stays the mean
_SAMPLING_RATE, _STEPS, _NEGATIVES = 0.3, 60, 512
_TRANSITIONS_SHARE = 0.5  # of the squared separation that the budget allows; the steps get what is left
_FAINT = 10.0  # users times separation over the root of the parameters: below it steps learn little,
_FAINT_SHARE, _FAINT_WEIGHT = 0.8, 4.0  # so transitions get more, and counts weigh more


@dataclass(frozen=True)
class PrivateOptions:
    """What the caller of one private run chooses.

    Attributes:
        epsilon: Of the whole run, tables included.
        delta: Of the whole run; None: N^-1.1, cut to one digit.
        max_grad_norm: C, the L2 bound of one user's gradient.
        seed: Of initial weights and candidates.
        unit: Whom one user of the log stands for.
    """

    epsilon: float
    delta: float | None = None
    max_grad_norm: float = 0.5
    seed: int = 0
    unit: str = USER


@dataclass(frozen=True)
class PrivateRun:
    """A finished private run.

    Attributes:
        model: The trained model.
        settings: How it was trained.
        counts: What was released before.
        guarantee: What all of it costs together.
        run: Its id in the ledger.
        steps: Steps taken.
        anchor: The ledger's head, to be kept elsewhere.
    """

    model: Model
    settings: PrivateSettings
    counts: Counts
    guarantee: Guarantee
    run: str
    steps: int
    anchor: str

    def scorer(self) -> BlendScorer:
        """The model with its counts, as a bundle ranks."""
        seen = self.counts.filter_seen
        blend = Blend(self.counts.parts(), self.counts.arrays())
        return BlendScorer(ModelScorer(self.model, filter_seen=seen), blend, filter_seen=seen)

    def decisions(self) -> list[str]:
        """What was decided, one sentence each."""
        g, s = self.guarantee, self.settings
        return [
            f"epsilon {rounded_up(g.epsilon, 4)} at delta {rounded_up(g.delta, 3)} for {g.unit}",
            *self._doubts(),
            f"{self.steps} steps of about {s.sampling_rate * s.population:,.0f} users, noise multiplier "
            f"{s.noise_multiplier:.4g}, clip {s.max_grad_norm:g}; sizes are fixed beforehand, not decided from the log",
            f"seen items are {'left out' if self.counts.filter_seen else 'kept'}: by a noised count of who returns",
            *self._tables(),
            f"keep the ledger's head elsewhere: {self.anchor}",
        ]

    def _tables(self) -> list[str]:
        said = []
        if "transitions" not in {part.name for part in self.counts.parts()}:
            said.append("no pair of items stood out of the noise: there are no transitions; allow a larger epsilon")
        if self.counts.weight > 1:
            said.append("few users for so many items at this epsilon: the tables lead, training adds little")
        return said

    def _doubts(self) -> list[str]:
        doubts = []
        if self.guarantee.delta * self.settings.population >= 1:
            doubts.append("WARNING: delta is not below one over the number of users; that promises next to nothing")
        if self.guarantee.epsilon > WEAK_EPSILON:
            doubts.append(f"WARNING: an epsilon above {WEAK_EPSILON} promises next to nothing")
        if self.settings.population < _FEW:
            doubts.append(f"WARNING: fewer than {_FEW} users: noise outweighs what they tell")
        return doubts

    def as_settings(self) -> Settings:
        """The part of the settings that says how to build the model."""
        return Settings(
            shape=self.settings.shape, dropout=0.0, attention_dropout=0.0, id_dropout=0.0, seed=self.settings.seed
        )

    def origin(self) -> str:
        """What a part made by this run carries in a bundle."""
        return f"dp({self.run})"


def default_delta(users: int) -> float:
    """N^-1.1, below one user's share, cut to one digit so that it does not tell N.

    >>> default_delta(10_000)
    3e-05
    """
    exact = f"{max(users, 2) ** -1.1:e}"
    return float(exact[0] + exact[exact.index("e") :])


def default_settings(
    noise_multiplier: float, population: int, *, max_grad_norm: float = 0.5, seed: int = 0
) -> PrivateSettings:
    """How a private run trains, whatever the shop.

    Args:
        noise_multiplier: z.
        population: N.
        max_grad_norm: C.
        seed: Of initial weights and candidates.

    >>> default_settings(2.0, 1000).steps
    60
    """
    return PrivateSettings(
        shape=_SHAPE,
        groups=_GROUPS,
        sampling_rate=_SAMPLING_RATE,
        steps=_STEPS,
        noise_multiplier=noise_multiplier,
        population=population,
        max_grad_norm=max_grad_norm,
        negatives=_NEGATIVES,
        seed=seed,
    )


def train_with_privacy(
    split: Split,
    features: ItemFeatures,
    out: Path,
    options: PrivateOptions,
    progress: Progress = silent,
    anchor: str | None = None,
) -> PrivateRun:
    """Release counts and train, both paid for in the ledger of the folder before they are drawn.

    A run that was interrupted goes on when called again: what the lost steps cost stays counted, and training ends
    when the budget is spent, with fewer steps than planned.

    Args:
        split: From `private_data.public_split`.
        features: Content of its items; public.
        out: Folder of the run.
        options: See `PrivateOptions`.
        progress: Told of the steps, never of a loss.
        anchor: A head of the ledger that was kept elsewhere, or the name of a file that keeps it from now on; a ledger
            that is older is refused before anything is drawn. None: an older copy of the folder spends anew, unseen.

    Raises:
        ConfigError: The budget cannot be met, or an option is out of range.
        CheckpointError: The folder holds a private run that is finished, that has other options, or that died while it
            released its counts.
        LedgerError: The ledger is damaged, older than the anchor, or cannot be written, or its anchor file cannot.
    """
    _refuse_lost_ledger(out / LEDGER, anchor)
    users = len(UserSequences(split.train, _SHAPE.max_history))
    if not users:
        raise ConfigError("no user has two events on items of the items file; nothing can be learned")
    delta = default_delta(users) if options.delta is None else options.delta
    catalog = hashlib.sha256("\n".join(split.items).encode()).hexdigest() + _content_hash(features)
    facts = _begun(out / _RUN, options, delta, {"users": users, "items": len(split.items), "catalog": catalog})
    opened = _opening(facts)
    with _ledger(out) as store:
        ledger = anchored_ledger(store, anchor, clock=lambda: int(time.time()))
        ledger.open_plan(opened)
        if not ledger.plan(opened.plan).rounds_left and not (out / CHECKPOINT).exists():
            raise CheckpointError(f"{out}: its private run is finished and its budget is spent; choose another folder")
        counts = _counts(out / COUNTS_FILE, ledger, opened, split, facts)
        settings = _settings(facts)
        trained = train_private(
            split,
            features,
            settings,
            spend=lambda _first, steps: _spend(ledger, opened, steps),
            prior=np.log1p(counts.popularity / np.float32(COUNTS_NOISE)).astype(np.float32),
            checkpoint=out / CHECKPOINT,
            progress=progress,
        )
        if not ledger.plan(opened.plan).closed:
            ledger.close_plan(opened.plan)
        spent = ledger.plan(opened.plan)
        guarantee = guarantee_after(opened, spent.rounds, spent.last)
        anchor = str(ledger.totals().head)
    return PrivateRun(trained.model, settings, counts, guarantee, opened.plan, trained.steps, anchor)


def _content_hash(features: ItemFeatures) -> str:
    bags = (features.attributes, features.words)
    arrays = [array for bag in bags for array in (bag.offsets, bag.values)]
    return fingerprint(*arrays, features.price_bucket, features.vectors)


def _begun(path: Path, options: PrivateOptions, delta: float, data: dict[str, Any]) -> dict[str, Any]:
    """The public facts of the run: chosen once, kept in the folder, and the same at every resume."""
    chosen: dict[str, Any] = {**asdict(options), "delta": delta, **data}
    if path.exists():
        try:
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            same = all(kept[name] == value for name, value in chosen.items())
            same = same and all(kept[name] is not None for name in _DECIDED)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: cannot be read; train into another folder") from error
        if not same:
            raise CheckpointError(f"{path}: this run was begun with other options, events or items; choose another one")
        return kept
    if path.with_name(LEDGER).exists():
        raise CheckpointError(
            f"{path}: is gone, but {LEDGER} counts a run: another one here would put new tables beside its model, and "
            "tell half of what both cost; restore it, or choose another folder"
        )
    facts = chosen | _noise(options.epsilon, delta, data["users"], data["items"]) | {"nonce": secrets.token_hex(16)}
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(facts), encoding="utf-8")
    part.replace(path)
    return facts


def _noise(epsilon: float, delta: float, users: int, items: int) -> dict[str, Any]:
    """How much noise the tables and the steps get, that all together costs `epsilon` at most; from public numbers."""
    left = gaussian_mu(epsilon, delta) ** 2 - 2 / COUNTS_NOISE**2
    if left <= 0:
        raise ConfigError(f"epsilon is {epsilon:g}; the tables of counts alone cost more: allow a larger one")
    faint = users * math.sqrt(left) < _FAINT * math.sqrt(items * _SHAPE.width)
    share, weight = (_FAINT_SHARE, _FAINT_WEIGHT) if faint else (_TRANSITIONS_SHARE, 1.0)
    deviation = transitions_deviation(math.sqrt(share * left), items)
    released = counts_mu(deviation, items)
    noise = poisson_noise_multiplier(_SAMPLING_RATE, _STEPS, epsilon, delta, released_mu=released)
    return {
        "noise_multiplier": noise,
        "released_mu": released,
        "transitions_deviation": deviation,
        "counts_weight": weight,
    }


def _opening(facts: dict[str, Any]) -> Open:
    run = run_id(kind="hushrec-training", nonce=facts["nonce"], noise=canonical.float_text(facts["noise_multiplier"]))
    return training_opening(
        run,
        sampling_rate=_SAMPLING_RATE,
        noise_multiplier=facts["noise_multiplier"],
        steps=_STEPS,
        delta=facts["delta"],
        released_mu=facts["released_mu"],
        unit=facts["unit"],
    )


def _refuse_lost_ledger(path: Path, anchor: str | None) -> None:
    kept = None if anchor is None else kept_anchor(anchor)
    if kept is not None and not path.exists():
        raise LedgerError(
            f"{path}: is not there, but the anchor stands for entry {kept.index} of it: restore the newest copy of the "
            "folder; a new run takes another anchor file, and its budget comes on top"
        )


def _ledger(out: Path) -> SqliteLedgerStore:
    path = out / LEDGER
    if path.exists() and path.stat().st_size:
        return SqliteLedgerStore(path)
    for name in (COUNTS_FILE, CHECKPOINT):
        if (out / name).exists():
            raise LedgerError(f"{path}: is gone, but {name} is what it paid for; restore it, or choose another folder")
    store = SqliteLedgerStore.create(path)
    Ledger.begin(store)
    return store


def _counts(path: Path, ledger: Ledger, opened: Open, split: Split, facts: dict[str, Any]) -> Counts:
    """The released counts: drawn once, after they were paid for."""
    if ledger.plan(opened.plan).rounds:
        return load_counts(path)  # a run that died between paying and saving never published them, and cannot go on
    ledger.spend(opened.plan, 1)
    deviation, weight = facts["transitions_deviation"], facts["counts_weight"]
    counts = release_counts(split.train, len(split.items), deviation, OsRandom(), split.protocol, weight)
    save_counts(path, counts)
    return counts


def _settings(facts: dict[str, Any]) -> PrivateSettings:
    return default_settings(
        facts["noise_multiplier"], facts["users"], max_grad_norm=facts["max_grad_norm"], seed=facts["seed"]
    )


def _spend(ledger: Ledger, opened: Open, steps: int) -> None:
    last = ledger.plan(opened.plan).last
    try:
        ledger.spend(opened.plan, last + 1, last + steps)
    except BudgetError as error:
        raise BudgetSpentError from error
