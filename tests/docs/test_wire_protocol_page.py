"""docs/wire-protocol.md: its bytes are those of the shared vectors and of the code, its tables are whole."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hushrec import messages, releases
from hushrec.fleet import fleet_file
from hushrec.messages import ROUTES, CertificateBody, CheckInAnswer, CheckInBody, packed, path_of, status_of
from hushrec_privacy import envelope, errors, secagg
from hushrec_privacy.enrolment import Identity, verified_certificate, verified_token, verify
from hushrec_privacy.envelope import Context, EnvelopeKey, KeySet, open_sealed, verified_key_set, verify_request
from hushrec_privacy.errors import FleetError
from hushrec_privacy.plans import plan
from hushrec_privacy.secagg import Phase, Session, masks, message_size
from hushrec_privacy.signatures import check_signature
from hushrec_server.refusals import Reason, refusal

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "wire-protocol.md").read_text(encoding="utf-8")
WIRE: dict[str, Any] = json.loads((ROOT / "tests/vectors/envelope/wire.json").read_text(encoding="utf-8"))
ROUND: dict[str, Any] = json.loads((ROOT / "tests/vectors/secagg/round.json").read_text(encoding="utf-8"))
SESSION = bytes.fromhex(ROUND["session"])
HEADERS = dict(re.findall(r"^(Hushrec-\w+): (\S+)$", PAGE, re.MULTILINE))


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def captured(kind: str, phase: str) -> bytes:
    return bytes.fromhex(ROUND[kind][phase]["0"])


CERTIFICATE = bytes.fromhex(WIRE["certificate"])
BYTES = {
    "key-set": bytes.fromhex(WIRE["key_set"]["encoded"]),
    "login-token": unpadded(WIRE["login_token"]["token"]),
    "certificate": CERTIFICATE,
    "context": bytes.fromhex(WIRE["context"]["encoded"]),
    "envelope": bytes.fromhex(WIRE["envelope"]["sealed"]),
    "request": unpadded(WIRE["request"]["header"]),
    "check-in-body": packed(CheckInBody(CERTIFICATE)),
    "check-in-answer": packed(CheckInAnswer(7, 0, SESSION, "cd" * 32, 1_700_000_600)),
    "session": SESSION,
    "advertise": captured("messages", "ADVERTISE"),
    "roster": captured("answers", "ADVERTISE"),
    "choose": captured("messages", "CHOOSE"),
    "neighbours": captured("answers", "CHOOSE"),
    "share": captured("messages", "SHARE"),
    "shares": captured("answers", "SHARE"),
    "mask": captured("messages", "MASK"),
    "survivors": captured("answers", "MASK"),
    "agree": captured("messages", "AGREE"),
    "agreement": captured("answers", "AGREE"),
    "reveal": captured("messages", "REVEAL"),
}
DUMPS = dict(re.findall(r"^```hex (\S+ \d+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
JSONS = dict(re.findall(r"^```json (\S[^\n]*)\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL))


def rows_after(heading: str) -> list[list[str]]:
    """The cells of the rows of all tables in a section."""
    part = re.split(r"^##+ ", PAGE.split(f"## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ") and "---" not in line]


@pytest.mark.parametrize("title", DUMPS)
def test_every_dump_is_the_bytes_of_the_vectors(title: str) -> None:
    name, size = title.split()
    data = BYTES[name]
    assert len(data) == int(size)
    lines = [line.split(None, 2) for line in DUMPS[title].splitlines()]
    ends = [int(line[0]) for line in lines[1:]] + [len(data)]
    assert int(lines[0][0]) == 0
    for (offset, text, comment), end in zip(lines, ends, strict=True):
        part = data[int(offset) : end].hex()
        first, elided, last = text.partition("…")
        assert comment
        assert part.startswith(first)
        assert part.endswith(last)
        assert elided or part == first, f"{name} at {offset}"


def test_every_vector_is_shown() -> None:
    assert {title.split()[0] for title in DUMPS} == set(BYTES)


def test_what_is_shown_verifies_and_opens_under_the_keys_of_the_vectors() -> None:
    secrets = {name: bytes.fromhex(secret) for name, secret in WIRE["secrets"].items()}
    plan_id, at_s, server = WIRE["plan_id"], WIRE["request"]["at_s"], WIRE["context"]["server"]
    token = BYTES["login-token"]
    text = base64.urlsafe_b64encode(token).rstrip(b"=").decode()
    assert verified_token(secrets["login"], text, plan_id=plan_id, at_s=at_s - 1) == WIRE["account"]
    authority = Identity(secrets["authority"]).public()
    assert verified_certificate(CERTIFICATE, authority, plan_id=plan_id).pseudonym == HEADERS["Hushrec-Device"]
    context = Context(server, "check-in", plan_id, 7, HEADERS["Hushrec-Device"])
    assert context.encode() == BYTES["context"]
    payload = open_sealed([EnvelopeKey(secrets["envelope"])], context, BYTES["envelope"], 64)
    assert len(payload) == 9
    identity = Identity(secrets["identity"]).public()
    verify_request(identity, context, BYTES["envelope"], HEADERS["Hushrec-Signature"], at_s=at_s)
    signature = bytes.fromhex(WIRE["key_set"]["signature"])
    public = Identity(secrets["plan"]).public()
    keys = verified_key_set(BYTES["key-set"], signature, public, server=server, least_serial=3, at_s=at_s)
    assert KeySet.decode(BYTES["key-set"]) == keys


def test_the_body_of_an_enrolment_is_signed_as_the_page_says() -> None:
    body = msgspec.json.decode(JSONS["certificate body"], type=CertificateBody)
    identity = Identity(bytes.fromhex(WIRE["secrets"]["identity"]))
    verify(identity.public(), b"hushrec enrolment v1", messages.enrolment_bytes(body.plan, body.token), body.proof)
    assert (body.plan, body.identity) == (WIRE["plan_id"], identity.public())
    assert body.token == WIRE["login_token"]["token"]


def test_every_other_example_is_what_the_code_makes() -> None:
    release = releases.Release.decode(JSONS["release"].encode())
    assert release.encode() == JSONS["release"].encode()
    assert fleet_file.FleetFile.decode(JSONS["fleet-file"].encode()).encode() == JSONS["fleet-file"].encode()
    told = messages.problem_of(refusal(Reason.NOT_NOW, 840))
    assert msgspec.json.encode(told) == JSONS["problem"].encode()
    assert isinstance(messages.error_of(told), FleetError)


def test_the_session_is_read_as_the_page_says() -> None:
    session = Session.decode(SESSION)
    assert (session.round_number, session.coordinates, session.ring_bits) == (7, 9, 13)
    assert (session.min_devices, session.setting) == (6, "active")
    assert (ROUND["survivors"], len(ROUND["sum"])) == ([0, 2, 3, 4, 5, 6], 9)


def test_every_address_is_in_the_table_with_its_size() -> None:
    table = PAGE.split("## Addresses\n")[1].split("\n## ")[0]
    for name, route in ROUTES.items():
        assert f"`{route.method} {route.path}`" in table, name
        if route.payload_bytes:
            sealed = route.payload_bytes + envelope.OVERHEAD_BYTES
            assert f"sealed, {sealed:,} bytes: {route.payload_bytes:,} padded" in table
        if route.body_bytes:
            assert f"at most {route.body_bytes:,} bytes" in table
    assert all(f"`{phase}`" in table for phase in messages.PHASES)
    assert path_of("upload", plan="p", round=1, phase="mask") == "/v1/plans/p/rounds/1/mask"


def test_the_table_of_sizes_is_the_code_s() -> None:
    session = Session("ab" * 32, 1, bytes(16), bytes(32), 524_288, 16, 100, "active")
    sizes = {phase: message_size(session, phase) for phase in Phase}
    told = [[phase.name, f"{size:,}", f"{size + 4 + envelope.OVERHEAD_BYTES:,}"] for phase, size in sizes.items()]
    assert rows_after("Sizes")[1:] == told
    adapter = Session("ab" * 32, 1, bytes(16), bytes(32), 2048, 14, 100, "active")
    body = messages.padded_bytes(message_size(adapter, Phase.MASK)) + envelope.OVERHEAD_BYTES
    assert f"at 14 bits the MASK body is {body:,} bytes" in PAGE


def test_every_refusal_is_in_the_table_with_its_status() -> None:
    told = {row[0].strip("`"): row[1] for row in rows_after("Refusals") if row[1].isdigit()}
    sources = [*(ROOT / "server").rglob("*.py"), ROOT / "sdk/hushrec/messages.py"]
    used = {
        reason for path in sources for reason in re.findall(r'reason="([a-z-]+)"', path.read_text(encoding="utf-8"))
    }
    reasons = used | {reason.value for reason in Reason} | {"wrong-method"}
    assert {reason: str(status_of(FleetError("", reason=reason))) for reason in reasons}.items() <= told.items()
    kinds = {"envelope", "enrolment", "plan", "budget", "storage", "ledger", "noise-state", "release", "error"}
    assert set(told) == reasons | kinds
    for code in kinds:
        (kind,) = (kind for name in errors.__all__ if (kind := getattr(errors, name)).code == code)
        assert told[code] == str(status_of(kind("")))


def test_every_domain_of_signatures_is_in_the_table_and_in_the_code() -> None:
    told = {row[0].strip("`") for row in rows_after("Conventions")[1:]}
    sources = [path for folder in ("privacy", "sdk") for path in (ROOT / folder).rglob("*.py")]
    used = {
        found
        for path in sources
        for line in path.read_text(encoding="utf-8").splitlines()
        if "DOMAIN" in line
        for found in re.findall(r'b"(hushrec [a-z ]+ v1)"', line)
    }
    assert told == used


@pytest.mark.parametrize(
    ("what", "version"),
    [
        ("paths and bodies (`wire`, `/v1/`)", messages.WIRE_VERSION),
        ("envelope, and context", envelope.context.WIRE_VERSION),
        ("request signature", BYTES["request"][0]),
        ("certificate", CERTIFICATE[0]),
        ("login token", BYTES["login-token"][0]),
        ("key set", BYTES["key-set"][0]),
        ("secure aggregation", secagg.PROTOCOL_VERSION),
        ("mask function", masks.MASK_FUNCTION),
        ("plan format", plan.FORMAT),
        ("release format", releases.FORMAT),
        ("fleet file", fleet_file.FORMAT),
    ],
)
def test_the_versions_are_those_of_the_code(what: str, version: int) -> None:
    assert f"| {what} | {version} | " in PAGE


def test_a_changed_byte_of_an_example_is_noticed() -> None:
    with pytest.raises(errors.EnvelopeError):
        check_signature(
            Identity(bytes.fromhex(WIRE["secrets"]["plan"])).public(),
            b"hushrec key set v1",
            BYTES["key-set"][:-1] + b"\0",
            bytes.fromhex(WIRE["key_set"]["signature"]),
            refusal=errors.EnvelopeError("not signed"),
        )
