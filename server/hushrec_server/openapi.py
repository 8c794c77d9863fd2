"""The API as an OpenAPI 3.1 document, made from the one table of routes and the wire structs.

`python -m hushrec_server.openapi docs/openapi.json` writes it; a test compares the file with what this module makes,
and another one the routes with those that are served. Sealed bodies are opaque bytes here; docs/wire-protocol.md has
them.
"""

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from hushrec.messages import (
    DEVICE_HEADER,
    PHASES,
    PROBLEM_TYPE,
    ROUTES,
    SIGNATURE_HEADER,
    WIRE_VERSION,
    CertificateAnswer,
    CertificateBody,
    FleetAnswer,
    PlanBody,
    Problem,
    Route,
)
from hushrec_privacy.envelope import OVERHEAD_BYTES

from hushrec_server.metrics import CONTENT_TYPE
from hushrec_server.readiness import ReadyAnswer
from hushrec_server.routing import BINARY, JSON, MSGPACK

__all__ = ["openapi_document"]

_STRUCTS = (CertificateAnswer, CertificateBody, FleetAnswer, PlanBody, Problem, ReadyAnswer)
_REFERENCE = "#/components/schemas/{name}"
_DEVICE: list[dict[str, list[str]]] = [{"device": [], "signature": []}]
_ADMIN: list[dict[str, list[str]]] = [{"administrator": []}]
_ANY_OBJECT = {"type": "object"}


class _Shape(NamedTuple):
    """What the table of routes does not say of a route."""

    summary: str
    answer: tuple[int, str, Any]  # status, media type, schema
    body: tuple[str, Any] | None = None  # media type, schema
    security: Any = None
    also: tuple[tuple[int, str], ...] = ()  # further statuses that are no refusal


def _of(struct: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=struct.__name__)}


_BYTES = {"type": "string", "format": "binary"}
_NOTHING = (204, "", None)

_SHAPES = {
    "fleet": _Shape("What anyone may know before joining.", (200, JSON, _of(FleetAnswer))),
    "check-in": _Shape(
        "Ask for a place in a round; sealed CheckInBody, answered by CheckInAnswer in MessagePack.",
        (200, MSGPACK, _BYTES),
        (BINARY, _BYTES),
        _DEVICE,
    ),
    "upload": _Shape(
        "Hand in the message of a phase, sealed; kept when the answer comes.", _NOTHING, (BINARY, _BYTES), _DEVICE
    ),
    "reply": _Shape(
        "Ask for what a closed phase has for this device.",
        (200, BINARY, _BYTES),
        None,
        _DEVICE,
        ((202, "The phase is open still; Retry-After says when to ask again."),),
    ),
    "feature": _Shape("Hand in a direct feature payload; sealed FeatureBody.", _NOTHING, (BINARY, _BYTES), _DEVICE),
    "releases": _Shape("A file of the release repository (TUF).", (200, BINARY, _BYTES)),
    "certificate": _Shape(
        "Ask the authority for the certificate of an account and plan; served by the authority.",
        (200, JSON, _of(CertificateAnswer)),
        (JSON, _of(CertificateBody)),
    ),
    "health": _Shape("This process answers.", (200, JSON, _ANY_OBJECT)),
    "ready": _Shape(
        "All checks of this process; with the administrator's token also what is wrong and what to do.",
        (200, JSON, _of(ReadyAnswer)),
        security=[{}, *_ADMIN],
        also=((503, "A check fails; the body says which."),),
    ),
    "metrics": _Shape("Counters and gauges for Prometheus.", (200, CONTENT_TYPE, {"type": "string"})),
    "openapi": _Shape("This document.", (200, JSON, _ANY_OBJECT)),
    "admin-status": _Shape("Plans, rounds, epsilon spent, release, candidate.", (200, JSON, _ANY_OBJECT), None, _ADMIN),
    "admin-add-plan": _Shape("Take a signed plan.", _NOTHING, (JSON, _of(PlanBody)), _ADMIN),
    "admin-rounds": _Shape(
        "Rounds of a plan, newest first.", (200, JSON, {"type": "array", "items": _ANY_OBJECT}), None, _ADMIN
    ),
    "admin-abort": _Shape("End a round without a result.", _NOTHING, None, _ADMIN),
    "admin-halt": _Shape("Open no further round of a plan.", _NOTHING, None, _ADMIN),
    "admin-resume": _Shape("Take back a halt.", _NOTHING, None, _ADMIN),
    "admin-counts": _Shape("Noised counters of a plan.", (200, JSON, _ANY_OBJECT), None, _ADMIN),
    "admin-features": _Shape("Direct payloads of one feature.", (200, JSON, _ANY_OBJECT), None, _ADMIN),
}
_PARAMETERS = {
    "plan": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "round": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
    "phase": {"type": "string", "enum": list(PHASES)},
    "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"},
    "file": {"type": "string"},
}


@cache
def openapi_document() -> dict[str, Any]:
    """The document as JSON values."""
    paths: dict[str, dict[str, Any]] = {}
    for name, route in ROUTES.items():
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(name, route, _SHAPES[name])
    _, schemas = msgspec.json.schema_components(_STRUCTS, ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hushrec",
            "version": str(WIRE_VERSION),
            "description": "Aggregation server and authority. Refusals are problem+json (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": _security_schemes()},
    }


def _operation(name: str, route: Route, shape: _Shape) -> dict[str, Any]:
    status, media, schema = shape.answer
    answer = {"description": "Done."} | ({"content": {media: {"schema": schema}}} if media else {})
    refusal = {"description": "Refused.", "content": {PROBLEM_TYPE: {"schema": _of(Problem)}}}
    answers: dict[str, Any] = {str(status): answer}
    answers |= {str(code): {"description": text} for code, text in shape.also}
    answers |= {"4XX": refusal, "5XX": refusal}
    operation: dict[str, Any] = {"operationId": name, "summary": shape.summary, "responses": answers}
    names = re.findall(r"\{(\w+)\}", route.path)
    if names:
        operation["parameters"] = [
            {"name": each, "in": "path", "required": True, "schema": _PARAMETERS[each]} for each in names
        ]
    if shape.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {shape.body[0]: {"schema": _sized(route, shape.body[1])}},
        }
    if shape.security is not None:
        operation["security"] = shape.security
    return operation


def _sized(route: Route, schema: dict[str, Any]) -> dict[str, Any]:
    """A sealed body of fixed size has one length."""
    if not route.payload_bytes:
        return schema
    return {**schema, "description": f"Exactly {route.payload_bytes + OVERHEAD_BYTES} bytes."}


def _security_schemes() -> dict[str, Any]:
    return {
        "device": {"type": "apiKey", "in": "header", "name": DEVICE_HEADER, "description": "Pseudonym."},
        "signature": {
            "type": "apiKey",
            "in": "header",
            "name": SIGNATURE_HEADER,
            "description": "Time, nonce and Ed25519 signature over the context and the body's hash.",
        },
        "administrator": {"type": "http", "scheme": "bearer"},
    }


if __name__ == "__main__":
    text = msgspec.json.format(msgspec.json.encode(openapi_document(), order="sorted"), indent=2)
    Path(sys.argv[1]).write_bytes(text + b"\n")
