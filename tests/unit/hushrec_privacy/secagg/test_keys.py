"""Keys are those of HKDF-SHA256 under the documented labels, and open nothing that they were not made for."""

import pickle

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg.keys import KeyPair, Place, public_key_is_usable, seed_commitment

SESSION, ROOT = bytes(range(32)), bytes(range(50, 82))
AGREED = b"\7" * 32
# The points of order 1, 2, 4 and 8 of Curve25519, and their non-canonical twins (RFC 7748, section 6.1).
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


def hkdf(secret: bytes, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, SESSION, info).derive(secret)


def test_derived_keys_are_those_of_another_implementation_of_hkdf() -> None:
    place = Place(SESSION, ROOT, 258)
    assert place.pair_mask_key(AGREED, 3) == hkdf(AGREED, b"hushrec secagg pair mask\0" + ROOT + b"\0\3\1\2")
    assert place.pair_mask_key(AGREED, 300) == hkdf(AGREED, b"hushrec secagg pair mask\0" + ROOT + b"\1\2\1\x2c")
    assert place.self_mask_key(AGREED) == hkdf(AGREED, b"hushrec secagg self mask\0" + ROOT + b"\1\2")


def test_both_ends_of_a_pair_have_one_mask_key() -> None:
    one, other = KeyPair(b"\1" * 32), KeyPair(b"\2" * 32)
    assert one.agree(other.public) == other.agree(one.public)
    assert Place(SESSION, ROOT, 4).pair_mask_key(AGREED, 9) == Place(SESSION, ROOT, 9).pair_mask_key(AGREED, 4)


@pytest.mark.parametrize(
    "other",
    [Place(b"\0" * 32, ROOT, 1), Place(SESSION, b"\0" * 32, 1), Place(SESSION, ROOT, 2)],
    ids=["session", "roster", "place"],
)
def test_another_session_roster_or_place_has_other_keys(other: Place) -> None:
    place = Place(SESSION, ROOT, 1)
    assert place.pair_mask_key(AGREED, 5) != other.pair_mask_key(AGREED, 5)
    assert place.self_mask_key(AGREED) != other.self_mask_key(AGREED)
    with pytest.raises(SecAggError, match="cannot be opened"):
        other.open(AGREED, 5, Place(SESSION, ROOT, 5).seal(AGREED, 1, b"shares"))


def test_shares_open_for_their_receiver_and_name_their_sender() -> None:
    sealed = Place(SESSION, ROOT, 5).seal(AGREED, 1, b"shares")
    assert len(sealed) == 6 + 16
    assert Place(SESSION, ROOT, 1).open(AGREED, 5, sealed) == b"shares"
    with pytest.raises(SecAggError, match="cannot be opened"):
        Place(SESSION, ROOT, 1).open(AGREED, 6, sealed)
    with pytest.raises(SecAggError, match="cannot be opened"):
        Place(SESSION, ROOT, 1).open(b"\10" * 32, 5, sealed)


@pytest.mark.parametrize("position", range(22))
def test_a_changed_byte_opens_nothing(position: int) -> None:
    sealed = bytearray(Place(SESSION, ROOT, 5).seal(AGREED, 1, b"shares"))
    sealed[position] ^= 1
    with pytest.raises(SecAggError, match="cannot be opened"):
        Place(SESSION, ROOT, 1).open(AGREED, 5, bytes(sealed))


def test_what_is_sealed_cannot_be_turned_back_on_its_sender() -> None:
    sealed = Place(SESSION, ROOT, 5).seal(AGREED, 1, b"shares")
    with pytest.raises(SecAggError, match="cannot be opened"):
        Place(SESSION, ROOT, 5).open(AGREED, 1, sealed)


@pytest.mark.parametrize("public", LOW_ORDER, ids=lambda key: key.hex()[:8])
def test_keys_of_low_order_are_refused(public: bytes) -> None:
    with pytest.raises(SecAggError, match="makes no secret"):
        KeyPair(b"\1" * 32).agree(public)
    assert not public_key_is_usable(public)


def test_an_ordinary_key_is_usable() -> None:
    assert public_key_is_usable(KeyPair(b"\1" * 32).public)


def test_a_commitment_is_of_one_seed_session_and_place() -> None:
    made = {seed_commitment(s, p, b) for s in (SESSION, ROOT) for p in (0, 1) for b in (bytes(32), b"\1" * 32)}
    assert len(made) == 8


def test_a_key_pair_shows_and_copies_nothing() -> None:
    assert repr(KeyPair(b"\1" * 32)) == "KeyPair()"
    with pytest.raises(TypeError, match="cannot be copied"):
        pickle.dumps(KeyPair(b"\1" * 32))
