"""A profile keeps every event, in order, through threads, kills and reopening, and refuses what is not a profile."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hushrec import profile as profile_module
from hushrec.bundle import Bundle, FileStamp
from hushrec.profile import Event, Profile
from hushrec_privacy.errors import ProfileError

from tests.tiny_bundle import tiny_bundle


@pytest.fixture(params=["file", "memory"])
def profile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Profile]:
    with Profile(tmp_path / "p" if request.param == "file" else None) as opened:
        yield opened


def test_events_come_by_time_and_those_of_one_moment_as_they_arrived(profile: Profile) -> None:
    for item, at_us in (("c", 5), ("a", 1), ("d", 5), ("b", 1), ("e", -7)):
        profile.append(item, "view", at_us)
    assert [event.item for event in profile.events()] == ["e", "a", "b", "c", "d"]
    assert [event.item for event in profile.events(1)] == ["e", "a", "b"]
    assert [event.item for event in profile.events(newest=2)] == ["c", "d"]
    assert [event.item for event in profile.events(4, newest=2)] == ["a", "b"]
    assert profile.events(-8) == []
    assert profile.events(newest=0) == []


@pytest.mark.parametrize("text", ["", "a" * 10_000, "\0", "\ud800", "ünï ✓ 漢", "'; DROP TABLE events; --"])
def test_any_text_is_kept_as_it_is(profile: Profile, text: str) -> None:
    profile.append(text, text, 3)
    assert profile.events() == [Event(text, text, 3)]
    assert profile.first_seen() == {text: 3}


@pytest.mark.parametrize("at_us", [-(2**63), -1, 0, 2**63 - 1])
def test_any_time_of_64_bits_is_kept(profile: Profile, at_us: int) -> None:
    profile.append("a", "view", at_us)
    assert profile.events() == [Event("a", "view", at_us)]


def test_items_are_counted_and_their_first_event_is_known(profile: Profile) -> None:
    for item, at_us in (("a", 9), ("b", 2), ("a", 4), ("a", 11)):
        profile.append(item, "view", at_us)
    assert profile.counts() == {"a": 3, "b": 1}
    assert profile.first_seen() == {"a": 4, "b": 2}


def test_small_values_are_kept_by_name(profile: Profile) -> None:
    assert profile.get("self-check") is None
    profile.put("self-check", b"packed")
    profile.put("self-check", b"plain\0")
    assert profile.get("self-check") == b"plain\0"


def test_the_hash_record_is_that_of_the_last_few_bundles(profile: Profile) -> None:
    stamp = FileStamp("items.bin", 1, 2, 3, "0" * 64)
    record = profile.hash_record
    assert record.get_stamps("bundle 1") == ()
    for number in range(1, 12):
        record.put_stamps(f"bundle {number}", (stamp._replace(size=number),))
    record.put_stamps("bundle 11", (stamp,))
    assert record.get_stamps("bundle 11") == (stamp,)
    assert record.get_stamps("bundle 1") == ()
    assert record.get_stamps("bundle 8") != ()


def test_a_bundle_is_not_hashed_again_in_the_next_process(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    for hashed in (True, False, False):
        with Profile(tmp_path / "p") as profile:
            assert bool(Bundle.open(root, record=profile.hash_record).hashed) is hashed


def test_a_record_that_cannot_be_read_means_hashing_again(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    with Profile(tmp_path / "p") as profile:
        Bundle.open(root, record=profile.hash_record)
        profile._run("UPDATE hashes SET stamps = ?", b"[[1, 2]]")
        assert Bundle.open(root, record=profile.hash_record).hashed


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    with Profile(tmp_path / "p") as profile:
        for number in range(50):
            profile.append(f"item {number}", "view", number)
        profile.put("key", b"value")
        kept = profile.events()
    with Profile(tmp_path / "p") as profile:
        assert profile.events() == kept
        assert profile.get("key") == b"value"


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    with Profile(tmp_path / "p") as profile:
        profile.append("a", "view", 1)
        for path in tmp_path.iterdir():
            assert os.name == "nt" or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_threads_lose_no_event(profile: Profile) -> None:
    def observe(name: str) -> None:
        for number in range(300):
            profile.append(f"{name} {number}", "view", number)
            if number % 50 == 0:
                profile.events(newest=5)

    threads = [threading.Thread(target=observe, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(profile.events()) == 1200
    assert len(profile.counts()) == 1200


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX thing")
def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    code = """
import sys
from hushrec.profile import Profile
profile = Profile(sys.argv[1])
for number in range(100_000):
    profile.append(f"item {number}", "view", number)
    print(number, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "p")], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 500:
                break
        child.send_signal(signal.SIGKILL)
        confirmed = max([int(line) for line in child.stdout if line.endswith("\n")], default=500)
    with Profile(tmp_path / "p") as profile:
        kept = [event.at_us for event in profile.events()]
    assert kept[: confirmed + 1] == list(range(confirmed + 1))
    assert len(kept) <= confirmed + 2


