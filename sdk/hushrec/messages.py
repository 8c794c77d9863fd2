"""What devices, server and authority say to each other over HTTP: every route, every body, every refusal.

One table of routes that all sides share. Bodies inside envelopes are MessagePack, public and administrative answers are
JSON, refusals are problem+json (RFC 9457). Unknown fields are ignored and missing ones refused, so that a newer side
can add a field. Sends nothing itself; secure aggregation's own messages are `hushrec_privacy.secagg`'s.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
from hushrec_privacy import errors
from hushrec_privacy.errors import FleetError, HushrecError

__all__ = [
    "DEVICE_HEADER",
    "ENROLMENT_DOMAIN",
    "PHASES",
    "PROBLEM_TYPE",
    "ROUTES",
    "SIGNATURE_HEADER",
    "WIRE_VERSION",
    "CertificateAnswer",
    "CertificateBody",
    "CheckInAnswer",
    "CheckInBody",
    "FeatureBody",
    "FleetAnswer",
    "PlanBody",
    "Problem",
    "Route",
    "SignedDocument",
    "WireAnswer",
    "enrolment_bytes",
    "error_of",
    "packed",
    "padded_bytes",
    "path_of",
    "phase_number",
    "problem_of",
    "read_json",
    "read_packed",
    "reply_route",
    "status_of",
    "upload_route",
]

WIRE_VERSION = 1
"""Of paths and bodies. A change that an older side would misread gets a new one, and new paths."""

DEVICE_HEADER = "Hushrec-Device"
SIGNATURE_HEADER = "Hushrec-Signature"
ENROLMENT_DOMAIN = b"hushrec enrolment v1"
PROBLEM_TYPE = "application/problem+json"

PHASES = ("advertise", "choose", "share", "mask", "agree", "reveal")
"""Names of phases 1 to 6 in paths, logs and envelopes; numbers are `hushrec_privacy.secagg.Phase`."""

_PADDING_HEAD_BYTES = 4
_MAX_DETAIL = 500  # characters of another side's text that are shown
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # msgspec lets text that is no UTF-8 through
_Structure = TypeVar("_Structure")

Round = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Time = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


@dataclass(frozen=True)
class Route:
    """One thing that can be asked for.

    Attributes:
        method: GET or POST.
        path: With {names} where values stand.
        payload_bytes: What a sealed body is padded to before it is sealed; 0: not sealed, or the plan decides.
        body_bytes: Largest body that is not sealed; 0: none.
    """

    method: str
    path: str
    payload_bytes: int = 0
    body_bytes: int = 0


_ROUND_PATH = "/v1/plans/{plan}/rounds/{round}/{phase}"

ROUTES = {
    "fleet": Route("GET", "/v1/fleet"),
    "check-in": Route("POST", "/v1/plans/{plan}/check-in", payload_bytes=1_024),
    "upload": Route("POST", _ROUND_PATH),
    "reply": Route("GET", _ROUND_PATH),
    "feature": Route("POST", "/v1/plans/{plan}/features/{name}", payload_bytes=16_384),
    "releases": Route("GET", "/releases/{file}"),
    "certificate": Route("POST", "/v1/certificates", body_bytes=4_096),
    "health": Route("GET", "/healthz"),
    "ready": Route("GET", "/readyz"),
    "metrics": Route("GET", "/metrics"),
    "openapi": Route("GET", "/openapi.json"),
    "admin-status": Route("GET", "/admin/v1/status"),
    "admin-add-plan": Route("POST", "/admin/v1/plans", body_bytes=131_072),
    "admin-rounds": Route("GET", "/admin/v1/plans/{plan}/rounds"),
    "admin-abort": Route("POST", "/admin/v1/plans/{plan}/rounds/{round}/abort"),
    "admin-halt": Route("POST", "/admin/v1/plans/{plan}/halt"),
    "admin-resume": Route("POST", "/admin/v1/plans/{plan}/resume"),
    "admin-counts": Route("GET", "/admin/v1/plans/{plan}/counts"),
    "admin-features": Route("GET", "/admin/v1/plans/{plan}/features/{name}"),
}
"""Everything that is served. "certificate" is the authority's; the rest is the server's."""


class SignedDocument(msgspec.Struct, frozen=True):
    """Bytes and their detached signature, each base64 in JSON."""

    data: bytes
    signature: bytes


class WireAnswer(msgspec.Struct, frozen=True):
    """What every version of the fleet's answer says, whatever else is in it.

    Attributes:
        wire: `WIRE_VERSION` of the server.
    """

    wire: int


class FleetAnswer(msgspec.Struct, frozen=True):
    """What anyone may know about a fleet before joining.

    Attributes:
        wire: `WIRE_VERSION` of the server.
        server: Its name, bound into every envelope.
        plans: Signed by the shop's plan key.
        keys: The envelope keys to seal to, signed by the same key.
        authorities: Public halves of the keys that certify devices, 32 bytes each.
        release: Model version of the newest release; 0: none yet.
        now: The server's clock, seconds since 1970-01-01 UTC.
    """

    wire: int
    server: str
    plans: tuple[SignedDocument, ...]
    keys: SignedDocument
    authorities: tuple[bytes, ...]
    release: int
    now: Time


class CheckInBody(msgspec.Struct, frozen=True):
    """Inside the envelope of a check-in: the certificate that the request's signature is checked against."""

    certificate: Annotated[bytes, msgspec.Meta(max_length=512)]


