"""A release of an unchanged master is the old bundle; of a changed one, only data files are new, and it works."""

from pathlib import Path

import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.engine import Engine
from hushrec.federated.content import Content
from hushrec.federated.layout import ParameterLayout
from hushrec.federated.master import Master
from hushrec.federated.release import CHANGED_FILES, write_release
from hushrec.manifest import NO_GUARANTEE
from hushrec.tables import dequantize_rows
from hushrec_privacy.errors import BundleError, ConfigError

from tests.encoder_reference import reference_user
from tests.learning_bundle import ITEMS, learning_bundle
from tests.tiny_bundle import tiny_bundle

ALL = np.arange(1, ITEMS + 1)
ORIGINS = dict.fromkeys(CHANGED_FILES, "private")
CARD = {"headline": NO_GUARANTEE, "round": 7}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return learning_bundle(tmp_path_factory.mktemp("described") / "shop.hush")[0]


def changed(bundle: Bundle, part: str) -> Master:
    master, layout = Master.of(bundle), ParameterLayout.of(bundle.manifest, part)
    step = np.random.default_rng(0).standard_normal(layout.size) * 0.02
    master.apply(layout, step, lambda: Content.whole(bundle))
    return master


def differing(old: Bundle, new: Bundle) -> set[str]:
    return {name for name, info in old.manifest.files.items() if new.manifest.files[name].sha256 != info.sha256}


def test_an_unchanged_master_gives_the_old_files_byte_by_byte(tmp_path: Path, bundle: Bundle) -> None:
    new = write_release(bundle, tmp_path / "new.hush", Master.of(bundle), card=CARD, origins=ORIGINS)
    assert not differing(bundle, new)
    assert new.manifest.arrays == bundle.manifest.arrays
    assert new.manifest.model == bundle.manifest.model
    assert new.manifest.model_version == bundle.manifest.model_version + 1
    assert new.manifest.card == CARD


@pytest.mark.parametrize(
    ("part", "files"),
    [
        ("adapter", {"encoder.bin", "params.bin"}),
        ("encoder", {"encoder.bin", "params.bin"}),
        ("encoder+features", {"encoder.bin", "params.bin", "features.bin", "items.bin"}),
        ("full", {"encoder.bin", "params.bin", "features.bin", "items.bin"}),
    ],
)
def test_only_what_was_trained_is_new(tmp_path: Path, bundle: Bundle, part: str, files: set[str]) -> None:
    master = changed(bundle, part)
    new = write_release(bundle, tmp_path / "new.hush", master, card=CARD, origins=ORIGINS)
    assert differing(bundle, new) == files
    again = Master.of(new)
    for name, array in master.encoder.items():
        np.testing.assert_array_equal(again.encoder[name], array)
    for name, array in master.tables.items():
        np.testing.assert_array_equal(again.tables[name], array)
    np.testing.assert_array_equal(again.lengths, master.lengths)
    assert np.abs(again.turned - master.turned).max() < 0.02


def test_unchanged_rows_stay_as_they_are_when_others_are_rounded_anew(tmp_path: Path, bundle: Bundle) -> None:
    master = Master.of(bundle)
    master.turned[5] = master.turned[6]
    new = write_release(bundle, tmp_path / "new.hush", master, card=CARD, origins=ORIGINS)
    kept = np.setdiff1d(np.arange(ITEMS + 1), [5])
    np.testing.assert_array_equal(new.array("items.codes")[kept], bundle.array("items.codes")[kept])
    np.testing.assert_array_equal(new.array("items.scale"), bundle.array("items.scale"))
    one, other = dequantize_rows(new.array("items.codes")[[5, 6]], float(new.array("items.scale")[0]))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_release_scores_like_its_master(tmp_path: Path, bundle: Bundle) -> None:
    master = changed(bundle, "full")
    new = write_release(bundle, tmp_path / "new.hush", master, card=CARD, origins=ORIGINS)
    items = np.array([3, 9, 1])
    scores, before = Engine(new).scores(items)[1 : ITEMS + 1].copy(), Engine(bundle).scores(items)[1 : ITEMS + 1]
    assert np.abs(scores - before).max() > 1
    top = np.argsort(-scores)[:5]
    rows = master.turned @ master.rotation.T
    exact = rows @ reference_user(master.weights(), rows, items.tolist())
    assert len(set(top) & set(np.argsort(-exact[1:])[:5])) >= 4
    assert np.abs(exact[1 : ITEMS + 1] - scores).max() < 0.6


