"""A shop's releases by command, and a device that follows them: keys, publishing, rolling back, rotating."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hushrec.bundle import Bundle, write_bundle
from hushrec.updates import Updater
from hushrec_privacy import errors
from hushrec_server.releases import ReleaseKeys, ReleaseRepository

from tests.e2e.commands import hushrec
from tests.release_shop import serving
from tests.tiny_bundle import tiny_bundle

HEAD = "7:" + "0a" * 32


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository of two releases, its keys, and bundles 1 to 3."""
    folder = tmp_path_factory.mktemp("shop")
    first = Bundle.open(tiny_bundle(folder))
    for version in (1, 2, 3):
        manifest = msgspec.structs.replace(first.manifest, model_version=version)
        files = {name: first.path(name) for name in first.manifest.files}
        write_bundle(
            folder / f"{version}.hush", manifest, files, {n: i.origin for n, i in first.manifest.files.items()}
        )
    run(folder, "init", "releases", "--offline-keys", "safe", "--online-keys", "online")
    run(folder, "publish", "releases", "1.hush", "--keys", "safe", "--keys", "online", "--anchor", HEAD)
    run(folder, "publish", "releases", "2.hush", "--keys", "safe", "--keys", "online", "--demo")
    return folder


@pytest.fixture
def shop(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "shop"))