class CheckInAnswer(msgspec.Struct, frozen=True):
    """A place in a round.

    Attributes:
        round: Its number.
        index: The device's place in it, from 0.
        session: Bytes of `hushrec_privacy.secagg.Session`.
        release: sha256 of the bundle that the round starts from, hexadecimal; of a plan that compares, the candidate's.
        deadline_at: When the phase that is open now closes, seconds since 1970-01-01 UTC.
    """

    round: Round
    index: Round
    session: Annotated[bytes, msgspec.Meta(max_length=4_096)]
    release: Annotated[str, msgspec.Meta(max_length=64)]
    deadline_at: Time


class FeatureBody(msgspec.Struct, frozen=True):
    """Inside the envelope of a direct feature payload.

    Attributes:
        certificate: As in a check-in: a device may send features before its first round.
        values: The fixed-length vector that the plan's schema lists, noised on the device; float32, little endian.
    """

    certificate: Annotated[bytes, msgspec.Meta(max_length=512)]
    values: Annotated[bytes, msgspec.Meta(max_length=15_000)]


class CertificateBody(msgspec.Struct, frozen=True):
    """What a device asks the authority for.

    Attributes:
        plan: Plan id, 64 hexadecimal digits.
        token: What the shop's own login gave for this account and plan.
        identity: The device's Ed25519 public key for this plan, 32 bytes.
        proof: The identity's signature of `enrolment_bytes` under `ENROLMENT_DOMAIN`, 64 bytes.
    """

    plan: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    token: Annotated[str, msgspec.Meta(max_length=2_048)]
    identity: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    proof: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class CertificateAnswer(msgspec.Struct, frozen=True):
    """The certificate and its signature, as `hushrec_privacy.enrolment` reads them."""

    certificate: Annotated[bytes, msgspec.Meta(max_length=512)]


class PlanBody(msgspec.Struct, frozen=True):
    """An administrator's new plan."""

    plan: SignedDocument


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refusal (RFC 9457).

    Attributes:
        type: `HushrecError.code`, a relative reference that docs/errors/<type>.md explains.
        title: The kind of error, the same for every refusal of this type.
        status: HTTP status.
        detail: What was wrong and what to do.
        reason: Of a `FleetError`: its stable name.
        retry_after_s: Seconds until asking again makes sense.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    reason: str | None = None
    retry_after_s: float | None = None


def enrolment_bytes(plan: str, token: str) -> bytes:
    """What an identity signs to show that its secret is with whoever asks for a certificate.

    >>> len(enrolment_bytes("ab" * 32, "token"))
    32
    """
    return hashlib.sha256(f"{plan} {token}".encode()).digest()


def padded_bytes(message_bytes: int) -> int:
    """What a phase's message is padded to, given the largest one that the plan allows.

    >>> padded_bytes(60)
    64
    """
    return message_bytes + _PADDING_HEAD_BYTES


def upload_route(phase: int) -> str:
    """The route that an upload's envelope and signature name.

    >>> upload_route(4)
    'upload/mask'
    """
    return f"upload/{PHASES[phase - 1]}"


def reply_route(phase: int) -> str:
    """The route that the signature of a question for a reply names.

    >>> reply_route(1)
    'reply/advertise'
    """
    return f"reply/{PHASES[phase - 1]}"