def wal_size(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


def file_has(path: Path, item: bytes) -> bool:
    return item in path.read_bytes()


def test_flush_moves_events_from_the_log_into_the_file(tmp_path: Path) -> None:
    with Profile(tmp_path / "p") as profile:
        profile.append("an item to look for", "view", 1)
        assert not file_has(tmp_path / "p", b"an item to look for")
        profile.flush()
        assert file_has(tmp_path / "p", b"an item to look for")


def test_events_are_flushed_in_the_background_and_no_thread_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "FLUSH_AFTER_S", 0.01)
    threads = threading.active_count()
    with Profile(tmp_path / "p") as profile:
        profile.append("an item to look for", "view", 1)
        end = time.monotonic() + 10
        while not file_has(tmp_path / "p", b"an item to look for") or threading.active_count() > threads:
            assert time.monotonic() < end
            time.sleep(0.005)


def test_a_failing_background_flush_is_raised_by_the_next_call_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_module, "FLUSH_AFTER_S", 1e9)
    profile = Profile(tmp_path / "p")
    profile.append("a", "view", 1)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *_, **__: (_ for _ in ()).throw(sqlite3.OperationalError("disk I/O")))
        profile._flush_later()
    assert profile.events() == [Event("a", "view", 1)]
    profile.close()


def test_memory_has_no_thread_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threads = threading.active_count()
    with Profile() as profile:
        profile.append("a", "view", 1)
        profile.flush()
        assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []


def test_a_closed_profile_says_so(profile: Profile) -> None:
    profile.append("a", "view", 1)
    profile.close()
    profile.close()
    profile._flush_later()
    with pytest.raises(ProfileError, match="is closed"):
        profile.append("a", "view", 1)
    with pytest.raises(ProfileError, match="is closed"):
        profile.events()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="is a folder"):
        Profile(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"folder .*nowhere does not exist"):
        Profile(tmp_path / "nowhere" / "p")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a POSIX thing")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(ProfileError, match="not a profile"):
        Profile(tmp_path / "p")


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").symlink_to(tmp_path / "nothing")
    with pytest.raises(ProfileError, match="leads nowhere"):
        Profile(tmp_path / "p")


def test_missing_rights_to_a_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Profile(tmp_path / "p").close()
    # Rights do not bind the administrator who may run this.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ProfileError, match="may not be read and written"):
        Profile(tmp_path / "p")


def test_missing_rights_to_a_folder_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ProfileError, match=r"Permission denied.*rights of its folder"):
        Profile(tmp_path / "p")


@pytest.mark.parametrize("content", [b"x", b"not a database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_what_is_not_a_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(ProfileError, match="/p: "):
        Profile(tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == content


def test_a_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "p")
    database.execute("CREATE TABLE bookmarks(url TEXT)")
    database.close()
    before = (tmp_path / "p").read_bytes()
    with pytest.raises(ProfileError, match="another program"):
        Profile(tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == before


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Profile(tmp_path / "p").close()
    database = sqlite3.connect(tmp_path / "p")
    database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(ProfileError, match=r"newer hushrec \(schema 2\)"):
        Profile(tmp_path / "p")


@pytest.mark.parametrize("place", range(1, 7))
def test_a_page_of_garbage_is_found_at_opening(tmp_path: Path, place: int) -> None:
    with Profile(tmp_path / "p") as profile:
        for number in range(500):
            profile.append(f"item {number}", "view", number)
    data = bytearray((tmp_path / "p").read_bytes())
    data[4096 * place : 4096 * place + 4096] = b"\xa5" * 4096
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(ProfileError, match=r"damaged|cannot be opened"):
        Profile(tmp_path / "p")


def test_a_truncated_file_is_found_at_opening(tmp_path: Path) -> None:
    with Profile(tmp_path / "p") as profile:
        for number in range(500):
            profile.append(f"item {number}", "view", number)
    data = (tmp_path / "p").read_bytes()
    (tmp_path / "p").write_bytes(data[: len(data) // 2])
    with pytest.raises(ProfileError, match=r"damaged|cannot be opened"):
        Profile(tmp_path / "p")


def test_a_full_disk_is_an_error_of_ours(profile: Profile) -> None:
    (pages,) = profile._run("PRAGMA page_count")[0]
    profile._run(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ProfileError, match="full"):
        profile.append("x" * 100_000, "view", 1)
    assert profile.events() == []
