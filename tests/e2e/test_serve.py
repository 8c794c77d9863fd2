"""`hushrec serve` and `hushrec authority` as operators run them: real processes, real sockets, real signals."""

import json
import os
import signal
import socket
import stat
import time
import tomllib
from pathlib import Path

import msgspec
import pytest
from hushrec.messages import (
    ENROLMENT_DOMAIN,
    CertificateAnswer,
    CertificateBody,
    CheckInAnswer,
    FleetAnswer,
    enrolment_bytes,
    path_of,
    read_json,
    read_packed,
)
from hushrec_privacy.enrolment import Identity, verified_certificate
from hushrec_privacy.envelope import verified_key_set
from hushrec_privacy.secagg import Session

from tests.databases import database_url, needs_postgres
from tests.e2e.commands import hushrec
from tests.server_folder import SERVER, ServerFolder, check_in, check_in_request, running

SLOWEST_START_S = 10.0  # a busy machine; benchmarks/server_http.py measures


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return ServerFolder.prepare(tmp_path)


def test_two_people_set_a_fleet_up_with_commands_alone(tmp_path: Path) -> None:
    """Whoever has the plan key and the authority, and whoever runs the server, exchange public files only."""
    safe, data = tmp_path / "safe", tmp_path / "data"
    safe.mkdir()
    public = hushrec("authority", "init", safe / "authority").stdout.strip()
    started = hushrec("serve", "--data", data)
    assert started.returncode == 2
    assert "hushrec envelope sign envelope-1.pub --key plan.key" in started.stderr
    fleet = ("--population", 200_000, "--cohort", 1000, "--rounds", 2000, "--delta", 1e-6, "--epsilon", 2)
    planned = hushrec("privacy", "plan", *fleet, "--authority", public, "--out", safe / "plan.json")
    assert planned.returncode == 0, planned.stderr
    signed = hushrec("privacy", "sign", safe / "plan.json", "--key", safe / "plan.key", "--new-key")
    assert signed.returncode == 0, signed.stderr
    done = hushrec("envelope", "sign", data / "envelope-1.pub", "--key", safe / "plan.key", "--out", data)
    assert done.returncode == 0, done.stderr
    (tmp_path / "hushrec.toml").write_text('[server]\nport = 0\ndata = "data"\n')
    with running("serve", "--config", tmp_path / "hushrec.toml", "--plan", safe / "plan.json") as server:
        ready = server.ask("GET", path_of("ready"))
        failing = [check["name"] for check in json.loads(ready.body)["checks"] if not check["ok"]]
        assert (ready.status, failing) == (503, ["releases"]), "there is no release to train yet"
        found = read_json(server.ask("GET", path_of("fleet")).body, FleetAnswer)
        assert found.authorities == (bytes.fromhex(public),)
        plan_key = bytes.fromhex((data / "plan.pub").read_text().strip())
        key_set = verified_key_set(
            found.keys.data, found.keys.signature, plan_key, server="hushrec", least_serial=1, at_s=int(time.time())
        )
        assert key_set.serial == 1
    for path in data.iterdir():
        if path.suffix in (".key", ".token", ".sqlite"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_it_serves_a_device_and_ends_with_0_at_sigterm(folder: ServerFolder) -> None:
    began = time.monotonic()
    with running("serve", "--config", folder.config, "--plan", folder.plan_file) as server:
        assert time.monotonic() - began < SLOWEST_START_S
        answer = check_in(folder, server)
        assert answer.status == 200, answer.body
        place = read_packed(answer.body, CheckInAnswer)
        assert (place.round, place.index) == (1, 0)
        assert Session.decode(place.session).plan_id == folder.plan.plan_id
        metrics = server.ask("GET", path_of("metrics")).body.decode()
        assert "hushrec_check_ins_total 1" in metrics
        assert server.stop() == 0


def test_it_goes_on_after_a_restart_with_the_plans_it_has(folder: ServerFolder) -> None:
    with running("serve", "--config", folder.config, "--plan", folder.plan_file) as server:
        assert server.stop() == 0
    with running("serve", "--config", folder.config) as server:
        found = read_json(server.ask("GET", path_of("fleet")).body, FleetAnswer)
        assert [plan.data for plan in found.plans] == [folder.plan.encode()]


def test_a_request_that_has_begun_is_finished_after_sigterm(folder: ServerFolder) -> None:
    with running("serve", "--config", folder.config, "--plan", folder.plan_file) as server:
        path = path_of("check-in", plan=folder.plan.plan_id)
        body = bytes(1_024 + 1_145)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:100])
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(body[100:])
            assert connection.recv(65_536).startswith(b"HTTP/1.1 403"), "answered, though refused"
        assert server.process.wait(20) == 0


