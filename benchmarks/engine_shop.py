"""The shop that the engine is measured on: trained weights, its catalogue enlarged to any size, its own test histories.

The weights are those of a finished training run. Copy c of the
catalogue repeats every item vector with noise, at unit length again; the noise is so large that an item is as far from
its copies as it usually is from its nearest neighbour. Copies have the items' popularity and neighbours, shifted into
the same copy. A shopper's whole history lies in one copy, so that all of the table is used. The blend has all four
kinds of counts, more than most shops' have: time does not depend on their weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hushrec.bundle import write_bundle
from hushrec.manifest import ArrayInfo, BlendPart, Manifest, ModelInfo
from hushrec.tables import WIDTH, items_layout
from hushrec.weights.arrays import pack_arrays
from hushrec.weights.encoder import EncoderWeights
from numpy.typing import NDArray

__all__ = ["BLEND", "Shop", "Trained", "enlarged_rows", "enlarged_table", "load_trained", "open_shop", "write_shop"]

Floats = NDArray[np.float32]
Indexes = NDArray[np.int64]

SEED, HISTORIES, LAST_EVENTS = 0, 4_000, 8
BLEND = (
    BlendPart("own", 3.0, 0.3, decay=0.9),
    BlendPart("transitions", 0.6, 0.01, decay=0.6, window=20),
    BlendPart("item_knn", 0.6, 0.003, decay=0.95, window=20),
    BlendPart("popularity", 0.1, 1.0),
)
_COMPARED = 2_000  # items whose nearest neighbour is looked for


class Trained(NamedTuple):
    """What is taken from a training run.

    Attributes:
        weights: Of the encoder.
        rows: Item vectors of unit length, row 0 zeros, shape (V + 1, 64).
        tables: Count tables, as a bundle has them.
        histories: Item indexes of test histories, oldest first: each shopper's last events come one by one.
    """

    weights: EncoderWeights
    rows: Floats
    tables: Mapping[str, NDArray[np.generic]]
    histories: list[Indexes]


class Shop(NamedTuple):
    """What peers export.

    Attributes:
        weights: The encoder's arrays by name.
        rows: Shape (V + 1, 64).
    """

    weights: dict[str, Floats]
    rows: Floats


def load_trained(run: Path) -> Trained:
    """Read a folder of `hushrec train`.

    Raises:
        CheckpointError: It is no finished training folder.
        SystemExit: The shop has several behaviours, which the peers' graphs have no input for.
    """
    from hushrec_model.run_folder import load_run
    from hushrec_quantize.convert import encoder_weights

    found = load_run(run)
    if len(found.log.behaviors) > 1:
        raise SystemExit(f"{run}: has {len(found.log.behaviors)} behaviours; give the run of a shop with one")
    test = found.split.test
    histories = []
    for query in np.random.default_rng(SEED).permutation(len(test)):
        events = test.history(int(query)).astype(np.int64)
        events = events[events > 0]
        histories += [events[:stop] for stop in range(max(len(events) - LAST_EVENTS, 0) + 1, len(events) + 1)]
        if len(histories) >= HISTORIES:
            break
    return Trained(encoder_weights(found.model), found.model.table().numpy(), found.tables(), histories)


def enlarged_rows(rows: Floats, items: int, rng: np.random.Generator) -> tuple[Floats, float]:
    """Repeat a catalogue with noise.

    Args:
        rows: Unit vectors, row 0 zeros, shape (V + 1, 64).
        items: How many items are wanted; the first V are the catalogue as it is.
        rng: Draws the noise.

    Returns:
        Rows of unit length, row 0 zeros, shape (items + 1, 64), and the cosine that a copy has with its item on
        average: the median cosine of an item and its nearest neighbour.
    """
    own = rows[1:]
    chosen = rng.permutation(len(own))[:_COMPARED]
    cosines = own[chosen] @ own.T
    cosines[np.arange(len(chosen)), chosen] = -1
    cosine = float(np.clip(np.median(cosines.max(axis=1)), 0.1, 0.99))
    noise = np.float32(np.sqrt((cosine**-2 - 1) / WIDTH))
    found = np.zeros((items + 1, WIDTH), np.float32)
    for start in range(1, items + 1, len(own)):
        part = found[start : start + len(own)]
        part[:] = own[: len(part)]
        if start > 1:
            part += noise * rng.standard_normal(part.shape, np.float32)
            part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found, cosine


def enlarged_table(table: NDArray[np.generic], name: str, items: int) -> NDArray[np.generic]:
    """Repeat a count table, its rows as wide as training keeps them in a shop of that size.

    Args:
        table: Of V items and row 0, shape (V + 1,) or (V + 1, K).
        name: Of the table; one that ends in ".items" holds item numbers, which are shifted into the copy. Numbers above
            `items` become 0, no item.
        items: How many items are wanted.
    """
    own = len(table) - 1
    from hushrec_model.counting import neighbours_a_row

    source = np.arange(items) % own + 1
    if table.ndim > 1:
        table = table[:, : neighbours_a_row(items)]  # the strongest come first
    found = np.concatenate([table[:1], table[source]])
    if name.endswith(".items"):
        shift = (np.arange(items) // own * own).astype(found.dtype)[:, None]
        near: Any = found[1:]
        near += np.where(near > 0, shift, 0).astype(found.dtype)
        near[near > items] = 0
    return found


def write_shop(root: Path, trained: Trained, items: int) -> dict[str, Any]:
    """Write a shop of a size into a folder, its bundle included; gives facts to print."""
    from hushrec_quantize.graphs import build_graphs

    rng = np.random.default_rng(SEED)
    rows, cosine = enlarged_rows(trained.rows, items, rng)
    own = len(trained.rows) - 1
    copies = max(items // own, 1)
    histories = [np.minimum(h + int(rng.integers(copies)) * own, items) for h in trained.histories]
    np.savez(root / "weights.npz", **trained.weights.arrays())  # type: ignore[arg-type]
    np.save(root / "rows.npy", rows)
    np.savez(root / "histories.npz", item=np.concatenate(histories), stop=np.cumsum([len(h) for h in histories]))
    size = {"items": items, "max_history": trained.weights.max_history}
    (root / "shop.json").write_text(json.dumps(size), encoding="utf-8")
    graphs = build_graphs(trained.weights, rows)
    tables = {name: enlarged_table(table, name, items) for name, table in trained.tables.items()}
    neighbours, arrays = pack_arrays(
        "neighbours.bin", {name: table for name, table in tables.items() if name in _used()}
    )
    layout = items_layout(graphs.capacity)
    arrays["items.codes"] = ArrayInfo("items.bin", layout.codes_offset, "|u1", (graphs.capacity, WIDTH))
    arrays["items.scale"] = ArrayInfo("items.bin", layout.scale_offset, "<f4", (1,))
    model = ModelInfo(
        width=WIDTH,
        layers=len(trained.weights.layers),
        max_history=trained.weights.max_history,
        items=items,
        capacity=graphs.capacity,
        filter_seen=False,
        times=True,
    )
    files = {**graphs.files(), "neighbours.bin": neighbours, "catalog.sqlite": b""}  # titles play no part here
    card = {"headline": "no guarantee for this bundle"}
    write_bundle(
        root / "shop.hush",
        Manifest(card=card, model=model, blend=BLEND, arrays=arrays),
        files,
        dict.fromkeys(files, "private"),
    )
    lengths = [min(len(h), trained.weights.max_history) for h in histories]
    return {"items": items, "copies": items / own, "cosine": cosine, "median_history": float(np.median(lengths))}


def open_shop(root: Path) -> Shop:
    """Read what `write_shop` wrote."""
    with np.load(root / "weights.npz") as weights:
        arrays = {name: weights[name] for name in weights.files}
    return Shop(arrays, np.load(root / "rows.npy"))


def _used() -> set[str]:
    """Names of the arrays that the blend reads."""
    kinds = ("items", "weights", "scales")
    return {"popularity", *(f"{part.name}.{kind}" for part in BLEND for kind in kinds)}
