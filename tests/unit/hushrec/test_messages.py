"""The wire: structs that ignore what is new and refuse what is missing, and errors that cross it whole."""

import inspect

import msgspec
import pytest
from hushrec import messages
from hushrec.messages import (
    PHASES,
    ROUTES,
    CertificateBody,
    CheckInAnswer,
    CheckInBody,
    FeatureBody,
    FleetAnswer,
    Problem,
    SignedDocument,
    error_of,
    packed,
    path_of,
    phase_number,
    problem_of,
    read_json,
    read_packed,
    reply_route,
    upload_route,
)
from hushrec_privacy import errors
from hushrec_privacy.errors import FleetError, HushrecError

FLEET = FleetAnswer(1, "shop", (SignedDocument(b"p", b"s"),), SignedDocument(b"k", b"t"), (b"a" * 32,), 3, 1_000)
PACKED = [
    CheckInBody(b"\1" * 145),
    CheckInAnswer(7, 3, b"session", "ab" * 32, 1_000),
    FeatureBody(b"\1" * 145, b"\0" * 8),
]
KINDS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("body", PACKED, ids=lambda body: type(body).__name__)
def test_a_packed_body_comes_back(body: msgspec.Struct) -> None:
    assert read_packed(packed(body), type(body)) == body


def test_a_fleet_answer_comes_back_and_has_base64_for_bytes() -> None:
    text = msgspec.json.encode(FLEET)
    assert read_json(text, FleetAnswer) == FLEET
    assert b'"data":"cA=="' in text


@pytest.mark.parametrize("body", PACKED, ids=lambda body: type(body).__name__)
def test_unknown_fields_are_ignored_and_missing_ones_refused(body: msgspec.Struct) -> None:
    fields = {name: getattr(body, name) for name in body.__struct_fields__}
    assert read_packed(msgspec.msgpack.encode({**fields, "newer": [1, {"x": 2}]}), type(body)) == body
    for name in fields:
        less = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(FleetError, match="update hushrec") as refused:
            read_packed(msgspec.msgpack.encode(less), type(body))
        assert refused.value.reason == "malformed"


@pytest.mark.parametrize("body", PACKED, ids=lambda body: type(body).__name__)
def test_every_truncation_is_refused(body: msgspec.Struct) -> None:
    whole = packed(body)
    for cut in range(len(whole)):
        with pytest.raises(FleetError):
            read_packed(whole[:cut], type(body))
    with pytest.raises(FleetError):
        read_packed(whole + b"\0", type(body))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (CheckInBody, {"certificate": b"x" * 513}),
        (CheckInBody, {"certificate": "text"}),
        (CheckInAnswer, {"round": -1, "index": 0, "session": b"", "release": "", "deadline_at": 0}),
        (CheckInAnswer, {"round": 1, "index": 0, "session": b"x" * 4_097, "release": "", "deadline_at": 0}),
        (CheckInAnswer, {"round": 1, "index": 0, "session": b"", "release": "a" * 65, "deadline_at": 0}),
        (CheckInAnswer, {"round": 1.5, "index": 0, "session": b"", "release": "", "deadline_at": 0}),
        (CheckInAnswer, {"round": 2**31, "index": 0, "session": b"", "release": "", "deadline_at": 0}),
        (FeatureBody, {"certificate": b"", "values": b"x" * 15_001}),
    ],
)
def test_values_out_of_range_are_refused(kind: type[msgspec.Struct], fields: dict[str, object]) -> None:
    with pytest.raises(FleetError):
        read_packed(msgspec.msgpack.encode(fields), kind)


@pytest.mark.parametrize(
    "text", [b"", b"null", b"[]", b'{"plan":"x","token":"","identity":"","proof":""}', b"\xff", b"[" * 50_000]
)
def test_json_that_is_no_certificate_request_is_refused(text: bytes) -> None:
    with pytest.raises(FleetError, match="CertificateBody"):
        read_json(text, CertificateBody)


