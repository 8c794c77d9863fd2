"""The public sets become files that reading takes; skipped where the sets are not."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hushrec_model.reading import read_log
from hushrec_model.splits import split_log

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with its neighbours importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("datasets", "eshop_clothing", "online_retail"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("datasets", BENCHMARKS / "datasets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "datasets", module)
    spec.loader.exec_module(module)
    return module


def need(datasets: ModuleType, folder: str) -> None:
    if not (datasets.data_folder() / folder).is_dir():
        pytest.skip(f"{folder} is not under {datasets.data_folder()}; set HUSHREC_EVAL_DATA")


@pytest.mark.parametrize(
    ("name", "folder", "events", "users", "items"),
    [
        ("beauty", "amazon_beauty", 198_502, 22_363, 12_101),
        ("ml-1m", "ml-1m", 999_611, 6_040, 3_416),
        ("eshop", "eshop_clothing_2008", 165_474, 24_026, 217),
        ("online_retail", "online_retail", 396_258, 4_334, 3_658),
        ("complete_journey", "complete_journey", 75_000, 2_377, 92_336),
    ],
)
def test_a_set_is_read_whole(
    datasets: ModuleType, tmp_path: Path, name: str, folder: str, events: int, users: int, items: int
) -> None:
    need(datasets, folder)
    prepared = datasets.prepare(name, tmp_path)
    log, _, _ = read_log(prepared.events, prepared.items, key=b"key of the tests")
    assert (len(log), len(log.users), len(log.items)) == (events, users, items)
    assert log.time is not None
    assert prepared.command().startswith(f"hushrec train {tmp_path / 'events.parquet'} --items ")


def test_retailrocket_sessions_are_whole_and_asked_for_every_prefix(datasets: ModuleType, tmp_path: Path) -> None:
    need(datasets, "retailrocket_sessions")
    prepared = datasets.prepare("retailrocket", tmp_path)
    assert prepared.items is None
    log, _, _ = read_log(prepared.events, key=b"key of the tests")
    cut = datasets.datetime.fromisoformat(prepared.train_options[-1])
    split = split_log(log, "sessions", test_from=cut)
    assert len(split.items) == 36_968
    assert len(split.test) == 15_132 + 4_735  # every line of the test file, and each session's first item
    assert len(split.train) + (len(log.users) - 126_168) < len(log.users)


def test_a_missing_folder_is_named(
    datasets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HUSHREC_EVAL_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setattr(sys, "argv", ["datasets.py", "beauty", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        datasets.main()
    assert "nowhere" in capsys.readouterr().err
