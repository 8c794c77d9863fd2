"""Envelopes and enrolment against published vectors, and our own bytes against a second implementation."""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hushrec_privacy.enrolment import AuthorityKey, Identity, login_token, pseudonym, verified_certificate
from hushrec_privacy.envelope import (
    Context,
    EnvelopeKey,
    KeySet,
    open_sealed,
    seal,
    verified_key_set,
    verify_request,
)
from hushrec_privacy.plans.signing import PlanKey

from tests import envelope_reference as slow

FILES = Path(__file__).parent / "envelope"
KEMS = {16: KEM.P256, 18: KEM.P521, 32: KEM.X25519, 0x647A: KEM.MLKEM768_X25519}
CURVES = {16: ec.SECP256R1(), 18: ec.SECP521R1()}
KDFS = {1: KDF.HKDF_SHA256, 3: KDF.HKDF_SHA512, 17: KDF.SHAKE256}
AEADS = {1: AEAD.AES_128_GCM, 2: AEAD.AES_256_GCM, 3: AEAD.CHACHA20_POLY1305}


def _read(name: str) -> Any:
    return json.loads((FILES / name).read_text(encoding="utf-8"))


def _bytes(vector: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(vector[name]) for name in names]


def _suite_name(vector: dict[str, Any]) -> str:
    return f"kem{vector['kem_id']}-kdf{vector['kdf_id']}-aead{vector['aead_id']}"


RFC9180, PQ, XWING, WIRE = (
    _read(name) for name in ("rfc9180-base.json", "hpke-pq-xwing.json", "xwing-draft-10.json", "wire.json")
)


def _private(vector: dict[str, Any]) -> Any:
    (secret,) = _bytes(vector, "skRm")
    if vector["kem_id"] == 0x647A:
        return EnvelopeKey(secret).reveal()
    if vector["kem_id"] == 32:
        return X25519PrivateKey.from_private_bytes(secret)
    return ec.derive_private_key(int.from_bytes(secret, "big"), CURVES[vector["kem_id"]])


@pytest.mark.parametrize("vector", [*RFC9180, *PQ], ids=_suite_name)
def test_the_library_opens_the_published_vectors_of_hpke_and_nothing_near_them(vector: dict[str, Any]) -> None:
    suite = Suite(KEMS[vector["kem_id"]], KDFS[vector["kdf_id"]], AEADS[vector["aead_id"]])
    enc, ct, info, aad, plain = _bytes(vector, "enc", "ct", "info", "aad", "pt")
    key = _private(vector)
    # Only this form takes the associated data that all published vectors have; the public one calls it with none.
    opened = openssl.hpke._decrypt_with_aad(suite, enc + ct, key, info, aad)
    assert opened == plain
    for sealed, bound, associated in ((enc + ct[:-1], info, aad), (enc + ct, info + b"\0", aad), (enc + ct, info, b"")):
        with pytest.raises(InvalidTag):
            openssl.hpke._decrypt_with_aad(suite, sealed, key, bound, associated)


@pytest.mark.parametrize("vector", [v for v in RFC9180 if v["kdf_id"] == 1], ids=_suite_name)
def test_the_slow_key_schedule_gives_the_published_keys(vector: dict[str, Any]) -> None:
    ids = (vector[name].to_bytes(2, "big") for name in ("kem_id", "kdf_id", "aead_id"))
    shared, info, key, nonce = _bytes(vector, "shared_secret", "info", "key", "base_nonce")
    made = slow.schedule(shared, info, suite=b"HPKE" + b"".join(ids), key_bytes=len(key))
    assert (made.key, made.nonce) == (key, nonce)


@pytest.mark.parametrize("vector", [*PQ, *XWING], ids=range(len(PQ) + len(XWING)))
def test_x_wing_gives_the_published_public_keys_and_shared_secrets(vector: dict[str, Any]) -> None:
    names = ("skRm", "enc", "shared_secret") if "skRm" in vector else ("sk", "ct", "ss")
    secret, ciphertext, shared = _bytes(vector, *names)
    published = vector.get("pkRm", vector.get("pk"))
    if published:  # the second and third of the draft are kept without it
        assert EnvelopeKey(secret).public() == slow.public_key(secret) == bytes.fromhex(published)
    assert slow.decapsulate(secret, ciphertext) == shared
    assert slow.decapsulate(secret, bytes([ciphertext[0] ^ 1]) + ciphertext[1:]) != shared


def test_the_slow_implementation_and_the_library_open_each_other() -> None:
    secret, context = bytes(range(32)), Context("shop", "mask", "ab" * 32, 9, "cd" * 16)
    key = EnvelopeKey(secret)
    info = context.encode() + key.key_id
    padded = (5).to_bytes(4, "big") + b"hello" + bytes(91)
    sealed = seal(key.public(), context, b"hello", 100)
    assert sealed[:9] == b"\1" + key.key_id
    assert slow.unseal(secret, info, sealed[9:]) == padded
    assert open_sealed([key], context, b"\1" + key.key_id + slow.seal(key.public(), info, padded), 100) == b"hello"


