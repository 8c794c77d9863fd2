"""What the operator asks: probes and counters without a token, administration with it, and nothing names a device."""

import base64
import dataclasses
import io
import json
import linecache
from pathlib import Path

import msgspec
import pytest
from hushrec.messages import ROUTES, PlanBody, SignedDocument, path_of
from hushrec_privacy.errors import StorageError
from hushrec_server.app import server_app
from hushrec_server.config import LimitSettings
from hushrec_server.logs import log_fault
from hushrec_server.readiness import Readiness

from tests.fake_fleet import PLAN, TOKEN, Device, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


ADMIN = [name for name in ROUTES if name.startswith("admin-")]


@pytest.mark.parametrize("name", ADMIN)
@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xff"])
def test_administration_needs_the_token(world: World, name: str, given: str | None) -> None:
    route = ROUTES[name]
    headers = {} if given is None else {"authorization": given}
    path = route.path.format(plan=PLAN, round=1, name="interests")
    answer = world.ask(route.method, path, headers=headers)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert TOKEN.encode() not in answer.body
    assert not world.fleet.plans


def test_the_administrator_sees_and_does_what_the_fleet_offers(world: World) -> None:
    assert json.loads(world.admin("GET", path_of("admin-status")).body)["release"] == 3
    assert json.loads(world.admin("GET", path_of("admin-rounds", plan=PLAN)).body) == [{"round": 1, "state": "mask"}]
    assert world.admin("POST", path_of("admin-abort", plan=PLAN, round=1)).status == 204
    refused = world.admin("POST", path_of("admin-abort", plan=PLAN, round=2))
    title = "The server refused a request, or could not be reached"
    assert (refused.status, json.loads(refused.body)["title"]) == (409, title), "an administrator is no device"
    for name, halted in (("admin-halt", True), ("admin-resume", False)):
        assert world.admin("POST", path_of(name, plan=PLAN)).status == 204
        assert world.fleet.halted is halted
        assert world.admin("POST", path_of(name, plan="cd" * 32)).status == 404
    assert json.loads(world.admin("GET", path_of("admin-counts", plan=PLAN)).body) == {}
    world.fleet.direct["interests", "ab"] = b"\1\2"
    answer = world.admin("GET", path_of("admin-features", plan=PLAN, name="interests"))
    assert json.loads(answer.body) == {"values": [base64.b64encode(b"\1\2").decode()]}


def test_a_plan_is_added_as_json(world: World) -> None:
    body = msgspec.json.encode(PlanBody(SignedDocument(b"plan", b"signature")))
    assert world.admin("POST", path_of("admin-add-plan"), body=body).status == 204
    assert world.fleet.plans == [(b"plan", b"signature")]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"plan":{"data":1}}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_plan_is_refused(world: World, body: bytes) -> None:
    answer = world.admin("POST", path_of("admin-add-plan"), body=body)
    assert (answer.status, json.loads(answer.body)["reason"]) == (400, "malformed")
    assert not world.fleet.plans


def test_health_needs_nothing_and_readiness_names_what_fails(world: World) -> None:
    assert world.ask("GET", path_of("health")).status == 200
    assert world.ask("GET", path_of("ready")).status == 200

    world.front.ready.add("database", broken)
    answer = world.ask("GET", path_of("ready"))
    checks = {check["name"]: check["ok"] for check in json.loads(answer.body)["checks"]}
    assert (answer.status, checks) == (503, {"rounds": True, "database": False})


def broken() -> None:
    raise StorageError("/srv/fleet.sqlite: the database cannot be opened")


def test_what_is_wrong_is_told_to_the_administrator_alone(world: World) -> None:
    def buggy() -> None:
        raise RuntimeError("secret")

    world.front.ready.add("database", broken)
    world.front.ready.add("odd", buggy)
    anybody, administrator = (ask("GET", path_of("ready")) for ask in (world.ask, world.admin))
    assert (anybody.status, administrator.status) == (503, 503)
    assert json.loads(anybody.body)["checks"][1:] == [{"name": name, "ok": False} for name in ("database", "odd")]
    told = {check["name"]: check.get("detail") for check in json.loads(administrator.body)["checks"]}
    assert told["database"] == "/srv/fleet.sqlite: the database cannot be opened"
    assert "secret" not in administrator.body.decode()
    wrong = world.ask("GET", path_of("ready"), headers={"authorization": "Bearer x"})
    assert (wrong.status, b"fleet.sqlite" in wrong.body) == (401, False)


