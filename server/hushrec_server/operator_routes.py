"""What the operator asks: is it alive, is it ready, its counters, its API, and, with a token, administration."""

import math
from collections.abc import Mapping
from typing import Any

from hushrec.messages import ROUTES, PlanBody, read_json
from litestar import Response, get, post
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from hushrec_server.front import Asked, Front, front_of, in_path, read_body
from hushrec_server.metrics import CONTENT_TYPE
from hushrec_server.openapi import openapi_document
from hushrec_server.routing import JSON, json_bytes, litestar_path, round_number

__all__ = ["OPERATOR_ROUTES"]


@get(litestar_path("health"), name="health")
async def health() -> Response[bytes]:
    """This process answers."""
    return Response(b'{"alive":true}', media_type=JSON)


@get(litestar_path("ready"), name="ready")
async def ready(request: Asked) -> Response[bytes]:
    """All checks, and 503 if one fails; with the administrator's token also what is wrong and what to do."""
    front, given = front_of(request), request.headers.get("authorization")
    if given is not None:
        front.admin.check(given)
    answer = await front.run(front.ready.answer)
    answer = answer.for_anybody() if given is None else answer
    return Response(json_bytes(answer), status_code=200 if answer.ready else 503, media_type=JSON)


@get(litestar_path("metrics"), name="metrics")
async def metrics(request: Asked) -> Response[bytes]:
    """Counters of this process and gauges of the fleet."""
    front = front_of(request)
    await front.run(_set_gauges, front)
    return Response(front.metrics.text().encode(), media_type=CONTENT_TYPE)


@get(litestar_path("openapi"), name="openapi")
async def openapi() -> Response[bytes]:
    """This API as OpenAPI 3.1."""
    return Response(json_bytes(openapi_document()), media_type=JSON)


def _administrator(connection: "ASGIConnection[Any, Any, Any, Any]", _: BaseRouteHandler) -> None:
    front = connection.app.state.front
    assert isinstance(front, Front)
    front.admin.check(connection.headers.get("authorization"))


_ADMIN: dict[str, Any] = {"guards": [_administrator]}


@get(litestar_path("admin-status"), name="admin-status", **_ADMIN)
async def status(request: Asked) -> Response[bytes]:
    """Plans, their rounds by state, epsilon spent, the newest release, and what waits to become one."""
    front = front_of(request)
    return Response(json_bytes(await front.run(front.fleet.status)), media_type=JSON)


@post(litestar_path("admin-add-plan"), name="admin-add-plan", status_code=204, **_ADMIN)
async def add_plan(request: Asked) -> None:
    """Take a plan that the shop's plan key signed."""
    front = front_of(request)
    body = read_json(await read_body(request, ROUTES["admin-add-plan"].body_bytes), PlanBody)
    await front.run(front.fleet.add_plan, body.plan.data, body.plan.signature)


@get(litestar_path("admin-rounds"), name="admin-rounds", **_ADMIN)
async def rounds(request: Asked) -> Response[bytes]:
    """The rounds of a plan, newest first."""
    front = front_of(request)
    return Response(json_bytes(await front.run(front.fleet.rounds, in_path(request, "plan"))), media_type=JSON)


@post(litestar_path("admin-abort"), name="admin-abort", status_code=204, **_ADMIN)
async def abort(request: Asked) -> None:
    """End a round without a result."""
    front = front_of(request)
    await front.run(front.fleet.abort, in_path(request, "plan"), round_number(in_path(request, "round")))


@post(litestar_path("admin-halt"), name="admin-halt", status_code=204, **_ADMIN)
async def halt(request: Asked) -> None:
    """Open no further round of a plan."""
    front = front_of(request)
    await front.run(front.fleet.halt, in_path(request, "plan"), "halted by an administrator")


@post(litestar_path("admin-resume"), name="admin-resume", status_code=204, **_ADMIN)
async def resume(request: Asked) -> None:
    """Take back a halt."""
    front = front_of(request)
    await front.run(front.fleet.resume, in_path(request, "plan"))


@get(litestar_path("admin-counts"), name="admin-counts", **_ADMIN)
async def counts(request: Asked) -> Response[bytes]:
    """Noised counters of a plan."""
    front = front_of(request)
    return Response(json_bytes(await front.run(front.fleet.counts, in_path(request, "plan"))), media_type=JSON)


@get(litestar_path("admin-features"), name="admin-features", **_ADMIN)
async def features(request: Asked) -> Response[bytes]:
    """The direct payloads of one feature that have not expired."""
    front = front_of(request)
    found = await front.run(front.fleet.features, in_path(request, "plan"), in_path(request, "name"))
    return Response(json_bytes({"values": found}), media_type=JSON)


OPERATOR_ROUTES = (health, ready, metrics, openapi, status, add_plan, rounds, abort, halt, resume, counts, features)


def _set_gauges(front: Front) -> None:
    found = front.fleet.status()
    states: dict[tuple[str, ...], float] = {}
    spent: dict[tuple[str, ...], float] = {}
    waiting: dict[tuple[str, ...], float] = {}
    for plan in _mappings(found.get("plans")):
        name = str(plan["plan"])[:16]
        spent[(name,)] = _number(plan.get("epsilon_spent"))
        waiting[(name,)] = _number(plan.get("rounds_without_result"))
        rounds = plan.get("rounds")
        if isinstance(rounds, Mapping):
            states |= {(name, str(state)): _number(count) for state, count in rounds.items()}
    front.metrics.replace("hushrec_rounds", states)
    front.metrics.replace("hushrec_rounds_without_result", waiting)
    front.metrics.replace("hushrec_epsilon_spent", spent)
    front.metrics.replace("hushrec_release", {(): _number(found.get("release"))})
    front.metrics.replace("hushrec_expires_at", {(what,): at_s for what, at_s in front.expires_at().items()})
    candidate = found.get("candidate")
    waits = _number(candidate["model_version"]) if isinstance(candidate, Mapping) else 0.0
    front.metrics.replace("hushrec_candidate", {(): waits})


def _mappings(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def _number(value: object) -> float:
    """A number of a report, where an epsilon without end is a word: JSON has no number for it."""
    return float(value) if isinstance(value, int | float) else math.inf
