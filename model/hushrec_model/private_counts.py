"""The count tables that a private run releases under noise before its first step: popularity, transitions, and whether
shoppers return.

Everything is in whole numbers: what one user adds is scaled to an L2 norm of at most `STEPS`, rounded down, summed,
and noised by the discrete Gaussian. How pairs are counted and how the tables join the scores follows from the protocol
that the shop names and from what was released already; neither costs anything.
"""

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
import scipy.sparse as sparse
from hushrec.manifest import BlendPart
from hushrec_privacy.accounting.discrete import equivalent_gaussian_deviation
from hushrec_privacy.accounting.gaussian import mu_of_mixed_noise
from hushrec_privacy.errors import CheckpointError, ConfigError
from hushrec_privacy.mechanisms.discrete_gaussian import sample_discrete_gaussian
from hushrec_privacy.mechanisms.sparse_histogram import noised_above
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

from hushrec_model.counting import GAP_DECAY, REVERSE, WINDOW, Table, row_scaled, strongest
from hushrec_model.sequences import Sequences
from hushrec_model.user_sequences import UserSequences

__all__ = [
    "COUNTS_FILE",
    "COUNTS_NOISE",
    "STEPS",
    "Counts",
    "counts_mu",
    "load_counts",
    "release_counts",
    "save_counts",
    "transitions_deviation",
]

STEPS = 2048
"""Whole-number steps that the L2 bound of one user's counts has."""

COUNTS_NOISE = 10
"""Standard deviation of the noise of popularity and of returning users, over the bound of one user's counts."""

COUNTS_FILE = "counts.npz"
"""Where a run folder keeps them."""

_NEWEST = 20  # events of a user that count for popularity
_NEWEST_PAIRED = 500  # events of a user that count for transitions: the more pairs, the more each user tells
_EVENTS_AT_ONCE = 2**16
_RETURNING = 0.05  # share of users above which seen items stay in the ranking
_LUCKY, _MOST_LUCKY = 16, 2**22  # entries that noise alone may put above the threshold, on average: of a row, of all
_TAKEN_OFF = 0.7  # of the threshold, from every entry above it
_CERTAIN = 3.0  # deviations of their number; with fewer entries the table is noise, but for what is beyond doubt
_DOUBT = 0.05  # chance of a table of noise to hold an entry that is
_MOST_DEVIATION = 2**20

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Rule:
    """How pairs count, and how counts join the scores, under one protocol; the epsilon of transitions is a share of
    their mean entry. Chosen on validation of public data (docs/benchmarks.md), never from the log at hand."""

    gap_decay: float
    reverse: float
    transitions: BlendPart
    popularity: float = 0.6  # weight; the steps had it at 1, and learnt some of it
    own: BlendPart | None = None


_USERS = _Rule(GAP_DECAY, REVERSE, BlendPart("transitions", 2.75, 1.0, 0.8, 20))
_RULES = {
    "sessions": _Rule(0.4, 0.1, BlendPart("transitions", 3.0, 2.0, 0.5, 3)),  # the next click follows the last few
    # What a shopper had before is known on the device alone and has no noise: it leads, popularity breaks the ties.
    "baskets": replace(_USERS, popularity=1.5, own=BlendPart("own", 48.0, 1.0, 1.0, 0)),
}


@dataclass(frozen=True, eq=False)
class Counts:
    """What is released before the first step.

    Attributes:
        popularity: Noised, at least 0, shape (V + 1,); 0 at index 0.
        filter_seen: Whether few users return to an item, by a noised count of those who do.
        protocol: Of the split; public.
        weight: What the weights of popularity and transitions are multiplied by; public.
        transitions: `items`, `weights` and `scales` of the strongest noised transitions, as in a bundle.
    """

    popularity: NDArray[np.float32]
    filter_seen: bool
    protocol: str
    weight: float = 1.0
    transitions: Table = field(default_factory=dict)

    def arrays(self) -> Table:
        """By the names that a blend reads them by."""
        named = {f"transitions.{name}": array for name, array in self.transitions.items()}
        return {"popularity": self.popularity, **named}

    def parts(self) -> list[BlendPart]:
        """How they join the scores: log(1 + count / epsilon), epsilon being the noise of popularity, and a multiple of
        the mean entry of the transitions. Where shoppers return to the baskets, their own counts lead."""
        rule = _rule(self.protocol)
        parts = [BlendPart("popularity", rule.popularity * self.weight, float(COUNTS_NOISE))]
        if self.transitions and self.transitions["scales"].any():
            weights: Any = self.transitions["weights"]
            scales: Any = self.transitions["scales"]
            entries = weights * scales[:, None]
            mean = float(entries[entries > 0].mean())
            part = rule.transitions
            parts.append(msgspec.structs.replace(part, weight=part.weight * self.weight, epsilon=part.epsilon * mean))
        if rule.own is not None and not self.filter_seen:
            parts.append(rule.own)
        return parts