def test_metrics_count_requests_refusals_uploads_rounds_and_epsilon(world: World) -> None:
    device = Device(world)
    device.check_in()
    device.upload(b"masked")
    device.upload(b"other")
    world.ask("GET", path_of("fleet"))
    lines = world.ask("GET", path_of("metrics")).body.decode().splitlines()
    for line in (
        'hushrec_requests_total{route="check-in",status="200"} 1',
        'hushrec_requests_total{route="upload",status="204"} 1',
        'hushrec_requests_total{route="fleet",status="200"} 1',
        'hushrec_refusals_total{reason="already-counted"} 1',
        'hushrec_uploads_total{phase="mask"} 1',
        "hushrec_check_ins_total 1",
        f'hushrec_rounds{{plan="{PLAN[:16]}",state="mask"}} 1',
        f'hushrec_rounds_without_result{{plan="{PLAN[:16]}"}} 4',
        f'hushrec_epsilon_spent{{plan="{PLAN[:16]}"}} 1.25',
        'hushrec_expires_at{what="root"} 2000000',
        "hushrec_release 3",
        "hushrec_candidate 4",
    ):
        assert line in lines
    world.fleet.waits = False
    lines = world.ask("GET", path_of("metrics")).body.decode().splitlines()
    assert "hushrec_candidate 0" in lines


def test_the_log_has_a_line_a_request_and_nothing_of_any_device(world: World, log: io.StringIO) -> None:
    device = Device(world)
    device.check_in()
    device.upload(b"masked")
    world.ask("GET", "/v1/nothing?secret=7", client="192.0.2.7")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["route"], line["status"]) for line in lines] == [("check-in", 200), ("upload", 204), ("none", 404)]
    assert all(set(line) == {"time", "level", "event", "route", "status", "ms"} for line in lines)
    for secret in (device.name, device.identity.public().hex(), PLAN, "192.0.2.7", "127.0.0.1", "secret"):
        assert secret not in log.getvalue()


def test_a_fault_is_logged_by_type_and_place_and_never_by_its_text(
    world: World, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("item-17 of shopper 4")

    monkeypatch.setattr(world.fleet, "info", broken)
    assert world.ask("GET", path_of("fleet")).status == 500
    fault = json.loads(log.getvalue().splitlines()[0])
    assert (fault["event"], fault["error"]) == ("bug", "RuntimeError")
    assert any(place.startswith("hushrec_server/device_routes.py:") for place in fault["at"])
    assert "item-17" not in log.getvalue()


def test_logging_an_error_that_many_requests_share_reads_no_source_and_names_where_it_began(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def began() -> None:
        raise StorageError("the database is away")

    reads: list[str] = []
    monkeypatch.setattr(linecache, "checkcache", reads.append)
    with pytest.raises(StorageError) as found:
        began()
    for _ in range(100):
        with pytest.raises(StorageError):
            raise found.value
    log_fault("failed", found.value)
    assert reads == []
    at = json.loads(log.getvalue())["at"]
    assert len(at) == 12
    assert at[-1] == f"hushrec_server/test_operator_routes.py:{began.__code__.co_firstlineno + 1}"


def few_requests(world: World) -> World:
    """The same world with a small limit for each address."""
    front = dataclasses.replace(world.front, ready=Readiness())
    world.app = server_app(front, LimitSettings(address_per_minute=60))
    return world


def test_an_address_that_asks_too_often_is_refused_and_others_and_the_probe_are_not(world: World) -> None:
    few_requests(world)
    statuses = [world.ask("GET", path_of("fleet"), client="192.0.2.7").status for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2
    assert world.ask("GET", path_of("fleet"), client="192.0.2.8").status == 200
    assert world.ask("GET", path_of("health"), client="192.0.2.7").status == 200
    refused = world.ask("GET", path_of("fleet"), client="192.0.2.7")
    assert json.loads(refused.body)["reason"] == "rate-limited"
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-length"] == str(len(refused.body))


def test_a_server_without_room_refuses_and_logs_no_fault(world: World, log: io.StringIO) -> None:
    device = Device(world)
    device.check_in()
    path, headers, body = device.upload_request(b"masked")
    with world.front.room.taken(world.front.room.free, "192.0.2.7"):
        assert world.ask("POST", path, headers=headers, body=body).status == 503
    assert [json.loads(line).get("route") for line in log.getvalue().splitlines()] == ["check-in"]


def test_what_anybody_can_send_without_end_is_counted_and_not_logged(world: World, log: io.StringIO) -> None:
    few_requests(world)
    for _ in range(15):
        world.ask("GET", path_of("fleet"), client="192.0.2.7")
        world.ask("GET", path_of("health"), client="192.0.2.7")
    assert [json.loads(line)["status"] for line in log.getvalue().splitlines()] == [200] * 10
    lines = world.front.metrics.text().splitlines()
    assert 'hushrec_requests_total{route="none",status="429"} 5' in lines
    assert 'hushrec_requests_total{route="health",status="200"} 15' in lines


def test_addresses_of_one_ipv6_network_share_a_limit(world: World) -> None:
    few_requests(world)
    statuses = [world.ask("GET", path_of("fleet"), client=f"2001:db8::{n:x}").status for n in range(12)]
    assert statuses == [200] * 10 + [429] * 2
