"""A vault gives back what it was given, to its own key, and finds whatever else was done to its file."""

import copy
import os
import pickle
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hushrec.vault import Vault
from hushrec_privacy.errors import ConfigError, VaultError

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
VALUES = {"one": b"first secret", "two": b"second secret", "three": b""}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "device.vault"
    with Vault.open(place, KEY) as vault:
        vault.put_many(VALUES)
    return place


@pytest.fixture
def vault(path: Path) -> Iterator[Vault]:
    with Vault.open(path, KEY) as opened:
        yield opened


def _contents(path: Path, key: bytes = KEY) -> dict[str, bytes]:
    with Vault.open(path, key) as vault:
        assert vault.names() == sorted(vault.values())
        return {name: vault.get(name) or b"" for name in vault.names()}


def _alter(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def test_values_come_back_after_the_file_was_closed(path: Path) -> None:
    assert _contents(path) == VALUES
    with Vault.open(path, KEY) as vault:
        assert vault.values() == VALUES
        assert vault.values("t") == {"two": b"second secret", "three": b""}
        assert vault.values("none") == {}
        assert vault.get("nothing") is None
        assert list(vault.values()) == vault.names() == ["one", "three", "two"]


def test_a_value_is_replaced_and_deleted(vault: Vault, path: Path) -> None:
    vault.put("one", b"new")
    vault.delete("two")
    vault.delete("never there")
    assert vault.values() == _contents(path) == {"one": b"new", "three": b""}
    assert vault.get("two") is None


def test_an_update_sees_the_old_value_and_gives_the_new_one(vault: Vault, path: Path) -> None:
    assert vault.update("one", lambda old: (old or b"") + b"!") == b"first secret!"
    assert vault.update("new", lambda old: old or b"made") == b"made"
    assert vault.update("new", lambda old: old or b"made again") == b"made"
    assert _contents(path) == VALUES | {"one": b"first secret!", "new": b"made"}


def test_an_update_that_fails_changes_nothing(vault: Vault, path: Path) -> None:
    def fail(_: bytes | None) -> bytes:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        vault.update("one", fail)
    with pytest.raises(ConfigError):
        vault.update("one", lambda _: "text")  # type: ignore[arg-type, return-value]
    assert vault.values() == _contents(path) == VALUES


def test_several_values_are_kept_all_or_none(vault: Vault, path: Path) -> None:
    with pytest.raises(ConfigError, match="value"):
        vault.put_many({"one": b"changed", "bad": "text"})  # type: ignore[dict-item]
    assert vault.values() == _contents(path) == VALUES


def test_names_and_values_of_every_form_come_back(vault: Vault, path: Path) -> None:
    odd = {"ä/ö": b"\0", "a" * 255: bytes(100_000), "'; DROP TABLE sealed; --": b"\xff", "\0": b"zero", "%": b"like"}
    vault.put_many(odd)
    assert _contents(path) == VALUES | odd
    assert vault.values("'") == {"'; DROP TABLE sealed; --": b"\xff"}
    assert vault.values("\0") == {"\0": b"zero"}


def test_the_file_shows_no_value_and_no_key(path: Path) -> None:
    content = path.read_bytes()
    assert b"secret" not in content
    assert KEY not in content
    assert b"one" in content, "names are not hidden, as the module says"


def test_deleted_and_replaced_rows_are_gone_from_the_file(vault: Vault, path: Path) -> None:
    with sqlite3.connect(path) as database:
        old = [row[0] for row in database.execute("SELECT value FROM sealed WHERE name IN (?, ?)", (b"one", b"two"))]
        wrapped = database.execute("SELECT key FROM vault").fetchone()[0]
    database.close()
    assert all(blob in path.read_bytes() for blob in (*old, wrapped))
    vault.delete("one")
    vault.put("two", b"another")
    vault.rekey(OTHER_KEY)
    assert not any(blob in path.read_bytes() for blob in (*old, wrapped))


def test_the_file_is_its_owner_s_alone(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [name.name for name in path.parent.iterdir()] == [path.name], "everything is in one file"


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_touch_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(VaultError, match="chmod 600"):
        Vault.open(path, KEY)


def test_another_key_opens_nothing(path: Path) -> None:
    with pytest.raises(VaultError, match="key is not its own"):
        Vault.open(path, OTHER_KEY)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33), "x" * 32, 5])
def test_a_key_has_32_bytes(tmp_path: Path, key: bytes) -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        Vault.open(tmp_path / "new", key)
    assert not (tmp_path / "new").exists()


