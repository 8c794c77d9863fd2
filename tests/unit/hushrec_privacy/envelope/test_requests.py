"""A signed request holds for one device, one place, one body, near one time, and once."""

import base64
import dataclasses
import itertools
import random

import pytest
from hushrec_privacy.enrolment import Identity
from hushrec_privacy.envelope import (
    WINDOW_S,
    Context,
    RequestId,
    sign_request,
    verify_request,
)
from hushrec_privacy.errors import ConfigError, EnvelopeError

IDENTITY, OTHER = Identity(bytes(range(32))), Identity(bytes(32))
CONTEXT = Context("shop", "mask", "ab" * 32, 7, "cd" * 16)
NOW = 1_700_000_000
BODY = b"sealed"
HEADER = sign_request(IDENTITY, CONTEXT, BODY, at_s=NOW)


def _verify(header: str = HEADER, body: bytes = BODY, *, at_s: int = NOW, context: Context = CONTEXT) -> RequestId:
    return verify_request(IDENTITY.public(), context, body, header, at_s=at_s)


@pytest.mark.parametrize("off", [0, 1, -1, WINDOW_S, -WINDOW_S])
def test_a_request_is_accepted_near_its_time(off: int) -> None:
    assert _verify(at_s=NOW + off).at_s == NOW


@pytest.mark.parametrize("off", [WINDOW_S + 1, -WINDOW_S - 1, 10**9, -NOW])
def test_a_request_is_refused_far_from_its_time_and_says_so_only_to_its_device(off: int) -> None:
    with pytest.raises(EnvelopeError, match="more than 300 s from the server's time"):
        _verify(at_s=NOW + off)
    with pytest.raises(EnvelopeError, match="not signed by this device"):
        _verify(body=b"other", at_s=NOW + off)


def test_two_requests_for_the_same_are_told_apart() -> None:
    assert _verify().nonce != _verify(sign_request(IDENTITY, CONTEXT, BODY, at_s=NOW)).nonce


def test_a_request_without_a_body_is_signed_as_well() -> None:
    header = sign_request(IDENTITY, CONTEXT, b"", at_s=NOW)
    assert _verify(header, b"").at_s == NOW
    with pytest.raises(EnvelopeError):
        _verify(header, b"\0")


@pytest.mark.parametrize(
    "change",
    [{"server": "shoq"}, {"route": "masks"}, {"plan_id": "ac" * 32}, {"round_number": 8}, {"device": "cc" * 16}],
    ids=lambda c: next(iter(c)),
)
def test_a_request_holds_in_no_other_place(change: dict[str, object]) -> None:
    with pytest.raises(EnvelopeError, match="not signed by this device"):
        _verify(context=dataclasses.replace(CONTEXT, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [b"", b"sealee", b"sealed\0", b"seale"])
def test_a_request_holds_for_no_other_body(body: bytes) -> None:
    with pytest.raises(EnvelopeError, match="not signed by this device"):
        _verify(body=body)


@pytest.mark.parametrize("public", [OTHER.public(), b"", bytes(31), bytes(32)])
def test_a_request_holds_for_no_other_device(public: bytes) -> None:
    with pytest.raises(EnvelopeError, match="not signed by this device"):
        verify_request(public, CONTEXT, BODY, HEADER, at_s=NOW)


def test_a_signature_for_another_purpose_is_refused() -> None:
    raw = base64.urlsafe_b64decode(HEADER + "=")
    signed = IDENTITY.sign(b"hushrec request v2", b"anything")
    with pytest.raises(EnvelopeError, match="not signed by this device"):
        _verify(base64.urlsafe_b64encode(raw[:25] + signed).rstrip(b"=").decode())


def test_every_changed_bit_and_every_other_length_of_a_header_is_refused() -> None:
    raw = base64.urlsafe_b64decode(HEADER + "=")
    for at in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(EnvelopeError, match="not signed by this device"):
            _verify(base64.urlsafe_b64encode(changed).rstrip(b"=").decode())
    for header in [*(HEADER[:at] for at in range(119)), HEADER + "A", HEADER + "=", HEADER + "\n", " " + HEADER[1:]]:
        with pytest.raises(EnvelopeError, match="not signed by this device"):
            _verify(header)


def test_a_header_has_one_spelling() -> None:
    """The last character carries two bits that decode to nothing: a replay must not pass as a new text."""
    others = [HEADER[:-1] + last for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"]
    same = [text for text in others if base64.urlsafe_b64decode(text + "=") == base64.urlsafe_b64decode(HEADER + "=")]
    assert len(same) == 4
    for header in set(same) - {HEADER}:
        with pytest.raises(EnvelopeError, match="not signed by this device"):
            _verify(header)


@pytest.mark.parametrize("header", ["", "ä" * 119, "+" * 119, "A" * 119, None, HEADER.encode(), "A" * 100_000])
def test_what_is_no_header_is_refused(header: str) -> None:
    with pytest.raises(EnvelopeError, match="not signed by this device"):
        _verify(header)


@pytest.mark.parametrize("at_s", [-1, 2**63, 1.5, None])
def test_a_time_out_of_range_is_a_mistake_of_the_caller(at_s: int) -> None:
    with pytest.raises(ConfigError, match="at_s"):
        sign_request(IDENTITY, CONTEXT, BODY, at_s=at_s)


def test_whatever_is_forgotten_at_the_horizon_is_refused_by_its_time_and_nothing_passes_twice() -> None:
    """A server that remembers nonces by the rule, over a day of requests that are each replayed at random moments."""
    draw = random.Random(1)
    arrivals = []
    for at in range(0, 86_400, 600):
        header = sign_request(IDENTITY, CONTEXT, BODY, at_s=NOW + at)
        moments = [
            NOW + at + draw.randint(-400, 400),
            NOW + at,
            *(NOW + at + draw.randint(-900, 900) for _ in range(6)),
        ]
        arrivals += [(moment, header) for moment in moments]
    seen: dict[bytes, int] = {}
    accepted: dict[str, int] = {}
    most = 0
    for moment, header in sorted(arrivals):
        seen = {nonce: at_s for nonce, at_s in seen.items() if at_s >= moment - WINDOW_S}
        try:
            request = _verify(header, at_s=moment)
        except EnvelopeError:
            continue
        if request.nonce not in seen:
            accepted[header] = accepted.get(header, 0) + 1
            seen[request.nonce] = request.at_s
        most = max(most, len(seen))
    assert set(accepted.values()) == {1}
    assert len(accepted) == 144
    assert most <= 3, "what is old was forgotten"


def test_the_horizon_and_the_window_meet_exactly() -> None:
    for at_s, off in itertools.product((NOW,), range(-2, 3)):
        moment = at_s + WINDOW_S + off
        remembered = at_s >= moment - WINDOW_S
        assert remembered == (abs(moment - at_s) <= WINDOW_S)