def transitions_deviation(mu: float, items: int) -> int:
    """Noise of the transitions, in steps, for a separation of at most `mu`.

    Args:
        mu: Above 0.
        items: V.

    Raises:
        ConfigError: `mu` is so small that the noise would be over 2^20 steps.
    """
    deviation = int(STEPS / mu) + 1
    while _mu(deviation, items) > mu:
        deviation += 1
    if deviation > _MOST_DEVIATION:
        raise ConfigError("epsilon or delta is too small for a table of transitions: its noise would bury everything")
    return deviation


def counts_mu(deviation: int, items: int) -> float:
    """Separation of all releases together, rounded up.

    Args:
        deviation: Noise of the transitions in steps; see `transitions_deviation`.
        items: V.
    """
    return mu_of_mixed_noise([(_noise(COUNTS_NOISE * STEPS, items), 2), (_noise(deviation, items), 1)])


def release_counts(
    train: Sequences, items: int, deviation: int, source: OsRandom, protocol: str, weight: float = 1.0
) -> Counts:
    """Release popularity, the transitions above a threshold, and whether few users return to an item, all noised.

    Guarantee:
        Adding or removing one user moves each release by at most `STEPS` in L2: the n distinct items among a user's 20
        newest events count n^(-1/2) each; the pairs of different items among its 500 newest, at most 20 events apart,
        fade with their distance, count less backwards, and are divided by the norm of all of them; a user returns or
        does not. Noise is exactly discrete Gaussian and falls on every item and every pair of items; `counts_mu` is the
        separation of all three. How fast pairs fade depends on the protocol, which is public.

    Args:
        train: Training sequences.
        items: V.
        deviation: Noise of the transitions in steps.
        source: Of the noise.
        protocol: Of the split: "sessions" counts pairs that are close, the others all up to 20 events apart.
        weight: See `Counts`.
    """
    popular, returning = np.zeros(items + 1, np.int64), 0
    users = UserSequences(train, _NEWEST - 1)
    for newest in _newest(users):
        ordered = np.sort(newest, axis=1)
        distinct = (ordered > 0) & (np.diff(ordered, axis=1, prepend=0) != 0)
        size = distinct.sum(1)
        owner, place = np.nonzero(distinct)
        np.add.at(popular, ordered[owner, place], np.floor(STEPS * size[owner] ** -0.5).astype(np.int64))
        returning += int((size < (ordered > 0).sum(1)).sum())
    popular += sample_discrete_gaussian(source, len(popular), COUNTS_NOISE * STEPS)
    noised = returning * STEPS + int(sample_discrete_gaussian(source, 1, COUNTS_NOISE * STEPS)[0])
    popular[0] = 0
    return Counts(
        popularity=(np.maximum(popular, 0) / STEPS).astype(np.float32),
        filter_seen=noised <= _RETURNING * len(users) * STEPS,
        protocol=protocol,
        weight=weight,
        transitions=_noised_transitions(train, items, deviation, source, _rule(protocol)),
    )


def save_counts(path: Path, counts: Counts) -> None:
    """Write released counts, whole or not at all."""
    part = path.with_name(path.name + ".part.npz")
    arrays: dict[str, Any] = {
        "filter_seen": counts.filter_seen,
        "protocol": counts.protocol,
        "weight": counts.weight,
        **counts.arrays(),
    }
    np.savez(part, **arrays)
    part.replace(path)


