"""A second, slow implementation of secure aggregation for one captured round, written from the documented bytes alone.

Shares no code with the product: X25519 as the ladder of RFC 7748, HKDF from HMAC, counter mode a block at a time,
Shamir with Python's numbers, messages cut by hand. Only AES, AES-GCM, Ed25519 and SHA-256 are a library's. Knows
complete graphs only (n < 100).
"""

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

P, A24 = 2**255 - 19, 121_665
FIELD = 65_521
HEADER = 18


def x25519(secret: bytes, public: bytes) -> bytes:
    """RFC 7748, section 5."""
    k = int.from_bytes(secret, "little") & ~7 & (2**254 - 1) | 2**254
    u = int.from_bytes(public, "little") % 2**255
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + A24 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


BASE = (9).to_bytes(32, "little")


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 for 32 bytes."""
    key = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(key, info + b"\1", hashlib.sha256).digest()


def keystream(key: bytes, count: int, bits: int) -> list[int]:
    """The mask of a key."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    size = 1 if bits <= 8 else 2 if bits <= 16 else 4
    stream = b"".join(block.update(i.to_bytes(16, "big")) for i in range(count * size // 16 + 1))
    return [int.from_bytes(stream[i * size : i * size + size], "little") % 2**bits for i in range(count)]


def unpacked(data: bytes, count: int, bits: int) -> list[int]:
    """A packed vector."""
    stream = int.from_bytes(data, "little")
    return [stream >> (bits * i) & (2**bits - 1) for i in range(count)]


def lagrange_at_0(shares: dict[int, list[int]]) -> bytes:
    """A secret of 32 bytes from shares by x."""
    value = 0
    for limb in range(18):
        found = 0
        for x, share in shares.items():
            weight = 1
            for other in shares:
                if other != x:
                    weight = weight * other * pow(other - x, -1, FIELD) % FIELD
            found = (found + weight * share[limb]) % FIELD
        value |= found << (15 * limb)
    return value.to_bytes(32, "little")


def two(data: bytes, at: int) -> int:
    """Two bytes, big endian."""
    return data[at] << 8 | data[at + 1]


def place(number: int) -> bytes:
    """A place on the wire."""
    return bytes((number >> 8, number & 255))


def members(data: bytes, at: int, count: int) -> list[int]:
    """A set of places."""
    return [i for i in range(count) if data[at + i // 8] >> (i % 8) & 1]


@dataclass
class Captured:
    """All bytes of one round with a complete graph: messages and answers by phase and place."""

    session: bytes
    messages: dict[int, dict[int, bytes]]
    replies: dict[int, dict[int, bytes]]

    def __post_init__(self) -> None:
        self.id = hashlib.sha256(self.session).digest()
        self.coordinates, self.bits = int.from_bytes(self.session[89:93], "big"), self.session[93]
        self.entries = {i: message[HEADER:] for i, message in self.messages[1].items()}
        self.n = len(self.entries)
        self.threshold = -(-2 * self.n // 3)
        body = place(self.n) + b"".join(e[34:50] + hashlib.sha256(e).digest() for e in self.entries.values())
        assert self.replies[1][0][HEADER:] == body
        self.root = hashlib.sha256(b"hushrec secagg roster\0" + self.id + body).digest()

    def check_signatures(self) -> int:
        """Every signature of the round is right; how many there are."""
        (shared, survived), bound = self.sets(), self.id + self.root
        count = 0
        for i, entry in self.entries.items():
            masked, agreed = self.messages[4].get(i, b""), self.messages[5].get(i, b"")
            signed = {
                b"hushrec secagg advertise v1": (entry[-64:], self.id + entry[:-64]),
                b"hushrec secagg mask v1": (masked[18:82], bound + shared),
                b"hushrec secagg agree v1": (agreed[18:], bound + shared + survived),
            }
            for domain, (signature, data) in signed.items():
                if signature:
                    Ed25519PublicKey.from_public_bytes(entry[50:82]).verify(signature, domain + b"\0" + data)
                    count += 1
        return count

    def sets(self) -> tuple[bytes, bytes]:
        """Who shared and who survived, as the server told device 0."""
        size = (self.n + 7) // 8
        return self.replies[3][0][HEADER : HEADER + size], self.replies[4][0][HEADER : HEADER + size]

    def opened_shares(self, secrets: dict[int, bytes]) -> dict[int, dict[int, tuple[list[int], list[int]]]]:
        """By owner and x: the shares of seed and mask key that each holder decrypts with its share key's secret."""
        opened: dict[int, dict[int, tuple[list[int], list[int]]]] = {i: {} for i in self.messages[3]}
        for owner, message in self.messages[3].items():
            for position, holder in enumerate(i for i in range(self.n) if i != owner):
                sealed = message[HEADER + 32 + 88 * position :][:88]
                agreed = x25519(secrets[holder], self.entries[owner][178:210])
                info = b"hushrec secagg share\0" + self.root + place(owner) + place(holder)
                bound = self.id + self.root + place(owner) + place(holder)
                plain = AESGCM(hkdf(agreed, self.id, info)).decrypt(bytes(12), sealed, bound)
                values = [plain[i] | plain[i + 1] << 8 for i in range(0, 72, 2)]
                opened[owner][holder + 1] = values[:18], values[18:]
        return opened

    def recovered(self) -> tuple[dict[int, bytes], dict[int, bytes]]:
        """Seeds of survivors and mask keys of the others, from what was revealed."""
        shares: dict[tuple[int, int], dict[int, list[int]]] = {}
        for holder, message in self.messages[6].items():
            for at in range(HEADER, len(message), 39):
                values = [message[at + 3 + i] | message[at + 4 + i] << 8 for i in range(0, 36, 2)]
                shares.setdefault((message[at + 2], two(message, at)), {})[holder + 1] = values
        found: tuple[dict[int, bytes], dict[int, bytes]] = ({}, {})
        for (kind, owner), by_x in shares.items():
            found[kind][owner] = lagrange_at_0(dict(list(by_x.items())[: self.threshold]))
        return found

    def pair_key(self, agreed: bytes, one: int, other: int) -> bytes:
        """Key of the mask of a pair."""
        low, high = sorted((one, other))
        return hkdf(agreed, self.id, b"hushrec secagg pair mask\0" + self.root + place(low) + place(high))

    def total(self) -> list[int]:
        """The sum, centred."""
        seeds, keys = self.recovered()
        survived = members(self.sets()[1], 0, self.n)
        assert sorted(seeds) == survived
        total = [0] * self.coordinates
        for i in survived:
            masked = unpacked(self.messages[4][i][82:], self.coordinates, self.bits)
            own = hkdf(seeds[i], self.id, b"hushrec secagg self mask\0" + self.root + place(i))
            mask = keystream(own, self.coordinates, self.bits)
            total = [a + b - c for a, b, c in zip(total, masked, mask, strict=True)]
        for gone, secret in keys.items():
            assert x25519(secret, BASE) == self.entries[gone][146:178]
            for i in survived:
                pair = self.pair_key(x25519(secret, self.entries[i][146:178]), gone, i)
                sign = 1 if i < gone else -1  # the smaller place adds, the larger takes away
                mask = keystream(pair, self.coordinates, self.bits)
                total = [a - sign * b for a, b in zip(total, mask, strict=True)]
        half = 2 ** (self.bits - 1)
        return [(value + half) % 2**self.bits - half for value in total]
