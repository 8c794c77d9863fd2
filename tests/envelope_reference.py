"""HPKE base mode with X-Wing a second time, slowly and from the documents: what our envelopes are held against.

X-Wing: draft-connolly-cfrg-xwing-kem-10, sections 5.2 to 5.5. HPKE: RFC 9180, sections 4, 5.1 and 5.2, with HKDF-SHA256
(RFC 5869) out of HMAC. Only ML-KEM, X25519 and AES-GCM come from the library; its HPKE and its X-Wing are not used.
"""

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEM_ID, KDF_ID, AEAD_ID = 0x647A, 0x0001, 0x0002  # X-Wing, HKDF-SHA256, AES-256-GCM
SUITE = b"HPKE" + KEM_ID.to_bytes(2, "big") + KDF_ID.to_bytes(2, "big") + AEAD_ID.to_bytes(2, "big")
XWING_LABEL = bytes.fromhex("5c2e2f2f5e5c")


@dataclass(frozen=True)
class Schedule:
    """What the key schedule of HPKE gives."""

    key: bytes
    nonce: bytes


def expand(secret: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """expandDecapsulationKey, section 5.2."""
    stretched = hashlib.shake_256(secret).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(stretched[:64]), X25519PrivateKey.from_private_bytes(stretched[64:])


def public_key(secret: bytes) -> bytes:
    """GenerateKeyPairDerand, section 5.2.1: pk_M, pk_X."""
    lattice, curve = expand(secret)
    return lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()


def combine(ss_lattice: bytes, ss_curve: bytes, ct_curve: bytes, pk_curve: bytes) -> bytes:
    """Combiner, section 5.3."""
    return hashlib.sha3_256(ss_lattice + ss_curve + ct_curve + pk_curve + XWING_LABEL).digest()


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """Encapsulate, section 5.4: shared secret and ciphertext."""
    ss_lattice, ct_lattice = MLKEM768PublicKey.from_public_bytes(public[:1184]).encapsulate()
    ephemeral = X25519PrivateKey.generate()
    ct_curve = ephemeral.public_key().public_bytes_raw()
    ss_curve = ephemeral.exchange(X25519PublicKey.from_public_bytes(public[1184:]))
    return combine(ss_lattice, ss_curve, ct_curve, public[1184:]), ct_lattice + ct_curve


def decapsulate(secret: bytes, ciphertext: bytes) -> bytes:
    """Decapsulate, section 5.5."""
    lattice, curve = expand(secret)
    ss_curve = curve.exchange(X25519PublicKey.from_public_bytes(ciphertext[1088:]))
    pk_curve = curve.public_key().public_bytes_raw()
    return combine(lattice.decapsulate(ciphertext[:1088]), ss_curve, ciphertext[1088:], pk_curve)


def schedule(shared_secret: bytes, info: bytes, *, suite: bytes = SUITE, key_bytes: int = 32) -> Schedule:
    """KeySchedule of RFC 9180, section 5.1, mode 0, no pre-shared key."""
    bound = b"\0" + _extract(suite, b"", b"psk_id_hash", b"") + _extract(suite, b"", b"info_hash", info)
    secret = _extract(suite, shared_secret, b"secret", b"")
    return Schedule(_expand(suite, secret, b"key", bound, key_bytes), _expand(suite, secret, b"base_nonce", bound, 12))


def seal(public: bytes, info: bytes, plain: bytes) -> bytes:
    """SealBase, section 6.1, without associated data: enc, ct."""
    shared, enc = encapsulate(public)
    made = schedule(shared, info)
    return enc + AESGCM(made.key).encrypt(made.nonce, plain, b"")


def unseal(secret: bytes, info: bytes, sealed: bytes) -> bytes:
    """OpenBase, section 6.1."""
    made = schedule(decapsulate(secret, sealed[:1120]), info)
    return AESGCM(made.key).decrypt(made.nonce, sealed[1120:], b"")


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, hashlib.sha256)


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    asked = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    block = out = b""
    while len(out) < length:
        block = hmac.digest(key, block + asked + bytes([len(out) // 32 + 1]), hashlib.sha256)
        out += block
    return out[:length]
