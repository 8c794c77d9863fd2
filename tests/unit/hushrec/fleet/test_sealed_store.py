"""Keys and record of a device lie in one vault, opened when needed; an earlier version's record moves into it."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hushrec.fleet.folder import FleetFolder
from hushrec.fleet.sealed_store import SealedStore
from hushrec.fleet_secrets import FleetSecrets
from hushrec_privacy.errors import BudgetError, ConfigError, LedgerError, VaultError
from hushrec_privacy.ledger import Anchor, Limits, ParticipationRecord

from tests.ledger_plans import made_up_plan

ROOT = Path(__file__).parents[4]
KEY = bytes(range(32))
PLAN = made_up_plan(limits=Limits(2000, cap=3, separation=200))

KILLED = """
import shutil, sys
from pathlib import Path
from hushrec.fleet.folder import FleetFolder
from hushrec.fleet.sealed_store import SealedStore
from hushrec_privacy.ledger import SqliteLedgerStore
import hushrec_privacy.ledger.ledger, hushrec.vault_cipher, hushrec.vault  # what a fork needs is loaded once
from tests.killed_at import killed_at

start, head = Path(sys.argv[1]), sys.argv[2]
work = start.with_name("killed")

def opened():
    with FleetFolder(work) as folder:
        store = SealedStore(folder, bytes(range(32)), lifetime_rho="1")
        found = str(store.record().totals().head)
        store.close()
        assert found == head, found

