"""What devices ask, over HTTP: answered when it is theirs and fresh, refused with one opaque answer when it is not."""

import asyncio
import json
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hushrec.messages import (
    DEVICE_HEADER,
    ROUTES,
    SIGNATURE_HEADER,
    CheckInAnswer,
    CheckInBody,
    FeatureBody,
    FleetAnswer,
    Problem,
    packed,
    path_of,
    read_json,
    read_packed,
)
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.envelope import EnvelopeKey, seal, sign_request
from hushrec_privacy.errors import FleetError, HushrecError, StorageError
from hushrec_server.config import LimitSettings
from hushrec_server.device_requests import OPAQUE, DeviceRequest, DeviceRequests

from tests.asgi import Answer, asks
from tests.fake_fleet import PLAN, PLAN_DOCUMENT, Device, Seat, Sending, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def device(world: World) -> Device:
    device = Device(world)
    assert device.check_in().status == 200
    return device


def problem(answer: Answer) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    found = read_json(answer.body, Problem)
    assert found.status == answer.status
    return found


def assert_opaque(answer: Answer) -> None:
    found = problem(answer)
    assert (answer.status, found.type, found.detail, found.reason) == (403, "envelope", OPAQUE, None)


def test_anyone_learns_what_the_fleet_is(world: World) -> None:
    answer = world.ask("GET", path_of("fleet"))
    found = read_json(answer.body, FleetAnswer)
    assert (found.wire, found.server, found.release, found.now) == (1, "shop", 3, 1_000_000)
    assert found.authorities == (world.authority.public(),)
    assert (found.plans[0].data, found.keys.data) == (PLAN_DOCUMENT.encode(), b"keys")


def test_a_certified_device_gets_a_place_and_the_same_one_again(world: World) -> None:
    device = Device(world)
    for _ in range(2):
        answer = device.check_in()
        assert answer.status == 200
        place = read_packed(answer.body, CheckInAnswer)
        assert place == CheckInAnswer(1, 0, b"session", "cd" * 32, 1_000_060)
    assert list(world.fleet.devices) == [device.name]


def at_once(world: World, *sent: Sending) -> list[Answer]:
    """The answers to check-ins that all come while another one is worked on."""
    begun, let_go, check_ins = threading.Event(), threading.Event(), world.fleet.check_ins

    def slow(plan_id: str, asked: Sequence[tuple[str, bytes]]) -> Sequence[Seat | HushrecError]:
        begun.set()
        assert let_go.wait(60)
        return check_ins(plan_id, asked)

    async def run() -> list[Answer]:
        world.fleet.check_ins = slow  # type: ignore[method-assign]
        (path, headers, body), front = Device(world).check_in_request(), world.front.check_ins
        first = asyncio.create_task(asks(world.app, "POST", path, headers=headers, body=body))
        assert await asyncio.to_thread(begun.wait, 60)
        others = [
            asyncio.create_task(asks(world.app, "POST", path, headers=headers, body=body))
            for path, headers, body in sent
        ]
        async with asyncio.timeout(60):
            while sum(map(len, front._waiting.values())) < len(sent):
                await asyncio.sleep(0.01)
        let_go.set()
        assert (await first).status == 200
        return list(await asyncio.gather(*others))

    return asyncio.run(run())


def test_devices_that_come_while_others_are_worked_on_get_their_places_together(world: World) -> None:
    devices = [Device(world) for _ in range(5)]
    answers = at_once(world, *(device.check_in_request() for device in devices))
    assert [answer.status for answer in answers] == [200] * 5
    assert [read_packed(answer.body, CheckInAnswer).index for answer in answers] == [1, 2, 3, 4, 5]
    assert world.fleet.groups == [1, 5]
    assert list(world.fleet.devices)[1:] == [device.name for device in devices]


