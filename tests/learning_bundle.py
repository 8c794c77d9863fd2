"""Bundles that devices can train on, beside the torch model whose values they hold: to compare what both compute."""

import copy
from pathlib import Path

import numpy as np
import torch
from hushrec.bundle import Bundle
from hushrec.federated.start import Start
from hushrec_model.counting import count_tables
from hushrec_model.features import ItemFeatures
from hushrec_model.items import Items
from hushrec_model.model import Model
from hushrec_model.network import EncoderShape
from hushrec_quantize.convert import encoder_weights
from hushrec_quantize.graphs import build_graphs
from hushrec_quantize.pack import BundleFacts, Content, write_model_bundle
from numpy.typing import NDArray

from tests.planted import all_known, chain, nothing_known, sequences, small_model

ITEMS = 40
SHAPE = EncoderShape(heads=(2, 1), channels=(16, 32), max_history=8, behaviors=3)
BEHAVIORS = ("view", "cart", "purchase")


def learning_bundle(out: Path, *, described: bool = True, unseen: int = 0) -> tuple[Bundle, Model]:
    """Write a bundle of an untrained model, with items that have titles, prices, attributes and vectors, or nothing.

    Args:
        out: Where.
        described: Whether anything is known of the items.
        unseen: How many of the last items training never saw; without a description they have no vector.
    """
    features = all_known(ITEMS) if described else nothing_known(ITEMS)
    model = small_model(ITEMS, SHAPE, features)
    if unseen:
        model.items.trained[-unseen:] = False
    content = Content([f"sku-{n}" for n in range(ITEMS)], known_of(features, described), features, tables(), model)
    facts = BundleFacts(
        filter_seen=False, times=True, behaviors=BEHAVIORS, public_catalog=True, model_version=1, card={"name": "test"}
    )
    graphs = build_graphs(encoder_weights(model), model.table().numpy())
    bundle = write_model_bundle(out, graphs, content, (), facts)
    return bundle, as_on_devices(bundle, model)


def known_of(features: ItemFeatures, described: bool) -> Items:
    """What `all_known` numbers, as the catalogue holds it."""
    if not described:
        return Items([None] * ITEMS, np.full(ITEMS, np.nan), {}, None)
    return Items(
        title=[f"Thing number {item}" if item % 4 else None for item in range(ITEMS)],
        price=np.array([item / 2 if item % 3 else np.nan for item in range(ITEMS)]),
        attributes={
            "category": [("mugs", "gifts")[: 1 + item % 2] for item in range(ITEMS)],
            "brand": [("acme",) if item % 2 else () for item in range(ITEMS)],
        },
        vectors=features.vectors,
    )


def tables() -> dict[str, NDArray[np.generic]]:
    """Counts of a few walks through the catalogue."""
    return dict(count_tables(sequences(chain(20, ITEMS, 5)), ITEMS))


def as_on_devices(bundle: Bundle, model: Model) -> Model:
    """The same model with the item vectors that the bundle's int8 rows stand for, all of them trained."""
    start = Start.of(bundle)
    turned = torch.from_numpy(start.vectors(np.arange(1, ITEMS + 1)) * start.lengths[1:, None])
    same = copy.deepcopy(model)
    with torch.no_grad():
        same.items.trained[:] = True
        same.items.id.weight.copy_(turned - same.items.content())
    for weight in same.parameters():
        weight.requires_grad_(True)
    return same