change, killed = 1, True
while killed:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(start, work)
    killed = killed_at(change, work, opened, statements=True)
    for again in (1, change // 2 + 1):  # and killed again on the way back
        killed_at(again, work, opened, statements=True)
    assert not killed_at(10**6, work, opened)
    assert [path.name for path in sorted(work.iterdir())] == ["lock", "vault.db"]
    change += 1
print(change)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[FleetFolder]:
    with FleetFolder(tmp_path / "fleet") as folder:
        yield folder


def opened(folder: FleetFolder, key: bytes = KEY) -> SealedStore:
    return SealedStore(folder, key, lifetime_rho="1")


def a_plain_record(folder: FleetFolder, *rounds: int) -> Anchor:
    """What an earlier version left; gives its head."""
    record = ParticipationRecord.at(folder.plain_record, lifetime_rho="1")
    record.join(PLAN)
    for number in rounds:
        record.participate(PLAN.plan, number, rho="0.1")
    head = record.totals().head
    record.close()
    return head


def test_the_record_lies_in_the_vault_and_outlives_the_process_and_the_keys(folder: FleetFolder) -> None:
    store = opened(folder)
    assert (store.is_new, store.is_open) == (True, False)
    assert not list(folder.root.glob("*.db"))
    store.record().join(PLAN)
    store.record().participate(PLAN.plan, 7, rho="0.25")
    FleetSecrets(store.vault()).identity(PLAN.plan)
    store.close()
    store = opened(folder)
    assert (store.is_new, store.is_open) == (False, False)
    FleetSecrets(store.vault()).forget_plan(PLAN.plan)
    with pytest.raises(BudgetError, match="spent already"):
        store.record().participate(PLAN.plan, 7, rho="0.25")
    assert store.is_open
    assert [record.index for record in store.ledger().scan()] == [0, 1, 2]
    assert not folder.plain_record.exists()
    store.close()
    store.close()
    with pytest.raises(ConfigError, match="closed"):
        store.vault()
    with pytest.raises(LedgerError, match="the participation record in the vault cannot be used"):
        store.record().totals()


def test_an_emptied_vault_is_no_new_one_and_no_record_is_begun(folder: FleetFolder) -> None:
    store = opened(folder)
    store.record().join(PLAN)
    store.close()
    folder.vault.write_bytes(b"")
    emptied = opened(folder)
    for _ in range(2):
        with pytest.raises(VaultError, match=r"vault\.db: is empty: what was kept in it is lost"):
            emptied.record()
    assert folder.vault.read_bytes() == b""


def test_nothing_of_a_plan_can_be_read_in_the_file(folder: FleetFolder) -> None:
    store = opened(folder)
    store.record().join(PLAN)
    store.close()
    data = folder.vault.read_bytes()
    assert PLAN.plan.encode() not in data
    assert b"genesis" not in data


def test_without_the_key_there_is_no_record_and_none_is_begun(folder: FleetFolder) -> None:
    store = opened(folder)
    store.record().join(PLAN)
    store.close()
    before = folder.vault.read_bytes()
    other = opened(folder, bytes(32))
    for _ in range(2):
        with pytest.raises(VaultError):
            other.record()
    assert not other.is_open
    assert folder.vault.read_bytes() == before


@pytest.mark.parametrize("name", ["record/00000002", "record/00000000"])
def test_who_takes_an_entry_out_of_the_file_makes_all_of_it_unusable(folder: FleetFolder, name: str) -> None:
    store = opened(folder)
    store.record().join(PLAN)
    store.record().participate(PLAN.plan, 7, rho="0.25")
    store.close()
    with sqlite3.connect(folder.vault) as database:
        assert database.execute("DELETE FROM sealed WHERE name = ?", (name.encode(),)).rowcount == 1
    database.close()
    with pytest.raises(VaultError):
        opened(folder).record()


def test_keys_without_a_record_are_refused_until_they_are_forgotten(folder: FleetFolder) -> None:
    store = opened(folder)
    secrets = FleetSecrets(store.vault())
    secrets.identity(PLAN.plan)
    with pytest.raises(LedgerError, match="is gone: leave the fleet"):
        store.record()
    assert not list(store.vault().values("record/"))
    secrets.forget_plan(PLAN.plan)
    assert store.record().totals().entries == 1
    store.close()


def test_a_record_of_an_earlier_version_moves_into_the_vault_once(folder: FleetFolder) -> None:
    head = a_plain_record(folder, 7, 300)
    store = opened(folder)
    assert not store.is_new
    FleetSecrets(store.vault()).identity(PLAN.plan)  # as it was there, before the record moved
    assert store.record().totals().head == head
    assert sorted(path.name for path in folder.root.iterdir()) == ["lock", "vault.db"]
    with pytest.raises(BudgetError, match="only increase"):
        store.record().participate(PLAN.plan, 299, rho="0.1")
    store.record().participate(PLAN.plan, 500, rho="0.1")
    store.close()


def test_a_file_that_was_taken_over_and_not_removed_yet_is_removed_and_another_one_refused(folder: FleetFolder) -> None:
    a_plain_record(folder, 7)
    kept = folder.plain_record.read_bytes()
    store = opened(folder)
    store.record().participate(PLAN.plan, 300, rho="0.1")
    head = store.record().totals().head
    store.close()
    folder.plain_record.write_bytes(kept)
    store = opened(folder)
    assert store.record().totals().head == head
    assert not folder.plain_record.exists()
    store.close()
    folder.plain_record.write_bytes(kept)
    a_plain_record(folder, 400)
    store = opened(folder)
    with pytest.raises(LedgerError, match="an older hushrec has written to it since"):
        store.record()
    assert folder.plain_record.exists()
    store.close()


def test_a_damaged_record_of_an_earlier_version_is_not_passed_over(folder: FleetFolder) -> None:
    a_plain_record(folder, 7)
    data = folder.plain_record.read_bytes()
    folder.plain_record.write_bytes(data.replace(b'"rho":"0.1"', b'"rho":"0.0"'))
    store = opened(folder)
    for _ in range(2):
        with pytest.raises(LedgerError):
            store.record()
    assert not list(store.vault().values("record/"))
    assert folder.plain_record.exists()
    store.close()


def test_an_empty_file_that_a_killed_earlier_version_left_is_no_record(folder: FleetFolder) -> None:
    folder.plain_record.touch()
    store = opened(folder)
    assert store.record().totals().entries == 1
    assert not folder.plain_record.exists()
    store.close()


def test_a_file_whose_contents_the_vault_has_is_overwritten_before_it_is_removed(
    folder: FleetFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_plain_record(folder, 7)
    seen: list[bytes] = []
    unlink = Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith(folder.plain_record.name):
            seen.append(path.read_bytes())
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    store = opened(folder)
    store.record()
    store.close()
    (last,) = seen
    assert len(last) > 4096
    assert not any(last)


def test_a_process_killed_at_any_change_while_it_takes_a_record_over_loses_nothing_of_it(
    folder: FleetFolder, tmp_path: Path
) -> None:
    head = a_plain_record(folder, 7, 300)
    folder.close()
    start = tmp_path / "start"
    shutil.copytree(folder.root, start)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, start, str(head)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 20