def test_whatever_one_device_sends_others_of_its_group_get_their_places(world: World, tmp_path: Path) -> None:
    first, last, twice = Device(world), Device(world), Device(world)
    uncertified = Device(world, authority=AuthorityKey.create(tmp_path / "other.key"))
    path, headers, body = Device(world).check_in_request()
    replayed = twice.check_in_request()
    wrong = [
        uncertified.check_in_request(),
        (path, headers, body[:-1] + bytes([body[-1] ^ 1])),
        (path, {**headers, DEVICE_HEADER: first.name}, body),
        (path, {**headers, SIGNATURE_HEADER: "A" * 119}, body),
        (path, {**headers, DEVICE_HEADER: "\xff" * 32}, body),
        (path, {}, body),
        replayed,
    ]
    answers = at_once(world, replayed, first.check_in_request(), *wrong, last.check_in_request())
    for answer in answers[2:-1]:
        assert_opaque(answer)
    assert [read_packed(answers[place].body, CheckInAnswer).index for place in (0, 1, -1)] == [1, 2, 3]
    assert world.fleet.groups == [1, 3]


def test_a_fault_that_one_device_runs_into_is_no_other_s(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, bad = DeviceRequests._opened, Device(world)

    def broken(requests: DeviceRequests, asked: DeviceRequest, *more: Any) -> Any:
        if asked.device == bad.name:
            raise RuntimeError("secret of the inside")
        return opened(requests, asked, *more)

    monkeypatch.setattr(DeviceRequests, "_opened", broken)
    answers = at_once(world, *(device.check_in_request() for device in (Device(world), bad, Device(world))))
    assert [answer.status for answer in answers] == [200, 500, 200]
    assert b"secret" not in answers[1].body


def test_a_plan_that_is_not_there_has_no_turn_and_is_answered_while_others_are_worked_on(world: World) -> None:
    begun, let_go = threading.Event(), threading.Event()
    (path, headers, body), check_ins = Device(world).check_in_request(), world.fleet.check_ins

    def slow(plan_id: str, asked: Sequence[tuple[str, bytes]]) -> Sequence[Seat | HushrecError]:
        begun.set()
        assert let_go.wait(60)
        return check_ins(plan_id, asked)

    async def run() -> None:
        world.fleet.check_ins = slow  # type: ignore[method-assign]
        seated = asyncio.create_task(asks(world.app, "POST", path, headers=headers, body=body))
        assert await asyncio.to_thread(begun.wait, 60)
        try:
            unknown = path.replace(PLAN, "0" * 64)
            async with asyncio.timeout(20):
                assert (await asks(world.app, "POST", unknown, headers=headers, body=body)).status == 404
        finally:
            let_go.set()
        assert (await seated).status == 200

    asyncio.run(run())


def test_who_would_get_no_place_is_refused_unread_and_nothing_is_kept_of_it(world: World) -> None:
    full = FleetError("the round is full", reason="round-full", retry_after_s=40)
    device, seated = Device(world), Device(world)
    assert seated.check_in().status == 200
    kept = len(world.fleet.nonces)
    world.fleet.turned_away[device.name] = full
    path, headers, body = device.check_in_request()
    for unread in (body, bytes(len(body))):
        answer = world.ask("POST", path, headers=headers, body=unread)
        assert (answer.status, problem(answer).reason, answer.headers["retry-after"]) == (429, "round-full", "40")
    assert len(world.fleet.nonces) == kept
    assert seated.check_in().status == 200
    del world.fleet.turned_away[device.name]
    assert world.ask("POST", path, headers=headers, body=body).status == 200, "its request was not used up"


def test_what_is_no_pseudonym_never_reaches_the_fleet(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refused(_: str, pseudonyms: Collection[str]) -> dict[str, FleetError]:
        asked.extend(pseudonyms)
        return {}

    monkeypatch.setattr(world.fleet, "refused", refused)
    device = Device(world)
    path, headers, body = device.check_in_request()
    for name in ("", "x", "AB" * 16, "ab" * 17, "\x00" * 32, "ab" * 16 + "\n"):
        assert_opaque(world.ask("POST", path, headers={**headers, DEVICE_HEADER: name}, body=body))
    assert asked == []
    assert world.ask("POST", path, headers=headers, body=body).status == 200
    assert asked == [device.name]


def test_an_upload_is_kept_and_its_reply_comes_when_the_phase_is_closed(world: World, device: Device) -> None:
    assert device.upload(b"masked").status == 204
    assert world.fleet.uploads == {(4, device.name): b"masked"}
    waiting = device.reply()
    assert (waiting.status, waiting.body, waiting.headers["retry-after"]) == (202, b"", "2")
    world.fleet.replies[4, device.name] = b"survivors"
    assert device.reply().body == b"survivors"


def test_the_same_upload_sent_again_is_welcome_and_another_one_is_not(device: Device) -> None:
    assert device.upload(b"masked").status == 204
    assert device.upload(b"masked").status == 204
    refused = device.upload(b"other")
    assert (refused.status, problem(refused).reason) == (409, "already-counted")


def test_a_direct_feature_payload_needs_no_check_in(world: World) -> None:
    device = Device(world)
    context = device.context("feature/interests")
    inside = packed(FeatureBody(device.certificate, b"\0" * 8))
    sealed = seal(world.key.public(), context, inside, ROUTES["feature"].payload_bytes)
    path = path_of("feature", plan=PLAN, name="interests")
    assert world.ask("POST", path, headers=device.headers(context, sealed), body=sealed).status == 204
    assert world.fleet.direct == {("interests", device.name): b"\0" * 8}


def test_a_replayed_check_in_and_a_replayed_upload_are_refused(world: World, device: Device) -> None:
    for path, headers, body in (device.check_in_request(), device.upload_request(b"masked")):
        assert world.ask("POST", path, headers=headers, body=body).status in (200, 204)
        assert_opaque(world.ask("POST", path, headers=headers, body=body))


def test_a_request_is_accepted_only_near_its_time(world: World, device: Device) -> None:
    path, headers, body = device.upload_request(b"masked")
    for later in (-301, 301):
        world.now += later
        assert_opaque(world.ask("POST", path, headers=headers, body=body))
        world.now -= later
    world.now += 299
    assert world.ask("POST", path, headers=headers, body=body).status == 204


def test_a_request_of_one_device_is_not_one_of_another(world: World, device: Device) -> None:
    other = Device(world)
    other.check_in()
    path, headers, body = device.upload_request(b"masked")
    assert_opaque(world.ask("POST", path, headers={**headers, DEVICE_HEADER: other.name}, body=body))
    assert not world.fleet.uploads


@pytest.mark.parametrize("where", ["phase", "round", "plan"])
def test_a_request_counts_only_where_it_was_signed_for(world: World, device: Device, where: str) -> None:
    path, headers, body = device.upload_request(b"masked", "mask")
    other = {
        "phase": path.replace("mask", "agree"),
        "round": path.replace("/1/", "/2/"),
        "plan": path.replace(PLAN, "cd" * 32),
    }
    answer = world.ask("POST", other[where], headers=headers, body=body)
    assert answer.status in (403, 404, 409)
    assert not world.fleet.uploads


@pytest.mark.parametrize("changed", [0, 5, 40, 1200, -1])
def test_a_changed_byte_anywhere_is_refused_without_saying_what(world: World, device: Device, changed: int) -> None:
    path, headers, body = device.upload_request(b"masked")
    broken = bytearray(body)
    broken[changed] ^= 1
    assert_opaque(world.ask("POST", path, headers=headers, body=bytes(broken)))
    context = device.context("upload/mask", 1)  # signed anew: now the envelope itself is what is wrong
    assert_opaque(world.ask("POST", path, headers=device.headers(context, bytes(broken)), body=bytes(broken)))
    assert not world.fleet.uploads


def test_an_unknown_device_gets_the_answer_of_a_wrong_signature(world: World) -> None:
    assert_opaque(Device(world).upload(b"masked"))
    assert_opaque(Device(world).reply())


def test_no_room_is_kept_for_the_long_body_of_whoever_has_no_place_in_the_round(tmp_path: Path) -> None:
    world = World(tmp_path, limits=LimitSettings(address_per_minute=10**6, body_seconds=1))
    path, headers, body = Device(world).upload_request(b"message")
    announced = {**headers, "content-length": str(len(body))}
    assert_opaque(world.ask("POST", path, headers=announced, pieces=[body[:9]]))  # 408 had it waited for the rest


def test_a_certificate_of_another_authority_plan_or_device_is_refused(world: World, tmp_path: Path) -> None:
    assert_opaque(Device(world, authority=AuthorityKey.create(tmp_path / "other.key")).check_in())
    device, other = Device(world), Device(world)
    other_plan = world.authority.certify("cd" * 32, device.name, device.identity.public())
    for certificate in (other.certificate, other_plan, b"", b"x" * 145):
        path, headers, body = device.check_in_request(CheckInBody(certificate))
        assert_opaque(world.ask("POST", path, headers=headers, body=body))
    assert not world.fleet.devices


@pytest.mark.parametrize(
    "inside", [b"", b"\xc1", b"\x80", b"\x81\xa1x\x01", packed(Problem("a", "b", 1)), b"\x91" * 900]
)
def test_what_is_no_check_in_inside_its_envelope_is_refused_opaquely(world: World, inside: bytes) -> None:
    device = Device(world)
    context = device.context("check-in")
    sealed = seal(world.key.public(), context, inside, ROUTES["check-in"].payload_bytes)
    headers = device.headers(context, sealed)
    assert_opaque(world.ask("POST", path_of("check-in", plan=PLAN), headers=headers, body=sealed))


def test_a_newer_device_may_say_more_in_its_check_in(world: World) -> None:
    device = Device(world)
    context = device.context("check-in")
    inside = msgspec.msgpack.encode({"certificate": device.certificate, "battery": "full"})
    sealed = seal(world.key.public(), context, inside, ROUTES["check-in"].payload_bytes)
    headers = device.headers(context, sealed)
    assert world.ask("POST", path_of("check-in", plan=PLAN), headers=headers, body=sealed).status == 200


def test_an_envelope_to_a_key_that_is_not_in_force_is_refused(world: World, device: Device, tmp_path: Path) -> None:
    world.key = EnvelopeKey.create(tmp_path / "new.key")
    path, headers, body = device.upload_request(b"masked")
    world.key = EnvelopeKey.create(tmp_path / "newer.key")
    assert_opaque(world.ask("POST", path, headers=headers, body=body))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {DEVICE_HEADER: "x", SIGNATURE_HEADER: "y"},
        {DEVICE_HEADER: "ab" * 16},
        {DEVICE_HEADER: "AB" * 16, SIGNATURE_HEADER: "A" * 119},
        {DEVICE_HEADER: "\xff" * 32, SIGNATURE_HEADER: "\xff" * 119},
    ],
)
def test_missing_and_senseless_headers_are_refused_opaquely(world: World, headers: dict[str, str]) -> None:
    device = Device(world)
    _, _, body = device.check_in_request()
    assert_opaque(world.ask("POST", path_of("check-in", plan=PLAN), headers=headers, body=body))
    assert_opaque(world.ask("GET", path_of("reply", plan=PLAN, round=1, phase="mask"), headers=headers))


