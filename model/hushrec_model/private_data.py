"""What private training may see of a shop.

Nothing that is not noised may depend on the log: the catalogue is the items file's, prices and texts come from there
alone, every event has the one behaviour, and no size is decided from lengths or counts. Items that only the log names
are outside the catalogue. What is counted under noise is in `private_counts.py`.
"""

import math
from dataclasses import replace

import numpy as np
from hushrec_privacy.errors import ConfigError

from hushrec_model.items import Items
from hushrec_model.log import Log
from hushrec_model.sequences import Queries, Sequences
from hushrec_model.splits import Split

__all__ = ["public_items", "public_log", "public_split"]


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
