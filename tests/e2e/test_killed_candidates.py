"""A device is killed at every change it makes to its disk while it fetches a candidate: its release stays in use."""

import shutil
from pathlib import Path

import pytest

from tests.e2e.test_killed_releases import run
from tests.release_shop import Shop, serving

COMPARING = """
import shutil, sys
from pathlib import Path
from hushrec.bundle import Bundle
from hushrec.updates import Updater
import hushrec.updates.source  # what a fork needs is loaded once
from tests.killed_at import killed_at
from tests.release_shop import NOON

staged, accepted, start, root, first, every = sys.argv[1:]
root, folder = Path(root).read_bytes(), Path(start).with_name("killed")

def device(url=staged):
    return Updater(url, folder, root, clock=lambda: NOON)

def in_use():
    return Bundle.open(device().current(), verify=True).manifest.model_version

def compare():
    found = device().candidate()
    assert Bundle.open(found.path, verify=True).sha256 == found.sha256
    assert in_use() == 1

change, killed = int(first), True
while killed:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start, folder)
    killed = killed_at(change, folder, compare)
    assert in_use() == 1
    for _ in range(2):  # and killed again on the way back
        killed_at(change // 2 + 1, folder, compare)
        assert in_use() == 1
    assert not killed_at(10**6, folder, compare)
    assert not list((folder / "parts").iterdir())
    left = killed_at(change, folder, lambda: device(accepted).fetch())
    assert in_use() in ((1, 2) if left else (2,))
    assert not killed_at(10**6, folder, lambda: device(accepted).fetch())
    assert in_use() == 2
    assert {path.name for path in (folder / "releases").iterdir() if path.is_dir()} == {"1", "2"}
    print(change, flush=True)
    change += int(every)
"""


@pytest.mark.parametrize(("first", "every"), [(3, 11), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_a_device_killed_at_any_change_while_it_fetches_a_candidate_uses_its_release(
    tmp_path: Path, first: int, every: int
) -> None:
    shop = Shop(tmp_path)
    shop.publish(1)
    (tmp_path / "root").write_bytes(shop.root)
    with serving(shop.repository.folder) as server:
        shop.updater(server.url, "start").fetch()
    staged = shop.stage(2, seed=9)
    before = shutil.copytree(shop.repository.folder, tmp_path / "before")
    shop.repository.accept(staged.bundle, ledger_head=None)
    with serving(before) as offered, serving(shop.repository.folder) as out:
        tried = run(COMPARING, offered.url, out.url, tmp_path / "start", tmp_path / "root", first, every)
    assert tried[-1] > 20