def test_after_a_rekey_only_the_new_key_opens_and_one_row_has_changed(path: Path) -> None:
    with sqlite3.connect(path) as database:
        before = database.execute("SELECT * FROM sealed").fetchall()
    with Vault.open(path, KEY) as vault:
        vault.rekey(OTHER_KEY)
        vault.put("later", b"still open")
        vault.delete("later")
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT * FROM sealed").fetchall() == before
    database.close()
    assert _contents(path, OTHER_KEY) == VALUES
    with pytest.raises(VaultError, match="key is not its own"):
        Vault.open(path, KEY)
    with Vault.open(path, OTHER_KEY) as vault, pytest.raises(ConfigError, match="32 bytes"):
        vault.rekey(b"short")


SWAP = (
    "CREATE TEMP TABLE t AS SELECT * FROM sealed",
    "UPDATE sealed SET (version, value) = (SELECT version, value FROM t WHERE name = x'74776f') WHERE name = x'6f6e65'",
    "UPDATE sealed SET (version, value) = (SELECT version, value FROM t WHERE name = x'6f6e65') WHERE name = x'74776f'",
)
ALTERATIONS = {
    "swapped rows": SWAP,
    "a copied row": ("INSERT INTO sealed SELECT x'6e6577', version, value FROM sealed WHERE name = x'6f6e65'",),
    "a copied value": ("UPDATE sealed SET value = (SELECT value FROM sealed WHERE name = x'74776f')",),
    "a renamed row": ("UPDATE sealed SET name = x'666f7572' WHERE name = x'6f6e65'",),
    "a missing row": ("DELETE FROM sealed WHERE name = x'6f6e65'",),
    "no rows": ("DELETE FROM sealed",),
    "another version": ("UPDATE sealed SET version = version + 1 WHERE name = x'6f6e65'",),
    "a version of 0": ("UPDATE sealed SET version = 0",),
    "a version of text": ("UPDATE sealed SET version = 'a'",),
    "an empty value": ("UPDATE sealed SET value = x'' WHERE name = x'6f6e65'",),
    "a value of text": ("UPDATE sealed SET value = 'text' WHERE name = x'6f6e65'",),
    "a name of text": ("UPDATE sealed SET name = 'one' WHERE name = x'6f6e65'",),
    "a name of a number": ("UPDATE sealed SET name = 1 WHERE name = x'6f6e65'",),
    "no vault row": ("DELETE FROM vault",),
    "another id": ("UPDATE vault SET id = randomblob(16)",),
    "a short id": ("UPDATE vault SET id = x'00'",),
    "another data key": ("UPDATE vault SET key = randomblob(60)",),
    "an empty data key": ("UPDATE vault SET key = x''",),
    "a data key of text": ("UPDATE vault SET key = 'key'",),
    "another summary": ("UPDATE vault SET summary = randomblob(68)",),
    "a summary of text": ("UPDATE vault SET summary = 'text'",),
    "the key as summary": ("UPDATE vault SET summary = key",),
    "a value as summary": ("UPDATE vault SET summary = (SELECT value FROM sealed LIMIT 1)",),
    "a trigger": ("CREATE TRIGGER t AFTER INSERT ON sealed BEGIN DELETE FROM vault; END",),
    "a table more": ("CREATE TABLE t(x)",),
    "a column more": ("ALTER TABLE sealed ADD COLUMN x",),
    "an index": ("CREATE INDEX i ON sealed(version)",),
    "an older schema": ("PRAGMA user_version = 0",),
}


@pytest.mark.parametrize("statements", ALTERATIONS.values(), ids=ALTERATIONS)
def test_what_was_altered_is_not_opened(path: Path, statements: tuple[str, ...]) -> None:
    _alter(path, *statements)
    with pytest.raises(VaultError, match="damaged or altered"):
        Vault.open(path, KEY)


READ_AT_OPENING = {
    *("another id", "a short id", "another data key", "an empty data key", "a data key of text", "an older schema"),
    *("a trigger", "a table more", "a column more", "an index"),
}


@pytest.mark.parametrize("name", [name for name in ALTERATIONS if name not in READ_AT_OPENING])
def test_what_is_altered_while_the_vault_is_open_is_found_too(vault: Vault, path: Path, name: str) -> None:
    _alter(path, *ALTERATIONS[name])
    with pytest.raises(VaultError, match="damaged or altered"):
        vault.values()
    with pytest.raises(VaultError, match="damaged or altered"):
        [vault.get(stored) for stored in (*VALUES, "new", "four")]