def test_a_body_of_another_length_is_refused_before_it_is_read(world: World, device: Device) -> None:
    path, headers, body = device.upload_request(b"masked")
    longer = world.ask("POST", path, headers={**headers, "content-length": str(len(body) + 1)}, pieces=[])
    assert (longer.status, problem(longer).reason) == (413, "too-large")
    shorter = world.ask("POST", path, headers=headers, body=body[:-1])
    assert (shorter.status, problem(shorter).reason) == (400, "malformed")
    lying = world.ask("POST", path, headers=headers | {"content-length": str(len(body))}, body=body + b"x")
    assert lying.status == 413


@pytest.mark.parametrize("length", ["", "-1", "+5", "1e3", "\xb2", "9" * 30])
def test_a_body_that_does_not_say_its_length_is_refused(world: World, length: str) -> None:
    answer = world.ask("POST", path_of("check-in", plan=PLAN), headers={"content-length": length}, body=b"x")
    assert (answer.status, problem(answer).reason) in ((411, "length-required"), (413, "too-large"))


def test_more_bodies_than_there_is_room_for_wait(world: World, device: Device) -> None:
    path, headers, body = device.upload_request(b"masked")
    with world.front.room.taken(world.front.room.free, "192.0.2.7"):
        answer = world.ask("POST", path, headers=headers, body=body)
    assert (answer.status, problem(answer).reason, answer.headers["retry-after"]) == (503, "busy", "2")
    assert world.ask("POST", path, headers=headers, body=body).status == 204
    assert world.front.room.free == 1 << 20


