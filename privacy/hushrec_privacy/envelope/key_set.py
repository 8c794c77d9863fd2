"""The server's public envelope keys, signed by the shop's plan key, and how one follows the other.

    bytes       what
    1           version, 1
    8           serial, from 1, big endian; a later set has a higher one
    2 + length  server, a length (big endian) and UTF-8
    1           number of keys, 1 to 8
    each        from (8), until (8), seconds since 1970-01-01 UTC, big endian; public key (1,216)

The signature, 64 bytes, stands beside it: Ed25519 under the domain "hushrec key set v1". A key is in force from its
first moment until before its last. Keys overlap: devices seal to the newest in force, the server opens with every one
in force, and deletes a key's file once it is over. A device keeps the highest serial it has seen, accepts none below.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hushrec_privacy import checks
from hushrec_privacy.envelope.context import LONGEST_TEXT_BYTES
from hushrec_privacy.envelope.keys import PUBLIC_KEY_BYTES, EnvelopeKey
from hushrec_privacy.errors import ConfigError, EnvelopeError
from hushrec_privacy.signatures import check_signature

__all__ = ["KEY_SET_DOMAIN", "MAX_KEYS", "KeySet", "ServerKey", "keys_in_force", "rotated", "verified_key_set"]

KEY_SET_DOMAIN = b"hushrec key set v1"
MAX_KEYS = 8
_VERSION = 1
_KEY_BYTES = 16 + PUBLIC_KEY_BYTES
_LAST = 2**63 - 1


@dataclass(frozen=True)
class ServerKey:
    """One public key and when it is in force.

    Attributes:
        public: 1,216 bytes.
        not_before: First second, since 1970-01-01 UTC.
        not_after: The second before which it ends.
    """

    public: bytes
    not_before: int
    not_after: int

    def in_force(self, at_s: int) -> bool:
        """Whether it may be used at a moment."""
        return self.not_before <= at_s < self.not_after


@dataclass(frozen=True)
class KeySet:
    """All keys of one server.

    Attributes:
        serial: From 1; a later set has a higher one.
        server: The name that every context repeats, 1 to 256 bytes of UTF-8.
        keys: 1 to 8, in the order in which they begin; no two begin at once or are the same.

    Raises:
        ConfigError: A field is not of that form.
    """

    serial: int
    server: str
    keys: tuple[ServerKey, ...]

    def __post_init__(self) -> None:
        checks.at_least(1, serial=self.serial, keys=len(self.keys))
        if self.serial > _LAST or len(self.keys) > MAX_KEYS:
            raise ConfigError(f"a key set has a serial below 2^63 and at most {MAX_KEYS} keys")
        if not (isinstance(self.server, str) and 1 <= len(self.server.encode(errors="replace")) <= LONGEST_TEXT_BYTES):
            raise ConfigError(f"the name of a server has 1 to {LONGEST_TEXT_BYTES} bytes of UTF-8")
        for key in self.keys:
            if len(key.public) != PUBLIC_KEY_BYTES:
                raise ConfigError(f"an envelope key has {PUBLIC_KEY_BYTES} public bytes")
            if not 0 <= key.not_before < key.not_after <= _LAST:
                raise ConfigError("a key ends after it begins, both at whole seconds since 1970-01-01 UTC")
        begins = [key.not_before for key in self.keys]
        if begins != sorted(set(begins)) or len({key.public for key in self.keys}) < len(self.keys):
            raise ConfigError("the keys of a set are all different and stand in the order in which they begin")

    def newest(self, at_s: int) -> bytes:
        """The public key to seal to at a moment, 1,216 bytes.

        Raises:
            EnvelopeError: None is in force.
        """
        usable = [key.public for key in self.keys if key.in_force(at_s)]
        if not usable:
            raise EnvelopeError("no key of this server is in force now; fetch its keys again")
        return usable[-1]

    def encode(self) -> bytes:
        """Its one byte string."""
        name = self.server.encode()
        head = bytes([_VERSION]) + self.serial.to_bytes(8, "big") + len(name).to_bytes(2, "big") + name
        rows = (k.not_before.to_bytes(8, "big") + k.not_after.to_bytes(8, "big") + k.public for k in self.keys)
        return head + bytes([len(self.keys)]) + b"".join(rows)

    @classmethod
    def decode(cls, data: bytes) -> "KeySet":
        """Read a key set without its signature; `verified_key_set` is what checks one.

        Raises:
            EnvelopeError: It is none, or one of another version.
        """
        try:
            return cls._decode(bytes(data))
        except (ConfigError, ValueError, IndexError) as error:
            raise EnvelopeError("these are no keys of a server, or of another version; update hushrec") from error

    @classmethod
    def _decode(cls, data: bytes) -> "KeySet":
        name_end = 11 + int.from_bytes(data[9:11], "big")
        count, rows = data[name_end], data[name_end + 1 :]
        if data[0] != _VERSION or len(rows) != count * _KEY_BYTES:
            raise ValueError("another version, or another length")
        keys = tuple(_key(rows[at : at + _KEY_BYTES]) for at in range(0, len(rows), _KEY_BYTES))
        return cls(int.from_bytes(data[1:9], "big"), data[11:name_end].decode(), keys)


def verified_key_set(
    data: bytes, signature: bytes, plan_public: bytes, *, server: str, least_serial: int, at_s: int
) -> KeySet:
    """Read a key set whose signature is right, and which may be used.

    Args:
        data: Untrusted.
        signature: 64 bytes. Untrusted.
        plan_public: Of the shop's plan key, 32 bytes, from a source that is trusted.
        server: Whose keys they must be.
        least_serial: The highest serial that this device has seen; 1 for none. The caller keeps the one returned.
        at_s: Now, seconds since 1970-01-01 UTC.

    Raises:
        EnvelopeError: The signature is not right, and then nothing is parsed; it is another server's; it is older than
            what was seen before; or no key is in force.
    """
    refusal = EnvelopeError("the server's keys are not signed by the shop; fetch them again")
    check_signature(plan_public, KEY_SET_DOMAIN, data, signature, refusal=refusal)
    key_set = KeySet.decode(data)
    if key_set.server != server:
        raise EnvelopeError(
            f"these are the keys of another server, {key_set.server!r} and not {server!r}; ask the one that is meant"
        )
    if key_set.serial < least_serial:
        raise EnvelopeError("the server's keys are older than those seen before; they are not accepted")
    key_set.newest(at_s)
    return key_set


def rotated(key_set: KeySet, public: bytes, *, at_s: int, lifetime_s: int, overlap_s: int) -> KeySet:
    """The set that follows: one key more, the earlier ones ending soon, those that are over left out.

    Args:
        key_set: The set so far.
        public: The new key, 1,216 bytes, in force from now on.
        at_s: Now, seconds since 1970-01-01 UTC.
        lifetime_s: Of the new key.
        overlap_s: How long earlier keys stay in force at most. At least as long as devices keep a set before they fetch
            it anew, or their envelopes will not open.

    Raises:
        ConfigError: A number is out of range, an earlier key has not begun yet, the new key is in the set already, or
            there would be more than 8.
    """
    checks.at_least(1, lifetime_s=lifetime_s)
    checks.at_least(0, overlap_s=overlap_s)
    ending = (
        ServerKey(key.public, key.not_before, min(key.not_after, at_s + overlap_s))
        for key in key_set.keys
        if at_s < min(key.not_after, at_s + overlap_s)
    )
    if any(key.public == public for key in key_set.keys):
        raise ConfigError("the new key is in the set already; make another")
    return KeySet(key_set.serial + 1, key_set.server, (*ending, ServerKey(public, at_s, at_s + lifetime_s)))


def keys_in_force(key_set: KeySet, keys: Iterable[EnvelopeKey], *, at_s: int) -> list[EnvelopeKey]:
    """The secret keys that a server opens with at a moment: those of the set that are in force.

    Args:
        key_set: The set in use.
        keys: All that the server has.
        at_s: Now, seconds since 1970-01-01 UTC.
    """
    usable = {key.public for key in key_set.keys if key.in_force(at_s)}
    return [key for key in keys if key.public() in usable]


def _key(row: bytes) -> ServerKey:
    return ServerKey(row[16:], int.from_bytes(row[:8], "big"), int.from_bytes(row[8:16], "big"))