def test_the_log_is_json_and_names_no_device(folder: ServerFolder) -> None:
    with running("serve", "--config", folder.config, "--plan", folder.plan_file) as server:
        check_in(folder, server)
        server.ask("GET", "/v1/plans/secret-of-a-device/rounds/1/mask")
        server.stop()
        assert server.process.stderr is not None
        text = server.process.stderr.read()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert [(line["route"], line["status"]) for line in lines if line["event"] == "request"] == [
        ("check-in", 200),
        ("reply", 403),
    ]
    assert "secret-of-a-device" not in text
    assert "127.0.0.1" not in "".join(line for line in text.splitlines() if line.startswith("{"))


def test_the_printed_configuration_is_one_that_it_reads(tmp_path: Path) -> None:
    printed = hushrec("serve", "--print-config").stdout
    tomllib.loads(printed)
    (tmp_path / "hushrec.toml").write_text(printed)
    assert json.loads(hushrec("serve", "--print-config", "--json").stdout)["config"].strip() == printed.strip()


def refused(*arguments: object, code: int = 2) -> str:
    done = hushrec(*arguments, timeout_s=60)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_every_start_that_cannot_work_ends_with_one_clear_line(folder: ServerFolder, tmp_path: Path) -> None:
    serve = ("serve", "--config", folder.config)
    assert "cannot be read: No such file" in refused("serve", "--config", tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("[server]\nprot = 1\n")
    assert "did you mean 'port'" in refused("serve", "--config", bad)
    assert "plan cannot be read" in refused(*serve, "--plan", tmp_path / "none.json")
    (tmp_path / "unsigned.json").write_bytes(folder.plan.encode())
    assert "signature cannot be read" in refused(*serve, "--plan", tmp_path / "unsigned.json")
    (tmp_path / "unsigned.json.sig").write_bytes(bytes(64))
    assert "not of the shop's plan key" in refused(*serve, "--plan", tmp_path / "unsigned.json", code=10)
    assert "password" in refused(*serve, "--db", "postgresql+psycopg://shop:x@localhost/fleet")
    assert "must be sqlite" in refused(*serve, "--db", "mysql://shop@localhost/fleet")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bad.write_text(f'[server]\nname = "{SERVER}"\nport = {port}\ndata = "data"\n')
        assert f"127.0.0.1:{port}: another program listens there" in refused("serve", "--config", bad)
    bad.write_text('[server]\nname = "other"\nport = 0\ndata = "data"\n')
    assert "keys of another server" in refused("serve", "--config", bad)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("plan.pub", "is missing"),
        ("keys.json", "is missing"),
        ("seal.key", "seal key is missing"),
        ("envelope-1.key", "is missing"),
    ],
)
def test_a_file_that_was_lost_is_named(folder: ServerFolder, name: str, told: str) -> None:
    with running("serve", "--config", folder.config, "--plan", folder.plan_file) as server:
        server.stop()
    (folder.data / name).unlink()
    done = hushrec("serve", "--config", folder.config, timeout_s=60)
    assert done.returncode != 0
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (folder.data / name).exists(), "what would fit nothing is not made"


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may read everything")
def test_a_data_folder_that_cannot_be_read_is_named(folder: ServerFolder) -> None:
    folder.data.chmod(0)
    try:
        assert str(folder.data) in refused("serve", "--config", folder.config)
    finally:
        folder.data.chmod(0o700)


@pytest.mark.parametrize("name", ["seal.key", "admin.token", "envelope-1.key"])
def test_a_secret_that_others_may_read_is_refused(folder: ServerFolder, name: str) -> None:
    (folder.data / "seal.key").write_bytes(bytes(32))
    (folder.data / name).chmod(0o644)
    assert "chmod 600" in refused("serve", "--config", folder.config)


def test_the_authority_enrols_a_device_that_the_shop_vouches_for(tmp_path: Path) -> None:
    folder, plan = tmp_path / "authority", "ab" * 32
    public = bytes.fromhex(json.loads(hushrec("authority", "init", folder, "--json").stdout)["public_key"])
    token = hushrec("authority", "issue", folder, "ann", "--plan-id", plan).stdout.strip()
    identity = Identity.create()
    proof = identity.sign(ENROLMENT_DOMAIN, enrolment_bytes(plan, token))
    body = msgspec.json.encode(CertificateBody(plan, token, identity.public(), proof))
    with running("authority", "serve", folder, "--port", 0) as server:
        answer = server.ask("POST", path_of("certificate"), body=body)
        assert answer.status == 200, answer.body
        given = read_json(answer.body, CertificateAnswer).certificate
        assert verified_certificate(given, public, plan_id=plan).identity == identity.public()
        assert server.stop() == 0
    assert "never overwritten" in refused("authority", "init", folder)
    assert "64 hexadecimal digits" in refused("authority", "issue", folder, "ann", "--plan-id", "x", code=13)