def test_a_device_that_asks_too_often_is_told_when_to_come_back(world: World, device: Device) -> None:
    answers = [device.reply() for _ in range(25)]
    assert [answer.status for answer in answers] == [202] * 19 + [429] * 6  # its check-in took a token too
    assert answers[-1].headers["retry-after"] == "1"
    world.now += 1
    assert device.reply().status == 202


def test_forged_requests_do_not_use_up_the_requests_of_the_device(world: World, device: Device) -> None:
    forger = Device(world)
    forger.name = device.name
    for _ in range(40):
        assert_opaque(forger.reply())
    assert device.reply().status == 202


@pytest.mark.parametrize("number", ["0", "-1", "1e3", "99999999999", "²", "x", "%00"])
def test_a_round_that_is_no_number_is_not_found(world: World, number: str) -> None:
    path = path_of("upload", plan=PLAN, round="7", phase="mask").replace("/7/", f"/{number}/")
    answer = world.ask("POST", path, body=b"")
    assert (answer.status, problem(answer).reason) == (404, "not-found")


def test_an_unknown_phase_and_path_are_not_found(world: World) -> None:
    for path in (f"/v1/plans/{PLAN}/rounds/1/eat", "/v1/nothing", "/"):
        answer = world.ask("GET", path)
        assert answer.status == 404
        assert problem(answer).type == "fleet"


