"""What a device of a fleet keeps in its vault: identity and certificate of each plan, and the age of server keys.

plan/<id>/identity         32 secret bytes
plan/<id>/certificate      as the authority gave it, 145 bytes
server/<sha256>/serial     highest serial of a key set, 8 bytes, big endian; the hash is that of the server's name
"""

import hashlib

from hushrec_privacy.enrolment import Certificate, Identity, verified_certificate
from hushrec_privacy.errors import EnrolmentError

from hushrec.vault import Vault

__all__ = ["FleetSecrets"]


class FleetSecrets:
    """A view of a vault; closing the vault is the caller's."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def identity(self, plan_id: str) -> Identity:
        """Give the device's identity in a plan; at the first call a new one, kept before it is given.

        Raises:
            VaultError: The vault cannot be used.
        """
        return Identity(self._vault.update(f"plan/{plan_id}/identity", lambda old: old or Identity.create().export()))

    def certificate(self, plan_id: str) -> bytes | None:
        """Give the certificate for a plan with its signature, 145 bytes; None before the device is enrolled.

        Raises:
            VaultError: The vault cannot be used.
        """
        return self._vault.get(f"plan/{plan_id}/certificate")

    def keep_certificate(self, plan_id: str, data: bytes, authority: bytes) -> Certificate:
        """Keep what the authority gave, if it is for this plan and this device.

        Args:
            plan_id: 64 hexadecimal digits.
            data: Certificate and signature. Untrusted.
            authority: Public key of the authority, 32 bytes.

        Raises:
            EnrolmentError: It is not right, or for another identity than this device's.
            VaultError: The vault cannot be used.
        """
        certificate = verified_certificate(data, authority, plan_id=plan_id)
        if certificate.identity != self.identity(plan_id).public():
            raise EnrolmentError("the certificate is for another device; enrol this one")
        self._vault.put(f"plan/{plan_id}/certificate", data)
        return certificate

    def least_serial(self, server: str) -> int:
        """The lowest serial of a key set that this device still accepts from a server: the highest it has seen, or 1.

        Raises:
            VaultError: The vault cannot be used.
        """
        return int.from_bytes(self._vault.get(_serial_name(server)) or b"\1")

    def saw_serial(self, server: str, serial: int) -> None:
        """Note the serial of a key set that was accepted; a lower one than before changes nothing.

        Raises:
            VaultError: The vault cannot be used.
        """
        seen = serial.to_bytes(8, "big")
        self._vault.update(_serial_name(server), lambda old: max(old or seen, seen))

    def forget_plan(self, plan_id: str) -> None:
        """Take out identity and certificate of a plan that is over or was left.

        Raises:
            VaultError: The vault cannot be used.
        """
        for what in ("certificate", "identity"):
            self._vault.delete(f"plan/{plan_id}/{what}")


def _serial_name(server: str) -> str:
    return f"server/{hashlib.sha256(server.encode()).hexdigest()}/serial"
