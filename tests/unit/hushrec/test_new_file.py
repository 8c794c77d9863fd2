"""A vault is made whole or not at all, whoever else makes one and whenever the process is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hushrec.vault import Vault
from hushrec.vault_file import new_vault_file

ROOT = Path(__file__).parents[3]
KEY = bytes(range(32))


def test_of_two_that_make_a_vault_at_once_both_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    with new_vault_file(path) as slower:
        with slower.transaction(writes=True):
            slower.make_tables()
        with Vault.open(path, KEY) as faster:
            faster.put("one", b"kept")
    with Vault.open(path, KEY) as vault:
        assert vault.values() == {"one": b"kept"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_links_gets_a_vault_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with Vault.open(tmp_path / "vault", KEY) as vault:
        vault.put("one", b"kept")
    assert [path.name for path in tmp_path.iterdir()] == ["vault"]


MAKER = """
import shutil, sys
from pathlib import Path
from hushrec.vault import Vault
import hushrec.vault_cipher
from tests.killed_at import killed_at

folder = Path(sys.argv[1])

def made():
    with Vault.open(folder / "vault", bytes(range(32))) as vault:
        vault.put("one", b"kept")

change, killed = 1, True
while killed:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    killed = killed_at(change, folder, made, statements=True)
    assert not killed_at(10**6, folder, made)
    change += 1
print(change)
"""


def test_a_vault_whose_making_was_killed_at_any_change_is_made_by_the_next_call(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAKER, tmp_path / "work"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 10
