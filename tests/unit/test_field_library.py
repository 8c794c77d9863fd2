"""The benchmark of a library of the field: what the library is told, and how its lists are counted."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hushrec_model.evaluate import evaluate
from hushrec_model.log import Log
from hushrec_model.splits import Split, split_log

from tests.benchmark_scripts import benchmark


@pytest.fixture
def script() -> Iterator[ModuleType]:
    """The script as a module."""
    with benchmark("field_library") as module:
        yield module


@pytest.fixture
def split() -> Split:
    """Users a and b with four events each; the last two of a user are validation and test."""
    user, item = np.repeat(np.array([0, 1], np.int32), 4), np.array([1, 2, 3, 4, 4, 3, 1, 2], np.int32)
    log = Log(
        users=["a", "b"],
        items=["w", "x", "y", "z"],
        listed=4,
        behaviors=("view",),
        user=user,
        item=item,
        behavior=np.zeros(8, np.int8),
        time=None,
        session=None,
        row=np.arange(8),
    )
    return split_log(log, "leave-one-out")


def test_the_library_is_told_whole_histories_and_what_ours_is_validated_on(script: ModuleType, split: Split) -> None:
    told = script.exported(split, 50)
    assert told["train_item"].tolist() == [1, 2, 4, 3]
    assert told["train_offsets"].tolist() == told["valid_offsets"].tolist() == [0, 2, 4]
    assert told["valid_target"].tolist() == [3, 1]
    assert told["valid_target_offsets"].tolist() == [0, 1, 2]
    assert told["test_item"].tolist() == [1, 2, 3, 4, 3, 1]
    assert told["test_offsets"].tolist() == [0, 3, 6]
    assert bool(told["filter_seen"])
    assert int(told["history"]) == 50


def test_the_library_is_not_told_what_the_test_asks_for(script: ModuleType, split: Split) -> None:
    other = replace(split, test=replace(split.test, target=split.test.target[::-1].copy()))
    told, told_otherwise = script.exported(split, 50), script.exported(other, 50)
    assert all(np.array_equal(told[name], told_otherwise[name]) for name in told)


def test_results_of_another_split_are_not_mixed_with_this_one(script: ModuleType, split: Split, tmp_path: Path) -> None:
    file, told = tmp_path / "split.npz", script.exported(split, 50)
    for _ in range(2):
        script.save(file, told)
    with pytest.raises(SystemExit, match="results of another split"):
        script.save(file, told | {"train_item": told["train_item"][::-1]})
    assert np.load(file)["train_item"].tolist() == [1, 2, 4, 3]


def test_its_lists_are_counted_as_those_of_any_scorer(script: ModuleType, split: Split) -> None:
    lists = np.zeros((2, 10), np.int32)
    lists[0, 2] = 4  # what a's test asks for, at rank 3
    found = evaluate(script.Lists(lists), split.test, 4)
    assert (found.hr, found.ndcg) == (1 / 2, 1 / (2 * math.log2(4)))


def test_our_rows_are_means_over_the_seeds_of_the_same_test(script: ModuleType, tmp_path: Path) -> None:
    assert script.ours(tmp_path, "a") == []
    for seed, hr in (("0", 0.25), ("1", 0.75)):
        alone = {"transformer": {"hr@10": hr / 2, "ndcg@10": 0.125}}
        found = {"protocol_sha256": "a", "hr@10": hr, "ndcg@10": 0.25, "parts": alone}
        (tmp_path / f"evaluate-{seed}.json").write_text(json.dumps([found, 9.0]))
        (tmp_path / f"train-{seed}.json").write_text(json.dumps([{"seconds": 100 * hr}, 99.0]))
    bundle, alone_row = script.ours(tmp_path, "a")
    assert (bundle[2:4], alone_row[2:4], bundle[6]) == (("0.5000", "0.2500"), ("0.2500", "0.1250"), "50")
    with pytest.raises(SystemExit, match="results of another test"):
        script.ours(tmp_path, "b")


def test_lists_of_another_split_are_refused(script: ModuleType, split: Split) -> None:
    with pytest.raises(ValueError, match="3 lists for 2 queries"):
        evaluate(script.Lists(np.zeros((3, 10), np.int32)), split.test, 4)


def test_without_the_library_it_says_how_to_make_its_environment(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("HUSHREC_SECOND_ENV", raising=False)
    for more in ([], ["--second-env", str(tmp_path / "no-python")]):
        monkeypatch.setattr("sys.argv", ["field_library.py", *more])
        with pytest.raises(SystemExit) as ended:
            script.main()
        assert ended.value.code == 2
        assert 'pip install "rectools[torch]"' in capsys.readouterr().err


def test_what_is_finished_is_not_trained_again_and_what_is_not_is(script: ModuleType, tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({"finished": True, "width": 64}))
    assert script.trained(tmp_path / "split.npz", tmp_path, "no-python", ())["width"] == 64
    facts.write_text(json.dumps({"finished": False}))
    with pytest.raises(FileNotFoundError, match="no-python"):
        script.trained(tmp_path / "split.npz", tmp_path, "no-python", ())
