"""What lies in a bundle of a trained model, where, and of which origin."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.manifest import NO_GUARANTEE, BlendPart
from hushrec.tables import dequantize_rows
from hushrec_model.counting import count_tables
from hushrec_model.features import ItemFeatures
from hushrec_model.items import Items
from hushrec_quantize.convert import encoder_weights
from hushrec_quantize.graphs import build_graphs
from hushrec_quantize.pack import BundleFacts, Content, write_model_bundle
from hushrec_quantize.train_graph import build_train_step

from tests.planted import SMALL, all_known, chain, nothing_known, sequences, small_model

ITEMS = 12
IDS = [f"sku-{item}" for item in range(ITEMS)]
KNOWN = Items(
    title=[f"Thing {item}" if item else None for item in range(ITEMS)],
    price=np.array([np.nan, *range(1, ITEMS)], np.float64),
    attributes={"category": [("mugs", "gifts")[: item % 3] for item in range(ITEMS)]},
    vectors=None,
)
LEARNT = ("encoder.bin", "items.bin", "features.bin", "neighbours.bin", "params.bin")
TRANSITIONS = BlendPart("transitions", 0.6, 0.01, 0.6, 20)


def written(
    out: Path,
    features: ItemFeatures,
    blend: Sequence[BlendPart] = (TRANSITIONS,),
    filter_seen: bool = False,
    public_catalog: bool = True,
) -> Bundle:
    model = small_model(ITEMS, SMALL, features)
    return write_model_bundle(
        out,
        build_graphs(encoder_weights(model), model.table().numpy()),
        Content(IDS, KNOWN, features, count_tables(sequences(chain(20, ITEMS, 5)), ITEMS), model),
        blend,
        BundleFacts(
            filter_seen=filter_seen,
            times=True,
            behaviors=("view",),
            public_catalog=public_catalog,
            model_version=4,
            card={"protocol": "leave-one-out"},
        ),
    )


def test_the_manifest_says_what_the_model_is(tmp_path: Path) -> None:
    manifest = written(tmp_path / "shop.hush", all_known(ITEMS), filter_seen=True).manifest
    assert (manifest.model_version, manifest.blend) == (4, (TRANSITIONS,))
    assert next(iter(manifest.card.items())) == ("headline", NO_GUARANTEE)
    assert manifest.card["protocol"] == "leave-one-out"
    model = manifest.model
    assert (model.items, model.layers, model.max_history, model.behaviors) == (ITEMS, 1, 8, ("view",))
    assert (model.filter_seen, model.times) == (True, True)


@pytest.mark.parametrize("listed", [True, False])
def test_every_part_that_touched_the_log_is_private(tmp_path: Path, listed: bool) -> None:
    files = written(tmp_path / "shop.hush", all_known(ITEMS), public_catalog=listed).manifest.files
    public = {"encoder.onnx", "scorer.onnx", "blocks.onnx", "train_step.onnx", *(["catalog.sqlite"] if listed else [])}
    assert {name: file.origin for name, file in files.items()} == {
        name: "public" if name in public else "private" for name in (*public, "catalog.sqlite", *LEARNT)
    }


@pytest.mark.parametrize("names", [(), ("item_knn",), ("transitions", "item_knn", "own", "popularity")])
def test_only_tables_that_the_blend_uses_are_shipped(tmp_path: Path, names: tuple[str, ...]) -> None:
    bundle = written(tmp_path / "shop.hush", nothing_known(ITEMS), [BlendPart(name, 1.0, 1.0) for name in names])
    shipped = {name.partition(".")[0] for name in bundle.manifest.arrays} - {"items", "features", "params"}
    assert shipped == {"popularity"} | set(names) - {"own"}
    np.testing.assert_array_equal(
        bundle.array("popularity"), count_tables(sequences(chain(20, ITEMS, 5)), ITEMS)["popularity"]
    )


def test_the_tables_for_later_items_are_those_of_the_model(tmp_path: Path) -> None:
    features = all_known(ITEMS)
    bundle, table = written(tmp_path / "shop.hush", features), small_model(ITEMS, SMALL, features).items
    names = json.loads(bundle.array("features.attribute_names").tobytes())
    assert [tuple(pair) for pair in names] == list(features.attribute_names)
    for name, module in (
        ("attributes", table.attributes),
        ("words", table.words),
        ("prices", table.price),
        ("projection", table.projection),
    ):
        assert module is not None
        np.testing.assert_array_equal(bundle.array(f"features.{name}"), module.weight.detach().numpy())
    np.testing.assert_array_equal(bundle.array("features.price_edges"), features.price_edges)


def test_what_devices_train_is_there_in_float32(tmp_path: Path) -> None:
    features = all_known(ITEMS)
    model = small_model(ITEMS, SMALL, features)
    bundle = written(tmp_path / "shop.hush", features)
    for name, array in encoder_weights(model).arrays().items():
        np.testing.assert_array_equal(bundle.array(f"params.{name}"), array)
    raw = model.items.raw().detach().numpy()
    np.testing.assert_allclose(bundle.array("params.lengths")[1:], np.linalg.norm(raw[1:], axis=1), rtol=1e-6)
    rows = dequantize_rows(bundle.array("items.codes"), float(bundle.array("items.scale")[0]))[: ITEMS + 1]
    vectors = rows @ bundle.array("params.rotation").T * bundle.array("params.lengths")[:, None]
    assert np.linalg.norm(vectors - raw, axis=1).max() < 0.05 * np.linalg.norm(raw, axis=1).max()
    assert bundle.path("train_step.onnx").read_bytes() == build_train_step(encoder_weights(model))


def test_a_shop_that_knows_nothing_of_its_items_ships_no_such_tables(tmp_path: Path) -> None:
    bundle = written(tmp_path / "shop.hush", nothing_known(ITEMS))
    assert [name for name in bundle.manifest.arrays if name.startswith("features.")] == ["features.attribute_names"]
    assert bundle.array("features.attribute_names").tobytes() == b"[]"


def test_the_catalogue_has_the_model_s_items_in_its_order(tmp_path: Path) -> None:
    with Catalog(written(tmp_path / "shop.hush", all_known(ITEMS)).path("catalog.sqlite")) as catalog:
        assert list(catalog.ids(range(1, ITEMS + 1))) == IDS
        first, fifth = catalog.get("sku-0"), catalog.get("sku-5")
    assert first is not None
    assert fifth is not None
    assert (first.title, first.price) == (None, None)
    assert (fifth.title, fifth.price, fifth.attributes) == ("Thing 5", 5.0, {"category": ("mugs", "gifts")})
