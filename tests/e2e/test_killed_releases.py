"""Devices and shops are killed at every change that they make to the disk: what is in use is whole, and the next try
ends well."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hushrec.bundle import Bundle
from hushrec_server.releases import ReleaseRepository

from tests.release_shop import Shop, serving

ROOT = Path(__file__).parents[2]

DEVICE = """
import shutil, sys
from pathlib import Path
from hushrec.bundle import Bundle
from hushrec.updates import Updater
import hushrec.updates.source  # what a fork needs is loaded once
from tests.killed_at import killed_at
from tests.release_shop import NOON

url, start, root, first, every = sys.argv[1:]
root, folder = Path(root).read_bytes(), Path(start).with_name("killed")

def device():
    return Updater(url, folder, root, clock=lambda: NOON)

def whole(*versions):
    path = device().current()
    found = Bundle.open(path, verify=True).manifest.model_version
    assert found in versions, found
    for other in path.parent.iterdir():
        if other.name.isdigit():
            Bundle.open(other, verify=True)
    return found

change, seen, killed = int(first), set(), True
while killed:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start, folder)
    killed = killed_at(change, folder, lambda: device().fetch())
    seen.add(whole(1, 2) if killed else whole(2))
    for _ in range(3):  # and killed again on the way back
        killed_at(change // 2 + 1, folder, lambda: device().fetch())
        whole(1, 2)
    assert not killed_at(10**6, folder, lambda: device().fetch())
    assert whole(2) == 2
    assert not list((folder / "parts").iterdir())
    print(change, flush=True)
    change += int(every)
assert seen == {1, 2}, seen
"""

SHOP = """
import shutil, sys
from pathlib import Path
from hushrec_server.releases import ReleaseKeys, ReleaseRepository
from tests.killed_at import killed_at
from tests.release_shop import NOON

start, safe, online, bundle, work, first, every = sys.argv[1:]
keys, folder = ReleaseKeys.read(Path(safe), Path(online)), Path(start).with_name("killed-repository")

new = ReleaseKeys.create(folder / "../safe2", folder / "../online2")

def repository(keys=keys):
    return ReleaseRepository(folder, keys, clock=lambda: NOON)

def publish():
    repository().publish(Path(bundle), ledger_head=None, demo=False)

def rollback():
    if len(repository().list()) == 2:
        repository().rollback(1)

def rotate():
    if not (folder / "metadata" / "2.root.json").exists():
        repository().rotate_root(new)

def prune():
    repository().prune(1)

def stage():
    repository().stage(Path(bundle), ledger_head=None, demo=False)

def accept():
    staged = repository().candidate() or repository().list()[-1]
    repository().accept(staged.bundle, ledger_head=None)

def withdraw():
    repository().withdraw()

change, killed = int(first), True
while killed:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start, folder)
    killed = killed_at(change, folder, globals()[work])
    shutil.copytree(folder, Path(start).with_name(f"seen-{change}"))  # as clients see it now
    assert not killed_at(10**6, folder, globals()[work])
    repository(new if work == "rotate" else keys).prune(10)
    assert not list((folder / "parts").iterdir())
    after = [release.model_version for release in repository().list()]
    grown = {"publish": [1, 2, 3], "rollback": [1, 2, 3], "accept": [1, 2, 3], "prune": [2]}
    assert after == grown.get(work, [1, 2]), after
    assert (repository().candidate() is not None) == (work == "stage")
    print(change, flush=True)
    change += int(every)
"""


def run(code: str, *arguments: object) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize(("first", "every"), [(3, 17), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_a_device_killed_at_any_change_keeps_a_whole_release(tmp_path: Path, first: int, every: int) -> None:
    shop = Shop(tmp_path)
    shop.publish(1)
    with serving(shop.repository.folder) as server:
        shop.updater(server.url, "start").fetch()
        shop.publish(2, seed=9)
        (tmp_path / "root").write_bytes(shop.root)
        tried = run(DEVICE, server.url, tmp_path / "start", tmp_path / "root", first, every)
    assert tried[-1] > 30


@pytest.mark.parametrize("work", ["publish", "rollback", "rotate", "prune", "stage", "accept", "withdraw"])
@pytest.mark.parametrize(("first", "every"), [(2, 9), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_a_shop_killed_at_any_change_shows_devices_the_old_or_the_new(
    tmp_path: Path, work: str, first: int, every: int
) -> None:
    shop = Shop(tmp_path)
    shop.publish(1)
    shop.publish(2, seed=9)
    if work in ("accept", "withdraw"):
        shop.repository.stage(shop.bundle(3, 8), ledger_head=None, demo=False)
    arguments = (shop.repository.folder, tmp_path / "safe", tmp_path / "online", shop.bundle(3, 8), work, first, every)
    versions = set()
    for change in run(SHOP, *arguments):
        with serving(tmp_path / f"seen-{change}") as server:
            device = shop.updater(server.url, f"device-{change}")
            device.fetch()
            versions.add(Bundle.open(device.current(), verify=True).manifest.model_version)
    assert versions == ({2, 3} if work in ("publish", "rollback", "accept") else {2})


WRITER = """
import itertools, sys
from pathlib import Path
from hushrec_privacy.errors import ReleaseError
from hushrec_server.releases import Lifetimes, ReleaseKeys, ReleaseRepository
from tests.release_shop import NOON

folder, safe, online, *bundles = map(Path, sys.argv[1:])
short = Lifetimes(timestamp_s=8, snapshot_s=8, targets_s=10**8, root_s=10**9)  # signed anew all the time
ticks = itertools.count(NOON)
repository = ReleaseRepository(folder, ReleaseKeys.read(safe, online), clock=lambda: next(ticks), lifetimes=short)
print("ready", flush=True)
sys.stdin.readline()
for bundle in bundles:
    try:
        repository.publish(bundle, ledger_head=None, demo=False)
    except ReleaseError as error:
        assert "does not rise" in error.message, error
    repository.refresh()
print("done", flush=True)
"""


def test_processes_that_publish_and_refresh_at_once_leave_one_order_of_releases(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    bundles = [shop.bundle(version, version) for version in range(1, 9)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, shop.repository.folder, tmp_path / "safe", tmp_path / "online", *bundles],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    with serving(shop.repository.folder) as server:
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        device = shop.updater(server.url)
        while any(writer.poll() is None for writer in writers):
            device.fetch()
        assert [writer.communicate(timeout=60)[0] for writer in writers] == ["done\n"] * 3
        device.fetch()
    found = [release.model_version for release in shop.repository.list()]
    assert found == sorted(set(found))
    assert found[-1] == 8
    assert Bundle.open(device.current(), verify=True).manifest.model_version == 8


def test_a_writer_that_is_killed_gives_its_lock_back(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from hushrec_server.releases.files import RepositoryFiles\n"
            "with RepositoryFiles(Path(sys.argv[1])).alone():\n    print('held', flush=True); time.sleep(60)",
            str(shop.repository.folder),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    began = time.monotonic()
    ReleaseRepository(shop.repository.folder, shop.keys, clock=shop.clock).refresh()
    assert time.monotonic() - began < 5
