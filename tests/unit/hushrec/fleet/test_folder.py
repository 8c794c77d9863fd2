"""One process at a time uses a folder, and a killed one lets go of it."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hushrec.fleet.folder import FleetFolder
from hushrec_privacy.errors import ConfigError

HOLDING = """
import sys, time
from hushrec.fleet.folder import FleetFolder
folder = FleetFolder(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_a_new_folder_is_its_owner_s_alone(tmp_path: Path) -> None:
    with FleetFolder(tmp_path / "fleet") as folder:
        assert folder.vault.parent == folder.plain_record.parent == folder.releases.parent == tmp_path / "fleet"
        if os.name == "posix":
            assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700


def test_a_second_one_in_this_process_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    folder = FleetFolder(tmp_path / "fleet")
    with pytest.raises(ConfigError, match=r"of this process or another, takes part .*one device, one client"):
        FleetFolder(tmp_path / "fleet")
    folder.close()
    folder.close()
    FleetFolder(tmp_path / "fleet").close()


def test_what_a_process_killed_as_it_made_the_vault_left_is_removed_and_the_vault_is_not(tmp_path: Path) -> None:
    kept, left = ("lock", "vault.db", "vault.db-journal"), ("vault.db.0a1b.new", "vault.db.0a1b.new-journal")
    (tmp_path / "fleet").mkdir()
    for name in (*kept, *left):
        (tmp_path / "fleet" / name).touch()
    with FleetFolder(tmp_path / "fleet") as folder:
        assert sorted(path.name for path in folder.root.iterdir()) == list(kept)


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLDING, tmp_path / "fleet"], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline()
        with pytest.raises(ConfigError, match="or another, takes part"):
            FleetFolder(tmp_path / "fleet")
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    FleetFolder(tmp_path / "fleet").close()


def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be the fleet's folder"):
        FleetFolder(tmp_path / "none" / "fleet")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be the fleet's folder"):
        FleetFolder(tmp_path / "file")
