"""Data with a known answer, and the smallest models that can learn it: for tests of training, counting and evaluation.

Items are numbers from 1 on, and a sequence is a list of them, oldest first.
"""

from collections.abc import Sequence

import numpy as np
import torch
from hushrec_model.features import ItemFeatures, item_features
from hushrec_model.model import Model
from hushrec_model.network import EncoderShape
from hushrec_model.sequences import Queries, Sequences
from hushrec_model.settings import Settings
from hushrec_model.splits import Split, split_log
from numpy.typing import NDArray

from tests.small_log import small_log

SMALL = EncoderShape(heads=(1,), channels=(16,), max_history=8)
SETTINGS = Settings(shape=SMALL, tokens=64, epochs=3, dropout=0.1)

Rows = Sequence[Sequence[int]]


def sequences(rows: Rows, *, behaviors: Rows | None = None, baskets: Rows | None = None) -> Sequences:
    """Lay sequences of items end to end."""
    return Sequences(
        offsets=_offsets(rows),
        item=_flat(rows).astype(np.int32),
        behavior=_flat(behaviors or [[0] * len(row) for row in rows]).astype(np.int8),
        time=None,
        basket=None if baskets is None else _flat(baskets).astype(np.int32),
    )


def queries(histories: Rows, targets: Rows, *, behaviors: Rows | None = None) -> Queries:
    """Ask for targets after histories; 0 is an item outside the catalogue."""
    events = sequences(histories, behaviors=behaviors)
    offsets = events.offsets
    return Queries(events, offsets[:-1], offsets[1:], _offsets(targets), _flat(targets).astype(np.int32))


def split_of(rows: Rows) -> Split:
    """Split sequences, one a user, by leave-one-out; the item file lists the items in the order of their numbers."""
    listed = "".join(chr(0x100 + item) for item in range(1, max(map(max, rows)) + 1))
    return split_log(
        small_log([(f"user-{user}", listed[item - 1]) for user, row in enumerate(rows) for item in row], listed=listed),
        "leave-one-out",
    )


def chain(users: int, items: int, length: int, seed: int = 0) -> list[list[int]]:
    """Shoppers who walk from each item to the next one, from anywhere, around the catalogue."""
    starts = np.random.default_rng(seed).integers(0, items, users)
    return [[int(start + step) % items + 1 for step in range(length)] for start in starts]


def nothing_known(items: int) -> ItemFeatures:
    """Items without title, price, attribute or vector."""
    return item_features([None] * items, np.full(items, np.nan), {})


def all_known(items: int) -> ItemFeatures:
    """Items with every kind of content, some of it missing for some."""
    return item_features(
        [f"Thing number {item}" if item % 4 else None for item in range(items)],
        np.array([item / 2 if item % 3 else np.nan for item in range(items)]),
        {
            "category": [("mugs", "gifts")[: 1 + item % 2] for item in range(items)],
            "brand": [("acme",) if item % 2 else () for item in range(items)],
        },
        np.random.default_rng(1).normal(size=(items, 5)).astype(np.float32),
    )


def small_model(items: int, shape: EncoderShape = SMALL, features: ItemFeatures | None = None, seed: int = 0) -> Model:
    """An untrained model without dropout whose items were all seen, in evaluation mode; every weight is random."""
    torch.manual_seed(seed)
    features = features or nothing_known(items)
    model = Model(shape, features, np.full(items, 5), dropout=0.0, attention_dropout=0.0, id_dropout=0.0)
    with torch.no_grad():
        for weight in model.encoder.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()


def _flat(rows: Rows) -> NDArray[np.int64]:
    return np.array([value for row in rows for value in row], np.int64)


def _offsets(rows: Rows) -> NDArray[np.int64]:
    return np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
