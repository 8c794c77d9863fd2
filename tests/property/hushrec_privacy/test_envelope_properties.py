"""Whatever is sealed comes back; whatever else arrives is refused by an error of ours, never by a crash."""

import contextlib

import pytest
from hushrec_privacy.enrolment import AuthorityKey, Identity, login_token, verified_certificate, verified_token
from hushrec_privacy.envelope import (
    OVERHEAD_BYTES,
    Context,
    EnvelopeKey,
    KeySet,
    ServerKey,
    open_sealed,
    seal,
    sign_request,
    verify_request,
)
from hushrec_privacy.errors import EnrolmentError, EnvelopeError
from hypothesis import given
from hypothesis import strategies as st

KEY, IDENTITY, AUTHORITY = EnvelopeKey(bytes(32)), Identity(bytes(32)), AuthorityKey(bytes(32))
PLAN = "ab" * 32
NAMES = st.text(st.characters(codec="utf-8"), max_size=20)
CONTEXTS = st.builds(
    Context,
    NAMES.filter(bool),
    NAMES.filter(bool),
    NAMES,
    st.integers(0, 2**63 - 1),
    NAMES,
)


@given(one=CONTEXTS, other=CONTEXTS)
def test_two_contexts_never_have_the_same_bytes(one: Context, other: Context) -> None:
    assert (one.encode() == other.encode()) == (one == other)


@given(context=CONTEXTS, payload=st.binary(max_size=200), spare=st.integers(0, 100))
def test_every_payload_comes_back_from_its_place_alone(context: Context, payload: bytes, spare: int) -> None:
    size = 4 + len(payload) + spare
    sealed = seal(KEY.public(), context, payload, size)
    assert len(sealed) == size + OVERHEAD_BYTES
    assert open_sealed([KEY], context, sealed, size) == payload
    elsewhere = Context(context.server, context.route, context.plan_id, context.round_number ^ 1, context.device)
    with pytest.raises(EnvelopeError):
        open_sealed([KEY], elsewhere, sealed, size)


@given(context=CONTEXTS, body=st.binary(max_size=200), at_s=st.integers(0, 2**63 - 1))
def test_every_request_verifies_in_its_place_alone(context: Context, body: bytes, at_s: int) -> None:
    header = sign_request(IDENTITY, context, body, at_s=at_s)
    assert verify_request(IDENTITY.public(), context, body, header, at_s=at_s).at_s == at_s
    with pytest.raises(EnvelopeError):
        verify_request(IDENTITY.public(), context, body + b"\0", header, at_s=at_s)


@given(data=st.binary(max_size=2 * OVERHEAD_BYTES), header=st.text(max_size=200))
def test_noise_is_refused_everywhere(data: bytes, header: str) -> None:
    with pytest.raises(EnvelopeError):
        open_sealed([KEY], Context("a", "b"), b"\1" + KEY.key_id + data, max(4, len(data) + 9 - OVERHEAD_BYTES))
    with pytest.raises(EnvelopeError):
        verify_request(IDENTITY.public(), Context("a", "b"), data, header, at_s=0)
    with pytest.raises(EnrolmentError):
        verified_certificate(data[:145], AUTHORITY.public(), plan_id=PLAN)
    with pytest.raises(EnrolmentError):
        verified_token(bytes(32), header, plan_id=PLAN, at_s=0)


@given(data=st.binary(max_size=300))
def test_a_key_set_that_is_read_at_all_has_one_byte_string(data: bytes) -> None:
    begun = b"\1" + (7).to_bytes(8, "big") + b"\0\1a\1" + bytes(8) + (9).to_bytes(8, "big")
    for text in (data, begun + data, begun + data + bytes(max(0, 1_216 - len(data)))):
        with contextlib.suppress(EnvelopeError):
            assert KeySet.decode(text).encode() == text


@given(
    serial=st.integers(1, 2**63 - 1),
    server=NAMES.filter(bool),
    begins=st.sets(st.integers(0, 2**40), min_size=1, max_size=8),
)
def test_every_key_set_is_read_back(serial: int, server: str, begins: set[int]) -> None:
    keys = tuple(ServerKey(bytes([n]) * 1_216, begin, begin + 1) for n, begin in enumerate(sorted(begins)))
    made = KeySet(serial, server, keys)
    assert KeySet.decode(made.encode()) == made


@given(account=st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), end=st.integers(1, 2**63 - 1))
def test_every_login_token_gives_its_account_back_until_it_ends(account: str, end: int) -> None:
    token = login_token(bytes(32), account, PLAN, end)
    assert verified_token(bytes(32), token, plan_id=PLAN, at_s=end - 1) == account
    with pytest.raises(EnrolmentError):
        verified_token(bytes(32), token, plan_id=PLAN, at_s=end)
