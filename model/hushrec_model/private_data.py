"""What private training may see of a shop, and the count tables that it releases under noise.

Nothing that is not noised may depend on the log: the catalogue is the items file's, prices and texts come from there
alone, every event has the one behaviour, and no size is decided from lengths or counts. Items that only the log names
are outside the catalogue.
"""

import math
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from hushrec.manifest import BlendPart
from hushrec_privacy.accounting.gaussian import mu_of_participations
from hushrec_privacy.errors import CheckpointError, ConfigError
from hushrec_privacy.mechanisms.float_gaussian import float_gaussian
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

from hushrec_model.items import Items
from hushrec_model.log import Log
from hushrec_model.sequences import Queries, Sequences
from hushrec_model.splits import Split
from hushrec_model.user_sequences import UserSequences

__all__ = [
    "COUNTS_FILE",
    "COUNTS_NOISE",
    "Counts",
    "counts_mu",
    "load_counts",
    "popularity_part",
    "public_items",
    "public_log",
    "public_split",
    "release_counts",
    "save_counts",
]

COUNTS_NOISE = 10.0
"""Standard deviation of the noise over the bound of one user's counts."""

_RELEASES = 2  # popularity, and whether shoppers return
_NEWEST = 20  # events of a user that count
_AT_ONCE = 4096  # users counted together
_RETURNING = 0.05  # share of users above which seen items stay in the ranking


COUNTS_FILE = "counts.npz"
"""Where a run folder keeps them."""


@dataclass(frozen=True, eq=False)
class Counts:
    """What is released before the first step.

    Attributes:
        popularity: Noised, at least 0, shape (V + 1,); 0 at index 0.
        filter_seen: Whether few users return to an item, by a noised count of those who do.
    """

    popularity: NDArray[np.float32]
    filter_seen: bool


def counts_mu() -> float:
    """Separation of both releases together."""
    return mu_of_participations(COUNTS_NOISE, _RELEASES)


def public_log(log: Log) -> Log:
    """The same log with one behaviour: which others there are, the log alone knows."""
    return replace(log, behaviors=("view",), behavior=np.zeros_like(log.behavior))


def public_split(split: Split, log: Log, *, filter_seen: bool | None = None) -> Split:
    """The same split over the catalogue of the items file.

    Args:
        split: Of the whole log.
        log: Its `listed` items come first.
        filter_seen: What the released counts decided; None: as it is.

    Raises:
        ConfigError: No items file was given: the catalogue would come from the log.
    """
    if not log.listed:
        raise ConfigError("--epsilon needs --items: without an items file the catalogue itself would come from the log")

    def events(of: Sequences) -> Sequences:
        item = np.where(of.item > log.listed, 0, of.item).astype(np.int32)
        return replace(of, item=item)

    def queries(of: Queries) -> Queries:
        target = np.where(of.target > log.listed, 0, of.target).astype(np.int32)
        return replace(of, events=events(of.events), target=target)

    return replace(
        split,
        items=split.items[: log.listed],
        catalog=split.catalog[: log.listed],
        train=events(split.train),
        valid=queries(split.valid),
        test=queries(split.test),
        filter_seen=split.filter_seen if filter_seen is None else filter_seen,
        notes=[note for note in split.notes if not note.startswith("seen items")],  # the released counts decide that
    )


def public_items(known: Items) -> Items:
    """What is known of the items without the log: prices that came from events are taken out."""
    if not known.price_from_events:
        return known
    return replace(known, price=np.full_like(known.price, math.nan), price_from_events=False)


def release_counts(train: Sequences, items: int, source: OsRandom) -> Counts:
    """Noised popularity, and the noised number of users who return to an item.

    Guarantee:
        Adding or removing one user moves each of the two releases by at most 1 in L2: the n distinct items among a
        user's 20 newest events count n^(-1/2) each. Both have noise of standard deviation `COUNTS_NOISE`; `counts_mu`
        is their separation. Floating-point slack: see `float_gaussian`.

    Args:
        train: Training sequences.
        items: V.
        source: Of the noise.
    """
    counts, returning = np.zeros(items + 1), 0.0
    users = UserSequences(train, _NEWEST - 1)
    for first in range(0, len(users), _AT_ONCE):
        newest = np.sort(users.batch(np.arange(first, min(first + _AT_ONCE, len(users)))).items.numpy(), axis=1)
        distinct = (newest > 0) & (np.diff(newest, axis=1, prepend=0) != 0)
        size = distinct.sum(1)
        owner, place = np.nonzero(distinct)
        np.add.at(counts, newest[owner, place], size[owner] ** -0.5)
        returning += float((size < (newest > 0).sum(1)).sum())
    counts += float_gaussian(source, len(counts), COUNTS_NOISE)
    returning += float(float_gaussian(source, 1, COUNTS_NOISE)[0])
    counts[0] = 0
    return Counts(np.maximum(counts, 0).astype(np.float32), bool(returning <= _RETURNING * len(users)))


def popularity_part() -> BlendPart:
    """How popularity joins the scores: log(1 + count / noise), fixed beforehand."""
    return BlendPart("popularity", 1.0, COUNTS_NOISE)


def save_counts(path: Path, counts: Counts) -> None:
    """Write released counts, whole or not at all."""
    part = path.with_name(path.name + ".part.npz")
    np.savez(part, popularity=counts.popularity, filter_seen=counts.filter_seen)
    part.replace(path)


def load_counts(path: Path) -> Counts:
    """Read released counts back.

    Raises:
        CheckpointError: They are missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return Counts(kept["popularity"], bool(kept["filter_seen"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: the counts that were paid for are missing or damaged; train into another folder"
        ) from error
