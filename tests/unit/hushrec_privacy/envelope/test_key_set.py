"""Key sets: signed by the shop, never older than what was seen, and rotated with an overlap."""

import dataclasses
from pathlib import Path

import pytest
from hushrec_privacy.envelope import (
    Context,
    EnvelopeKey,
    KeySet,
    ServerKey,
    keys_in_force,
    open_sealed,
    rotated,
    seal,
    verified_key_set,
)
from hushrec_privacy.errors import ConfigError, EnvelopeError
from hushrec_privacy.plans.signing import PlanKey

PLAN_KEY = PlanKey(bytes(range(32)))
KEYS = [EnvelopeKey(bytes([n] * 32)) for n in range(3)]
BEGIN, DAY = 1_700_000_000, 86_400
SET = KeySet(5, "shop", (ServerKey(KEYS[0].public(), BEGIN, BEGIN + 7 * DAY),))
DATA, SIGNATURE = SET.encode(), PLAN_KEY.sign_key_set(SET)


def _verified(data: bytes = DATA, signature: bytes = SIGNATURE, **other: object) -> KeySet:
    settings: dict[str, object] = {"server": "shop", "least_serial": 5, "at_s": BEGIN} | other
    return verified_key_set(data, signature, PLAN_KEY.public(), **settings)  # type: ignore[arg-type]


def test_a_signed_set_is_read_back_and_gives_the_key_in_force() -> None:
    assert _verified() == SET == KeySet.decode(DATA)
    assert _verified(least_serial=1).newest(BEGIN) == KEYS[0].public()
    assert len(DATA) == 1 + 8 + 2 + 4 + 1 + 16 + 1_216


@pytest.mark.parametrize("least", [6, 7, 2**62])
def test_a_set_older_than_one_that_was_seen_is_refused(least: int) -> None:
    with pytest.raises(EnvelopeError, match="older than those seen before"):
        _verified(least_serial=least)


def test_keys_of_another_server_are_refused() -> None:
    with pytest.raises(EnvelopeError, match="another server, 'shop' and not 'shop2'"):
        _verified(server="shop2")


@pytest.mark.parametrize("at_s", [0, BEGIN - 1, BEGIN + 7 * DAY, BEGIN + 70 * DAY])
def test_a_set_without_a_key_in_force_is_refused(at_s: int) -> None:
    with pytest.raises(EnvelopeError, match="in force"):
        _verified(at_s=at_s)


def test_a_set_that_another_key_signed_is_refused() -> None:
    with pytest.raises(EnvelopeError, match="not signed by the shop"):
        _verified(signature=PlanKey(bytes(32)).sign_key_set(SET))


def test_a_signature_over_the_bare_bytes_or_under_a_plan_s_domain_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    for signed in (DATA, b"hushrec plan v1\0" + DATA):
        with pytest.raises(EnvelopeError, match="not signed by the shop"):
            _verified(signature=key.sign(signed))


