"""An envelope opens with its key, in its place, at its size; nothing else opens, and no refusal says why."""

import dataclasses

import pytest
from hushrec_privacy.envelope import LENGTH_BYTES, OVERHEAD_BYTES, Context, EnvelopeKey, open_sealed, seal
from hushrec_privacy.errors import ConfigError, EnvelopeError, HushrecError

from tests import envelope_reference as slow

KEY, OTHER = EnvelopeKey(bytes(range(32))), EnvelopeKey(bytes(32))
CONTEXT = Context("shop", "mask", "ab" * 32, 7, "cd" * 16)
SIZE = 100
SEALED = seal(KEY.public(), CONTEXT, b"payload", SIZE)


def _refusal(keys: list[EnvelopeKey], context: Context, sealed: bytes, size: int = SIZE) -> str:
    with pytest.raises(EnvelopeError) as refused:
        open_sealed(keys, context, sealed, size)
    return f"{type(refused.value).__name__}: {refused.value} {refused.value.__cause__} {refused.value.__context__}"


REFUSAL = _refusal([KEY], CONTEXT, b"")


@pytest.mark.parametrize(
    "payload", [b"", b"\0", b"payload", bytes(SIZE - LENGTH_BYTES), b"\xff" * (SIZE - LENGTH_BYTES)]
)
def test_a_payload_comes_back_and_all_envelopes_of_a_size_are_as_long(payload: bytes) -> None:
    sealed = seal(KEY.public(), CONTEXT, payload, SIZE)
    assert len(sealed) == SIZE + OVERHEAD_BYTES == SIZE + 1_145
    assert open_sealed([KEY], CONTEXT, sealed, SIZE) == payload


def test_two_envelopes_of_one_payload_share_nothing_but_version_and_key_id() -> None:
    other = seal(KEY.public(), CONTEXT, b"payload", SIZE)
    assert other[:9] == SEALED[:9] == b"\1" + KEY.key_id
    assert sum(a == b for a, b in zip(other[9:], SEALED[9:], strict=True)) < 40  # of 1,236; 5 by chance


def test_the_key_that_an_envelope_names_is_found_among_others() -> None:
    assert open_sealed([OTHER, KEY], CONTEXT, SEALED, SIZE) == b"payload"
    assert open_sealed(iter([KEY, OTHER]), CONTEXT, SEALED, SIZE) == b"payload"


@pytest.mark.parametrize(
    "change",
    [{"server": "shoq"}, {"route": "masks"}, {"plan_id": "ac" * 32}, {"round_number": 8}, {"device": "cc" * 16}],
    ids=lambda c: next(iter(c)),
)
def test_an_envelope_opens_in_no_other_place(change: dict[str, object]) -> None:
    assert _refusal([KEY], dataclasses.replace(CONTEXT, **change), SEALED) == REFUSAL  # type: ignore[arg-type]


def test_no_text_of_a_context_runs_into_the_next() -> None:
    sealed = seal(KEY.public(), Context("shop", "mask"), b"payload", SIZE)
    assert _refusal([KEY], Context("shopm", "ask"), sealed) == REFUSAL


def test_an_envelope_opens_with_no_other_key_and_with_none() -> None:
    assert _refusal([OTHER], CONTEXT, SEALED) == REFUSAL
    assert _refusal([], CONTEXT, SEALED) == REFUSAL
    renamed = SEALED[:1] + OTHER.key_id + SEALED[9:]
    assert _refusal([OTHER, KEY], CONTEXT, renamed) == REFUSAL


def test_every_changed_byte_is_refused_with_the_same_words() -> None:
    for at in range(len(SEALED)):
        changed = bytearray(SEALED)
        changed[at] ^= 1
        assert _refusal([KEY], CONTEXT, bytes(changed)) == REFUSAL


def test_every_truncation_and_every_extension_is_refused_with_the_same_words() -> None:
    for at in range(len(SEALED)):
        assert _refusal([KEY], CONTEXT, SEALED[:at]) == REFUSAL
    for more in (b"\0", SEALED[-1:], bytes(100), SEALED):
        assert _refusal([KEY], CONTEXT, SEALED + more) == REFUSAL


def test_an_envelope_of_another_size_is_refused() -> None:
    assert _refusal([KEY], CONTEXT, SEALED, SIZE - 1) == REFUSAL
    assert _refusal([KEY], CONTEXT, SEALED, SIZE + 1) == REFUSAL


@pytest.mark.parametrize(
    "padded",
    [
        (SIZE - 3).to_bytes(4, "big") + bytes(SIZE - 4),
        b"\xff\xff\xff\xff" + bytes(SIZE - 4),
        (1).to_bytes(4, "big") + b"a" + bytes(SIZE - 6) + b"\1",
        (1).to_bytes(4, "big") + b"ab" + bytes(SIZE - 6),
    ],
    ids=["one too long", "far too long", "last byte", "first byte"],
)
def test_wrong_padding_that_is_sealed_well_is_refused_with_the_same_words(padded: bytes) -> None:
    assert len(padded) == SIZE
    sealed = b"\1" + KEY.key_id + slow.seal(KEY.public(), CONTEXT.encode() + KEY.key_id, padded)
    assert _refusal([KEY], CONTEXT, sealed) == REFUSAL


def test_a_newer_version_is_refused_with_the_same_words() -> None:
    assert _refusal([KEY], CONTEXT, b"\2" + SEALED[1:]) == REFUSAL


def test_an_x25519_point_of_small_order_is_refused_with_the_same_words() -> None:
    for point in (bytes(32), b"\1" + bytes(31)):
        changed = SEALED[: 9 + 1_088] + point + SEALED[9 + 1_120 :]
        assert _refusal([KEY], CONTEXT, changed) == REFUSAL


@pytest.mark.parametrize("length", [SIZE - LENGTH_BYTES + 1, SIZE, 10 * SIZE])
def test_a_payload_that_does_not_fit_is_not_sealed(length: int) -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        seal(KEY.public(), CONTEXT, bytes(length), SIZE)


@pytest.mark.parametrize("size", [0, 3, -1, 2**31 + 1, True, 4.0, None])
def test_a_size_out_of_range_is_a_mistake_of_the_caller(size: int) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        seal(KEY.public(), CONTEXT, b"", size)
    with pytest.raises(ConfigError, match="whole number"):
        open_sealed([KEY], CONTEXT, SEALED, size)


@pytest.mark.parametrize(
    "public",
    [b"", KEY.public()[:-1], KEY.public() + b"\0", b"\xff" * 1_216, KEY.public()[:1_184] + bytes(32)],
    ids=["none", "short", "long", "no lattice point", "small order"],
)
def test_nothing_is_sealed_to_what_is_no_key(public: bytes) -> None:
    with pytest.raises(EnvelopeError, match="no envelope key"):
        seal(public, CONTEXT, b"", SIZE)


@pytest.mark.parametrize(
    "fields",
    [
        {"server": ""},
        {"route": ""},
        {"server": "a" * 257},
        {"route": "ä" * 129},
        {"plan_id": "\ud800"},
        {"device": None},
        {"server": 5},
        {"round_number": -1},
        {"round_number": 2**63},
        {"round_number": True},
        {"round_number": "7"},
    ],
    ids=repr,
)
def test_what_names_no_place_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(HushrecError, match="do not name a place"):
        dataclasses.replace(CONTEXT, **fields)  # type: ignore[arg-type]
