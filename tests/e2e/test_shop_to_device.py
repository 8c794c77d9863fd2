"""From a shop's files to recommendations, by the commands alone, on a made-up shop that a model can learn."""

import html
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hushrec_privacy import errors

from tests.e2e.commands import hushrec, write_shop


class Made(NamedTuple):
    """What the commands left behind."""

    folder: Path
    events: Path
    trained: dict[str, Any]
    quantized: dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("shop")
    events, items = write_shop(folder)
    trained = hushrec("train", events, "--items", items, "--out", "run", "--json", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    quantized = hushrec("quantize", "run", "--out", "shop.hush", "--model-version", "3", "--json", cwd=folder)
    assert quantized.returncode == 0, quantized.stderr
    return Made(folder, events, json.loads(trained.stdout), json.loads(quantized.stdout))


def test_training_reports_what_was_decided_and_how_good_it_is(made: Made) -> None:
    assert made.trained["protocol"] == "leave-one-out"
    assert len(made.trained["protocol_sha256"]) == 64
    assert made.trained["decisions"]
    assert set(made.trained["test"]) == {"model", "blend"}


def test_training_leaves_a_page_with_its_curves_and_decisions(made: Made) -> None:
    page = (made.folder / "run" / "report.html").read_text(encoding="utf-8")
    assert page.count("<polyline") == 2
    assert all(html.escape(line) in page for line in made.trained["decisions"])


def test_quantizing_reports_every_step_and_writes_its_page_beside_the_bundle(made: Made) -> None:
    names = [step["name"] for step in made.quantized["steps"]]
    assert names[0].startswith("trained")
    assert any("int8" in name for name in names)
    page = (made.folder / "shop.hush.html").read_text(encoding="utf-8")
    assert all(name in page for name in names)
    assert "<script" not in page


def test_the_bundle_carries_its_model_version_and_claims_nothing(made: Made) -> None:
    found = json.loads(hushrec("inspect", "shop.hush", "--json", cwd=made.folder).stdout)
    assert found["model_version"] == 3
    assert found["card"]["headline"] == "no guarantee for this bundle"


@pytest.mark.parametrize("model", ["run", "shop.hush"])
def test_evaluating_prints_the_keys_that_others_rely_on(made: Made, model: str) -> None:
    shown = hushrec("evaluate", model, made.events, "--parts", "--json", cwd=made.folder)
    found = json.loads(shown.stdout, parse_constant=pytest.fail)
    for key in ("protocol", "protocol_sha256", "users", "items", "hr@10", "ndcg@10", "mrr", "coverage@10", "parts"):
        assert key in found
    baselines = {"popularity", "recent_popularity", "markov", "last_item", "item_knn", "personal_frequency"}
    assert set(found["baselines"]) == baselines
    assert set(found["baselines"]["popularity"]) == {"hr@10", "ndcg@10"}
    assert found["users"] == 60
    assert found["protocol_sha256"] == made.trained["protocol_sha256"]


def test_the_bundle_ranks_like_the_model_it_was_made_of_and_better_than_popularity(made: Made) -> None:
    found = {
        model: json.loads(hushrec("evaluate", model, made.events, "--json", cwd=made.folder).stdout)
        for model in ("run", "shop.hush")
    }
    assert found["shop.hush"]["ndcg@10"] == pytest.approx(found["run"]["ndcg@10"], abs=0.1)
    assert found["shop.hush"]["ndcg@10"] > found["shop.hush"]["baselines"]["popularity"]["ndcg@10"]


def test_evaluating_without_times_has_no_recent_popularity(made: Made, tmp_path: Path) -> None:
    rows = made.events.read_text(encoding="utf-8").splitlines()
    (tmp_path / "events.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows) + "\n", encoding="utf-8")
    shown = hushrec("evaluate", made.folder / "shop.hush", "events.csv", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["baselines"]["recent_popularity"] is None


def test_the_table_for_people_names_every_baseline_in_words(made: Made) -> None:
    shown = hushrec("evaluate", "shop.hush", made.events, cwd=made.folder)
    names = [row.partition("\t")[0] for row in shown.stdout.splitlines()]
    assert names[:2] == ["ranked by", "shop.hush"]
    assert {"popularity", "decayed transitions", "item neighbours"} <= set(names)


def test_the_bundle_recommends_what_follows_and_says_why(made: Made) -> None:
    shown = hushrec("recommend", "shop.hush", "--history", "sku-3,sku-4,sku-5", "-k", "3", "--json", cwd=made.folder)
    rows = json.loads(shown.stdout)["recommendations"]
    assert {"sku-6", "sku-7"} & {row["item"] for row in rows}
    assert all(row["title"] == f"Thing {row['item'][4:]}" for row in rows)
    assert all(row["reason"] for row in rows)


def test_the_same_seed_trains_the_same_model(made: Made) -> None:
    again = hushrec("train", "events.csv", "--items", "items.csv", "--out", "again", "--json", cwd=made.folder)
    found = json.loads(again.stdout)
    assert (found["test"], found["validation"]) == (made.trained["test"], made.trained["validation"])


def test_a_training_folder_whose_events_changed_is_refused(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made.folder / "run", run)
    for file in (run / "prepared").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-1] + b"?")
    refused = hushrec("quantize", run, "--out", "shop.hush", cwd=tmp_path)
    assert refused.returncode == errors.CheckpointError.exit_code, refused.stderr
    assert not (tmp_path / "shop.hush").exists()


def test_something_that_is_no_bundle_is_not_overwritten(made: Made, tmp_path: Path) -> None:
    precious = tmp_path / "shop.hush"
    precious.mkdir()
    (precious / "diary.txt").write_text("mine", encoding="utf-8")
    refused = hushrec("quantize", made.folder / "run", "--out", precious, cwd=tmp_path)
    assert refused.returncode == errors.BundleError.exit_code
    assert [file.name for file in precious.iterdir()] == ["diary.txt"]
    assert not (tmp_path / "shop.hush.html").exists()


def test_the_code_of_the_readme_runs(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    code, many, _fleet = readme.split("```python\n")[1:]  # the third is tried with the page on deployment
    (tmp_path / "shop.hush").symlink_to(made.folder / "shop.hush")
    monkeypatch.chdir(tmp_path)
    exec(code.partition("```")[0], {})
    assert (tmp_path / "shopper.profile").exists()
    capsys.readouterr()
    exec(many.partition("```")[0], {})
    assert [line.count("'") for line in capsys.readouterr().out.splitlines()] == [20, 20]
