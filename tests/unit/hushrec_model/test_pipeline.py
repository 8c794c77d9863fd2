"""From files to a folder: what is in it, what must never be in it, and what a kill or a mistake leaves behind."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hushrec_model.pipeline import TrainOptions, TrainReport, train
from hushrec_model.pseudonyms import pseudonym
from hushrec_model.run_folder import load_run
from hushrec_privacy.errors import CheckpointError, ConfigError, DataError

from tests.killed_training import KilledError, killer
from tests.shop_files import user_id, write_shop_files

OPTIONS = TrainOptions(attributes=("colour",))
FINISHED = ["model.pt", "prepared", "pseudonym.key", "run.json"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop's files, and a finished run in the folder `run`."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop_files(folder)
    train_in(folder, "run")
    return folder


def train_in(shop: Path, out: str, options: TrainOptions = OPTIONS, **more: Any) -> TrainReport:
    return train(shop / "events.csv", shop / "items.csv", shop / out, options, **more)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_run(run).model.state_dict()


def assert_same_run(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert load_run(one).blend == load_run(other).blend


def test_a_finished_folder_holds_the_run_and_nothing_else(shop: Path) -> None:
    assert sorted(path.name for path in (shop / "run").iterdir()) == FINISHED


def test_the_report_says_what_was_done_and_how_good_it_is(shop: Path) -> None:
    report = train_in(shop, "reported")
    assert (report.protocol, report.users, report.items) == ("leave-one-out", 60, 40)
    assert len(report.epochs) >= report.best_epoch >= 1
    assert report.test["blend"]["ndcg@10"] > 0.8
    assert report.validation["blend"] >= report.validation["model"]
    assert any("layer" in line for line in report.decisions)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["out"] == str(shop / "reported")


def test_no_user_id_is_in_any_byte_or_text_of_the_folder(shop: Path) -> None:
    files = [path for path in (shop / "run").rglob("*") if path.is_file()]
    texts = [
        value
        for path in files
        if path.suffix == ".parquet"
        for column in pl.read_parquet(path).iter_columns()
        if column.dtype == pl.String
        for value in column.drop_nulls().to_list()
    ]
    assert len(texts) > 60  # the columns are compressed: their values are looked at as text
    for secret in ("jane.doe", "shop.example"):
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        assert not [text for text in texts if secret in text]


def test_the_key_is_in_its_file_alone_and_makes_the_pseudonyms(shop: Path) -> None:
    text = (shop / "run" / "pseudonym.key").read_text(encoding="ascii").strip()
    for path in (shop / "run").rglob("*"):
        if path.is_file() and path.name != "pseudonym.key":
            content = path.read_bytes()
            assert text.encode() not in content
            assert bytes.fromhex(text) not in content
    assert load_run(shop / "run").log.users[:2] == [pseudonym(user_id(user), bytes.fromhex(text)) for user in (0, 1)]


def test_run_json_names_the_prepared_events_and_their_hash(shop: Path) -> None:
    facts = json.loads((shop / "run" / "run.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert facts["prepared"]["path"] == "prepared"
    assert len(facts["prepared"]["sha256"]) == 64
    assert facts["events"] == str(shop / "events.csv")


def test_the_model_learns_from_everything_that_the_files_say(shop: Path) -> None:
    run = load_run(shop / "run")
    assert {column for column, _ in run.features.attribute_names} == {"category", "brand", "colour"}
    assert len(run.features.words.values) > 0
    assert len(run.features.price_edges) == 15
    assert run.log.behaviors == ("view", "purchase")
    assert run.model.encoder.behavior is not None


def test_the_same_seed_gives_the_same_folder_under_another_key(shop: Path) -> None:
    train_in(shop, "again")
    assert_same_run(shop / "again", shop / "run")
    assert (shop / "again" / "pseudonym.key").read_bytes() != (shop / "run" / "pseudonym.key").read_bytes()


@pytest.mark.parametrize(
    ("stage", "moment"), [("decide", 0), ("teach", 0.5), ("train", 0.5), ("train", 3.5), ("blend", 1)]
)
def test_an_interrupted_run_is_no_run_until_it_is_finished(
    shop: Path, stage: str, moment: float, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        train(shop / "events.csv", shop / "items.csv", tmp_path, OPTIONS, killer(stage, moment))
    with pytest.raises(CheckpointError, match=r"holds no finished run \(run.json is missing\)"):
        load_run(tmp_path)
    train(shop / "events.csv", shop / "items.csv", tmp_path, OPTIONS)
    assert_same_run(tmp_path, shop / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == FINISHED


def test_a_folder_that_is_trained_in_again_is_no_run_meanwhile(shop: Path) -> None:
    """Never the new weights under the old description."""
    train_in(shop, "twice")
    with pytest.raises(KilledError):
        train_in(shop, "twice", replace(OPTIONS, seed=5), progress=killer("train", 2))
    with pytest.raises(CheckpointError, match="training was interrupted: run the same train command again"):
        load_run(shop / "twice")
    with pytest.raises(CheckpointError, match="started with other settings"):
        train_in(shop, "twice")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (TrainOptions(protocol="sessions", test_from=datetime(2050, 1, 1, tzinfo=UTC)), DataError),
        (TrainOptions(protocol="leave-one-out", test_from=datetime(2020, 1, 1, tzinfo=UTC)), ConfigError),
        (TrainOptions(columns={"user": "nobody"}), DataError),
    ],
)
def test_a_mistake_leaves_a_finished_run_alone(shop: Path, options: TrainOptions, error: type[Exception]) -> None:
    before = {path: path.read_bytes() for path in (shop / "run").rglob("*") if path.is_file()}
    with pytest.raises(error):
        train_in(shop, "run", options)
    assert before == {path: path.read_bytes() for path in (shop / "run").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (TrainOptions(protocol="guess"), "protocol is 'guess'"),
        (TrainOptions(max_minutes=0.0), "max_minutes is 0.0"),
        (TrainOptions(max_minutes=float("nan")), "max_minutes is nan"),
        (TrainOptions(seed=-1), "seed is -1"),
        (TrainOptions(min_shoppers=0), "min_shoppers is 0"),
        (TrainOptions(seed=2**64), "seed is 18446744073709551616; it must be at most"),
        (TrainOptions(device="abacus"), "device 'abacus' cannot be used"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_read_or_written(
    tmp_path: Path, options: TrainOptions, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        train(tmp_path / "missing.csv", None, tmp_path / "run", options)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run: cannot be written to .*; choose another folder for --out"):
        train(tmp_path / "missing.csv", None, tmp_path / "run")
    assert (tmp_path / "run").read_text(encoding="utf-8") == "mine"


def test_what_is_tested_on_changes_neither_weights_nor_blend(tmp_path: Path) -> None:
    """Two shops that differ in everybody's last event only: as expected in one, and in the other out of the blue."""
    for name, last in (("one", None), ("two", 39)):
        events, items = write_shop_files(tmp_path / name, spare=1, last=last)
        train(events, items, tmp_path / name / "run", OPTIONS)
    one, two = load_run(tmp_path / "one" / "run"), load_run(tmp_path / "two" / "run")
    assert one.blend
    assert one.facts["report"]["test"]["blend"]["hr@10"] > 0.9
    assert two.facts["report"]["test"]["blend"]["hr@10"] < 0.6  # one of 40 items, which nobody ever had
    assert_same_run(tmp_path / "one" / "run", tmp_path / "two" / "run")
    assert one.facts["report"]["validation"] == two.facts["report"]["validation"]


@pytest.mark.parametrize("protocol", ["temporal", "sessions", "baskets"])
def test_every_protocol_trains_and_beats_chance(shop: Path, protocol: str) -> None:
    report = train_in(shop, protocol, TrainOptions(protocol=protocol))
    assert report.protocol == protocol
    assert report.test["blend"]["ndcg@10"] > 0.5
    assert load_run(shop / protocol).split.protocol_sha256 == report.protocol_sha256


def test_events_alone_without_times_are_enough(tmp_path: Path) -> None:
    events, _ = write_shop_files(tmp_path, times=False)
    report = train(events, None, tmp_path / "run")
    assert report.test["blend"]["ndcg@10"] > 0.5
    assert load_run(tmp_path / "run").log.time is None
