"""The bytes of HTTP bodies, both ways. MessagePack: https://github.com/msgpack/msgpack/blob/master/spec.md."""

import msgspec
import pytest
from hushrec.messages import (
    CertificateBody,
    CheckInAnswer,
    CheckInBody,
    FeatureBody,
    FleetAnswer,
    Problem,
    SignedDocument,
    packed,
    problem_of,
    read_json,
    read_packed,
)
from hushrec_privacy.errors import FleetError

CHECK_IN = bytes.fromhex(
    "81"  # map of 1
    "ab6365727469666963617465"  # "certificate"
    "c403010203"  # bin of 3 bytes: 01 02 03 (145 in earnest)
)

PLACE = bytes.fromhex(
    "85"  # map of 5
    "a5726f756e64"  # "round"
    "07"  # 7
    "a5696e646578"  # "index"
    "cd012c"  # uint16 300
    "a773657373696f6e"  # "session"
    "c4020a0b"  # bin of 2 bytes
    "a772656c65617365"  # "release"
    "a461626364"  # "abcd" (64 digits in earnest)
    "ab646561646c696e655f6174"  # "deadline_at"
    "ce6b49d200"  # uint32 1,800,000,000
)

FEATURE = bytes.fromhex(
    "82"  # map of 2
    "ab6365727469666963617465"  # "certificate"
    "c401ff"  # bin of 1 byte
    "a676616c756573"  # "values"
    "c4040000803f"  # float32 1.0, little endian
)

PACKED = [
    (CheckInBody(b"\1\2\3"), CHECK_IN),
    (CheckInAnswer(7, 300, b"\x0a\x0b", "abcd", 1_800_000_000), PLACE),
    (FeatureBody(b"\xff", b"\0\0\x80\x3f"), FEATURE),
]

FLEET = (
    b'{"wire":1,"server":"shop","plans":[{"data":"AQ==","signature":"Ag=="}],"keys":{"data":"Aw==","signature":"BA=="},'
    b'"authorities":["BQ=="],"release":3,"now":1800000000}'
)
CERTIFICATE = (
    b'{"plan":"' + b"ab" * 32 + b'","token":"t","identity":"' + b"A" * 43 + b'=","proof":"' + b"A" * 86 + b'=="}'
)
PROBLEM = (
    b'{"type":"fleet","title":"The server refused a request, or could not be reached","status":429,'
    b'"detail":"later","reason":"not-now","retry_after_s":60.0}'
)


@pytest.mark.parametrize(("body", "data"), PACKED, ids=lambda value: type(value).__name__)
def test_packed_bodies_are_the_published_bytes(body: msgspec.Struct, data: bytes) -> None:
    assert packed(body) == data
    assert read_packed(data, type(body)) == body


@pytest.mark.parametrize(("body", "data"), PACKED, ids=lambda value: type(value).__name__)
def test_a_cut_a_tail_and_another_kind_of_value_are_refused(body: msgspec.Struct, data: bytes) -> None:
    for wrong in (data[:-1], data + b"\0", b"\xc0", b"\x90", bytes([data[0] - 1]) + data[1:], bytes([0xDF]) + data[1:]):
        with pytest.raises(FleetError):
            read_packed(wrong, type(body))


def test_json_bodies_are_the_published_texts() -> None:
    fleet = FleetAnswer(
        1, "shop", (SignedDocument(b"\1", b"\2"),), SignedDocument(b"\3", b"\4"), (b"\5",), 3, 1_800_000_000
    )
    assert msgspec.json.encode(fleet) == FLEET
    assert read_json(FLEET, FleetAnswer) == fleet
    request = CertificateBody("ab" * 32, "t", bytes(32), bytes(64))
    assert msgspec.json.encode(request) == CERTIFICATE
    assert read_json(CERTIFICATE, CertificateBody) == request


def test_a_refusal_is_the_published_text() -> None:
    problem = problem_of(FleetError("later", reason="not-now", retry_after_s=60))
    assert msgspec.json.encode(problem) == PROBLEM.replace(b"60.0", b"60")
    assert read_json(PROBLEM, Problem) == problem


@pytest.mark.parametrize("wrong", [FLEET[:-1], FLEET.replace(b"AQ==", b"*"), FLEET.replace(b'"wire":1,', b""), b"[]"])
def test_json_that_is_not_whole_is_refused(wrong: bytes) -> None:
    with pytest.raises(FleetError):
        read_json(wrong, FleetAnswer)