def _secret(name: str) -> bytes:
    return bytes.fromhex(WIRE["secrets"][name])


def _context() -> Context:
    place = WIRE["context"]
    return Context(place["server"], place["route"], WIRE["plan_id"], place["round_number"], WIRE["pseudonym"])


def _signed_by(name: str, domain: bytes, data: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(_secret(name)).sign(domain + b"\0" + data)


def test_our_context_has_the_published_bytes() -> None:
    place = WIRE["context"]
    texts = (place["server"], place["route"], WIRE["plan_id"], WIRE["pseudonym"])
    joined = b"".join(len(text).to_bytes(2, "big") + text.encode() for text in texts)
    expected = b"hushrec envelope v1\0" + joined + place["round_number"].to_bytes(8, "big")
    assert bytes.fromhex(place["encoded"]) == expected == _context().encode()


def test_our_envelope_opens_in_both_implementations() -> None:
    vector = WIRE["envelope"]
    payload, sealed = _bytes(vector, "payload", "sealed")
    key = EnvelopeKey(_secret("envelope"))
    named = hashlib.sha256(b"hushrec envelope key v1\0" + slow.public_key(_secret("envelope"))).digest()[:8]
    assert sealed[:9] == b"\1" + named
    padded = slow.unseal(_secret("envelope"), bytes.fromhex(WIRE["context"]["encoded"]) + named, sealed[9:])
    assert padded == len(payload).to_bytes(4, "big") + payload + bytes(vector["size"] - 4 - len(payload))
    assert open_sealed([key], _context(), sealed, vector["size"]) == payload


def test_our_signed_request_verifies_in_both_implementations() -> None:
    at_s, header = WIRE["request"]["at_s"], WIRE["request"]["header"]
    body = bytes.fromhex(WIRE["envelope"]["sealed"])
    raw = base64.urlsafe_b64decode(header + "=")
    bound = bytes.fromhex(WIRE["context"]["encoded"]) + hashlib.sha256(body).digest()
    assert raw[:9] == b"\1" + at_s.to_bytes(8, "big")
    assert raw[25:] == _signed_by("identity", b"hushrec request v1", bound + raw[1:25])
    found = verify_request(Identity(_secret("identity")).public(), _context(), body, header, at_s=at_s)
    assert (found.nonce, found.at_s) == (raw[9:25], at_s)


def test_our_key_set_has_the_published_bytes_and_signature() -> None:
    vector, server = WIRE["key_set"], WIRE["context"]["server"]
    encoded, signature = _bytes(vector, "encoded", "signature")
    begin, end = WIRE["request"]["at_s"], WIRE["request"]["at_s"] + 86_400
    rows = begin.to_bytes(8, "big") + end.to_bytes(8, "big") + slow.public_key(_secret("envelope"))
    name = len(server).to_bytes(2, "big") + server.encode()
    assert encoded == b"\1" + vector["serial"].to_bytes(8, "big") + name + b"\1" + rows
    assert signature == _signed_by("plan", b"hushrec key set v1", encoded)
    plan_key = PlanKey(_secret("plan"))
    found = verified_key_set(encoded, signature, plan_key.public(), server=server, least_serial=1, at_s=begin)
    assert found == KeySet.decode(encoded)
    assert (found.encode(), plan_key.sign_key_set(found)) == (encoded, signature)


def test_our_certificate_has_the_published_bytes_and_signature() -> None:
    signed = bytes.fromhex(WIRE["certificate"])
    identity = Ed25519PrivateKey.from_private_bytes(_secret("identity")).public_key().public_bytes_raw()
    fields = b"\1" + bytes.fromhex(WIRE["plan_id"]) + bytes.fromhex(WIRE["pseudonym"]) + identity
    assert signed == fields + _signed_by("authority", b"hushrec certificate v1", fields)
    authority = AuthorityKey(_secret("authority"))
    assert authority.certify(WIRE["plan_id"], WIRE["pseudonym"], identity) == signed
    assert verified_certificate(signed, authority.public(), plan_id=WIRE["plan_id"]).identity == identity


def test_our_pseudonym_and_login_token_are_the_published_ones() -> None:
    account, plan, end = WIRE["account"].encode(), bytes.fromhex(WIRE["plan_id"]), WIRE["login_token"]["expires_at"]
    name = hmac.new(_secret("pseudonyms"), b"hushrec pseudonym v1\0" + plan + account, "sha256").hexdigest()[:32]
    assert WIRE["pseudonym"] == name == pseudonym(_secret("pseudonyms"), WIRE["account"], WIRE["plan_id"])
    data = b"\1" + plan + end.to_bytes(8, "big") + account
    mac = hmac.new(_secret("login"), b"hushrec login token v1\0" + data, "sha256").digest()
    token = base64.urlsafe_b64encode(data + mac).rstrip(b"=").decode()
    assert WIRE["login_token"]["token"] == token
    assert login_token(_secret("login"), WIRE["account"], WIRE["plan_id"], end) == token
