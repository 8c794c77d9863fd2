"""What a device sends is sealed and signed for one place, passes the gate first, and refusals come back as errors."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from hushrec import messages
from hushrec.fleet.conditions import Conditions, Require
from hushrec.fleet.fleet_file import FleetFile
from hushrec.fleet.gate import Gate
from hushrec.fleet.http import Reply
from hushrec.fleet.round_run import NotYet
from hushrec.fleet.server import Authority, FleetServer, Member, RoundLink
from hushrec_privacy.enrolment import Identity, verify
from hushrec_privacy.envelope import Context, EnvelopeKey, KeySet, ServerKey, open_sealed, verify_request
from hushrec_privacy.errors import ConfigError, EnrolmentError, FleetError
from hushrec_privacy.plans.signing import PlanKey

NOW = 1_700_000_000
PLAN, PSEUDONYM = "ab" * 32, "cd" * 16
PLAN_KEY = PlanKey(bytes(range(32)))
ENVELOPE_KEY = EnvelopeKey(bytes(range(1, 33)))
TRUST = FleetFile("shop-1", PLAN_KEY.public().hex(), "https://login.shop.example", '{"signed":{}}')
IDENTITY = Identity(bytes(range(2, 34)))
MEMBER = Member(PLAN, IDENTITY, PSEUDONYM, b"certificate")
GOOD = Conditions(idle=True, charging=True, unmetered=True)
OTHER = PlanKey(bytes(32))


class FakeConnection:
    """Keeps what was sent, and answers what it is told."""

    def __init__(self, *answers: Reply | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.largest: list[int] = []

    def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, largest: int) -> Reply:
        self.sent.append((method, path, body, dict(headers)))
        self.largest.append(largest)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing to close."""


def a_key_set(serial: int = 3, server: str = "shop-1", until: int = NOW + 1_000) -> KeySet:
    return KeySet(serial, server, (ServerKey(ENVELOPE_KEY.public(), NOW - 1_000, until),))


def fleet_answer(key_set: KeySet | None = None, key: PlanKey = PLAN_KEY, **changed: Any) -> Reply:
    kept = key_set or a_key_set()
    fields = {
        "wire": 1,
        "server": "shop-1",
        "plans": (),
        "keys": messages.SignedDocument(kept.encode(), key.sign_key_set(kept)),
        "authorities": (),
        "release": 4,
        "now": NOW + 50,
        **changed,
    }
    return Reply(200, msgspec.json.encode(messages.FleetAnswer(**fields)), None)


def a_server(
    *answers: Reply | Exception, consent: bool = True, ready: bool = True
) -> tuple[FleetServer, FakeConnection]:
    connection = FakeConnection(*([fleet_answer()] if ready else []), *answers)
    server = FleetServer(
        connection, TRUST, Gate(lambda: GOOD, Require(), consent=consent), lambda: float(NOW), lambda: 7.0
    )
    if ready:
        server.info(least_serial=1)
        connection.sent.clear()
        connection.largest.clear()
    return server, connection


def opened(sent: tuple[str, str, bytes, dict[str, str]], route: str, size: int, round_number: int = 0) -> bytes:
    """What a server finds in a request: refuses whatever is not signed and sealed for exactly this place."""
    _, _, body, headers = sent
    context = Context("shop-1", route, PLAN, round_number, PSEUDONYM)
    assert headers[messages.DEVICE_HEADER] == PSEUDONYM
    verify_request(IDENTITY.public(), context, body, headers[messages.SIGNATURE_HEADER], at_s=NOW + 50, window_s=0)
    return open_sealed([ENVELOPE_KEY], context, body, size)


def test_a_check_in_is_sealed_and_signed_and_brings_the_certificate() -> None:
    answer = messages.CheckInAnswer(7, 2, b"session", "ef" * 32, NOW + 60)
    server, connection = a_server(Reply(200, messages.packed(answer), None))
    assert server.check_in(MEMBER) == answer
    (sent,) = connection.sent
    assert sent[:2] == ("POST", f"/v1/plans/{PLAN}/check-in")
    body = opened(sent, "check-in", messages.ROUTES["check-in"].payload_bytes)
    assert messages.read_packed(body, messages.CheckInBody).certificate == b"certificate"
    assert b"certificate" not in sent[2]


@pytest.mark.parametrize("phase", range(1, 7))
def test_a_message_of_a_round_is_padded_to_its_phase_and_bound_to_it(phase: int) -> None:
    server, connection = a_server(Reply(204, b"", None), Reply(200, b"reply", None))
    link = RoundLink(server, MEMBER, 9, sizes={n: 100 * n for n in range(1, 7)}, largest_reply=77)
    link.upload(phase, b"message")
    assert link.reply(phase) == b"reply"
    name = messages.PHASES[phase - 1]
    sent, asked = connection.sent
    assert sent[:2] == ("POST", f"/v1/plans/{PLAN}/rounds/9/{name}")
    assert opened(sent, f"upload/{name}", 100 * phase, 9) == b"message"
    assert asked[:3] == ("GET", f"/v1/plans/{PLAN}/rounds/9/{name}", b"")
    context = Context("shop-1", f"reply/{name}", PLAN, 9, PSEUDONYM)
    verify_request(IDENTITY.public(), context, b"", asked[3][messages.SIGNATURE_HEADER], at_s=NOW + 50, window_s=0)
    assert connection.largest[1] == 77