def test_rounding_starts_from_the_master_and_never_from_int8(tmp_path: Path, bundle: Bundle) -> None:
    """Steps that are each too small for one step of int8 add up."""
    master, layout = Master.of(bundle), ParameterLayout.of(bundle.manifest, "full")
    step = np.zeros(layout.size)
    layout.unflatten(step)["items"][0, 0] = 1e-3
    last = bundle
    for number in range(20):
        master.apply(layout, step, lambda: Content.whole(bundle))
        last = write_release(last, tmp_path / f"{number}.hush", master, card=CARD, origins=ORIGINS)
    row, first = (
        dequantize_rows(made.array("items.codes")[1:2], float(made.array("items.scale")[0]))[0]
        for made in (last, bundle)
    )
    scale = float(last.array("items.scale")[0])
    assert np.linalg.norm(row - master.turned[1]) < 8 * scale
    moved = np.abs(master.turned[1] - first).max()
    assert moved > scale > 4 * moved / 20  # and no single step moved it by a quarter of that
    assert np.linalg.norm(row - master.turned[1]) < np.linalg.norm(first - master.turned[1])
    assert last.manifest.model_version == 21


def test_origins_must_name_what_changes_and_nothing_unknown(tmp_path: Path, bundle: Bundle) -> None:
    for origins in ({}, {**ORIGINS, "more.bin": "public"}, {"encoder.bin": "private"}):
        with pytest.raises(ConfigError, match="origin"):
            write_release(bundle, tmp_path / "new.hush", Master.of(bundle), card=CARD, origins=origins)
    assert not (tmp_path / "new.hush").exists()


def test_parts_of_several_runs_have_no_guarantee(tmp_path: Path, bundle: Bundle) -> None:
    origins = dict.fromkeys(CHANGED_FILES, "dp(fleet)")
    card = {"headline": "epsilon 2"}
    new = write_release(bundle, tmp_path / "new.hush", Master.of(bundle), card=card, origins=origins)
    assert new.manifest.card["headline"] == NO_GUARANTEE
    assert new.manifest.files["items.bin"].origin == "dp(fleet)"
    assert new.manifest.files["neighbours.bin"].origin == "private"


def test_one_guarantee_over_all_runs_may_cover_every_file(tmp_path: Path, bundle: Bundle) -> None:
    origins = dict.fromkeys((*CHANGED_FILES, "neighbours.bin"), "dp(all)")
    card = {"headline": "epsilon 2"}
    new = write_release(bundle, tmp_path / "new.hush", Master.of(bundle), card=card, origins=origins)
    assert new.manifest.card["headline"] == "epsilon 2"
    assert {info.origin for info in new.manifest.files.values()} == {"public", "dp(all)"}


def test_a_master_of_another_bundle_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    other = Bundle.open(tiny_bundle(tmp_path))
    for old, master in ((bundle, Master.of(other)), (other, Master.of(bundle))):
        origins = {name: "private" for name in CHANGED_FILES if name in old.manifest.files}
        with pytest.raises((ConfigError, BundleError)):
            write_release(old, tmp_path / "new.hush", master, card=CARD, origins=origins)


def test_a_master_that_is_not_finite_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    master = Master.of(bundle)
    master.encoder["norm_bias"][3] = np.nan
    with pytest.raises(ConfigError, match="norm_bias"):
        write_release(bundle, tmp_path / "new.hush", master, card=CARD, origins=ORIGINS)
