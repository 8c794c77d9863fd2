"""Certificates: the authority vouches that one account is one pseudonym with one identity in one plan.

    offset  bytes  what
    0       1      version, 1
    1       32     id of the plan
    33      16     pseudonym
    49      32     public key of the device's identity
    81      64     Ed25519 signature of the authority under the domain "hushrec certificate v1" over bytes 0 to 80

The authority's key lives apart from the server: whoever has both can enrol devices that do not exist. A certificate
lives as long as its plan; nothing revokes a single one but the server's own list.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from hushrec_privacy.enrolment.names import plan_bytes, pseudonym_bytes
from hushrec_privacy.errors import ConfigError, EnrolmentError
from hushrec_privacy.key_files import KeyInFile
from hushrec_privacy.signatures import PUBLIC_BYTES, SIGNATURE_BYTES, SigningKey, check_signature

__all__ = ["CERTIFICATE_BYTES", "SIGNED_CERTIFICATE_BYTES", "AuthorityKey", "Certificate", "verified_certificate"]

CERTIFICATE_BYTES = 81
SIGNED_CERTIFICATE_BYTES = CERTIFICATE_BYTES + SIGNATURE_BYTES
_VERSION = 1
_DOMAIN = b"hushrec certificate v1"


@dataclass(frozen=True)
class Certificate:
    """What the authority vouches for.

    Attributes:
        plan_id: sha256 of the plan, 64 hexadecimal digits.
        pseudonym: Of the account in this plan, 32 hexadecimal digits.
        identity: Public key of the device, 32 bytes.

    Raises:
        EnrolmentError: A field is not of that form.
    """

    plan_id: str
    pseudonym: str
    identity: bytes

    def __post_init__(self) -> None:
        plan_bytes(self.plan_id)
        pseudonym_bytes(self.pseudonym)
        if not isinstance(self.identity, bytes) or len(self.identity) != PUBLIC_BYTES:
            raise EnrolmentError(f"a certificate names an identity of {PUBLIC_BYTES} bytes")

    def encode(self) -> bytes:
        """Its one byte string, 81 bytes.

        >>> Certificate("ab" * 32, "cd" * 16, bytes(32)).encode()[:3].hex()
        '01abab'
        """
        return bytes([_VERSION]) + plan_bytes(self.plan_id) + pseudonym_bytes(self.pseudonym) + self.identity

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the fields of a certificate without its signature; `verified_certificate` is what checks one.

        Raises:
            EnrolmentError: It does not have 81 bytes, or is of another version.
        """
        if len(data) != CERTIFICATE_BYTES or data[0] != _VERSION:
            raise EnrolmentError("this is no certificate, or one of another version; enrol again")
        return cls(data[1:33].hex(), data[33:49].hex(), bytes(data[49:81]))


class AuthorityKey(SigningKey, KeyInFile):
    """The authority's secret key; it signs certificates and nothing else, and shows nothing of itself."""

    KIND: ClassVar[str] = "authority key"

    def certify(self, plan_id: str, pseudonym: str, identity: bytes) -> bytes:
        """Certify one device, after the account's login was checked and has no other certificate for this plan.

        The caller also sees to it that who asks holds the identity's secret: the request is signed by it.

        Returns:
            Certificate and signature, 145 bytes.

        Raises:
            EnrolmentError: An argument is not as `Certificate` wants it.
        """
        data = Certificate(plan_id, pseudonym, identity).encode()
        return data + self._sign(_DOMAIN, data)


def verified_certificate(data: bytes, authority: bytes, *, plan_id: str) -> Certificate:
    """Read a certificate whose signature is right and which is for this plan.

    Args:
        data: 145 bytes. Untrusted.
        authority: Public key of the authority, 32 bytes, from a source that is trusted.
        plan_id: 64 hexadecimal digits.

    Raises:
        EnrolmentError: Any of that is not so; nothing is parsed unless the signature is right.
        ConfigError: `authority` does not have 32 bytes.
    """
    if len(authority) != PUBLIC_BYTES:
        raise ConfigError(f"the public key of an authority has {PUBLIC_BYTES} bytes")
    refusal = EnrolmentError("the certificate is not of this plan's authority; enrol again")
    if len(data) != SIGNED_CERTIFICATE_BYTES:
        raise refusal
    check_signature(authority, _DOMAIN, data[:CERTIFICATE_BYTES], data[CERTIFICATE_BYTES:], refusal=refusal)
    certificate = Certificate.decode(data[:CERTIFICATE_BYTES])
    if certificate.plan_id != plan_id:
        raise EnrolmentError("the certificate is for another plan; enrol for this one")
    return certificate
