"""Training is killed for good, goes on, and what comes of it is followed to the device, by the commands alone."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hushrec_model.run_folder import load_run
from hushrec_privacy.errors import CheckpointError

from tests.e2e.commands import HUSHREC, hushrec
from tests.shop_files import write_shop_files

TRAIN = ("train", "events.csv", "--items", "items.csv", "--attributes", "colour", "--json")


def found(*arguments: object, cwd: Path) -> dict[str, Any]:
    """What a command prints as JSON."""
    shown = hushrec(*arguments, "--json", cwd=cwd)
    assert shown.returncode == 0, shown.stderr
    values: dict[str, Any] = json.loads(shown.stdout, parse_constant=pytest.fail)
    return values


def kill_after_first_epoch(shop: Path) -> None:
    """Start training and end its process, without a chance to tidy up, once its first state is on disk."""
    command = [str(HUSHREC), *TRAIN, "--out", "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=shop, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while not (shop / "killed" / "training.pt").exists():
            assert process.poll() is None, "training ended before it wrote a state"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -9


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `whole` holds a run that was let alone, `killed` one that was killed and called again."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop_files(folder, users=200, length=30)
    found(*TRAIN[:-1], "--out", "whole", cwd=folder)
    kill_after_first_epoch(folder)
    with pytest.raises(CheckpointError, match="training was interrupted: run the same train command again"):
        load_run(folder / "killed")
    found(*TRAIN[:-1], "--out", "killed", cwd=folder)
    return folder


def test_the_killed_run_ended_in_the_same_bits(shop: Path) -> None:
    whole, killed = load_run(shop / "whole"), load_run(shop / "killed")
    expected = whole.model.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in killed.model.state_dict().items())
    assert killed.blend == whole.blend
    for part in ("test", "validation", "best_epoch"):
        assert killed.facts["report"][part] == whole.facts["report"][part]
    assert not (shop / "killed" / "training.pt").exists()


def test_what_comes_of_it_reaches_the_device(shop: Path) -> None:
    quantized = found("quantize", "killed", "--out", "shop.hush", cwd=shop)
    assert quantized["verification"]["model_overlap"] > 0.95
    seen = found("inspect", "shop.hush", cwd=shop)
    assert seen["verified"] is True
    assert seen["card"]["protocol_sha256"] == load_run(shop / "killed").facts["protocol_sha256"]
    run, bundle = (found("evaluate", model, "events.csv", "--parts", cwd=shop) for model in ("killed", "shop.hush"))
    assert run["protocol_sha256"] == bundle["protocol_sha256"]
    assert bundle["ndcg@10"] == pytest.approx(run["ndcg@10"], abs=0.03)
    assert bundle["ndcg@10"] > bundle["baselines"]["popularity"]["ndcg@10"] + 0.3
    assert run["parts"].keys() >= {"transformer"}  # the planted shop may need no counts
    assert bundle["parts"].keys() == {"transformer", *(part["name"] for part in quantized["blend"])}  # fitted anew
    asked = found("recommend", "shop.hush", "--history", "sku-3,sku-4,sku-5", "-k", "3", cwd=shop)
    assert {"sku-6", "sku-7"} & {entry["item"] for entry in asked["recommendations"]}
