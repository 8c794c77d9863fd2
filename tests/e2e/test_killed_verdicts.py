"""A server that stages, accepts or refuses a model is killed at every change it makes to the disk: it decides once."""

from pathlib import Path

import pytest

from tests.e2e.test_killed_releases import run

VERDICT = """
import os, shutil, sys
from pathlib import Path
import onnxruntime  # what a fork needs is loaded once
from hushrec_server.model_releases import ModelReleases
from hushrec_server.publishing import Verdict
from hushrec_server.releases import ReleaseKeys, ReleaseRepository
from tests.killed_at import killed_at
from tests.learning_shop import NOW, Shop

start, work, first, every = sys.argv[1:]
start, killed_folder = Path(start), Path(start).with_name("killed")
shop = Shop(start)
shop.begin()
trained = shop.result(1)

def publisher(folder=killed_folder):
    repository = ReleaseRepository(folder / "repository", shop.keys, clock=lambda: NOW)
    return ModelReleases(repository, folder / "masters", evaluated_by_devices=True)

publisher(start)
if work != "stage":
    assert publisher(start).publish(trained).waiting
    compared = shop.compared(1, gain=-1.0 if work == "refuse" else 1.0)

def stage():
    assert publisher().publish(trained).waiting

def refuse():
    assert publisher().publish(compared) == Verdict(keep=True)

accept = refuse

def out():
    return [release.model_version for release in publisher()._repository.list()]

change, killed, seen = int(first), True, set()
while killed:
    shutil.rmtree(killed_folder, ignore_errors=True)
    shutil.copytree(start, killed_folder)
    killed = killed_at(change, killed_folder, globals()[work])
    asked = publisher().publish(trained)  # by the next process, in this order or the other
    if work == "stage":
        assert asked.waiting
    else:
        assert bool(asked.waiting) + bool(asked.refused) + (asked == Verdict()) == 1
        assert not (asked.refused and work == "accept") and not (asked == Verdict() and work == "refuse")
        seen.add(bool(asked.waiting))
        assert publisher().publish(compared) == Verdict(keep=True)
        assert bool(publisher().publish(trained).refused) == (work == "refuse")
    assert out() == ([1, 2] if work == "accept" else [1])
    candidate = publisher()._repository.candidate()
    assert (candidate is None) == (work != "stage")
    assert publisher().anchor() is not None
    print(change, flush=True)
    change += int(every)
assert work == "stage" or seen == {True, False}, seen
"""


@pytest.mark.parametrize("work", ["stage", "accept", "refuse"])
@pytest.mark.parametrize(("first", "every"), [(2, 11), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_a_server_killed_at_any_change_decides_about_a_model_once(
    tmp_path: Path, work: str, first: int, every: int
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    assert run(VERDICT, start, work, first, every)[-1] > 10
