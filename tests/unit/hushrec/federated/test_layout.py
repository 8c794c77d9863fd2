"""Every part has one order of parameters, and each begins with the part before."""

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.federated.layout import ITEM_ROWS, ParameterLayout, trainable
from hushrec.manifest import ArrayInfo, Manifest
from hushrec_privacy.errors import BundleError, ConfigError
from hushrec_privacy.plans.plan import MAX_PARAMETERS, PARTS
from hushrec_privacy.plans.planner import ADAPTER_PARAMETERS

from tests.learning_bundle import ITEMS, learning_bundle
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return learning_bundle(tmp_path_factory.mktemp("bundle") / "shop.hush")[0].manifest


def test_each_part_begins_with_the_one_before(manifest: Manifest) -> None:
    names = [list(ParameterLayout.of(manifest, part).shapes) for part in PARTS]
    for smaller, larger in itertools.pairwise(names):
        assert larger[: len(smaller)] == smaller
        assert len(larger) > len(smaller)
    assert names[0] == ["params.adapter_down", "params.adapter_up"]
    assert names[2][len(names[1]) :] == [
        "params.behavior_rows",
        "features.attributes",
        "features.prices",
        "features.words",
    ]
    assert names[3][len(names[2]) :] == [ITEM_ROWS]


def test_no_part_trains_what_is_fixed(manifest: Manifest) -> None:
    names = set(ParameterLayout.of(manifest, "full").shapes)
    assert not names & {"params.rotation", "params.lengths", "features.projection", "features.price_edges"}
    known = {name for name in manifest.arrays if name.startswith("params.")}
    assert known - names == {"params.rotation", "params.lengths"}


def test_the_size_is_that_of_the_model(manifest: Manifest) -> None:
    assert ParameterLayout.of(manifest, "adapter").size == ADAPTER_PARAMETERS
    full = ParameterLayout.of(manifest, "full")
    assert full.shapes[ITEM_ROWS] == (ITEMS, 64)
    assert full.size == sum(int(np.prod(shape)) for shape in full.shapes.values())


def test_the_order_does_not_depend_on_that_of_the_manifest(manifest: Manifest) -> None:
    turned = msgspec.structs.replace(manifest, arrays=dict(reversed(manifest.arrays.items())))
    assert list(ParameterLayout.of(turned, "full").shapes) == list(ParameterLayout.of(manifest, "full").shapes)


def test_arrays_come_back_from_a_vector(manifest: Manifest) -> None:
    layout = ParameterLayout.of(manifest, "full")
    vector = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    arrays = layout.unflatten(vector)
    assert {name: array.shape for name, array in arrays.items()} == dict(layout.shapes)
    np.testing.assert_array_equal(layout.flatten(dict(reversed(arrays.items()))), vector)


def test_a_part_that_is_too_large_is_refused(manifest: Manifest) -> None:
    rows = MAX_PARAMETERS // 64
    large = msgspec.structs.replace(manifest, model=msgspec.structs.replace(manifest.model, items=rows))
    with pytest.raises(ConfigError, match="more than 500,000"):
        ParameterLayout.of(large, "full")
    assert ParameterLayout.of(large, "encoder+features").size < MAX_PARAMETERS


def test_an_unknown_part_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match="adapter"):
        ParameterLayout.of(manifest, "adaptor")


def test_wrong_vectors_and_arrays_are_refused(manifest: Manifest) -> None:
    layout = ParameterLayout.of(manifest, "adapter")
    with pytest.raises(ConfigError, match="2048"):
        layout.unflatten(np.zeros(2047, np.float32))
    arrays = layout.unflatten(np.zeros(2048, np.float32))
    with pytest.raises(ConfigError, match="adapter_up"):
        layout.flatten({"params.adapter_down": arrays["params.adapter_down"]})
    with pytest.raises(ConfigError, match="adapter_down"):
        layout.flatten({**arrays, "params.adapter_down": np.zeros((16, 64), np.float32)})


def test_a_bundle_without_a_train_step_only_recommends(tmp_path: Path, manifest: Manifest) -> None:
    older = Bundle.open(tiny_bundle(tmp_path, train=False)).manifest
    assert not trainable(older)
    assert trainable(manifest)
    with pytest.raises(BundleError, match="no train step"):
        ParameterLayout.of(older, "adapter")
    lacking = {name: info for name, info in manifest.arrays.items() if name != "params.lengths"}
    assert not trainable(msgspec.structs.replace(manifest, arrays=lacking))
    assert isinstance(manifest.arrays["params.lengths"], ArrayInfo)
