"""`hushrec train --epsilon` to a bundle: what is paid, what ships, and what a killed run leaves."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hushrec.bundle import Bundle
from hushrec.manifest import NO_GUARANTEE
from hushrec_privacy.ledger import Ledger, SqliteLedgerStore

from tests.e2e.commands import HUSHREC, hushrec, write_shop

pytestmark = pytest.mark.slow
ROUNDS = 61  # one for the tables


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Its items file lists one item that nobody had."""
    events, items = write_shop(tmp_path_factory.mktemp("shop"), users=400)
    with items.open("a", newline="", encoding="utf-8") as file:
        file.write("sku-new,Thing new,9.50,a\r\n")
    return events, items


@pytest.fixture(scope="module")
def trained(shop: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private run of a made-up shop."""
    out = tmp_path_factory.mktemp("runs") / "private"
    done = hushrec("train", shop[0], "--items", shop[1], "--out", out, "--epsilon", 8, "--delta", 1e-4)
    assert done.returncode == 0, done.stderr
    return out


def test_the_ledger_knows_what_the_run_cost(trained: Path) -> None:
    facts = json.loads((trained / "run.json").read_text(encoding="utf-8"))["privacy"]
    reported = json.loads(hushrec("privacy", "report", trained / "ledger.db", "--json").stdout)
    assert reported["epsilon"] == facts["epsilon"]
    assert 7.9 < facts["epsilon"] <= 8
    assert reported["delta"] == 1e-4
    assert reported["adjacency"] == "add-or-remove"
    assert reported["plans"][0]["left"]["rounds"] == 0
    assert reported["plans"][0]["closed"] is True
    assert reported["head"] == facts["ledger_head"]
    assert os.name != "posix" or not trained.stat().st_mode & 0o077, "the folder holds the log: its owner's alone"


def test_the_bundle_carries_the_guarantee_in_its_first_line(trained: Path, tmp_path: Path) -> None:
    done = hushrec("quantize", trained, "--out", tmp_path / "shop.hush")
    assert done.returncode == 0, done.stderr
    bundle = Bundle.open(tmp_path / "shop.hush", verify=True)
    origins = {name: info.origin for name, info in bundle.manifest.files.items()}
    run = json.loads((trained / "run.json").read_text(encoding="utf-8"))["privacy"]["run"]
    assert set(origins.values()) == {"public", f"dp({run})"}
    assert origins["items.bin"] == origins["neighbours.bin"] == origins["encoder.bin"] == f"dp({run})"
    assert bundle.manifest.model.items == 31
    assert not {"similar", "unseen"} & {part.name for part in bundle.manifest.blend}, "who is unseen, the log tells"
    headline = str(bundle.manifest.card["headline"])
    assert re.match(r"epsilon (7\.9\d+|8) at delta 0\.0001 for one user", headline)
    figures = [key for key in bundle.manifest.card if "ndcg" in key or "verification" in key or "sha256" in key]
    assert not figures, "figures of private events stay with the shop"
    card = hushrec("privacy", "card", tmp_path / "shop.hush")
    assert card.stdout.startswith(f"# Privacy of this model: {headline}\n")
    assert json.loads(hushrec("privacy", "card", tmp_path / "shop.hush", "--json").stdout)["private_parts"] == []
    asked = hushrec("recommend", tmp_path / "shop.hush", "--history", "sku-1,sku-2", "--json")
    assert asked.returncode == 0, asked.stderr


@pytest.mark.parametrize(
    ("change", "message", "code"),
    [
        ("model.pt", "not what this private run made", 4),
        ("counts.npz", "not what this private run made", 4),
        ("run.json", "more privacy than its ledger gives", 4),
        ("ledger.db", "ledger.db", 9),
    ],
)
def test_a_folder_put_together_from_two_runs_makes_no_bundle(
    trained: Path, tmp_path: Path, change: str, message: str, code: int
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(trained, mixed)
    if change == "ledger.db":
        (mixed / change).unlink()
    elif change == "run.json":
        facts = json.loads((mixed / change).read_text(encoding="utf-8"))
        facts["privacy"]["epsilon"] = 0.1
        (mixed / change).write_text(json.dumps(facts), encoding="utf-8")
    else:
        (mixed / change).write_bytes((mixed / change).read_bytes() + b"0")
    done = hushrec("quantize", mixed, "--out", tmp_path / "shop.hush")
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "shop.hush").exists()


def test_pruning_on_private_events_is_refused(trained: Path, tmp_path: Path) -> None:
    done = hushrec("quantize", trained, "--out", tmp_path / "shop.hush", "--prune", 0.2)
    assert done.returncode == 2
    assert "leave --prune out" in done.stderr
    assert not (tmp_path / "shop.hush").exists()


def test_evaluation_takes_a_private_run(trained: Path, shop: tuple[Path, Path]) -> None:
    done = hushrec("evaluate", trained, shop[0], "--json")
    assert done.returncode == 0, done.stderr
    assert 0 <= json.loads(done.stdout)["ndcg@10"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epsilon", "nan"), "epsilon"),
        (("--epsilon", -1), "epsilon"),
        (("--epsilon", 0), "epsilon"),
        (("--epsilon", 1e-3), "allow a larger one"),
        (("--epsilon", 1, "--delta", 0), "delta"),
        (("--epsilon", 1, "--delta", 1), "delta"),
        (("--epsilon", 1, "--max-grad-norm", 0), "max_grad_norm"),
        (("--epsilon", 1, "--min-shoppers", 5), "min_shoppers"),
        (("--epsilon", 1, "--max-minutes", 5), "max_minutes"),
        (("--epsilon", 1, "--teacher"), "teacher"),
        (("--epsilon", 4, "--max-grad-norm", 1e308), "max_grad_norm"),
        (("--epsilon", 4, "--protocol", "temporal"), "name a day with --test-from"),
        (("--delta", 1e-5), "epsilon"),
        (("--anchor", "shop.anchor"), "epsilon"),
        (("--max-grad-norm", 1), "epsilon"),
    ],
)
def test_options_that_contradict_privacy_are_wrong_usage(
    shop: tuple[Path, Path], tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    done = hushrec("train", shop[0], "--items", shop[1], "--out", tmp_path / "run", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_log_is_no_items_file(shop: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_text("item,Customer ID\nsku-1,7\n", encoding="utf-8")
    for items, message in ((shop[0], "is the event log itself"), (copy, "has a column of users")):
        done = hushrec("train", shop[0], "--items", items, "--out", tmp_path / "run", "--epsilon", 4)
        assert done.returncode == 2
        assert message in done.stderr
        assert "published without noise" in done.stderr
    told = tmp_path / "told.csv"
    told.write_text("item,client\nsku-1,7\n", encoding="utf-8")
    done = hushrec(
        "train", shop[0], "--items", told, "--column", "user=client", "--out", tmp_path / "run", "--epsilon", 4
    )
    assert (done.returncode, "has a column of users, 'client'" in done.stderr) == (2, True), done.stderr


def test_a_catalogue_from_the_log_is_refused(shop: tuple[Path, Path], tmp_path: Path) -> None:
    done = hushrec("train", shop[0], "--out", tmp_path / "run", "--epsilon", 4)
    assert done.returncode == 2
    assert "needs --items" in done.stderr


def test_a_run_without_epsilon_has_no_guarantee(shop: tuple[Path, Path], tmp_path: Path) -> None:
    done = hushrec("train", shop[0], "--items", shop[1], "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert facts["origins"]["model.pt"] == "private"
    assert hushrec("quantize", tmp_path / "run", "--out", tmp_path / "shop.hush").returncode == 0
    assert Bundle.open(tmp_path / "shop.hush").manifest.card["headline"] == NO_GUARANTEE


def test_a_killed_run_goes_on_and_forgets_nothing_it_spent(shop: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    files = [str(HUSHREC), "train", str(shop[0]), "--items", str(shop[1]), "--out", str(out)]
    command = [*files, "--epsilon", "8", "--delta", "1e-4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while spent(out) < 11 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = spent(out)
    assert 11 <= before < ROUNDS
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))["privacy"]
    assert spent(out) == ROUNDS, "tables and all steps, the lost ones among them"
    assert facts["steps"] < ROUNDS
    assert facts["epsilon"] <= 8
    other = hushrec("train", shop[0], "--items", shop[1], "--out", out, "--epsilon", 4, "--delta", 1e-4)
    assert other.returncode == 4
    assert "other options" in other.stderr
    kept = {name: (out / name).read_bytes() for name in ("run.json", "model.pt", "counts.npz", "ledger.db")}
    again = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert again.returncode == 4, "a second run would have no budget and leave an untrained model"
    assert "budget is spent" in again.stderr
    assert {name: (out / name).read_bytes() for name in kept} == kept


def test_other_items_than_it_was_begun_with_are_refused(trained: Path, shop: tuple[Path, Path], tmp_path: Path) -> None:
    copy, items = tmp_path / "copy", tmp_path / "items.csv"
    shutil.copytree(trained, copy)
    lines = shop[1].read_text(encoding="utf-8").splitlines()
    for changed in ([*lines, lines[-1].replace("sku", "new")], [lines[0], *lines[:0:-1]]):
        items.write_text("\n".join(changed) + "\n", encoding="utf-8")
        options = ("--items", items, "--out", copy, "--epsilon", 8, "--delta", 1e-4)
        done = hushrec("train", shop[0], *options)
        assert done.returncode == 4, done.stderr
        assert "other options, events or items" in done.stderr


def test_temporal_with_a_public_day_trains_and_quantizes(shop: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--protocol", "temporal", "--test-from", "2020-09-15", "--epsilon", 8, "--delta", 1e-4)
    done = hushrec("train", shop[0], "--items", shop[1], "--out", out, *options)
    assert done.returncode == 0, done.stderr
    assert hushrec("quantize", out, "--out", tmp_path / "shop.hush").returncode == 0


def test_a_run_whose_ledger_is_gone_does_not_go_on(trained: Path, shop: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "ledger.db").unlink()
    options = ("--items", shop[1], "--out", copy, "--epsilon", 8, "--delta", 1e-4)
    done = hushrec("train", shop[0], *options)
    assert done.returncode == 9
    assert "is gone" in done.stderr
    assert not (copy / "ledger.db").exists()


def test_a_folder_whose_run_is_forgotten_begins_no_other(
    trained: Path, shop: tuple[Path, Path], tmp_path: Path
) -> None:
    """Else its tables would be drawn anew beside the old model, whose guarantee counts one run only."""
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    facts = json.loads((copy / "private.json").read_text(encoding="utf-8"))
    (copy / "private.json").unlink()
    kept = {name: (copy / name).read_bytes() for name in ("run.json", "model.pt", "counts.npz", "ledger.db")}
    options = ("--items", shop[1], "--out", copy, "--epsilon", 8, "--delta", 1e-4)
    done = hushrec("train", shop[0], *options)
    assert done.returncode == 4, done.stderr
    assert "private.json: is gone" in done.stderr
    del facts["nonce"]
    (copy / "private.json").write_text(json.dumps(facts), encoding="utf-8")
    done = hushrec("train", shop[0], *options)
    assert done.returncode == 4, done.stderr
    assert "private.json: cannot be read" in done.stderr
    assert {name: (copy / name).read_bytes() for name in kept} == kept


def test_an_older_copy_of_a_run_is_refused_where_an_anchor_is_kept(shop: tuple[Path, Path], tmp_path: Path) -> None:
    out, backup, anchor = tmp_path / "run", tmp_path / "backup", tmp_path / "shop.anchor"
    files = [str(HUSHREC), "train", str(shop[0]), "--items", str(shop[1]), "--epsilon", "8", "--delta", "1e-4"]
    command = [*files, "--anchor", str(anchor)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    deadline = time.monotonic() + 120
    while spent(out) < 11 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = spent(out)
    assert 11 <= before < ROUNDS
    shutil.copytree(out, backup)
    for out_now, code, message in ((out, 0, ""), (backup, 9, "older copy"), (tmp_path / "empty", 9, "is not there")):
        done = subprocess.run(
            [*command, "--out", str(out_now)], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == code, done.stderr
        assert message in done.stderr
    assert spent(out) == ROUNDS
    assert spent(backup) == before, "nothing was spent, so nothing was drawn"
    assert not (tmp_path / "empty" / "ledger.db").exists()
    assert not (tmp_path / "empty" / "private.json").exists()
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))["privacy"]
    assert anchor.read_text(encoding="utf-8").strip() == facts["ledger_head"]
    head = subprocess.run(
        [*files, "--out", str(backup), "--anchor", facts["ledger_head"]],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert head.returncode == 9
    assert "older copy" in head.stderr


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        ("41:5f0c", "the anchor is wrong"),
        ("run/shop.anchor", "lies in the folder of the run"),
        ("none/shop.anchor", "its folder is not there"),
    ],
)
def test_an_anchor_that_protects_nothing_is_wrong_usage(
    shop: tuple[Path, Path], tmp_path: Path, anchor: str, message: str
) -> None:
    options = ("--items", shop[1], "--out", tmp_path / "run", "--epsilon", 8, "--anchor", anchor)
    done = hushrec("train", shop[0], *options, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def spent(out: Path) -> int:
    """Rounds that the ledger of a run counts."""
    if not (out / "counts.npz").exists():
        return 0
    with SqliteLedgerStore(out / "ledger.db", read_only=True) as store:
        return sum(plan.rounds for plan in Ledger(store).totals().plans.values())