def test_the_same_message_is_never_the_same_bytes() -> None:
    server, connection = a_server(*[Reply(204, b"", None)] * 2)
    for _ in range(2):
        server.upload(MEMBER, 9, 1, b"message", size=64)
    assert connection.sent[0][2] != connection.sent[1][2]
    assert len(connection.sent[0][2]) == len(connection.sent[1][2])
    assert connection.sent[0][3] != connection.sent[1][3]


def test_a_phase_that_is_open_is_not_a_reply() -> None:
    server, _ = a_server(Reply(202, b"", 2.0))
    assert server.reply(MEMBER, 9, 1, largest=10) == NotYet(2.0)


def test_a_feature_is_sealed_with_its_certificate() -> None:
    server, connection = a_server(Reply(204, b"", None))
    server.send_feature(MEMBER, "user-vector", bytes(8))
    (sent,) = connection.sent
    assert sent[:2] == ("POST", f"/v1/plans/{PLAN}/features/user-vector")
    body = opened(sent, "feature/user-vector", messages.ROUTES["feature"].payload_bytes)
    assert messages.read_packed(body, messages.FeatureBody) == messages.FeatureBody(b"certificate", bytes(8))


@pytest.mark.parametrize(
    "key_set_answer",
    [
        fleet_answer(key=OTHER),
        fleet_answer(a_key_set(server="shop-2")),
        fleet_answer(a_key_set(serial=2)),
        fleet_answer(a_key_set(until=NOW)),
        fleet_answer(keys=messages.SignedDocument(b"", b"")),
    ],
    ids=["another key", "another server", "older", "over", "none"],
)
def test_keys_that_are_not_the_shop_s_own_now_are_refused_and_nothing_is_sealed_to_them(key_set_answer: Reply) -> None:
    server, connection = a_server(key_set_answer, ready=False)
    with pytest.raises(FleetError) as refused:
        server.info(least_serial=3)
    assert refused.value.reason == "keys"
    connection.sent.clear()
    with pytest.raises(FleetError) as refused:
        server.check_in(MEMBER)
    assert refused.value.reason == "keys"
    assert not connection.sent


@pytest.mark.parametrize("answer", [fleet_answer(wire=2), Reply(200, b'{"wire":2,"all":"else"}', None)])
def test_a_server_of_another_version_is_told_apart_from_a_broken_one_and_gets_nothing(answer: Reply) -> None:
    server, connection = a_server(answer)
    with pytest.raises(FleetError, match="update the app") as refused:
        server.info(least_serial=3)
    assert refused.value.reason == "wire"
    connection.sent.clear()
    with pytest.raises(FleetError):
        server.check_in(MEMBER)
    assert not connection.sent


def test_good_keys_are_dropped_when_worse_ones_are_shown_later() -> None:
    server, connection = a_server(fleet_answer(key=OTHER))
    with pytest.raises(FleetError):
        server.info(least_serial=3)
    connection.sent.clear()
    with pytest.raises(FleetError, match="keys"):
        server.upload(MEMBER, 1, 1, b"", size=10)
    assert not connection.sent


def test_the_serial_of_the_keys_is_given_back_to_be_kept() -> None:
    server, _ = a_server(fleet_answer(a_key_set(serial=8)), ready=False)
    answer, serial = server.info(least_serial=3)
    assert (answer.release, serial) == (4, 8)


@pytest.mark.parametrize(
    "call",
    [
        lambda server: server.info(least_serial=1),
        lambda server: server.check_in(MEMBER),
        lambda server: server.send_feature(MEMBER, "x", b""),
        lambda server: server.upload(MEMBER, 1, 1, b"", size=10),
        lambda server: server.reply(MEMBER, 1, 1, largest=1),
    ],
)
def test_without_consent_no_request_is_made(call: Any) -> None:
    connection = FakeConnection(fleet_answer())
    gate = Gate(lambda: GOOD, Require(), consent=True)
    server = FleetServer(connection, TRUST, gate, lambda: float(NOW), lambda: 7.0)
    server.info(least_serial=1)
    gate.consent = False
    connection.sent.clear()
    with pytest.raises(FleetError) as refused:
        call(server)
    assert refused.value.reason == "no-consent"
    assert not connection.sent


