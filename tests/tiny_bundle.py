"""A small real bundle for tests: 60 items, random weights, every part that a shop's bundle has.

Nobody trained it, so its scores mean nothing, but graphs, tables, catalogue and manifest are the real thing.
"""

import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hushrec.bundle import write_bundle
from hushrec.catalog import write_catalog
from hushrec.manifest import ALIGNMENT, ArrayInfo, BlendPart, Manifest, ModelInfo
from hushrec.tables import WIDTH, items_layout
from hushrec.weights.encoder import ADAPTER_RANK, HEAD_WIDTH, EncoderWeights, LayerWeights
from hushrec_quantize.graphs import build_graphs
from hushrec_quantize.train_graph import build_train_step
from numpy.typing import NDArray

ITEMS = tuple(f"item-{number}" for number in range(1, 61))
TITLES = tuple(f"Thing number {number}" for number in range(1, 61))
CATEGORIES = ("Mugs", "Cups", "Lamps", "Bags")
BEHAVIORS = ("view", "cart", "purchase")
MAX_HISTORY = 8
NEIGHBOURS = 5
BLEND = (
    BlendPart("own", 0.4, 0.1, decay=0.7),
    BlendPart("transitions", 0.6, 0.01, decay=0.6, window=6),
    BlendPart("item_knn", 0.5, 0.003, decay=0.95, window=6),
)
PRIVATE = ("encoder.bin", "items.bin", "neighbours.bin", "params.bin")


def tiny_bundle(folder: Path, **model: Any) -> Path:
    """Copy the bundle into `folder`, with other values of `ModelInfo` if given; every copy has files of its own."""
    out = folder / "shop.hush"
    if model:
        return write_tiny_bundle(out, **model)
    shutil.copytree(_made_once(), out)
    return out


@functools.cache
def _made_once() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="hushrec-tests-")
    _kept.append(folder)  # removed when the process ends
    return write_tiny_bundle(Path(folder.name) / "shop.hush")


_kept: list[tempfile.TemporaryDirectory[str]] = []


def write_tiny_bundle(out: Path, *, items: int = len(ITEMS), seed: int = 7, train: bool = True, **model: Any) -> Path:
    """Write such a bundle; from 61 items on they are called item-61 and so on.

    Args:
        out: Where.
        items: V.
        seed: Of everything random.
        train: With what devices need to train; without it, as bundles were before there was training.
        model: Other values of `ModelInfo`.
    """
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(items + 1, WIDTH)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[0] = 0
    weights = random_weights(rng)
    graphs = build_graphs(weights, rows)
    neighbours, arrays = packed("neighbours.bin", count_tables(items, rng))
    learnt = {**weights.arrays(), "rotation": graphs.rotation, "lengths": np.linspace(0.5, 2, items + 1, dtype="<f4")}
    params, places = packed("params.bin", {f"params.{name}": array for name, array in learnt.items()})
    arrays |= places if train else {}
    layout = items_layout(graphs.capacity)
    arrays["items.codes"] = ArrayInfo("items.bin", layout.codes_offset, "|u1", (graphs.capacity, WIDTH))
    arrays["items.scale"] = ArrayInfo("items.bin", layout.scale_offset, "<f4", (1,))
    known: dict[str, Any] = {"filter_seen": False, "times": True, "behaviors": BEHAVIORS, **model}
    manifest = Manifest(
        card={"name": "tiny"},
        model=ModelInfo(width=WIDTH, layers=1, max_history=MAX_HISTORY, items=items, capacity=graphs.capacity, **known),
        blend=BLEND,
        arrays=arrays,
    )
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "catalog.sqlite"
        write_tiny_catalog(catalog, items)
        files: dict[str, bytes | Path] = {**graphs.files(), "neighbours.bin": neighbours, "catalog.sqlite": catalog}
        if train:
            files |= {"train_step.onnx": build_train_step(weights), "params.bin": params}
        origins = {name: "private" if name in PRIVATE else "public" for name in files}
        return write_bundle(out, manifest, files, origins).root


def write_tiny_catalog(path: Path, items: int = len(ITEMS)) -> None:
    """A catalogue with titles, some prices, one or two categories an item, and a brand for every other item."""
    numbers = range(1, items + 1)
    write_catalog(
        path,
        [f"item-{number}" for number in numbers],
        [f"Thing number {number}" for number in numbers],
        np.array([number / 2 if number % 5 else np.nan for number in numbers]),
        {
            "category": [tuple({CATEGORIES[number % 4]: 1, CATEGORIES[number % 3]: 1}) for number in numbers],
            "brand": [(f"Brand {number % 7}",) if number % 2 else () for number in numbers],
        },
    )


def count_tables(items: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Random neighbours without doubles, some rows shorter than K, and a popularity that falls with the index."""
    tables: dict[str, NDArray[Any]] = {}
    for name in ("transitions", "item_knn"):
        near = np.argsort(rng.random((items + 1, items)), axis=1)[:, :NEIGHBOURS].astype(np.uint32) + 1
        weights = rng.integers(1, 256, near.shape).astype(np.uint8)
        near[::4, 3:], weights[::4, 3:] = 0, 0
        near[0], weights[0] = 0, 0
        tables |= {f"{name}.items": near, f"{name}.weights": weights}
        tables[f"{name}.scales"] = rng.random(items + 1).astype(np.float32) / 255
    tables["popularity"] = np.concatenate([[0], np.arange(items, 0, -1)]).astype(np.float32)
    return tables


def packed(file: str, tables: Mapping[str, NDArray[Any]]) -> tuple[bytes, dict[str, ArrayInfo]]:
    """Lay arrays end to end at multiples of 64 bytes."""
    content, arrays = b"", {}
    for name, table in tables.items():
        content += bytes(-len(content) % ALIGNMENT)
        arrays[name] = ArrayInfo(file, len(content), table.dtype.str, table.shape)  # type: ignore[arg-type]
        content += table.tobytes()
    return content, arrays


def random_weights(rng: np.random.Generator) -> EncoderWeights:
    """One layer, one head, 16 channels."""

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(scale=0.1, size=shape).astype(np.float32)

    ones, channels = np.ones(WIDTH, np.float32), 16
    layer = LayerWeights(
        norm1_scale=ones,
        norm1_bias=normal(WIDTH),
        w1=normal(WIDTH, 3 * HEAD_WIDTH + WIDTH),
        wo=normal(HEAD_WIDTH, WIDTH),
        bias=normal(1, MAX_HISTORY),
        norm2_scale=ones,
        norm2_bias=normal(WIDTH),
        w2=normal(WIDTH, 2 * channels + WIDTH),
        w3=normal(channels, WIDTH),
    )
    return EncoderWeights(
        layers=(layer,),
        norm_scale=ones,
        norm_bias=normal(WIDTH),
        adapter_down=normal(WIDTH, ADAPTER_RANK),
        adapter_up=normal(ADAPTER_RANK, WIDTH),
        scale=20.0,
        behaviors=normal(len(BEHAVIORS), WIDTH),
    )