def phase_number(name: str) -> int:
    """The number of a phase in a path.

    Raises:
        FleetError: There is none of this name.

    >>> phase_number("mask")
    4
    """
    if name not in PHASES:
        raise FleetError(f"a round has no such phase; the phases are {', '.join(PHASES)}", reason="not-found")
    return PHASES.index(name) + 1


def path_of(name: str, /, **values: str | int) -> str:
    """The path of a route, with its values filled in.

    >>> path_of("upload", plan="ab", round=7, phase="mask")
    '/v1/plans/ab/rounds/7/mask'
    """
    return ROUTES[name].path.format(**values)


def packed(body: msgspec.Struct) -> bytes:
    """A body as MessagePack."""
    return msgspec.msgpack.encode(body)


def read_packed(data: bytes, kind: type[_Structure]) -> _Structure:
    """Read a MessagePack body.

    Raises:
        FleetError: It is not of this kind.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except _UNREADABLE as error:
        raise FleetError(f"the body is no {kind.__name__}; update hushrec", reason="malformed") from error


def read_json(data: bytes, kind: type[_Structure]) -> _Structure:
    """Read a JSON body.

    Raises:
        FleetError: It is not of this kind.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except _UNREADABLE as error:
        raise FleetError(f"the body is no {kind.__name__} in JSON", reason="malformed") from error


# A refusal that says nothing else is a conflict with the state of the round: the device reads on and decides.
_REFUSED, _BROKEN = 409, 500
_STATUS = {
    "config": 400,
    "data": 400,
    "envelope": 403,
    "enrolment": 403,
    "plan": 400,
    "budget": 409,
    "secure-aggregation": 400,
    "fleet": _REFUSED,
    "storage": 503,
}
_RETRY_AFTER_S = {"storage": 5.0}  # what passes: the database is away or full for a while
_FLEET_STATUS = {
    "malformed": 400,
    "unauthorized": 401,
    "not-found": 404,
    "unknown-plan": 404,
    "wrong-method": 405,
    "too-slow": 408,
    "length-required": 411,
    "too-large": 413,
    "rate-limited": 429,
    "not-now": 429,
    "round-full": 429,
    "busy": 503,
}


def status_of(error: HushrecError) -> int:
    """The HTTP status of an error.

    >>> status_of(FleetError("come back", reason="not-now", retry_after_s=60))
    429
    """
    if isinstance(error, FleetError):
        return _FLEET_STATUS.get(error.reason, _REFUSED)
    return _STATUS.get(error.code, _BROKEN)


def problem_of(error: HushrecError) -> Problem:
    """An error as it goes over the wire; faults of the server itself tell nothing of its inside.

    >>> problem_of(FleetError("the round is over", reason="round-aborted")).reason
    'round-aborted'
    """
    status = status_of(error)
    title = _title(type(error))
    fleet = error if isinstance(error, FleetError) else None
    inside = status >= _BROKEN and fleet is None
    return Problem(
        type=error.code,
        title=title,
        status=status,
        detail="the server could not do this; its operator finds the cause in its log" if inside else error.message,
        reason=fleet.reason if fleet else None,
        retry_after_s=fleet.retry_after_s if fleet else _RETRY_AFTER_S.get(error.code),
    )


def error_of(problem: Problem) -> HushrecError:
    """The error that a refusal stands for; one of a newer server is a `FleetError`.

    Args:
        problem: Untrusted.

    >>> error_of(Problem("envelope", "", 403, "sealed to an old key"))
    EnvelopeError('sealed to an old key')
    """
    detail = _printable(problem.detail or problem.title) or f"the server answered {problem.status}"
    kind = {kind.code: kind for kind in _kinds()}.get(problem.type)
    if kind is None or issubclass(kind, FleetError):
        wait = problem.retry_after_s
        reason = problem.reason if kind is not None else problem.type
        return FleetError(
            detail,
            reason=_printable(reason or "refused"),
            retry_after_s=wait if wait is not None and 0 <= wait < 1e9 else None,
        )
    return kind(detail)


def _kinds() -> Iterable[type[HushrecError]]:
    return (getattr(errors, name) for name in errors.__all__)


def _title(kind: type[HushrecError]) -> str:
    return (kind.__doc__ or "").partition("\n")[0].rstrip(".")


def _printable(text: str) -> str:
    """Another side's text, fit for a terminal."""
    return "".join(letter for letter in text[:_MAX_DETAIL] if letter.isprintable())