def test_a_plan_that_the_server_does_not_have_is_named(world: World, device: Device) -> None:
    other = "cd" * 32
    question = device.headers(device.context("reply/mask", 1, other), b"")
    answers = [world.ask("GET", path_of("reply", plan=other, round=1, phase="mask"), headers=question)]
    path, headers, body = device.check_in_request()
    answers.append(world.ask("POST", path.replace(PLAN, other), headers=headers, body=body))
    answers.append(world.ask("POST", path_of("upload", plan=other, round=1, phase="mask"), headers=headers, body=body))
    assert [(answer.status, problem(answer).reason) for answer in answers] == [(404, "unknown-plan")] * 3


def test_of_a_round_that_is_over_everyone_may_know_that(device: Device) -> None:
    for answer in (device.upload(b"masked", in_round=2), device.reply(in_round=2)):
        assert (answer.status, problem(answer).reason) == (409, "round-over")


def test_another_method_is_refused_with_a_problem(world: World) -> None:
    answer = world.ask("DELETE", path_of("fleet"))
    assert (answer.status, problem(answer).reason) == (405, "wrong-method")


def test_a_bug_answers_500_and_tells_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("secret of the inside")

    monkeypatch.setattr(world.fleet, "info", broken)
    answer = world.ask("GET", path_of("fleet"))
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert json.loads(answer.body)["type"] == "error"


def test_an_upload_that_the_database_has_no_room_for_is_told_to_come_back_and_nothing_else(
    world: World, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("/srv/fleet.sqlite: its disk is full")

    monkeypatch.setattr(world.fleet, "upload", full)
    answer = device.upload(b"masked")
    assert (answer.status, answer.headers["retry-after"], json.loads(answer.body)["type"]) == (503, "5", "storage")
    assert b"sqlite" not in answer.body
    monkeypatch.undo()
    assert device.upload(b"masked").status == 204


def test_an_identity_of_the_signature_must_be_the_certified_one(world: World) -> None:
    device = Device(world)
    path, _, body = device.check_in_request()
    stranger = Identity.create()
    signed = sign_request(stranger, device.context("check-in"), body, at_s=int(world.now))
    headers = {DEVICE_HEADER: device.name, SIGNATURE_HEADER: signed}
    assert_opaque(world.ask("POST", path, headers=headers, body=body))