def test_changed_cut_and_extended_bytes_are_refused() -> None:
    for at in [*range(40), len(DATA) // 2, len(DATA) - 1]:
        changed = bytearray(DATA)
        changed[at] ^= 1
        for bad in (bytes(changed), DATA[:at]):
            with pytest.raises(EnvelopeError, match="not signed by the shop"):
                _verified(bad)
    with pytest.raises(EnvelopeError):
        _verified(DATA + b"\0")
    for bad in (SIGNATURE[:-1], b"", SIGNATURE + b"\0"):
        with pytest.raises(EnvelopeError, match="not signed by the shop"):
            _verified(signature=bad)


@pytest.mark.parametrize("cut", [0, 1, 8, 9, 10, 11, 14, 15, 16, 31, len(DATA) - 1])
def test_no_truncation_is_read_even_without_a_signature(cut: int) -> None:
    with pytest.raises(EnvelopeError, match="no keys of a server"):
        KeySet.decode(DATA[:cut])


@pytest.mark.parametrize(
    "data",
    [
        b"\2" + DATA[1:],
        DATA + b"\0",
        DATA[:1] + bytes(8) + DATA[9:],
        DATA[:9] + b"\0\0\1" + DATA[16:],
        DATA[:11] + b"\xff\xff\xff\xff" + DATA[15:],
        DATA[:15] + b"\0",
        DATA[:15] + b"\2" + DATA[16:] * 2,
        DATA[:16] + DATA[24:32] + DATA[16:24] + DATA[32:],
    ],
    ids=["version", "longer", "serial 0", "no name", "no UTF-8", "no keys", "one key twice", "ends before it begins"],
)
def test_what_is_no_key_set_is_not_read(data: bytes) -> None:
    with pytest.raises(EnvelopeError, match="no keys of a server"):
        KeySet.decode(data)


def _key(**other: object) -> ServerKey:
    return dataclasses.replace(SET.keys[0], **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"serial": 0},
        {"serial": 2**63},
        {"server": ""},
        {"server": "a" * 257},
        {"server": None},
        {"keys": ()},
        {"keys": (_key(), _key())},
        {"keys": (_key(), _key(public=KEYS[1].public()))},
        {"keys": (_key(), _key(public=KEYS[1].public(), not_before=BEGIN - 1))},
        {"keys": (_key(not_after=BEGIN),)},
        {"keys": (_key(not_before=-1),)},
        {"keys": (_key(public=bytes(1_215)),)},
        {"keys": tuple(_key(public=bytes([n]) * 1_216, not_before=n) for n in range(9))},
    ],
)
def test_a_set_that_makes_no_sense_is_not_made(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(SET, **change)  # type: ignore[arg-type]


def test_a_rotation_overlaps_and_the_old_key_then_opens_nothing() -> None:
    at = BEGIN + 5 * DAY
    new = rotated(SET, KEYS[1].public(), at_s=at, lifetime_s=7 * DAY, overlap_s=DAY)
    assert new.serial == 6
    assert [(key.not_before, key.not_after) for key in new.keys] == [(BEGIN, at + DAY), (at, at + 7 * DAY)]
    assert SET.newest(at) == KEYS[0].public()
    assert new.newest(at) == KEYS[1].public()
    context = Context("shop", "mask")
    late = seal(SET.newest(at), context, b"sealed to the old key", 64)
    assert open_sealed(keys_in_force(new, KEYS, at_s=at + DAY - 1), context, late, 64) == b"sealed to the old key"
    with pytest.raises(EnvelopeError, match="cannot be opened"):
        open_sealed(keys_in_force(new, KEYS, at_s=at + DAY), context, late, 64)
    assert keys_in_force(new, KEYS, at_s=at + 7 * DAY) == []


def test_a_key_is_never_prolonged_and_ends_at_once_without_an_overlap() -> None:
    at = BEGIN + 5 * DAY
    long = rotated(SET, KEYS[1].public(), at_s=at, lifetime_s=DAY, overlap_s=10 * DAY)
    assert long.keys[0].not_after == BEGIN + 7 * DAY
    lost = rotated(SET, KEYS[1].public(), at_s=at, lifetime_s=DAY, overlap_s=0)
    assert [key.public for key in lost.keys] == [KEYS[1].public()]
    third = rotated(long, KEYS[2].public(), at_s=at + 8 * DAY, lifetime_s=DAY, overlap_s=DAY)
    assert [key.public for key in third.keys] == [KEYS[2].public()], "those that are over are left out"


@pytest.mark.parametrize(
    ("public", "numbers"),
    [
        (KEYS[0].public(), {"at_s": BEGIN + DAY, "lifetime_s": DAY, "overlap_s": DAY}),
        (KEYS[1].public(), {"at_s": BEGIN, "lifetime_s": DAY, "overlap_s": DAY}),
        (KEYS[1].public(), {"at_s": BEGIN - 1, "lifetime_s": DAY, "overlap_s": DAY}),
        (KEYS[1].public(), {"at_s": BEGIN + DAY, "lifetime_s": 0, "overlap_s": DAY}),
        (KEYS[1].public(), {"at_s": BEGIN + DAY, "lifetime_s": DAY, "overlap_s": -1}),
        (KEYS[1].public()[:-1], {"at_s": BEGIN + DAY, "lifetime_s": DAY, "overlap_s": DAY}),
    ],
    ids=["in the set", "begins as the last", "before the last begins", "no lifetime", "overlap", "no key"],
)
def test_a_rotation_that_makes_no_sense_is_refused(public: bytes, numbers: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        rotated(SET, public, **numbers)


def test_the_plan_key_of_a_file_signs_key_sets(tmp_path: Path) -> None:
    key = PlanKey.create(tmp_path / "plan.key")
    found = verified_key_set(DATA, key.sign_key_set(SET), key.public(), server="shop", least_serial=1, at_s=BEGIN)
    assert found == SET