def test_the_largest_bodies_fit_into_what_their_routes_are_padded_to() -> None:
    check_in = packed(CheckInBody(b"x" * 512))
    feature = packed(FeatureBody(b"x" * 512, b"x" * 15_000))
    assert len(check_in) + 4 <= ROUTES["check-in"].payload_bytes
    assert len(feature) + 4 <= ROUTES["feature"].payload_bytes
    request = CertificateBody("ab" * 32, "x" * 2_048, b"x" * 32, b"x" * 64)
    assert len(msgspec.json.encode(request)) <= ROUTES["certificate"].body_bytes


def test_phases_have_the_numbers_of_secure_aggregation() -> None:
    from hushrec_privacy.secagg import Phase

    assert [phase.name.lower() for phase in Phase] == list(PHASES)
    assert [phase_number(name) for name in PHASES] == [phase.value for phase in Phase]
    for number, name in enumerate(PHASES, start=1):
        assert (upload_route(number), reply_route(number)) == (f"upload/{name}", f"reply/{name}")


@pytest.mark.parametrize("name", ["", "MASK", "mask ", "0", "4"])
def test_an_unknown_phase_is_not_found(name: str) -> None:
    with pytest.raises(FleetError) as refused:
        phase_number(name)
    assert refused.value.reason == "not-found"


def test_paths_are_filled_in() -> None:
    assert path_of("check-in", plan="ab" * 32) == f"/v1/plans/{'ab' * 32}/check-in"
    with pytest.raises(KeyError):
        path_of("check-in")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_every_error_crosses_the_wire_as_the_same_class(kind: type[HushrecError]) -> None:
    problem = read_json(msgspec.json.encode(problem_of(kind("what was wrong"))), Problem)
    assert (problem.type, 400 <= problem.status < 600) == (kind.code, True)
    found = error_of(problem)
    if kind is HushrecError:
        assert isinstance(found, HushrecError)
    else:
        assert type(found) is kind
    inside = problem.status >= 500
    assert ("what was wrong" in found.message) is not inside


def test_a_refusal_keeps_its_reason_and_when_to_come_back() -> None:
    refused = FleetError("not now", reason="not-now", retry_after_s=61.5)
    problem = problem_of(refused)
    assert (problem.status, problem.reason, problem.retry_after_s) == (429, "not-now", 61.5)
    found = error_of(problem)
    assert isinstance(found, FleetError)
    assert (found.message, found.reason, found.retry_after_s) == ("not now", "not-now", 61.5)


def test_faults_of_the_inside_tell_nothing() -> None:
    for kind in (errors.StorageError, errors.LedgerError, errors.NoiseStateError, HushrecError):
        assert "secret" not in msgspec.json.encode(problem_of(kind("secret"))).decode()


def test_what_a_newer_server_refuses_with_is_a_fleet_error() -> None:
    found = error_of(Problem("newer", "New", 418, "a teapot", retry_after_s=float("1e12")))
    assert isinstance(found, FleetError)
    assert (found.message, found.reason, found.retry_after_s) == ("a teapot", "newer", None)


def test_text_of_the_other_side_cannot_write_on_a_terminal() -> None:
    found = error_of(Problem("fleet", "", 400, "\x1b[2J" + "x" * 10_000, reason="\x07bell"))
    assert isinstance(found, FleetError)
    assert (len(found.message) < 600, "\x1b" in found.message, found.reason) == (True, False, "bell")


def test_every_struct_of_the_wire_says_what_it_is() -> None:
    for name in messages.__all__:
        value = getattr(messages, name)
        if inspect.isclass(value):
            assert inspect.getdoc(value)


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80"])
def test_text_that_is_no_utf_8_is_malformed_and_nothing_worse(text: bytes) -> None:
    body = msgspec.json.encode(FLEET).replace(b'"shop"', b'"' + text + b'"')
    with pytest.raises(FleetError, match="in JSON") as refused:
        read_json(body, FleetAnswer)
    assert refused.value.reason == "malformed"
    told = packed(CheckInAnswer(7, 3, b"session", "a" * len(text), 1_000)).replace(b"a" * len(text), text)
    with pytest.raises(FleetError, match="update hushrec"):
        read_packed(told, CheckInAnswer)
