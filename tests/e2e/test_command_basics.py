"""The command's manners: help, exit codes, one clear message, nothing but data on stdout."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hushrec_cli import main
from hushrec_privacy import errors

from tests.e2e.commands import HUSHREC, hushrec, write_shop
from tests.tiny_bundle import tiny_bundle

COMMANDS = ("demo", "train", "evaluate", "quantize", "inspect", "pack", "unpack", "recommend")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_ends_with_an_example_before_its_options(command: str) -> None:
    shown = hushrec(command, "--help")
    assert shown.returncode == 0
    assert f"Example: hushrec {command}" in shown.stdout
    assert shown.stderr == ""


def test_without_arguments_the_commands_are_listed() -> None:
    shown = hushrec()
    assert shown.returncode in (0, 2), "click before 8.2 calls it done, later ones wrong usage"
    assert all(f"  {command} " in shown.stdout + shown.stderr for command in COMMANDS)


def test_help_is_fast() -> None:
    began = time.monotonic()
    hushrec("--help")
    assert time.monotonic() - began < 3, "a heavy library is imported at the start"


def test_the_version_is_the_package_s() -> None:
    assert hushrec("--version").stdout.startswith("hushrec 0.")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["sell"], 2, "No such command"),
        (["train"], 2, "EVENTS"),
        (["train", "x.csv", "--out", "run", "--protocol", "guess"], 2, "leave-one-out"),
        (["train", "x.csv", "--out", "run", "--seed", "many"], 2, "--seed"),
        (["train", "x.csv", "--out", "run", "--test-from", "soon"], 2, "2008-08-01"),
        (["train", "x.csv", "--out", "run", "--column", "user"], 2, "--column user=NAME"),
        (["train", "missing.csv", "--out", "run"], errors.DataError.exit_code, "missing.csv"),
        (["evaluate", "missing.hush", "missing.csv"], None, "missing"),
        (["quantize", "missing", "--out", "shop.hush"], errors.CheckpointError.exit_code, "missing"),
        (["quantize", "run", "--out", "shop.hush", "--prune", "2"], 2, "prune"),
        (["inspect", "missing.hush"], errors.BundleError.exit_code, "missing.hush"),
        (["recommend", "missing.hush", "--history", "a"], errors.BundleError.exit_code, "missing.hush"),
        (["pack", "missing.hush"], errors.BundleError.exit_code, "missing.hush"),
        (["unpack", "missing.zip"], None, "missing.zip"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_its_exit_code_and_a_message_that_names_it(
    tmp_path: Path, arguments: list[str], code: int | None, says: str
) -> None:
    shown = hushrec(*arguments, cwd=tmp_path)
    assert shown.returncode == code if code is not None else shown.returncode in range(1, 8)
    assert says in shown.stderr
    assert shown.stdout == ""
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize("command", ["inspect", "pack"])
def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path, command: str) -> None:
    shown = hushrec(command, tmp_path)
    assert shown.returncode == errors.BundleError.exit_code
    assert shown.stderr.startswith("hushrec: ")
    assert str(tmp_path) in shown.stderr


def test_an_empty_event_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "events.csv").touch()
    shown = hushrec("train", "events.csv", "--out", "run", cwd=tmp_path)
    assert shown.returncode == errors.DataError.exit_code
    assert "events.csv" in shown.stderr.splitlines()[-1]


def test_a_wrong_kind_of_file_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "events.parquet").write_bytes(os.urandom(0) + b"\x89PNG\r\n" * 100)
    shown = hushrec("train", "events.parquet", "--out", "run", cwd=tmp_path)
    assert shown.returncode == errors.DataError.exit_code
    assert "Traceback" not in shown.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    write_shop(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    shown = hushrec("train", "events.csv", "--out", "closed/run", cwd=tmp_path)
    assert shown.returncode in (errors.ConfigError.exit_code, main.EXIT_FAILED)
    assert "closed" in shown.stderr


def test_an_out_folder_that_cannot_exist_is_named(tmp_path: Path) -> None:
    write_shop(tmp_path)
    shown = hushrec("train", "events.csv", "--out", "events.csv/run", cwd=tmp_path)
    assert shown.returncode in (errors.ConfigError.exit_code, main.EXIT_FAILED)
    assert "events.csv" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_inspect_shows_the_guarantee_first_and_every_file(bundle: Path) -> None:
    shown = hushrec("inspect", bundle)
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[0] == "no guarantee for this bundle"
    assert "encoder.onnx\t" in shown.stdout
    assert "verified" in shown.stderr


def test_inspect_as_json_is_one_object_with_the_manifest(bundle: Path) -> None:
    found = json.loads(hushrec("inspect", bundle, "--json").stdout)
    assert found["verified"] is True
    assert found["bytes"] == sum(info["size"] for info in found["files"].values())


def test_a_flipped_byte_is_found_by_inspect(tmp_path: Path) -> None:
    damaged = tiny_bundle(tmp_path) / "items.bin"
    data = bytearray(damaged.read_bytes())
    data[100] ^= 1
    damaged.write_bytes(data)
    shown = hushrec("inspect", damaged.parent)
    assert shown.returncode == errors.BundleError.exit_code
    assert "items.bin" in shown.stderr


def test_recommend_prints_k_known_items_and_names_unknown_ones_on_stderr(bundle: Path) -> None:
    shown = hushrec("recommend", bundle, "--history", "item-3, nonsense,item-5", "-k", "4", "--json")
    found = json.loads(shown.stdout)
    assert found["history"] == ["item-3", "nonsense", "item-5"]
    assert found["unknown"] == ["nonsense"]
    assert len({row["item"] for row in found["recommendations"]}) == 4
    assert "nonsense" in shown.stderr


def test_recommend_without_history_is_a_cold_start(bundle: Path) -> None:
    found = json.loads(hushrec("recommend", bundle, "--json").stdout)
    assert [row["reason_code"] for row in found["recommendations"]] == ["popular"] * 10


def test_recommend_is_a_table_with_titles_and_reasons_in_words(bundle: Path) -> None:
    head, *rows = hushrec("recommend", bundle, "--history", "item-3", "-k", "3").stdout.splitlines()
    assert head.split("\t") == ["item", "name", "price", "score", "reason"]
    assert len(rows) == 3
    assert all("Thing number" in row for row in rows)


def test_pack_and_unpack_give_the_same_bundle(bundle: Path, tmp_path: Path) -> None:
    packed = json.loads(hushrec("pack", bundle, "--out", tmp_path / "shop.zip", "--json").stdout)
    assert packed == {"path": str(tmp_path / "shop.zip"), "bytes": (tmp_path / "shop.zip").stat().st_size}
    assert hushrec("unpack", "shop.zip", cwd=tmp_path).stdout == "shop\n"
    assert {file.name: file.read_bytes() for file in (tmp_path / "shop").iterdir()} == {
        file.name: file.read_bytes() for file in bundle.iterdir()
    }


def test_the_device_process_of_the_demo_loads_no_training_library(bundle: Path, tmp_path: Path) -> None:
    customers = tmp_path / "customers.json"
    customers.write_text(json.dumps([{"history": ["item-3", "item-5"], "next": ["item-7"]}] * 2), encoding="utf-8")
    shown = subprocess.run(
        [sys.executable, "-m", "hushrec_cli.device", bundle, customers, str(time.time())],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(shown.stdout)
    assert found["training_libraries"] == []
    assert [len(customer["recommended"]) for customer in found["customers"]] == [10, 10]
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_a_reader_that_stops_early_is_no_error_message(bundle: Path) -> None:
    shown = subprocess.run(
        ["bash", "-c", f"'{HUSHREC}' inspect '{bundle}' --json | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in shown.stderr
    assert "Exception ignored" not in shown.stderr


def test_interrupting_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    write_shop(tmp_path)
    command = [str(HUSHREC), "train", "events.csv", "--out", "run"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == main.EXIT_INTERRUPTED
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (errors.ToleranceError("too much was lost"), 7, "hushrec: too much was lost"),
        (PermissionError(13, "Permission denied", "shop.hush"), 1, "hushrec: shop.hush: Permission denied"),
        (OSError("disk on fire"), 1, "hushrec: disk on fire"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "pip install 'hushrec[train]'"),
        (ModuleNotFoundError("No module named 'x'", name="x"), main.EXIT_BUG, "this is a bug in hushrec"),
        (ZeroDivisionError("division by zero"), main.EXIT_BUG, "ZeroDivisionError: division by zero"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_kind_of_failure_becomes_a_message_and_a_code(
    error: Exception, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == code
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""