def test_a_row_set_back_to_an_older_one_is_found(vault: Vault, path: Path) -> None:
    _alter(path, "CREATE TABLE old AS SELECT * FROM sealed")
    vault.put("one", b"newer")
    _alter(path, "INSERT OR REPLACE INTO sealed SELECT * FROM old WHERE name = x'6f6e65'", "DROP TABLE old")
    with pytest.raises(VaultError, match="damaged or altered"):
        vault.get("one")
    vault.close()
    with pytest.raises(VaultError, match="damaged or altered"):
        Vault.open(path, KEY)


def test_a_deleted_row_that_is_brought_back_is_found(vault: Vault, path: Path) -> None:
    _alter(path, "CREATE TABLE old AS SELECT * FROM sealed")
    vault.delete("one")
    _alter(path, "INSERT INTO sealed SELECT * FROM old WHERE name = x'6f6e65'", "DROP TABLE old")
    for call in (lambda: vault.get("one"), vault.values):
        with pytest.raises(VaultError, match="damaged or altered"):
            call()
    vault.close()
    with pytest.raises(VaultError, match="damaged or altered"):
        Vault.open(path, KEY)


def test_a_row_of_a_copy_that_went_its_own_way_is_found(path: Path, tmp_path: Path) -> None:
    """Same vault, same name, same version: only the mark tells them apart."""
    copied = tmp_path / "copy.vault"
    shutil.copy(path, copied)
    for place, value in ((path, b"here"), (copied, b"there")):
        with Vault.open(place, KEY) as vault:
            vault.put("one", value)
    _alter(path, f"ATTACH '{copied}' AS c", "INSERT OR REPLACE INTO sealed SELECT * FROM c.sealed")
    with pytest.raises(VaultError, match="damaged or altered"):
        Vault.open(path, KEY)