def run(folder: Path, *arguments: object) -> dict[str, Any]:
    done = hushrec("release", *arguments, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_making_a_repository_says_what_to_keep_where(tmp_path: Path) -> None:
    done = hushrec("release", "init", "releases", "--offline-keys", "safe", "--online-keys", "online", cwd=tmp_path)
    assert done.returncode == 0
    assert Path(done.stdout.strip()) == tmp_path / "releases" / "metadata" / "1.root.json"
    for word in ("safe/root.key", "safe/targets.key", "online/online.key", "https"):
        assert word in done.stderr
    keys = [*(tmp_path / "safe").iterdir(), *(tmp_path / "online").iterdir()]
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    again = hushrec("release", "init", "other", "--offline-keys", "safe", "--online-keys", "online", cwd=tmp_path)
    assert again.returncode == errors.ConfigError.exit_code
    assert "never overwritten" in again.stderr


def test_a_repository_that_cannot_be_made_leaves_no_keys_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    keys = ("--offline-keys", "safe", "--online-keys", "online")
    failed = hushrec("release", "init", "file/releases", *keys, cwd=tmp_path)
    assert failed.returncode == errors.ReleaseError.exit_code, failed.stderr
    assert not (tmp_path / "safe").exists()
    assert hushrec("release", "init", "releases", *keys, cwd=tmp_path).returncode == 0


def test_the_releases_are_listed_with_what_they_carry(shop: Path) -> None:
    listed = run(shop, "list", "releases")
    assert [(one["model_version"], one["demo"], one["ledger_head"]) for one in listed["releases"]] == [
        (1, False, HEAD),
        (2, True, None),
    ]
    assert listed["candidate"] is None
    assert set(listed["expires_at"]) == {"root", "targets", "snapshot", "timestamp"}
    shown = hushrec("release", "list", "releases", cwd=shop)
    assert [line.split("\t")[0] for line in shown.stdout.splitlines()] == ["release", "1", "2"]


def test_a_bundle_of_a_round_of_another_fleet_is_warned_of_and_one_of_the_repository_s_own_is_not(shop: Path) -> None:
    keys = ("--keys", "safe", "--keys", "online")

    def published(version: int, number: int) -> str:
        of_round = {"plan": "ab" * 32, "number": number, "base": 1, "ledger": f"{number}:" + "0a" * 32}
        opened = Bundle.open(shop / "3.hush")
        card = {**opened.manifest.card, "round": of_round}
        manifest = msgspec.structs.replace(opened.manifest, model_version=version, card=card)
        files: dict[str, bytes | Path] = {name: opened.path(name) for name in manifest.files}
        origins = {name: info.origin for name, info in manifest.files.items()}
        bundle = write_bundle(shop / f"{version}-of-round.hush", manifest, files, origins).root
        done = hushrec("release", "publish", "releases", bundle, *keys, cwd=shop)
        assert done.returncode == 0, done.stderr
        return done.stderr

    first = published(4, number=5)
    assert f"WARNING: it came of round 5 of plan {'ab' * 8}, and no release here came of that round" in first
    assert "A database was restored" in first
    assert "WARNING" not in published(5, number=5)
    assert "WARNING" in published(6, number=6)


def test_a_candidate_is_shown_beside_the_releases(shop: Path) -> None:
    keys = ReleaseKeys.read(shop / "safe", shop / "online")
    ReleaseRepository(shop / "releases", keys, clock=time.time).stage(shop / "3.hush", ledger_head=HEAD, demo=True)
    listed = run(shop, "list", "releases")
    assert [one["model_version"] for one in listed["releases"]] == [1, 2]
    assert (listed["candidate"]["model_version"], listed["candidate"]["ledger_head"]) == (3, HEAD)
    shown = hushrec("release", "list", "releases", cwd=shop)
    assert [line.split("\t")[0] for line in shown.stdout.splitlines()] == ["release", "1", "2"]
    assert f"not out: candidate 3, bundle {listed['candidate']['bundle'][:16]}" in shown.stderr


def test_a_device_follows_the_commands(shop: Path, tmp_path: Path) -> None:
    root = (shop / "releases" / "metadata" / "1.root.json").read_bytes()
    with serving(shop / "releases") as server:
        device = Updater(server.url, tmp_path / "device", root)
        with pytest.raises(errors.ReleaseError, match="DEMO"):
            device.fetch()
        assert run(shop, "rollback", "releases", 1, "--keys", "safe", "--keys", "online")["model_version"] == 3
        assert Bundle.open(device.fetch() or tmp_path).manifest.model_version == 3
        release = device.release()
        assert release is not None
        assert (release.demo, release.ledger_head) == (False, "")
        keys = ("--keys", "safe", "--keys", "online")
        run(shop, "rotate", "releases", *keys, "--new-offline-keys", "safe2", "--new-online-keys", "online2")
        assert device.fetch() is None
        assert run(shop, "refresh", "releases", "--keys", "online2")["renewed"] == []
        assert run(shop, "prune", "releases", "--keep", 1, "--keys", "safe2", "--keys", "online2")["releases"] == [3]


@pytest.mark.parametrize(
    ("head", "warned"), [("6:" + "0a" * 32, True), ("7:" + "0b" * 32, True), (HEAD, False), ("8:" + "0b" * 32, False)]
)
def test_an_anchor_that_no_later_state_of_the_ledger_can_have_is_doubted(shop: Path, head: str, warned: bool) -> None:
    keys = ("--keys", "safe", "--keys", "online")
    done = hushrec("release", "publish", "releases", "3.hush", *keys, "--anchor", head, cwd=shop)
    assert (done.returncode, done.stdout) == (0, "3\n")
    assert ("names entry 7 of a ledger" in done.stderr) is warned


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("publish", "releases", "3.hush", "--keys", "online"), errors.ReleaseError.exit_code, "needs targets.key"),
        (("publish", "releases", "1.hush", "--keys", "safe", "--keys", "online"), 16, "does not rise"),
        (("publish", "releases", "none.hush", "--keys", "safe"), errors.BundleError.exit_code, "does not exist"),
        (("publish", "releases", "3.hush", "--keys", "safe", "--anchor", "7:x"), 2, "anchor"),
        (("publish", "releases", "3.hush"), 2, "--keys"),
        (("rollback", "releases", 2, "--keys", "safe", "--keys", "online"), 16, "these can: 1"),
        (("refresh", "releases", "--keys", "nowhere"), 16, "name the folder of keys"),
        (("refresh", "nowhere", "--keys", "online"), 16, "hushrec release init"),
        (("refresh", "releases", "--keys", "safe"), 16, "needs online.key"),
        (("rotate", "releases", "--keys", "online"), 16, "needs root.key"),
        (("rotate", "releases", "--keys", "safe", "--new-offline-keys", "x"), 2, "or neither"),
        (("list", "nowhere"), 16, "nowhere: does not exist; name the folder of the repository"),
        (("prune", "releases", "--keep", 0, "--keys", "safe"), 2, "keep"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    shop: Path, arguments: tuple[object, ...], code: int, says: str
) -> None:
    done = hushrec("release", *arguments, cwd=shop)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_app_loads_the_extra_only_when_it_updates() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import hushrec, hushrec.updates, hushrec_cli.main, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in shown.stdout.split()}
    assert not loaded & {"tuf", "securesystemslib", "urllib3", "cryptography", "hushrec_server"}