def load_counts(path: Path) -> Counts:
    """Read released counts back.

    Raises:
        CheckpointError: They are missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as kept:
            table = {name: kept[f"transitions.{name}"] for name in ("items", "weights", "scales")}
            decided, protocol, weight = bool(kept["filter_seen"]), str(kept["protocol"]), float(kept["weight"])
            return Counts(kept["popularity"], decided, protocol, weight, table)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: the counts that were paid for are missing or damaged, and may not be drawn anew; train "
            "into another folder (if none was published, nobody learnt anything, and the ledger counts too much)"
        ) from error


def _rule(protocol: str) -> _Rule:
    return _RULES.get(protocol, _USERS)


def _noised_transitions(train: Sequences, items: int, deviation: int, source: OsRandom, rule: _Rule) -> Table:
    """The strongest noised transitions of each item, if there are more than noise alone would lift; else those, if any,
    that it would not lift in one of 20 tables.

    Most of what barely passes is noise, so a share of the threshold is taken off all (as in Donoho 1995, soft
    thresholding).
    """
    index, counts = _pair_counts(train, items, rule)
    chance = min(_LUCKY / items, _MOST_LUCKY / items**2, 0.1)
    threshold = max(deviation, round(deviation * NormalDist().inv_cdf(1 - chance)))
    index, counts = noised_above(source, items * items, index, counts, deviation=deviation, threshold=threshold)
    lucky = chance * items**2
    if len(index) < lucky + _CERTAIN * math.sqrt(lucky):
        sure = counts >= -deviation * NormalDist().inv_cdf(_DOUBT / items**2)
        index, counts = index[sure], counts[sure]
    counts = np.maximum(counts - int(_TAKEN_OFF * threshold), 1)
    where = (index // items + 1, index % items + 1)
    shape = (items + 1, items + 1)
    return strongest(row_scaled(sparse.csr_matrix((counts / STEPS, where), shape=shape)))


def _pair_counts(train: Sequences, items: int, rule: _Rule) -> tuple[_Ints, _Ints]:
    """Cells (earlier item - 1) V + later item - 1 that users touched, rising, and what they add to them, in steps."""
    index, total = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for newest in _newest(UserSequences(train, _NEWEST_PAIRED - 1)):
        _, cell, steps = _user_pairs(newest, items, rule)
        index, place = np.unique(np.concatenate([index, cell]), return_inverse=True)
        total = np.bincount(place, np.concatenate([total, steps]).astype(np.float64), len(index)).astype(np.int64)
    return index, total


def _user_pairs(newest: _Ints, items: int, rule: _Rule) -> tuple[_Ints, _Ints, _Ints]:
    """What each user adds to the transitions: user, cell and steps of each of its pairs.

    Rounded down from a vector of norm `STEPS`: the squares are whole numbers, so float64 cannot lift their sum above.
    """
    owners, cells, weights = [], [], []
    for gap in range(1, min(WINDOW + 1, newest.shape[1])):
        earlier, later = newest[:, :-gap], newest[:, gap:]
        owner, place = np.nonzero((earlier > 0) & (later > 0) & (earlier != later))
        first, second = earlier[owner, place] - 1, later[owner, place] - 1
        for pair, share in ((first * items + second, 1.0), (second * items + first, rule.reverse)):
            owners.append(owner)
            cells.append(pair)
            weights.append(np.full(len(owner), share * rule.gap_decay ** (gap - 1)))
    if not owners:
        return (np.zeros(0, np.int64),) * 3
    shape = (len(newest), items * items)
    entries = (np.concatenate(weights), (np.concatenate(owners), np.concatenate(cells)))
    added = sparse.coo_matrix(entries, shape=shape).tocsr()
    added.sum_duplicates()
    owner = np.repeat(np.arange(len(newest)), np.diff(added.indptr))
    norm = np.sqrt(np.bincount(owner, added.data**2, len(newest)))
    steps = np.floor(STEPS * added.data / norm[owner]).astype(np.int64)
    return owner, added.indices.astype(np.int64), steps


def _newest(users: UserSequences) -> Iterator[_Ints]:
    """The newest events of groups of users of like length, shape (B, L), 0 behind the last."""
    order = np.argsort(users.length, kind="stable")
    first = 0
    while first < len(order):
        longest = int(users.length[order[min(first + _EVENTS_AT_ONCE // 2, len(order)) - 1]])
        count = max(1, _EVENTS_AT_ONCE // longest)
        yield users.batch(order[first : first + count]).items.numpy()
        first += count


def _mu(deviation: int, items: int) -> float:
    return mu_of_mixed_noise([(_noise(deviation, items), 1)])


def _noise(deviation: int, items: int) -> float:
    """Noise over sensitivity of the Gaussian mechanism that one release is at least as private as."""
    return equivalent_gaussian_deviation(deviation, (items + 1) ** 2) / STEPS * (1 - 2**-50)
