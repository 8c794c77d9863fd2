"""From a training folder to a bundle: every step reported, nothing written that breaks its tolerance."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.recommender import Recommender
from hushrec_model.counting import count_tables
from hushrec_model.pipeline import TrainOptions, train
from hushrec_model.run_folder import load_run
from hushrec_privacy.errors import BundleError, CheckpointError, ConfigError, ToleranceError
from hushrec_quantize.pipeline import QuantizeOptions, QuantizeReport, quantize
from hushrec_quantize.prune import encoder_parameters
from hushrec_quantize.verify import Tolerance

from tests.shop_files import write_shop_files

LOOSE = Tolerance(overlap=0.5, int8=0.5, total=0.9)
IMPOSSIBLE = Tolerance(overlap=1.5)
PRUNED = QuantizeOptions(prune=0.25, tolerance=LOOSE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    events, items = write_shop_files(folder)
    train(events, items, folder / "run", TrainOptions(attributes=("colour",)))
    return folder / "run"


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeReport:
    return quantize(run, tmp_path_factory.mktemp("bundles") / "shop.hush", PRUNED)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_min_shoppers_reaches_the_tables_of_the_bundle_and_its_card(tmp_path: Path) -> None:
    events, items = write_shop_files(tmp_path)
    report = train(events, items, tmp_path / "run", TrainOptions(min_shoppers=3))
    assert any("at least 3 shoppers" in line for line in report.decisions)
    made = quantize(tmp_path / "run", tmp_path / "shop.hush", QuantizeOptions(tolerance=LOOSE))
    bundle, run = Bundle.open(made.bundle), load_run(tmp_path / "run")
    tables = count_tables(run.split.train, len(run.split.items), min_shoppers=3)
    shipped = [name for name in tables if name in bundle.manifest.arrays]
    assert any(name.endswith(".weights") for name in shipped)
    for name in shipped:
        np.testing.assert_array_equal(bundle.array(name), tables[name])
    everything = count_tables(run.split.train, len(run.split.items))
    assert any(not np.array_equal(everything[name], tables[name]) for name in shipped)
    assert bundle.manifest.card["min_shoppers"] == 3


def test_where_training_saw_every_item_nothing_ships_for_unseen_ones(made: QuantizeReport, run: Path) -> None:
    assert load_run(run).model.items.trained.all()
    manifest = Bundle.open(made.bundle).manifest
    named = [part.name for part in manifest.blend] + [name.partition(".")[0] for name in manifest.arrays]
    assert "transitions" in named
    assert not {"similar", "unseen"} & set(named)


def test_items_that_nobody_had_ship_with_what_they_are_like_and_a_bonus(tmp_path: Path) -> None:
    events, items = write_shop_files(tmp_path, spare=3)
    train(events, items, tmp_path / "run", TrainOptions(teacher=False))
    made = quantize(tmp_path / "run", tmp_path / "shop.hush", QuantizeOptions(tolerance=LOOSE))
    bundle = Bundle.open(made.bundle)
    assert [part.name for part in bundle.manifest.blend][-2:] == ["similar", "unseen"]
    assert bundle.array("unseen").tolist() == [0] * 38 + [1] * 3
    assert set(np.unique(bundle.array("similar.items"))) == {0, 38, 39, 40}
    with Recommender.open(made.bundle) as device:
        device.observe("sku-3", "purchase")
        assert len(device.recommend(39)) == 39


def test_every_step_is_reported_from_the_trained_model_to_the_bundle(made: QuantizeReport) -> None:
    names = [step.name for step in made.steps]
    assert names[0] == "trained, float32"
    assert names[1].startswith("pruned to heads ")
    assert names[2:] == ["fine-tuned", "int8", "int8, blended with counts"]
    for step in made.steps:
        assert 0 <= step.ndcg10 <= 1
        assert 0 <= step.overlap <= 1
        assert step.latency_us > 0
    trained, pruned, tuned, int8, blended = made.steps
    assert trained.overlap == 1.0
    assert trained.parameters > pruned.parameters == tuned.parameters == int8.parameters == blended.parameters
    assert trained.bytes > tuned.bytes > int8.bytes == blended.bytes == made.encoder_bytes


def test_the_figures_are_those_of_the_files(made: QuantizeReport) -> None:
    bundle = Bundle.open(made.bundle)
    files = bundle.manifest.files
    assert made.encoder_bytes == files["encoder.onnx"].size + files["encoder.bin"].size
    assert made.bundle_bytes == sum((made.bundle / name).stat().st_size for name in files)
    assert made.item_bytes == files["items.bin"].size / bundle.manifest.model.capacity
    assert [part["name"] for part in made.blend] == [part.name for part in bundle.manifest.blend]
    json.dumps(made.to_dict(), allow_nan=False)


def test_the_card_says_how_the_bundle_was_tested(made: QuantizeReport, run: Path) -> None:
    card, facts = Bundle.open(made.bundle).manifest.card, load_run(run).facts
    assert card["headline"] == "no guarantee for this bundle"
    assert {card[key] == facts[key] for key in ("protocol", "test_from", "protocol_sha256")} == {True}
    assert card["parameters"] == made.steps[-1].parameters
    assert card["verification"]["model_overlap"] == made.verification.model_overlap
    assert card["validation_ndcg@10"] == made.steps[-1].ndcg10


def test_verification_compares_int8_with_the_same_weights_in_float(made: QuantizeReport) -> None:
    found = made.verification
    assert found.queries == 60
    assert found.model_overlap == made.steps[3].overlap > 0.9
    assert found.blend_overlap == made.steps[4].overlap > 0.9
    trained, int8 = made.steps[0].ndcg10, made.steps[3].ndcg10
    assert found.total_lost == pytest.approx((trained - int8) / trained)


def test_a_device_opens_the_bundle_and_recommends(made: QuantizeReport) -> None:
    with Recommender.open(made.bundle) as device:
        for item in (3, 4, 5):
            device.observe(f"sku-{item}", "purchase")
        found = device.recommend(3)
    assert {"sku-6", "sku-7"} & {entry.item for entry in found}


def test_quantizing_leaves_the_training_folder_alone_and_repeats(
    made: QuantizeReport, run: Path, tmp_path: Path
) -> None:
    before = content(run)
    again = quantize(run, tmp_path / "again.hush", PRUNED)
    assert content(run) == before
    first, second = content(made.bundle), content(again.bundle)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= {"catalog.sqlite", "manifest.json"}
    assert [replace(step, latency_us=0) for step in again.steps] == [replace(step, latency_us=0) for step in made.steps]


def test_without_pruning_the_weights_are_the_trained_ones(run: Path, tmp_path: Path) -> None:
    report = quantize(run, tmp_path / "whole.hush", QuantizeOptions(tolerance=LOOSE))
    assert [step.name for step in report.steps] == ["trained, float32", "int8", "int8, blended with counts"]
    assert report.steps[1].parameters == encoder_parameters(load_run(run).model.encoder)


def test_what_breaks_its_tolerance_is_not_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ToleranceError, match=r"the bundle was not written: top-10 overlap .* allowed >= 1\.4"):
        quantize(run, tmp_path / "shop.hush", QuantizeOptions(tolerance=IMPOSSIBLE))
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_was_there_outlives_a_refused_one(made: QuantizeReport, run: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(made.bundle, tmp_path / "shop.hush"))
    before = content(tmp_path)
    with pytest.raises(ToleranceError):
        quantize(run, old, QuantizeOptions(prune=0.5, model_version=2, tolerance=IMPOSSIBLE))
    assert content(tmp_path) == before
    assert Bundle.open(old, verify=True).manifest.model_version == 1
    quantize(run, old, QuantizeOptions(prune=0.5, model_version=2, tolerance=LOOSE))
    assert Bundle.open(old, verify=True).manifest.model_version == 2
    assert [path.name for path in tmp_path.iterdir()] == ["shop.hush"]


def test_a_folder_of_something_else_is_not_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "shop.hush").mkdir()
    (tmp_path / "shop.hush" / "diary.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(BundleError):
        quantize(run, tmp_path / "shop.hush", QuantizeOptions(tolerance=LOOSE))
    assert content(tmp_path) == {"shop.hush/diary.txt": b"mine"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prune": 1.0}, "prune is 1.0"),
        ({"prune": -0.5}, "prune is -0.5"),
        ({"prune": float("nan")}, "prune is nan"),
        ({"model_version": 0}, "model_version is 0"),
        ({"model_version": 1.5}, "model_version is 1.5"),
    ],
)
def test_a_wrong_option_is_named(run: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        quantize(run, tmp_path / "shop.hush", QuantizeOptions(**options))


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no finished run"):
        quantize(tmp_path, tmp_path / "shop.hush")


def test_progress_ends_where_it_said_it_would(run: Path, tmp_path: Path) -> None:
    told: list[tuple[str, float, float]] = []

    def progress(stage: str, done: float, total: float, note: str = "") -> None:  # noqa: ARG001
        told.append((stage, done, total))

    quantize(run, tmp_path / "shop.hush", QuantizeOptions(tolerance=LOOSE), progress)
    assert [stage for stage, *_ in told if stage != "decide"][-1] == "write"
    assert told[-1][1:] == (1, 1)
    assert all(0 <= done <= total for _, done, total in told)


def test_scores_of_bundle_and_float_model_are_near_each_other(run: Path, tmp_path: Path) -> None:
    report = quantize(run, tmp_path / "shop.hush", QuantizeOptions(prune=0.0, tolerance=LOOSE))
    assert np.isclose(report.steps[0].ndcg10, report.steps[1].ndcg10, atol=0.02)


def test_never_sold_variants_of_equal_content_do_not_count_as_lost(tmp_path: Path) -> None:
    """Their scores are equal in float and in int8, so both must list them in the same order."""
    events, _ = write_shop_files(tmp_path, items=9)
    variants = "".join(f"sku-{item},Thing number {item % 3}\n" for item in range(500))
    (tmp_path / "variants.csv").write_text(f"item,title\n{variants}", encoding="utf-8")
    train(events, tmp_path / "variants.csv", tmp_path / "run")
    report = quantize(tmp_path / "run", tmp_path / "shop.hush", QuantizeOptions(prune=0.0))
    assert report.verification.model_overlap > 0.97