@pytest.mark.parametrize("phase", range(1, 7))
def test_on_a_network_that_costs_only_what_comes_after_the_masked_vector_is_sent(phase: int) -> None:
    connection = FakeConnection(fleet_answer(), Reply(204, b"", None), Reply(200, b"", None))
    now = [GOOD]
    server = FleetServer(
        connection, TRUST, Gate(lambda: now[0], Require(), consent=True), lambda: float(NOW), lambda: 7.0
    )
    server.info(least_serial=1)
    now[0] = Conditions(idle=True, charging=True, unmetered=False)
    for call, free in (
        (lambda: server.upload(MEMBER, 1, phase, b"", size=10), phase > 4),
        (lambda: server.reply(MEMBER, 1, phase, largest=1), phase >= 4),
    ):
        before = len(connection.sent)
        if free:
            call()
        else:
            with pytest.raises(FleetError) as refused:
                call()
            assert refused.value.reason == "conditions"
        assert len(connection.sent) - before == free


@pytest.mark.parametrize(
    ("reply", "reason", "after"),
    [
        (
            Reply(429, b'{"type":"fleet","title":"t","status":429,"reason":"not-now","retry_after_s":40}', 3.0),
            "not-now",
            40,
        ),
        (
            Reply(409, b'{"type":"fleet","title":"t","status":409,"reason":"round-aborted"}', None),
            "round-aborted",
            None,
        ),
        (Reply(403, b'{"type":"envelope","title":"t","status":403}', None), "envelope", None),
        (Reply(503, b"<html>", 9.0), "http-503", 9),
        (Reply(502, b"", None), "http-502", 0),
        (Reply(404, b"[]", None), "http-404", None),
        (Reply(400, b'{"type":"fleet","title":"","status":400,"reason":"a\\u001b[2Jb"}', None), "refused", None),
        (Reply(400, b'{"type":"fleet","title":"","status":400,"reason":"' + b"a" * 41 + b'"}', None), "refused", None),
        (Reply(429, b'{"type":"fleet","title":"t","status":429,"retry_after_s":-1}', None), "refused", 0),
        (Reply(429, b'{"type":"fleet","title":"t","status":429,"retry_after_s":1e300}', None), "refused", 0),
        (Reply(400, b"[" * 8_000, None), "http-400", None),
        (Reply(502, b'{"type":"fleet","title":"f\xfcr","status":502}', None), "http-502", 0),
        (Reply(100, b"", None), "http-100", None),
    ],
)
def test_refusals_come_back_as_errors_with_a_plain_reason_and_a_time(
    reply: Reply, reason: str, after: float | None
) -> None:
    server, _ = a_server(reply)
    with pytest.raises(FleetError) as refused:
        server.check_in(MEMBER)
    assert (refused.value.reason, refused.value.retry_after_s) == (reason, after)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x80", b"\x81\xa5round\x01", msgspec.msgpack.encode([1, 2])])
def test_a_good_status_with_other_contents_is_a_bad_answer(body: bytes) -> None:
    server, _ = a_server(Reply(200, body, None))
    with pytest.raises(FleetError) as refused:
        server.check_in(MEMBER)
    assert refused.value.reason == "bad-answer"


def test_a_message_that_is_longer_than_its_phase_allows_is_a_mistake_here() -> None:
    server, connection = a_server()
    with pytest.raises(ConfigError):
        server.upload(MEMBER, 1, 1, bytes(7), size=10)
    assert not connection.sent


def enrolled(reply: Reply, *, consent: bool = True) -> tuple[Callable[[], bytes], FakeConnection]:
    connection = FakeConnection(reply)
    authority = Authority(connection, Gate(lambda: GOOD, Require(), consent=consent))
    return (lambda: authority.certify(PLAN, IDENTITY, "token")), connection


def test_a_certificate_is_asked_for_with_a_proof_that_its_identity_is_here() -> None:
    answer = messages.CertificateAnswer(b"signed certificate")
    ask, connection = enrolled(Reply(200, msgspec.json.encode(answer), None))
    assert ask() == b"signed certificate"
    ((method, path, data, _),) = connection.sent
    assert (method, path) == ("POST", "/v1/certificates")
    body = messages.read_json(data, messages.CertificateBody)
    assert (body.plan, body.token, body.identity) == (PLAN, "token", IDENTITY.public())
    verify(body.identity, messages.ENROLMENT_DOMAIN, messages.enrolment_bytes(PLAN, "token"), body.proof)


def test_an_authority_that_gives_none_is_an_enrolment_error_and_one_that_is_away_is_come_back_to() -> None:
    refusal = Reply(403, b'{"type":"enrolment","title":"t","status":403,"detail":"log in again"}', None)
    with pytest.raises(EnrolmentError, match="log in again"):
        enrolled(refusal)[0]()
    with pytest.raises(FleetError) as refused:
        enrolled(Reply(503, b"", None))[0]()
    assert refused.value.retry_after_s == 0


def test_without_consent_no_certificate_is_asked_for() -> None:
    ask, connection = enrolled(Reply(200, b"", None), consent=False)
    with pytest.raises(FleetError):
        ask()
    assert not connection.sent
