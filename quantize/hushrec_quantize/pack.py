"""Put a quantized model into a bundle: its arrays at aligned offsets, its catalogue, its manifest with an origin for
every part.

Every part that training or counting touched has the origin of the run: `private`, or `dp(run)` if it had a privacy
budget. Only the graphs, which hold no weights, are always `public`, and the catalogue is if all of it comes from the
shop's items file.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hushrec.bundle import Bundle, write_bundle
from hushrec.catalog import write_catalog
from hushrec.manifest import FORMAT, NO_GUARANTEE, ArrayInfo, BlendPart, Manifest, ModelInfo
from hushrec.tables import WIDTH, items_layout
from hushrec.weights.arrays import pack_arrays
from hushrec_model.features import ItemFeatures
from hushrec_model.items import Items
from hushrec_model.model import Model
from numpy.typing import NDArray

from hushrec_quantize.convert import encoder_weights
from hushrec_quantize.graphs import Graphs
from hushrec_quantize.train_graph import TRAIN_STEP_ONNX, build_train_step

__all__ = ["BundleFacts", "Content", "write_model_bundle"]

_PUBLIC = (
    "encoder.onnx",
    "scorer.onnx",
    "blocks.onnx",
    TRAIN_STEP_ONNX,
)  # their shapes come from settings; all else was learned or counted


class Content:
    """What a bundle is made of, beside graphs and card.

    Args:
        items: Ids of the catalogue, V of them.
        known: Titles, prices and attributes, aligned with `items`.
        features: The same as numbers, and their vocabulary.
        tables: Count tables and popularity.
        model: The trained model, for the embedding tables of later items.
    """

    def __init__(
        self,
        items: Sequence[str],
        known: Items,
        features: ItemFeatures,
        tables: Mapping[str, NDArray[np.generic]],
        model: Model,
    ) -> None:
        self.items, self.known, self.features, self.tables, self.model = items, known, features, tables, model

    def feature_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Tables from which the vector of an item that arrives later is made."""
        table, names = self.model.items, json.dumps(self.features.attribute_names, ensure_ascii=False)
        arrays: dict[str, NDArray[np.generic]] = {"features.attribute_names": np.frombuffer(names.encode(), np.uint8)}
        for name, module in (
            ("attributes", table.attributes),
            ("words", table.words),
            ("prices", table.price),
            ("projection", table.projection),
        ):
            if module is not None:
                arrays[f"features.{name}"] = module.weight.detach().numpy().astype(np.float32)
        if table.price is not None:
            arrays["features.price_edges"] = self.features.price_edges.astype(np.float32)
        return arrays

    def trained_arrays(self, graphs: Graphs) -> dict[str, NDArray[np.float32]]:
        """What a device needs to train beside the feature tables: the encoder in float32, the basis of the item table,
        and the length of each item vector before it was made unit length; of one without any part, the mean length."""
        lengths = self.model.items.raw().detach().norm(dim=1).numpy()
        known = lengths > 0
        lengths = np.where(known, lengths, lengths[known].mean() if known.any() else 1).astype(np.float32)
        arrays = {**encoder_weights(self.model).arrays(), "rotation": graphs.rotation, "lengths": lengths}
        return {f"params.{name}": array for name, array in arrays.items()}


@dataclass(frozen=True)
class BundleFacts:
    """What a bundle says of itself, beside what is in it.

    Attributes:
        filter_seen: Whether `recommend` leaves out seen items by default.
        times: Whether training had times.
        behaviors: Names of the behaviours.
        public_catalog: Whether nothing of the catalogue was learned from the log.
        model_version: Rises with each release.
        card: JSON values for the model card.
        learned: Origin of everything learned or counted: "private", or "dp(run)".
    """

    filter_seen: bool
    times: bool
    behaviors: tuple[str, ...]
    public_catalog: bool
    model_version: int
    card: Mapping[str, Any]
    learned: str = "private"


def write_model_bundle(
    out: Path, graphs: Graphs, content: Content, blend: Sequence[BlendPart], facts: BundleFacts
) -> Bundle:
    """Write the bundle of one model.

    Args:
        out: The directory; an earlier bundle there is replaced.
        graphs: Graphs and binary files of the engine.
        content: The rest.
        blend: Parts of the blend; tables that no part uses are left out.
        facts: See `BundleFacts`.

    Raises:
        BundleError: The place holds something else, or the disk refused.
    """
    used = {part.name for part in blend}
    tables = {k: v for k, v in content.tables.items() if k == "popularity" or k.split(".")[0] in used}
    neighbours, where = pack_arrays("neighbours.bin", tables)
    features, feature_places = pack_arrays("features.bin", content.feature_arrays())
    params, param_places = pack_arrays("params.bin", content.trained_arrays(graphs))
    layout = items_layout(graphs.capacity)
    arrays = {
        "items.codes": ArrayInfo("items.bin", layout.codes_offset, "|u1", (graphs.capacity, WIDTH)),
        "items.scale": ArrayInfo("items.bin", layout.scale_offset, "<f4", (1,)),
        **where,
        **feature_places,
        **param_places,
    }
    shape = content.model.encoder.shape
    manifest = Manifest(
        format=FORMAT,
        model_version=facts.model_version,
        card={"headline": NO_GUARANTEE, **facts.card},
        model=ModelInfo(
            width=WIDTH,
            layers=len(shape.heads),
            max_history=shape.max_history,
            items=len(content.items),
            capacity=graphs.capacity,
            behaviors=facts.behaviors,
            filter_seen=facts.filter_seen,
            times=facts.times,
        ),
        blend=tuple(blend),
        arrays=arrays,
        files={},
    )
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "catalog.sqlite"
        known = content.known
        write_catalog(catalog, content.items, known.title, known.price, known.attributes)
        files: dict[str, bytes | Path] = {
            **graphs.files(),
            TRAIN_STEP_ONNX: build_train_step(encoder_weights(content.model)),
            "params.bin": params,
            "features.bin": features,
            "neighbours.bin": neighbours,
            "catalog.sqlite": catalog,
        }
        origins = {name: "public" if name in _PUBLIC else facts.learned for name in files}
        origins["catalog.sqlite"] = "public" if facts.public_catalog else "private"
        return write_bundle(out, manifest, files, origins)
