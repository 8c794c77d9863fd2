"""The files that devices update from: served whole or from the middle on, and nothing beside them."""

import errno
import os
from pathlib import Path

import pytest
from hushrec_server.release_files import _PIECE_BYTES

from tests.fake_fleet import World

BIG = bytes(range(256)) * (3 * _PIECE_BYTES // 256) + b"end"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    releases = tmp_path / "releases"
    (releases / "metadata").mkdir(parents=True)
    (releases / "targets" / "blobs").mkdir(parents=True)
    (releases / "metadata" / "timestamp.json").write_bytes(b"{}")
    (releases / "targets" / "blobs" / "ab.cd").write_bytes(BIG)
    (releases / "targets" / "empty").write_bytes(b"")
    (releases / "lock").write_bytes(b"secret")
    (releases / "parts").mkdir()
    (releases / "parts" / "x").write_bytes(b"secret")
    (tmp_path / "secret.key").write_bytes(b"secret")
    (releases / "targets" / "link").symlink_to(tmp_path / "secret.key")
    os.mkfifo(releases / "targets" / "pipe")
    return world


def test_a_file_comes_whole(world: World) -> None:
    answer = world.ask("GET", "/releases/targets/blobs/ab.cd")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, BIG, str(len(BIG)))
    assert "immutable" in answer.headers["cache-control"]
    assert world.ask("GET", "/releases/targets/empty").body == b""


def test_only_the_timestamp_is_asked_for_again(world: World) -> None:
    answer = world.ask("GET", "/releases/metadata/timestamp.json")
    assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, b"{}", "no-cache")


@pytest.mark.parametrize("begin", [1, 255, _PIECE_BYTES, len(BIG) - 1])
def test_an_interrupted_device_gets_the_rest(world: World, begin: int) -> None:
    answer = world.ask("GET", "/releases/targets/blobs/ab.cd", headers={"range": f"bytes={begin}-"})
    assert (answer.status, answer.body) == (206, BIG[begin:])
    assert answer.headers["content-range"] == f"bytes {begin}-{len(BIG) - 1}/{len(BIG)}"


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "bytes=0-",
        "bytes=5-9",
        "bytes=-5",
        "bytes=1-,3-",
        "bytes=x-",
        f"bytes={len(BIG)}-",
        "bytes=" + "9" * 40 + "-",
    ],
)
def test_any_other_range_gets_the_whole_file(world: World, wanted: str) -> None:
    answer = world.ask("GET", "/releases/targets/blobs/ab.cd", headers={"range": wanted})
    assert (answer.status, answer.body) == (200, BIG)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/metadata",
        "/metadata/",
        "/targets/none",
        "/targets/link",
        "/targets/pipe",
        "/targets/blobs",
        "/lock",
        "/parts/x",
        "/../secret.key",
        "/targets/../../secret.key",
        "/targets/../lock",
        "/%2e%2e/secret.key",
        "//secret.key",
        "/targets//link",
        "/targets/.hidden",
        "/targets/a\0b",
        "/\0",
        "/targets/" + "x" * 5_000,
        "/targets" + "/a" * 500,
        "/targets/\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_nothing_else_is_served(world: World, path: str) -> None:
    answer = world.ask("GET", f"/releases{path}")
    assert answer.status == 404
    assert b"secret" not in answer.body


def test_no_file_stays_open(world: World) -> None:
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir())) if handles.exists() else 0
    for _ in range(20):
        world.ask("GET", "/releases/targets/blobs/ab.cd")
        world.ask("GET", "/releases/targets/pipe")
    assert not before or len(list(handles.iterdir())) <= before + 2


def test_a_file_that_cannot_be_opened_now_is_not_told_to_be_missing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("hushrec_server.release_files.os.open", full)
        answer = world.ask("GET", "/releases/metadata/timestamp.json")
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert world.ask("GET", "/releases/metadata/timestamp.json").status == 200


def test_without_a_repository_there_is_nothing(tmp_path: Path) -> None:
    assert World(tmp_path).ask("GET", "/releases/metadata/timestamp.json").status == 404
