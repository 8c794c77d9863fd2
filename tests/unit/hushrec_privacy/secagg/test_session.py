"""A session has one byte string, and no field outside its range."""

import dataclasses
import hashlib

import pytest
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg import Session

SESSION = Session("ab" * 32, 258, bytes(range(16)), bytes(range(32)), 524_288, 16, 100, "active")
ENCODED = bytes.fromhex(
    "01"  # version
    + "ab" * 32  # plan
    + "0000000000000102"  # round 258
    + bytes(range(16)).hex()  # attempt
    + bytes(range(32)).hex()  # authority
    + "00080000"  # coordinates
    + "10"  # ring bits
    + "0064"  # fewest devices
    + "01"  # active
)


def test_the_bytes_of_a_session_are_the_documented_ones() -> None:
    assert SESSION.encode() == ENCODED
    assert Session.decode(ENCODED) == SESSION
    assert SESSION.id == hashlib.sha256(ENCODED).digest()


def test_a_curious_server_is_another_session() -> None:
    curious = dataclasses.replace(SESSION, setting="curious")
    assert curious.encode()[-1] == 0
    assert curious.id != SESSION.id
    assert Session.decode(curious.encode()) == curious


@pytest.mark.parametrize("cut", range(len(ENCODED)))
def test_every_truncation_is_refused(cut: int) -> None:
    with pytest.raises(SecAggError, match="no session"):
        Session.decode(ENCODED[:cut])


def test_a_longer_one_is_refused() -> None:
    with pytest.raises(SecAggError, match="no session"):
        Session.decode(ENCODED + b"\0")


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version: int) -> None:
    with pytest.raises(SecAggError, match="another version"):
        Session.decode(bytes([version]) + ENCODED[1:])


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(SecAggError, match="no session"):
        Session.decode(ENCODED[:-1] + b"\2")


@pytest.mark.parametrize(
    "field",
    [
        {"plan_id": "AB" * 32},
        {"plan_id": "ab" * 31},
        {"round_number": 0},
        {"round_number": 2**63},
        {"attempt": bytes(15)},
        {"authority": bytes(33)},
        {"coordinates": 0},
        {"coordinates": 2**24 + 1},
        {"ring_bits": 1},
        {"ring_bits": 33},
        {"min_devices": 1},
        {"min_devices": 10_001},
        {"setting": "trusted"},
    ],
    ids=str,
)
def test_a_field_outside_its_range_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(SecAggError, match="outside its range"):
        dataclasses.replace(SESSION, **field)  # type: ignore[arg-type]
