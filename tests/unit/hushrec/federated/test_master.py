"""The master adds steps to float32 values, and keeps item vectors at unit length beside what they were."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.federated.content import Content
from hushrec.federated.layout import ITEM_ROWS, ParameterLayout
from hushrec.federated.master import Master
from hushrec.federated.start import Start, popularity_offset
from hushrec.manifest import BlendPart
from hushrec.tables import dequantize_rows
from hushrec_privacy.errors import BundleError, ConfigError
from hushrec_privacy.plans.plan import PARTS

from tests.learning_bundle import ITEMS, learning_bundle
from tests.tiny_bundle import tiny_bundle

ALL = np.arange(1, ITEMS + 1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return learning_bundle(tmp_path_factory.mktemp("described") / "shop.hush")[0]


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made = tmp_path_factory.mktemp("unseen") / "shop.hush"
    return learning_bundle(made, described=False, unseen=3)[0]


def raw_rows(master: Master) -> np.ndarray:
    """Item vectors in the basis of training at the length they have, shape (V + 1, 64)."""
    rows: np.ndarray = master.turned @ master.rotation.T * master.lengths[:, None]
    return rows


def test_it_begins_with_the_bundle(bundle: Bundle) -> None:
    master, start = Master.of(bundle), Start.of(bundle)
    for name, array in master.encoder.items():
        np.testing.assert_array_equal(array, bundle.array(f"params.{name}"))
    np.testing.assert_allclose(raw_rows(master)[1:], start.vectors(ALL) * start.lengths[1:, None], atol=1e-6)
    assert sorted(master.tables) == ["features.attributes", "features.prices", "features.words"]


@pytest.mark.parametrize("part", PARTS)
def test_a_step_changes_the_part_and_nothing_else(bundle: Bundle, part: str) -> None:
    layout, before, after = ParameterLayout.of(bundle.manifest, part), Master.of(bundle), Master.of(bundle)
    step = np.random.default_rng(0).standard_normal(layout.size) * 0.01
    after.apply(layout, step, lambda: Content.whole(bundle))
    changes = layout.unflatten(step)
    for name, array in before.encoder.items():
        change = changes.get(f"params.{name}", np.zeros(1))
        np.testing.assert_allclose(after.encoder[name], array + change, atol=1e-6)
    for name, array in before.tables.items():
        np.testing.assert_allclose(after.tables[name], array + changes.get(name, np.zeros(1)), atol=1e-6)
    moved = changes.get(ITEM_ROWS, np.zeros((ITEMS, 64)))
    tables = {name: change.astype(np.float32) for name, change in changes.items() if name in before.tables}
    moved = moved + Content.whole(bundle).vectors(tables)
    np.testing.assert_allclose(raw_rows(after)[1:], raw_rows(before)[1:] + moved, atol=1e-5)
    if moved.any():
        np.testing.assert_allclose(np.linalg.norm(after.turned[1:], axis=1), 1, atol=1e-5)
    assert not after.turned[0].any()


def test_the_catalogue_is_read_only_where_feature_tables_change(bundle: Bundle) -> None:
    def refuse() -> Content:
        raise AssertionError

    layout = ParameterLayout.of(bundle.manifest, "encoder")
    Master.of(bundle).apply(layout, np.ones(layout.size), refuse)


def test_a_catalogue_that_cannot_be_read_leaves_the_master_as_it_was(bundle: Bundle) -> None:
    def refuse() -> Content:
        raise BundleError("gone")

    master, layout = Master.of(bundle), ParameterLayout.of(bundle.manifest, "full")
    before = master.to_bytes()
    with pytest.raises(BundleError):
        master.apply(layout, np.ones(layout.size), refuse)
    assert master.to_bytes() == before


def test_an_item_without_a_vector_grows_slowly_into_one(unseen: Bundle) -> None:
    master, layout = Master.of(unseen), ParameterLayout.of(unseen.manifest, "full")
    mean, step = float(master.lengths[-1]), np.zeros(layout.size)
    assert not master.turned[-1].any()
    assert mean == pytest.approx(float(master.lengths[1:-3].mean()), rel=1e-5)
    layout.unflatten(step)[ITEM_ROWS][-1, 5] = mean / 4
    expected = [0.25, 0.5, 0.75, 1.0, 1.0]
    for length in expected:
        master.apply(layout, step, lambda: Content.whole(unseen))
        assert np.linalg.norm(master.turned[-1]) == pytest.approx(length, rel=1e-5)
        assert raw_rows(master)[-1, 5] > 0
    assert master.lengths[-1] == pytest.approx(1.25 * mean, rel=1e-5)
    assert not master.turned[-2].any()


def test_a_row_that_a_step_takes_back_to_nothing_stays_finite(bundle: Bundle) -> None:
    master, layout = Master.of(bundle), ParameterLayout.of(bundle.manifest, "full")
    step = np.zeros(layout.size)
    layout.unflatten(step)[ITEM_ROWS][3] = -raw_rows(master)[4]
    master.apply(layout, step, lambda: Content.whole(bundle))
    assert np.isfinite(master.turned).all()
    assert (master.lengths > 0).all()


def test_devices_would_start_from_rows_that_are_rounded(bundle: Bundle) -> None:
    master, offset = Master.of(bundle), np.zeros(ITEMS + 1, np.float32)
    start = master.start(offset)
    rows = dequantize_rows(start.codes, start.scale)
    inside = np.abs(master.turned) <= 127 * start.scale
    assert inside.mean() > 0.999
    assert np.abs(rows - master.turned)[inside].max() <= 0.5001 * start.scale
    assert start.offset is offset


def test_it_comes_back_from_bytes(bundle: Bundle) -> None:
    master = Master.of(bundle)
    again = Master.from_bytes(master.to_bytes())
    assert again.to_bytes() == master.to_bytes()
    assert again.weights().arrays().keys() == master.encoder.keys()


@pytest.mark.parametrize("damage", [b"", b"PK\3\4", b"x" * 500])
def test_bytes_of_something_else_are_refused(damage: bytes, bundle: Bundle) -> None:
    for data in (damage, Master.of(bundle).to_bytes()[:-30]):
        with pytest.raises(ConfigError, match="master"):
            Master.from_bytes(data)


def test_a_step_that_is_not_finite_changes_nothing(bundle: Bundle) -> None:
    master, layout = Master.of(bundle), ParameterLayout.of(bundle.manifest, "adapter")
    before, step = master.to_bytes(), np.zeros(layout.size)
    step[7] = np.nan
    for wrong in (step, np.zeros(layout.size - 1)):
        with pytest.raises(ConfigError):
            master.apply(layout, wrong, lambda: Content.whole(bundle))
    assert master.to_bytes() == before


def test_a_bundle_without_a_train_step_has_no_master(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no train step"):
        Master.of(Bundle.open(tiny_bundle(tmp_path, train=False)))


def test_the_offset_is_what_the_blend_adds(bundle: Bundle) -> None:
    assert not popularity_offset(bundle).any()
    blend = (BlendPart("own", 3.0, 1.0), BlendPart("popularity", 0.5, 2.0))
    bundle = Bundle(bundle.root, msgspec.structs.replace(bundle.manifest, blend=blend), bundle.sha256, ())
    expected = 0.5 * np.log1p(bundle.array("popularity") / 2)
    np.testing.assert_allclose(popularity_offset(bundle), expected, rtol=1e-6)
    assert expected.any()
