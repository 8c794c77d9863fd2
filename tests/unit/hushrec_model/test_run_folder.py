"""A training folder comes back as it was trained, or says what is wrong with it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hushrec.manifest import BlendPart
from hushrec_model.checkpoint import save_state
from hushrec_model.items import Items
from hushrec_model.log import Log
from hushrec_model.prepared import save_prepared
from hushrec_model.run_folder import PREPARED, catalog_items, load_run, save_run, split_features
from hushrec_model.splits import split_log
from hushrec_model.training import build_model
from hushrec_privacy.errors import CheckpointError

from tests.planted import SETTINGS, small_model
from tests.small_log import small_log

BLEND = [BlendPart("own", 0.5, 0.1, 0.7, 0), BlendPart("transitions", 1.0, 0.01, 0.6, 20)]


def small_shop() -> tuple[Log, Items]:
    """Three shoppers; item d is named by a test event only."""
    log = small_log([("u", item) for item in "abc"] + [("v", item) for item in "bcd"] + [("w", item) for item in "cab"])
    titles: list[str | None] = [f"Thing {item}" for item in log.items]
    known = Items(titles, np.array([1.0, 2.0, np.nan, 4.0]), {"brand": [(item,) for item in log.items]}, None)
    return log, known


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    log, known = small_shop()
    split = split_log(log, "leave-one-out")
    torch.manual_seed(4)
    model = build_model(split, split_features(split, known), SETTINGS)
    prepared = {"path": PREPARED, "sha256": save_prepared(folder / PREPARED, log, known)}
    facts = {"protocol": "leave-one-out", "test_from": None, "prepared": prepared, "extra": "kept", "min_shoppers": 2}
    save_run(folder, model, SETTINGS, BLEND, facts)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_what_was_saved_comes_back(run: Path) -> None:
    found = load_run(run)
    log, known = small_shop()
    split = split_log(log, "leave-one-out")
    torch.manual_seed(4)
    model = build_model(split, split_features(split, known), SETTINGS)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in found.model.state_dict().items())
    assert (found.settings, found.blend) == (SETTINGS, BLEND)
    assert found.split.protocol_sha256 == split.protocol_sha256
    assert found.facts["extra"] == "kept"
    assert found.min_shoppers == 2
    assert not found.tables()["transitions.weights"][found.split.items.index("a") + 1].any()  # only w follows a with b
    assert not found.model.training
    assert sorted(path.name for path in run.iterdir()) == ["model.pt", "prepared", "run.json"]


def test_an_item_that_only_the_test_names_is_in_no_table(run: Path) -> None:
    found = load_run(run)
    assert found.log.items == ["a", "b", "c", "d"]
    assert found.split.items == ["a", "b", "c"]
    assert found.model.items.items == 3
    assert found.features.attribute_names == (("brand", "a"), ("brand", "b"), ("brand", "c"))


def test_the_catalogue_keeps_its_own_order_of_items() -> None:
    log, known = small_shop()
    split = replace(split_log(log, "leave-one-out"), catalog=np.array([3, 1], np.int32))
    chosen = catalog_items(split, replace(known, vectors=np.eye(4, dtype=np.float32)))
    assert chosen.title == ["Thing c", "Thing a"]
    assert chosen.attributes == {"brand": [("c",), ("a",)]}
    assert chosen.vectors is not None
    np.testing.assert_array_equal(chosen.vectors, np.eye(4)[[2, 0]])
    np.testing.assert_array_equal(chosen.price, [np.nan, 1.0])


def test_a_folder_without_a_finished_run_says_what_to_do(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds no finished run \(run.json is missing\); run hushrec train first"
    ):
        load_run(tmp_path)
    (run / "run.json").rename(run / "run.json.part")
    save_state(run / "training.pt", {"identity": {}})
    with pytest.raises(CheckpointError, match="training was interrupted: run the same train command again"):
        load_run(run)


def changed(**facts: Any) -> Callable[[Path], object]:
    def write(run: Path) -> None:
        before = json.loads((run / "run.json").read_text(encoding="utf-8"))
        (run / "run.json").write_text(json.dumps({**before, **facts}), encoding="utf-8")

    return write


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: (run / "run.json").write_text("", encoding="utf-8"),
        lambda run: (run / "run.json").write_text('{"settings": {', encoding="utf-8"),
        lambda run: (run / "run.json").write_bytes(b"\xff\xfe\x00"),
        lambda run: (run / "run.json").write_text("[1, 2]", encoding="utf-8"),
        lambda run: (run / "run.json").write_text("{}", encoding="utf-8"),
        lambda run: ((run / "run.json").unlink(), (run / "run.json").mkdir()),
        changed(settings={"shape": {}, "colour": "red"}),
        changed(settings=None),
        changed(blend=[{"name": "own"}]),
        changed(blend=7),
        changed(prepared="prepared"),
        changed(protocol=None),
        changed(protocol="guess"),
        changed(test_from="soon"),
        changed(test_from=7),
    ],
)
def test_a_damaged_description_is_refused(run: Path, damage: Callable[[Path], object]) -> None:
    damage(run)
    with pytest.raises(CheckpointError, match=r"run.json: cannot be read .*; train again"):
        load_run(run)


def test_changed_or_missing_events_are_refused(run: Path) -> None:
    (run / "prepared" / "log.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="the prepared events have changed since training; train again"):
        load_run(run)
    shutil.rmtree(run / "prepared")
    with pytest.raises(CheckpointError, match="the prepared events are not there"):
        load_run(run)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "no such checkpoint"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "not a readable checkpoint"),
        (lambda path: save_state(path, {"identity": {}}), "does not fit run.json; train again"),
        (lambda path: save_state(path, {"identity": {}, "model": 7}), "does not fit run.json; train again"),
        (
            lambda path: save_state(path, {"identity": {}, "model": small_model(5).state_dict()}),
            "does not fit run.json; train again",
        ),
    ],
    ids=["missing", "cut", "without weights", "no weights", "other weights"],
)
def test_weights_that_are_damaged_or_of_another_model_are_refused(
    run: Path, damage: Callable[[Path], object], says: str
) -> None:
    damage(run / "model.pt")
    with pytest.raises(CheckpointError, match=says):
        load_run(run)
