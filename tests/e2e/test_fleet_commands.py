"""`hushrec fleet file` and `hushrec join` as a person runs them."""

import json
import socket
from pathlib import Path

from hushrec.fleet import FleetFile

from tests.e2e.commands import hushrec
from tests.server_folder import running

ROOT = '{"signed":{"_type":"root"}}'


def test_a_fleet_file_is_written_from_a_key_file_or_from_digits(tmp_path: Path) -> None:
    (tmp_path / "plan.pub").write_text("ab" * 32 + "\n")
    (tmp_path / "root.json").write_text(ROOT)
    common = ("--server", "shop", "--root", "root.json", "--authority", "https://login.shop.example")
    for key in ("plan.pub", "ab" * 32):
        made = hushrec("fleet", "file", "--plan-key", key, *common, "--out", "f.json", "--json", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["plan_key"] == "ab" * 32
        found = FleetFile.read(tmp_path / "f.json")
        assert found == FleetFile("shop", "ab" * 32, "https://login.shop.example", ROOT)
    wrong = hushrec("fleet", "file", "--plan-key", "cd", *common, cwd=tmp_path)
    assert wrong.returncode == 1
    assert "cd: No such file" in wrong.stderr
    wrong = hushrec("fleet", "file", "--plan-key", "ab" * 32, *common[:-1], "http://login.shop.example", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "https" in wrong.stderr


def test_a_server_that_is_away_is_told_in_one_line_and_ends_once(tmp_path: Path) -> None:
    trust = FleetFile("shop", "ab" * 32, "https://login.shop.example", ROOT)
    (tmp_path / "fleet.json").write_bytes(trust.encode())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    common = ("--profile", "ann.profile", "--vault-key", "vault.key", "--once")
    tried = tried_first = hushrec("join", url, *common, cwd=tmp_path)
    assert tried.returncode == 15, tried.stderr
    assert "not now (unreachable): the server cannot be reached" in tried.stderr
    assert tried.stdout.startswith("# Privacy receipt of this device")
    assert "has sent nothing" in tried.stdout
    tried = hushrec("join", url, *common, "--json", cwd=tmp_path)
    assert json.loads(tried.stdout)["refusal"]["reason"] == "unreachable"
    kept = tmp_path / "ann.profile.fleet" / "vault.db"
    shown = hushrec("privacy", "receipt", kept, "--vault-key", "vault.key", cwd=tmp_path)
    assert shown.stdout == tried_first.stdout


def test_what_can_be_seen_to_be_wrong_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_bytes(FleetFile("shop", "ab" * 32, "https://login.shop.example", ROOT).encode())
    common = ("--profile", "ann.profile", "--fleet", "fleet.json", "--vault-key", "vault.key", "--once")
    far = hushrec("join", "http://shop.example", *common, cwd=tmp_path)
    assert (far.returncode, "https" in far.stderr) == (2, True)
    lost = hushrec("join", "https://shop.example", *common, "--token", "token.txt", cwd=tmp_path)
    assert (lost.returncode, "token.txt: does not exist; it should hold" in lost.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.json"]


def test_at_the_authority_s_address_it_is_asked_whether_that_is_the_server_s(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_bytes(FleetFile("shop", "ab" * 32, "https://login.shop.example", ROOT).encode())
    hushrec("authority", "init", tmp_path / "authority")
    common = ("--profile", "ann.profile", "--fleet", "fleet.json", "--vault-key", "vault.key", "--once")
    with running("authority", "serve", tmp_path / "authority", "--port", 0) as authority:
        tried = hushrec("join", f"http://127.0.0.1:{authority.port}", *common, cwd=tmp_path)
    assert tried.returncode == 15, tried.stderr
    assert "is this the address of the server, and not the authority's?" in tried.stderr


def test_a_device_without_a_fleet_file_is_told_where_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    tried = hushrec("join", "https://learn.shop.example", "--profile", "shop/ann.profile", cwd=tmp_path)
    assert tried.returncode == 2
    assert "shop/fleet.json: there is no fleet file" in tried.stderr
    assert "gives it out with its app" in tried.stderr
    assert not list((tmp_path / "shop").iterdir())


def test_other_metadata_than_the_root_never_get_into_a_fleet_file(tmp_path: Path) -> None:
    common = ("--server", "shop", "--plan-key", "ab" * 32, "--authority", "https://login.shop.example")
    for text in ('{"signed":{"_type":"timestamp"}}', '{"signed":[]}', "", "[1]"):
        (tmp_path / "root.json").write_text(text)
        wrong = hushrec("fleet", "file", "--root", "root.json", *common, cwd=tmp_path)
        assert wrong.returncode == 2
        assert "root.json: this is no root metadata; name metadata/1.root.json" in wrong.stderr
        assert not (tmp_path / "fleet.json").exists()
