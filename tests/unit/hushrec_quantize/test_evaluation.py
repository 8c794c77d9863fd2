"""One evaluation for training folders and bundles: the same questions, the keys that others rely on, no key's order."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec_model.pipeline import TrainOptions, train
from hushrec_privacy.errors import BundleError, CheckpointError, ConfigError, DataError
from hushrec_quantize.evaluation import evaluate_any
from hushrec_quantize.pipeline import QuantizeOptions, quantize
from hushrec_quantize.verify import Tolerance

from tests.shop_files import START_S, user_id, write_shop_files

BASELINES = ["popularity", "recent_popularity", "markov", "last_item", "item_knn", "personal_frequency"]
BOTH = pytest.mark.parametrize("model", ["run", "shop.hush"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    events, items = write_shop_files(folder)
    train(events, items, folder / "run", TrainOptions(attributes=("colour",)))
    quantize(folder / "run", folder / "shop.hush", QuantizeOptions(tolerance=Tolerance(0.5, 0.5, 0.9)))
    return folder


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def numbers(found: dict[str, Any]) -> list[float]:
    return [found[key] for key in ("hr@10", "ndcg@10", "mrr", "coverage@10")]


@BOTH
def test_the_keys_that_others_rely_on_are_there(shop: Path, model: str) -> None:
    found = json.loads(json.dumps(evaluate_any(shop / model, shop / "events.csv", parts=True), allow_nan=False))
    assert found["protocol"] == "leave-one-out"
    assert len(found["protocol_sha256"]) == 64
    assert (found["users"], found["items"]) == (60, 40)
    assert all(0 <= value <= 1 for value in numbers(found))
    assert list(found["baselines"]) == BASELINES
    for scores in (*found["baselines"].values(), *found["parts"].values()):
        assert list(scores) == ["hr@10", "ndcg@10"]
    assert next(iter(found["parts"])) == "transformer"
    assert "successors" in found["parts"]
    assert list(found["without"]) == list(found["parts"])[1:]
    assert not {"parts", "without"} & set(evaluate_any(shop / model, shop / "events.csv"))


def test_folder_and_bundle_are_asked_the_same_and_answer_alike(shop: Path) -> None:
    run, bundle = (evaluate_any(shop / model, shop / "events.csv", parts=True) for model in ("run", "shop.hush"))
    for key in ("protocol", "protocol_sha256", "users", "items", "baselines", "cold_queries"):
        assert run[key] == bundle[key]
    assert numbers(run) == pytest.approx(numbers(bundle), abs=0.05)
    assert run["ndcg@10"] > 0.8
    assert run["ndcg@10"] > run["baselines"]["popularity"]["ndcg@10"]


def test_a_folder_scores_what_training_reported(shop: Path) -> None:
    report = json.loads((shop / "run" / "run.json").read_text(encoding="utf-8"))["report"]
    found = evaluate_any(shop / "run", shop / "events.csv", parts=True)
    assert {key: found[key] for key in ("hr@10", "ndcg@10")} == pytest.approx(report["test"]["blend"])
    assert found["parts"]["transformer"] == pytest.approx(report["test"]["model"])
    assert found["protocol_sha256"] == report["protocol_sha256"]


@BOTH
def test_the_key_of_the_pseudonyms_changes_nothing(shop: Path, model: str) -> None:
    """Every call draws a new key, so the pseudonyms sort differently each time."""
    one, two = (evaluate_any(shop / model, shop / "events.csv", parts=True) for _ in range(2))
    assert one == two


def test_the_protocol_s_hash_is_that_of_the_last_rows_by_first_appearance(shop: Path, tmp_path: Path) -> None:
    """The file is shuffled, so that neither rows nor ids are in the order of users."""
    head, *rows = rows_of(shop / "events.csv")
    rows = [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]
    events = write(tmp_path / "events.csv", [head, *rows])
    latest: dict[str, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        moment = (int(row[3]), number)
        latest[row[0]] = max(latest.get(row[0], moment), moment)
    last = np.array([number for _, number in latest.values()], "<i8")
    head_text = '{"options":{"filter_seen":"true"},"protocol":"leave-one-out"}'
    wanted = hashlib.sha256(head_text.encode() + b"\0" + last.tobytes()).hexdigest()
    assert evaluate_any(shop / "run", events)["protocol_sha256"] == wanted


@BOTH
def test_without_times_there_is_no_recent_popularity(shop: Path, model: str, tmp_path: Path) -> None:
    events = write(tmp_path / "events.csv", [row[:3] for row in rows_of(shop / "events.csv")])
    found = evaluate_any(shop / model, events)
    assert found["baselines"]["recent_popularity"] is None
    assert None not in [scores for name, scores in found["baselines"].items() if name != "recent_popularity"]


def with_new_items(shop: Path, path: Path) -> Path:
    """More shoppers, in front: their behaviour and half of their items are unknown to the model."""
    head, *rows = rows_of(shop / "events.csv")
    more = [
        [user_id(1_000 + user), f"new-{at}" if at % 2 else f"sku-{user + at}", "refund", str(START_S + 60 * at)]
        for user in range(10)
        for at in range(8)
    ]
    return write(path, [head, *more, *rows])


@BOTH
def test_events_on_items_and_of_behaviours_that_the_model_lacks_are_evaluated(
    shop: Path, model: str, tmp_path: Path
) -> None:
    events = with_new_items(shop, tmp_path / "events.csv")
    found = evaluate_any(shop / model, events, parts=True)
    assert (found["users"], found["items"]) == (70, 43)  # new-7 is in the test only
    before = evaluate_any(shop / model, shop / "events.csv")
    # ten targets more, all of them misses
    assert found["hr@10"] * 70 == pytest.approx(before["hr@10"] * 60, abs=1e-6)
    assert found["ndcg@10"] * 70 == pytest.approx(before["ndcg@10"] * 60, abs=1e-6)


def test_folder_and_bundle_agree_on_foreign_events_too(shop: Path, tmp_path: Path) -> None:
    events = with_new_items(shop, tmp_path / "events.csv")
    run, bundle = (evaluate_any(shop / model, events) for model in ("run", "shop.hush"))
    assert run["protocol_sha256"] == bundle["protocol_sha256"]
    assert numbers(run) == pytest.approx(numbers(bundle), abs=0.05)


@BOTH
def test_another_protocol_can_be_asked_for(shop: Path, model: str) -> None:
    found = evaluate_any(shop / model, shop / "events.csv", protocol="sessions")
    assert found["protocol"] == "sessions"
    assert found["users"] > 40
    assert found["protocol_sha256"] != evaluate_any(shop / model, shop / "events.csv")["protocol_sha256"]
    same = evaluate_any(shop / model, shop / "events.csv", protocol="leave-one-out")
    assert same == evaluate_any(shop / model, shop / "events.csv")


@BOTH
def test_columns_with_other_names_can_be_named(shop: Path, model: str, tmp_path: Path) -> None:
    rows = rows_of(shop / "events.csv")[1:]
    events = write(tmp_path / "events.csv", [["who", "what", "how", "when"], *rows])
    columns = {"user": "who", "item": "what", "behavior": "how", "time": "when"}
    assert evaluate_any(shop / model, events, columns=columns) == evaluate_any(shop / model, shop / "events.csv")


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda _: None, CheckpointError, "does not exist; give a folder of hushrec train, or a bundle"),
        (lambda path: path.mkdir(), CheckpointError, "neither a finished training folder nor a bundle"),
        (lambda path: path.write_text("x", encoding="utf-8"), CheckpointError, "neither a finished training folder"),
        (
            lambda path: (path.mkdir(), (path / "manifest.json").write_text("{}", encoding="utf-8")),
            BundleError,
            "manifest.json",
        ),
        (
            lambda path: (path.mkdir(), (path / "run.json").write_text("{}", encoding="utf-8")),
            CheckpointError,
            "cannot be read",
        ),
    ],
    ids=["missing", "empty", "a file", "a broken bundle", "a broken folder"],
)
def test_what_is_neither_folder_nor_bundle_is_refused(
    shop: Path, tmp_path: Path, make: Callable[[Path], object], error: type[Exception], says: str
) -> None:
    make(tmp_path / "model")
    with pytest.raises(error, match=says):
        evaluate_any(tmp_path / "model", shop / "events.csv")


@BOTH
def test_events_that_cannot_be_asked_about_are_refused(shop: Path, model: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        evaluate_any(shop / model, tmp_path / "missing.csv")
    short = write(tmp_path / "short.csv", [["user", "item"], ["u", "sku-1"], ["v", "sku-2"]])
    with pytest.raises(DataError, match="nothing of 2 events is left"):
        evaluate_any(shop / model, short)
    with pytest.raises(ConfigError, match="protocol is 'guess'"):
        evaluate_any(shop / model, shop / "events.csv", protocol="guess")