def test_rows_of_another_vault_under_the_same_key_are_found(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.vault"
    with Vault.open(other, KEY) as vault:
        vault.put_many(VALUES)
    for statement in (
        "INSERT OR REPLACE INTO sealed SELECT * FROM c.sealed",
        "UPDATE vault SET key = (SELECT key FROM c.vault)",
        "UPDATE vault SET summary = (SELECT summary FROM c.vault)",
        "UPDATE vault SET (key, summary) = (SELECT key, summary FROM c.vault)",
    ):
        altered = tmp_path / "altered.vault"
        shutil.copy(path, altered)
        altered.chmod(0o600)
        _alter(altered, f"ATTACH '{other}' AS c", statement)
        with pytest.raises(VaultError, match="damaged or altered"):
            Vault.open(altered, KEY)


def test_a_whole_older_file_is_not_found_as_the_module_says(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "old")
    with Vault.open(path, KEY) as vault:
        vault.put("one", b"newer")
    shutil.copy(tmp_path / "old", path)
    assert _contents(path) == VALUES


def _refused_files() -> dict[str, tuple[Callable[[Path], object], str]]:
    def database(path: Path) -> None:
        _alter(path, "CREATE TABLE t(x)")
        path.chmod(0o600)

    return {
        "a folder": (lambda path: path.mkdir(), "not a vault"),
        "a text": (lambda path: path.write_text("hello"), "not a vault|others may"),
        "noise": (lambda path: path.write_bytes(os.urandom(4096)), "no vault|others may"),
        "a database": (database, "another program"),
        "a link to nowhere": (lambda path: path.symlink_to(path.with_name("gone")), "leads nowhere"),
        "a pipe": (lambda path: os.mkfifo(path, 0o600), "not a vault"),
    }


@pytest.mark.parametrize(("make", "words"), _refused_files().values(), ids=_refused_files())
def test_what_is_no_vault_is_refused(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    path = tmp_path / "file"
    make(path)
    if path.is_file():
        path.chmod(0o600)
    with pytest.raises(VaultError, match=words):
        Vault.open(path, KEY)


def test_a_folder_that_is_not_there_and_a_newer_file_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="cannot be made"):
        Vault.open(tmp_path / "nowhere" / "vault", KEY)
    _alter(path, "PRAGMA user_version = 2")
    with pytest.raises(VaultError, match="newer hushrec"):
        Vault.open(path, KEY)


def test_every_truncation_is_refused_the_empty_file_too(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    cut = tmp_path / "cut"
    for length in [*range(1, 600, 37), *range(600, len(content), 401), len(content) - 1]:
        cut.write_bytes(content[:length])
        cut.chmod(0o600)
        with pytest.raises(VaultError):
            _contents(cut)
    cut.write_bytes(b"")
    with pytest.raises(VaultError, match=r"is empty: what was kept in it is lost.*or delete it"):
        Vault.open(cut, KEY)
    assert cut.read_bytes() == b""


@pytest.mark.parametrize("name", ["", "a" * 256, "ä" * 128, "\ud800", None, b"one"])
def test_what_is_no_name_is_a_mistake_of_the_caller(vault: Vault, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: vault.get(name),
        lambda: vault.put(name, b""),
        lambda: vault.delete(name),
        lambda: vault.update(name, lambda _: b""),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="name"):
            call()


@pytest.mark.parametrize("value", ["text", None, 5, bytearray(3), bytes(2**24 + 1)], ids=lambda v: type(v).__name__)
def test_what_is_no_value_is_a_mistake_of_the_caller(vault: Vault, value: bytes) -> None:
    with pytest.raises(ConfigError, match="value"):
        vault.put("one", value)


def test_a_closed_vault_does_nothing_more(vault: Vault) -> None:
    vault.close()
    vault.close()
    for call in (lambda: vault.get("one"), vault.names, lambda: vault.put("one", b"")):
        with pytest.raises(VaultError, match="closed"):
            call()


def test_two_openings_of_a_file_see_each_other(path: Path) -> None:
    with Vault.open(path, KEY) as one, Vault.open(path, KEY) as other:
        one.put("one", b"by one")
        assert other.get("one") == b"by one"
        other.put("one", b"by other")
        other.delete("two")
        one.put("four", b"4")
        assert one.values() == other.values() == {"one": b"by other", "three": b"", "four": b"4"}
    assert _contents(path) == {"one": b"by other", "three": b"", "four": b"4"}


def test_threads_count_without_losing_one(vault: Vault) -> None:
    def count() -> None:
        for _ in range(10):
            vault.update("count", lambda old: (int.from_bytes(old or b"") + 1).to_bytes(4))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int.from_bytes(vault.get("count") or b"") == 40


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN"], ids=["at the beginning", "at the commit"])
def test_a_write_that_others_hinder_leaves_the_vault_as_it_was(path: Path, begin: str) -> None:
    with Vault.open(path, KEY) as vault:
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute(begin)
        blocker.execute("SELECT * FROM sealed").fetchall()
        vault._file._db.execute("PRAGMA busy_timeout = 1")
        for _ in range(2):
            with pytest.raises(VaultError, match="locked"):
                vault.put("one", b"not written")
        blocker.execute("ROLLBACK")
        blocker.close()
        assert vault.values() == VALUES
        vault.put("one", b"written")
    assert _contents(path) == VALUES | {"one": b"written"}


def test_a_write_onto_a_full_disk_leaves_the_vault_as_it_was(path: Path) -> None:
    with Vault.open(path, KEY) as vault:
        vault._file._db.execute("PRAGMA max_page_count = 1")  # as many as there are
        with pytest.raises(VaultError, match="full"):
            vault.put("one", bytes(100_000))
        assert vault.values() == VALUES
        vault.put("one", b"written")
        assert vault.get("one") == b"written"
    assert _contents(path) == VALUES | {"one": b"written"}


def test_nothing_secret_is_in_texts_and_nothing_is_copied(vault: Vault, path: Path) -> None:
    assert repr(vault) == f"Vault({str(path)!r})"
    assert repr(vault._data_key) == "DataKey(hidden)"
    for secret in (vault, vault._data_key):
        for copied in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="copied"):
                copied(secret)
    _alter(path, "DELETE FROM sealed WHERE name = x'6f6e65'")
    with pytest.raises(VaultError) as refused:
        vault.get("one")
    shown = f"{refused.value} {refused.value.__cause__} {refused.value.__context__}"
    assert "secret" not in shown
    assert KEY.hex() not in shown


def test_a_fork_does_not_go_on_with_it(vault: Vault) -> None:
    vault._file._process = os.getpid() + 1
    with pytest.raises(VaultError, match="another process"):
        vault.get("one")
    vault._file._process = os.getpid()


WRITER = """
import sys
from hushrec.vault import Vault
vault = Vault.open(sys.argv[1], bytes(range(32)))
for n in range(1, 100_000):
    vault.put_many({"a": n.to_bytes(8), "b": n.to_bytes(8)})
    print(n, flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_said_was_kept(path: Path) -> None:
    for kept in (1, 7, 20):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= kept:
                break
        process.kill()
        said = [int(line), *(int(more) for more in process.stdout.read().split("\n")[:-1])]
        process.stdout.close()
        process.wait()
        found = _contents(path)
        assert found["a"] == found["b"], "a transaction is whole"
        assert int.from_bytes(found["a"]) in (said[-1], said[-1] + 1)
