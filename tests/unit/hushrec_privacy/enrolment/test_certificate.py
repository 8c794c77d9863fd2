"""A certificate holds for one plan, one pseudonym, one identity and one authority."""

import pickle
import stat
from pathlib import Path

import pytest
from hushrec_privacy.enrolment import AuthorityKey, Certificate, Identity, verified_certificate
from hushrec_privacy.enrolment.certificate import CERTIFICATE_BYTES, SIGNED_CERTIFICATE_BYTES
from hushrec_privacy.errors import ConfigError, EnrolmentError

PLAN, PSEUDONYM, IDENTITY = "ab" * 32, "cd" * 16, bytes(range(32))
AUTHORITY = AuthorityKey(bytes(32))
CERTIFICATE = bytes.fromhex(
    "01"  # version
    "abababababababababababababababababababababababababababababababab"  # plan
    "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"  # pseudonym
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"  # identity
)


def test_the_bytes_of_a_certificate_are_the_published_ones() -> None:
    certificate = Certificate(PLAN, PSEUDONYM, IDENTITY)
    assert certificate.encode() == CERTIFICATE
    assert Certificate.decode(CERTIFICATE) == certificate
    assert len(CERTIFICATE) == CERTIFICATE_BYTES


def test_a_signed_certificate_is_the_certificate_and_an_ed25519_signature() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    signed = AUTHORITY.certify(PLAN, PSEUDONYM, IDENTITY)
    signature = Ed25519PrivateKey.from_private_bytes(bytes(32)).sign(b"hushrec certificate v1\0" + CERTIFICATE)
    assert signed == CERTIFICATE + signature
    assert len(signed) == SIGNED_CERTIFICATE_BYTES
    assert verified_certificate(signed, AUTHORITY.public(), plan_id=PLAN) == Certificate(PLAN, PSEUDONYM, IDENTITY)


def test_a_certificate_of_another_authority_is_refused() -> None:
    signed = AuthorityKey(bytes([1] * 32)).certify(PLAN, PSEUDONYM, IDENTITY)
    with pytest.raises(EnrolmentError, match="not of this plan's authority"):
        verified_certificate(signed, AUTHORITY.public(), plan_id=PLAN)


def test_a_certificate_for_another_plan_is_refused() -> None:
    signed = AUTHORITY.certify(PLAN, PSEUDONYM, IDENTITY)
    with pytest.raises(EnrolmentError, match="another plan"):
        verified_certificate(signed, AUTHORITY.public(), plan_id="ac" + PLAN[2:])


def test_every_changed_byte_every_truncation_and_any_extension_is_refused() -> None:
    signed = AUTHORITY.certify(PLAN, PSEUDONYM, IDENTITY)
    for at in range(len(signed)):
        changed = bytearray(signed)
        changed[at] ^= 1
        for bad in (bytes(changed), signed[:at]):
            with pytest.raises(EnrolmentError):
                verified_certificate(bad, AUTHORITY.public(), plan_id=PLAN)
    with pytest.raises(EnrolmentError):
        verified_certificate(signed + b"\0", AUTHORITY.public(), plan_id=PLAN)


def test_what_an_identity_signs_can_not_be_passed_off_as_a_certificate() -> None:
    """Domain separation, even if an authority used its key as an identity."""
    identity = Identity.from_bytes(bytes(32))
    assert identity.public() == AUTHORITY.public()
    with pytest.raises(EnrolmentError):
        verified_certificate(
            CERTIFICATE + identity.sign(b"hushrec certificate v2", CERTIFICATE), AUTHORITY.public(), plan_id=PLAN
        )


def test_a_certificate_of_another_version_is_refused_even_when_it_is_signed() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    newer = b"\2" + CERTIFICATE[1:]
    signature = Ed25519PrivateKey.from_private_bytes(bytes(32)).sign(b"hushrec certificate v1\0" + newer)
    with pytest.raises(EnrolmentError, match="another version"):
        verified_certificate(newer + signature, AUTHORITY.public(), plan_id=PLAN)


@pytest.mark.parametrize(
    ("plan", "pseudonym", "identity"),
    [
        ("AB" * 32, PSEUDONYM, IDENTITY),
        ("ab" * 31, PSEUDONYM, IDENTITY),
        (PLAN + "\n", PSEUDONYM, IDENTITY),
        (None, PSEUDONYM, IDENTITY),
        (PLAN, "cd" * 15, IDENTITY),
        (PLAN, "xy" * 16, IDENTITY),
        (PLAN, PSEUDONYM + "\n", IDENTITY),
        (PLAN, PSEUDONYM, bytes(31)),
        (PLAN, PSEUDONYM, "x" * 32),
    ],
)
def test_nothing_else_is_certified(plan: str, pseudonym: str, identity: bytes) -> None:
    with pytest.raises(EnrolmentError):
        AUTHORITY.certify(plan, pseudonym, identity)


def test_an_authority_that_is_no_public_key_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        verified_certificate(AUTHORITY.certify(PLAN, PSEUDONYM, IDENTITY), b"short", plan_id=PLAN)


def test_an_authority_key_lives_in_a_file_of_its_owner_alone_and_shows_nothing(tmp_path: Path) -> None:
    key = AuthorityKey.create(tmp_path / "authority.key")
    assert AuthorityKey.read(tmp_path / "authority.key").public() == key.public()
    assert stat.S_IMODE((tmp_path / "authority.key").stat().st_mode) == 0o600
    assert repr(key) == "AuthorityKey()"
    with pytest.raises(TypeError, match="copied"):
        pickle.dumps(key)
    with pytest.raises(ConfigError, match="never overwritten"):
        AuthorityKey.create(tmp_path / "authority.key")
    with pytest.raises(ConfigError, match="authority key"):
        AuthorityKey.read(tmp_path / "missing")
