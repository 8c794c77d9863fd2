"""The roster: who takes part, as fixed before anyone chooses neighbours, and the entries that stand behind it.

An entry, 274 bytes, which a device sends in ADVERTISE after the header:

    offset  bytes  what
    0       1      mask function, 1
    1       145    certificate of the authority
    146     32     X25519 public key for masks
    178     32     X25519 public key for shares
    210     64     Ed25519 signature of the certified identity, domain "hushrec secagg advertise v1", over
                   the session's id (32 bytes) and bytes 0 to 209

The roster, the server's answer: 2 bytes n, then n times 16 bytes pseudonym and 32 bytes sha256 of the entry; the place
of a device is its position in it. Its root is sha256 of "hushrec secagg roster", 0x00, the session's id and those
bytes. The pseudonyms show that nobody is on it twice; entries are opened later, those of a device's neighbours, whom
the server does not choose: with a share f of devices that do not exist, k random ones all do with chance (1 - f)^k.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from hushrec_privacy.enrolment import SIGNED_CERTIFICATE_BYTES, Identity, verified_certificate, verify
from hushrec_privacy.errors import EnrolmentError, EnvelopeError, SecAggError
from hushrec_privacy.secagg.keys import KEY_BYTES
from hushrec_privacy.secagg.masks import MASK_FUNCTION
from hushrec_privacy.secagg.session import MAX_DEVICES, Phase, Session
from hushrec_privacy.secagg.wire import Reader, frame

__all__ = ["ENTRY_BYTES", "SIGNATURE_BYTES", "Member", "Roster", "make_entry", "member_of", "verified_entry"]

SIGNATURE_BYTES = 64
_SIGNED_BYTES = 1 + SIGNED_CERTIFICATE_BYTES + 2 * KEY_BYTES
ENTRY_BYTES = _SIGNED_BYTES + SIGNATURE_BYTES
_PSEUDONYM_BYTES, _HASH_BYTES = 16, 32
_ROW_BYTES = _PSEUDONYM_BYTES + _HASH_BYTES
_DOMAIN = b"hushrec secagg advertise v1"
_ROOT = b"hushrec secagg roster\0"


@dataclass(frozen=True)
class Member:
    """What a checked entry says.

    Attributes:
        pseudonym: 16 bytes.
        identity: Ed25519 public key, 32 bytes.
        mask_key: X25519 public key, 32 bytes.
        share_key: X25519 public key, 32 bytes.
    """

    pseudonym: bytes
    identity: bytes
    mask_key: bytes
    share_key: bytes


def make_entry(session: Session, identity: Identity, certificate: bytes, mask_key: bytes, share_key: bytes) -> bytes:
    """A device's own entry, signed."""
    signed = bytes([MASK_FUNCTION]) + certificate + mask_key + share_key
    return signed + identity.sign(_DOMAIN, session.id + signed)


def verified_entry(session: Session, entry: bytes) -> Member:
    """Read an entry of a device that the authority certified for this plan, and that signed it for this session.

    Raises:
        SecAggError: Any of that is not so, or it masks with an unknown function.
    """
    if len(entry) != ENTRY_BYTES:
        raise SecAggError("an entry of the roster does not have its length")
    if entry[0] != MASK_FUNCTION:
        raise SecAggError("an entry of the roster names an unknown mask function; update hushrec")
    try:
        certificate = verified_certificate(
            entry[1 : 1 + SIGNED_CERTIFICATE_BYTES], session.authority, plan_id=session.plan_id
        )
        verify(certificate.identity, _DOMAIN, session.id + entry[:_SIGNED_BYTES], entry[_SIGNED_BYTES:])
    except (EnrolmentError, EnvelopeError) as error:
        raise SecAggError("an entry of the roster is not of an enrolled device, or not for this session") from error
    member = member_of(entry)
    if member.mask_key == member.share_key:
        raise SecAggError("an entry of the roster has one key for two purposes")
    return member


def member_of(entry: bytes) -> Member:
    """The fields of an entry that was checked before."""
    keys = 1 + SIGNED_CERTIFICATE_BYTES
    return Member(
        pseudonym=entry[34:50],
        identity=entry[50:82],
        mask_key=entry[keys : keys + KEY_BYTES],
        share_key=entry[keys + KEY_BYTES : keys + 2 * KEY_BYTES],
    )


@dataclass(frozen=True)
class Roster:
    """Pseudonyms and hashes of all entries, in the order of their places.

    Attributes:
        session: Of the round.
        pseudonyms: n times 16 bytes.
        hashes: n times 32 bytes.
    """

    session: Session
    pseudonyms: tuple[bytes, ...]
    hashes: tuple[bytes, ...]

    @classmethod
    def of(cls, session: Session, entries: list[bytes]) -> "Roster":
        """The roster of checked entries."""
        pseudonyms = tuple(member_of(entry).pseudonym for entry in entries)
        return cls(session, pseudonyms, tuple(hashlib.sha256(entry).digest() for entry in entries))

    @classmethod
    def decode(cls, session: Session, data: bytes) -> "Roster":
        """Read the server's answer.

        Raises:
            SecAggError: It is malformed, too long, or names a pseudonym or an entry twice.
        """
        reader = Reader(session, Phase.ADVERTISE, data, reply=True)
        devices = reader.number()
        if devices > MAX_DEVICES:
            raise SecAggError(f"the roster names more than {MAX_DEVICES} devices")
        reader.exactly(_ROW_BYTES * devices)
        rows = [reader.take(_ROW_BYTES) for _ in range(devices)]
        pseudonyms, hashes = tuple(r[:_PSEUDONYM_BYTES] for r in rows), tuple(r[_PSEUDONYM_BYTES:] for r in rows)
        if len(set(pseudonyms)) < devices or len(set(hashes)) < devices:
            raise SecAggError("the roster names a device twice")
        return cls(session, pseudonyms, hashes)

    def encode(self) -> bytes:
        """The server's answer to ADVERTISE."""
        return frame(self.session, Phase.ADVERTISE, self._body, reply=True)

    @cached_property
    def root(self) -> bytes:
        """What stands for the whole roster in keys and signatures, 32 bytes."""
        return hashlib.sha256(_ROOT + self.session.id + self._body).digest()

    def __len__(self) -> int:
        """Devices."""
        return len(self.hashes)

    def place_of(self, entry: bytes) -> int:
        """Where an entry is.

        Raises:
            SecAggError: It is not on the roster.
        """
        try:
            return self.hashes.index(hashlib.sha256(entry).digest())
        except ValueError as error:
            raise SecAggError("the roster does not have this device's own entry") from error

    def verified(self, place: int, entry: bytes) -> Member:
        """Read the opened entry of a place.

        Raises:
            SecAggError: It is not what the roster fixed, or not that of an enrolled device.
        """
        if hashlib.sha256(entry).digest() != self.hashes[place]:
            raise SecAggError("an opened entry is not the one that the roster fixed")
        member = verified_entry(self.session, entry)
        if member.pseudonym != self.pseudonyms[place]:
            raise SecAggError("an opened entry has another pseudonym than the roster says")
        return member

    @cached_property
    def _body(self) -> bytes:
        rows = (p + h for p, h in zip(self.pseudonyms, self.hashes, strict=True))
        return len(self).to_bytes(2, "big") + b"".join(rows)
