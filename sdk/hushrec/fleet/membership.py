"""What makes a device one of a plan's devices: its identity, its certificate, and the newest keys it has seen.

All of it lies in the vault. An identity is kept before its certificate is asked for: the authority gives an account one
certificate a plan, and a device killed in between asks again under the same identity.
"""

from collections.abc import Callable

from hushrec_privacy.enrolment import Identity, verified_certificate
from hushrec_privacy.errors import EnrolmentError

from hushrec.fleet.joining import Accepted
from hushrec.fleet.server import Authority, Member
from hushrec.vault import Vault

__all__ = ["Membership"]

_SERIAL = "key-set-serial"
_IDENTITY, _CERTIFICATE = "identity/", "certificate/"


class Membership:
    """Enrols this device. Not for several threads at once."""

    def __init__(self, vault: Vault, authority: Authority, token: Callable[[str], str]) -> None:
        """Take the parts; asks nobody yet.

        Args:
            vault: Of this device.
            authority: Gives certificates.
            token: What the shop's own login says of the shopper's account, for the id of a plan.
        """
        self._vault, self._authority, self._token = vault, authority, token

    def find(self, accepted: Accepted) -> Member | None:
        """This device in a plan; None: it has no certificate yet.

        Raises:
            EnrolmentError: The certificate in the vault is not of the plan's authority.
            VaultError: The vault cannot be read.
        """
        secret = self._vault.get(_IDENTITY + accepted.plan_id)
        signed = self._vault.get(_CERTIFICATE + accepted.plan_id)
        if secret is None or signed is None:
            return None
        identity = Identity.from_bytes(secret)
        authority = bytes.fromhex(accepted.plan.authority)
        certificate = verified_certificate(signed, authority, plan_id=accepted.plan_id)
        if certificate.identity != identity.public():
            raise EnrolmentError("the certificate on this device is not its own; leave the fleet and enrol again")
        return Member(accepted.plan_id, identity, certificate.pseudonym, signed)

    def enrol(self, accepted: Accepted) -> None:
        """Get a certificate and keep it.

        Raises:
            EnrolmentError: The authority gives none, or a wrong one.
            FleetError: Nothing may be sent, or no answer came.
            VaultError: The vault cannot be written.
        """
        place = _IDENTITY + accepted.plan_id
        secret = self._vault.get(place)
        identity = Identity.create() if secret is None else Identity.from_bytes(secret)
        self._vault.put(place, identity.export())
        authority = bytes.fromhex(accepted.plan.authority)
        signed, _ = self._authority.certify(
            accepted.plan_id, identity, self._token(accepted.plan_id), authority=authority
        )
        self._vault.put(_CERTIFICATE + accepted.plan_id, signed)

    @property
    def least_serial(self) -> int:
        """The highest serial of a key set seen so far; 1 for none."""
        kept = self._vault.get(_SERIAL)
        return 1 if kept is None else int.from_bytes(kept, "big")

    def saw_serial(self, serial: int) -> None:
        """Keep a serial, so that no older key set is ever accepted.

        Raises:
            VaultError: The vault cannot be written.
        """
        if serial > self.least_serial:
            self._vault.put(_SERIAL, serial.to_bytes(8, "big"))

    def forget(self) -> None:
        """Forget identities and certificates. The serial stays: it says nothing of the shopper.

        Raises:
            VaultError: The vault cannot be written.
        """
        for name in self._vault.names():
            if name.startswith((_IDENTITY, _CERTIFICATE)):
                self._vault.delete(name)
