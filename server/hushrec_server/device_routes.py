"""What devices ask: what fleet this is, a place in a round, uploads, replies, direct feature payloads."""

from collections.abc import Sequence
from functools import partial

from hushrec.messages import (
    DEVICE_HEADER,
    ROUTES,
    SIGNATURE_HEADER,
    WIRE_VERSION,
    CheckInAnswer,
    FeatureBody,
    FleetAnswer,
    SignedDocument,
    packed,
    padded_bytes,
    phase_number,
    reply_route,
    upload_route,
)
from hushrec_privacy.envelope import OVERHEAD_BYTES
from hushrec_privacy.errors import FleetError, HushrecError
from litestar import Response, get, post

from hushrec_server.device_requests import DeviceRequest
from hushrec_server.fleet import Place
from hushrec_server.front import Asked, Front, address_of, body_length, front_of, in_path, read_body
from hushrec_server.routing import BINARY, JSON, MSGPACK, json_bytes, litestar_path, round_number

__all__ = ["DEVICE_ROUTES"]

_POLL_S = 2  # how soon to ask again for a reply whose phase is open


@get(litestar_path("fleet"), name="fleet")
async def fleet(request: Asked) -> Response[bytes]:
    """What anyone may know before joining."""
    front = front_of(request)
    return Response(await front.run(_fleet_answer, front), media_type=JSON)


@post(litestar_path("check-in"), name="check-in", status_code=200)
async def check_in(request: Asked) -> Response[bytes]:
    """Ask for a place in a round."""
    front, plan, size = front_of(request), in_path(request, "plan"), ROUTES["check-in"].payload_bytes
    with front.room.taken(size + OVERHEAD_BYTES, address_of(request)):
        asked = await _sealed(request, "check-in", plan, 0, size)
        if not front.requests.knows(plan):  # else made-up names would have turns, as many as there are
            await front.run(front.requests.learn, plan)
        answer = await front.check_ins.do(plan, asked, partial(front.run, _check_ins, front))
    front.metrics.count("hushrec_check_ins_total")
    return Response(answer, media_type=MSGPACK)


@post(litestar_path("upload"), name="upload", status_code=204)
async def upload(request: Asked) -> None:
    """Hand in the message of a phase; kept when the answer comes."""
    front, plan, phase = front_of(request), in_path(request, "plan"), in_path(request, "phase")
    number, in_round = phase_number(phase), round_number(in_path(request, "round"))
    size = padded_bytes(await front.run(front.fleet.message_bytes, plan, in_round, number))
    await front.run(front.requests.expect, _asked(request, upload_route(number), plan, in_round, b""))
    with front.room.taken(size + OVERHEAD_BYTES, address_of(request)):
        asked = await _sealed(request, upload_route(number), plan, in_round, size)
        await front.run(_upload, front, asked, number, size)
    front.metrics.count("hushrec_uploads_total", phase=phase)


@get(litestar_path("reply"), name="reply")
async def reply(request: Asked) -> Response[bytes]:
    """Ask for what a closed phase has for this device."""
    front, plan, phase = front_of(request), in_path(request, "plan"), in_path(request, "phase")
    number, in_round = phase_number(phase), round_number(in_path(request, "round"))
    asked = _asked(request, reply_route(number), plan, in_round, b"")
    found = await front.run(_reply, front, asked, number)
    if found is None:
        return Response(b"", status_code=202, headers={"retry-after": str(_POLL_S)}, media_type=BINARY)
    return Response(found, media_type=BINARY)


@post(litestar_path("feature"), name="feature", status_code=204)
async def feature(request: Asked) -> None:
    """Hand in a direct feature payload."""
    front, plan, name = front_of(request), in_path(request, "plan"), in_path(request, "name")
    size = ROUTES["feature"].payload_bytes
    with front.room.taken(size + OVERHEAD_BYTES, address_of(request)):
        asked = await _sealed(request, f"feature/{name}", plan, 0, size)
        await front.run(_feature, front, asked, name, size)


DEVICE_ROUTES = (fleet, check_in, upload, reply, feature)


def _fleet_answer(front: Front) -> bytes:
    info = front.fleet.info()
    return json_bytes(
        FleetAnswer(
            wire=WIRE_VERSION,
            server=info.server,
            plans=tuple(SignedDocument(data, signature) for data, signature in info.plans),
            keys=SignedDocument(*info.key_set),
            authorities=tuple(info.authorities),
            release=info.release,
            now=info.now,
        )
    )


def _check_ins(front: Front, plan: str, asked: Sequence[DeviceRequest]) -> list[bytes | Exception]:
    bodies = front.requests.check_ins(plan, asked, ROUTES["check-in"].payload_bytes)
    known = [
        (each.device, body.certificate)
        for each, body in zip(asked, bodies, strict=True)
        if not isinstance(body, Exception)
    ]
    places = iter(front.fleet.check_ins(plan, known) if known else ())
    return [body if isinstance(body, Exception) else _place(next(places)) for body in bodies]


def _place(found: Place | HushrecError) -> bytes | HushrecError:
    if isinstance(found, HushrecError):
        return found
    return packed(CheckInAnswer(found.round_number, found.index, found.session, found.release, found.deadline_at))


def _upload(front: Front, asked: DeviceRequest, phase: int, size: int) -> None:
    message = front.requests.message(asked, size)
    front.fleet.upload(asked.plan_id, asked.round_number, phase, asked.device, message)


def _reply(front: Front, asked: DeviceRequest, phase: int) -> bytes | None:
    front.requests.question(asked)
    return front.fleet.reply(asked.plan_id, asked.round_number, phase, asked.device)


def _feature(front: Front, asked: DeviceRequest, name: str, size: int) -> None:
    body = front.requests.first(asked, size, FeatureBody)
    front.fleet.add_features(asked.plan_id, name, asked.device, body.values)


async def _sealed(request: Asked, route: str, plan: str, in_round: int, size: int) -> DeviceRequest:
    """Read a sealed body, which has exactly one length, before anything is known of its sender."""
    expected = size + OVERHEAD_BYTES
    if body_length(request) < expected:
        raise FleetError(f"the sealed body must have {expected} bytes", reason="malformed")
    return _asked(request, route, plan, in_round, await read_body(request, expected))


def _asked(request: Asked, route: str, plan: str, in_round: int, body: bytes) -> DeviceRequest:
    device, signature = request.headers.get(DEVICE_HEADER, ""), request.headers.get(SIGNATURE_HEADER, "")
    return DeviceRequest(route, plan, in_round, device, signature, body)
