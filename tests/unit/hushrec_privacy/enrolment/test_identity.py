"""What an identity signs holds for one purpose and one key; the secret stays hidden."""

import copy
import pickle

import pytest
from hushrec_privacy.enrolment import Identity, verify
from hushrec_privacy.errors import ConfigError, EnvelopeError

DOMAIN = b"example v1"
IDENTITY = Identity.from_bytes(bytes(range(32)))


def test_a_signature_is_ed25519_over_domain_zero_byte_and_data() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    assert IDENTITY.public() == key.public_key().public_bytes_raw()
    assert IDENTITY.sign(DOMAIN, b"data") == key.sign(b"example v1\0data")
    verify(IDENTITY.public(), DOMAIN, b"data", IDENTITY.sign(DOMAIN, b"data"))


def test_an_identity_comes_back_from_what_it_exported_and_a_new_one_is_another() -> None:
    one, other = Identity.create(), Identity.create()
    assert Identity.from_bytes(one.export()).public() == one.public() != other.public()


def test_a_signature_holds_for_nothing_else() -> None:
    signature = IDENTITY.sign(DOMAIN, b"data")
    wrong = [
        (Identity.create().public(), DOMAIN, b"data", signature),
        (IDENTITY.public()[:-1], DOMAIN, b"data", signature),
        (IDENTITY.public(), b"example v2", b"data", signature),
        (IDENTITY.public(), DOMAIN, b"datb", signature),
        (IDENTITY.public(), DOMAIN, b"data\0", signature),
        (IDENTITY.public(), DOMAIN, b"data", signature[:-1]),
        (IDENTITY.public(), DOMAIN, b"data", signature + b"\0"),
        (IDENTITY.public(), DOMAIN, b"data", b""),
    ]
    for arguments in wrong:
        with pytest.raises(EnvelopeError, match="not of the device"):
            verify(*arguments)


def test_every_changed_byte_of_a_signature_is_refused() -> None:
    signature = IDENTITY.sign(DOMAIN, b"data")
    for at in range(64):
        changed = bytearray(signature)
        changed[at] ^= 1
        with pytest.raises(EnvelopeError):
            verify(IDENTITY.public(), DOMAIN, b"data", bytes(changed))


@pytest.mark.parametrize("domain", [b"", b"a\0b", b"\xff", b"a" * 65, b"line\n"])
def test_a_domain_that_could_run_into_the_data_is_refused(domain: bytes) -> None:
    with pytest.raises(ConfigError, match="no domain"):
        IDENTITY.sign(domain, b"data")
    with pytest.raises(ConfigError, match="no domain"):
        verify(IDENTITY.public(), domain, b"data", bytes(64))


def test_an_identity_hides_in_text_and_cannot_be_copied() -> None:
    assert repr(IDENTITY) == str(IDENTITY) == f"{IDENTITY}" == "Identity()"
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="copied"):
            copied(IDENTITY)


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33), "x" * 32, None])
def test_a_secret_has_32_bytes(secret: bytes) -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        Identity.from_bytes(secret)