@pytest.mark.skipif(os.name != "posix", reason="rights of this kind")
def test_an_authority_s_folder_that_others_may_enter_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "authority"
    hushrec("authority", "init", folder)
    folder.chmod(0o755)
    with running("authority", "serve", folder, "--port", 0) as server:
        server.stop()
        assert server.process.stderr is not None
        assert f"chmod 700 {folder}" in server.process.stderr.read()


def test_behind_a_proxy_each_device_has_its_own_limit(tmp_path: Path) -> None:
    hushrec("authority", "init", tmp_path / "authority")
    arguments = ("authority", "serve", tmp_path / "authority", "--port", 0)

    def statuses(*more: object) -> list[int]:
        with running(*arguments, *more) as server:
            path = path_of("certificate")
            return [server.ask("POST", path, {"X-Forwarded-For": f"192.0.2.{n}"}, b"{}").status for n in range(12)]

    assert statuses("--proxy", "127.0.0.1") == [400] * 12
    assert statuses() == [400] * 10 + [429] * 2, "whoever is no proxy cannot say where it comes from"
    assert "the proxy 'localhost' is no address" in refused(*arguments, "--proxy", "localhost")


def test_one_operator_who_is_both_is_told_so_loudly(folder: ServerFolder, tmp_path: Path) -> None:
    hushrec("authority", "init", tmp_path / "authority")
    text = folder.config.read_text() + '[trust]\nrun_authority = "authority"\n'
    folder.config.write_text(text)
    with running("serve", "--config", folder.config) as server:
        assert server.ask("POST", path_of("certificate"), body=b"{}").status == 400
        server.stop()
        assert server.process.stderr is not None
        assert "DEMONSTRATION: this server is the authority as well" in server.process.stderr.read()


def test_without_being_told_the_server_is_no_authority(folder: ServerFolder) -> None:
    with running("serve", "--config", folder.config) as server:
        assert server.ask("POST", path_of("certificate"), body=b"{}").status == 404


def test_an_envelope_key_is_followed_by_the_next_one(folder: ServerFolder, tmp_path: Path) -> None:
    public = hushrec("envelope", "new", folder.data).stdout.strip()
    assert public.endswith("envelope-2.pub")
    key, keys = tmp_path / "plan.key", folder.data / "keys.json"
    followed = ("envelope", "sign", public, "--key", key, "--server", SERVER, "--before", keys, "--out", folder.data)
    assert json.loads(hushrec(*followed, "--json").stdout)["serial"] == 2
    with running("serve", "--config", folder.config, "--plan", folder.plan_file) as server:
        assert check_in(folder, server).status == 200
    assert "another server" in refused(*followed[:5], "--server", "other", *followed[7:])


def test_no_authority_is_made_in_a_server_s_data_folder_nor_envelope_keys_elsewhere(tmp_path: Path) -> None:
    data, office = tmp_path / "data", tmp_path / "office"
    assert hushrec("serve", "--data", data).returncode == 2, "its plan key is still missing"
    office.mkdir()
    before = sorted(path.name for path in data.iterdir())
    for place in (data, data / "authority"):
        assert "whoever has both can make up devices" in refused("authority", "init", place)
    assert sorted(path.name for path in data.iterdir()) == before
    assert "no server's data folder" in refused("envelope", "new", office)
    assert "there is no such folder" in refused("envelope", "new", tmp_path / "typo")
    assert list(office.iterdir()) == []
    key = tmp_path / "plan.key"
    sign = ("envelope", "sign", data / "envelope-1.pub", "--key", key, "--out")
    assert "office/missing: this folder does not exist" in refused(*sign, office / "missing")


@needs_postgres
def test_two_processes_over_one_postgresql_are_one_server(
    folder: ServerFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("serve", "--config", folder.config, "--plan", folder.plan_file)
    with database_url("postgresql", tmp_path) as url:
        monkeypatch.setenv("HUSHREC_DATABASE", url)
        with running(*arguments) as one, running(*arguments) as other:
            request = check_in_request(folder)
            assert one.ask(*request).status == 200
            assert other.ask(*request).status == 403, "a replay at the other process"
            places = [read_packed(check_in(folder, server).body, CheckInAnswer) for server in (other, one, other)]
            assert [(place.round, place.index) for place in places] == [(1, 1), (1, 2), (1, 3)]
            assert (one.stop(), other.stop()) == (0, 0)
