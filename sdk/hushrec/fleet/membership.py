"""What makes a device one of a plan's devices: its identity and its certificate, kept in the vault.

An identity is kept before its certificate is asked for: the authority gives an account one certificate a plan, and a
device killed in between asks again under the same identity.
"""

from collections.abc import Callable

from hushrec_privacy.enrolment import verified_certificate
from hushrec_privacy.errors import EnrolmentError

from hushrec.fleet.callbacks import called
from hushrec.fleet.joining import Accepted
from hushrec.fleet.server import Authority, Member
from hushrec.fleet_secrets import FleetSecrets
from hushrec.vault import Vault

__all__ = ["Membership"]

_PLANS = "plan/"  # where the vault has what is of one plan; the rest of the name is the plan's id and what it is


class Membership:
    """Enrols this device. Not for several threads at once.

    Args:
        vault: Gives the device's vault, opened.
        authority: Gives certificates.
        token: Gives what the shop's own login says of the shopper's account, for the id of a plan.
        server: Name of the server.
    """

    def __init__(
        self, vault: Callable[[], Vault], authority: Authority, token: Callable[[str], str], server: str
    ) -> None:
        self._vault, self._authority, self._token, self._server = vault, authority, token, server

    def find(self, accepted: Accepted) -> Member | None:
        """This device in a plan; None: it has no certificate yet.

        Raises:
            EnrolmentError: The certificate in the vault is not this device's, or not of the plan's authority.
            VaultError: The vault cannot be used.
        """
        signed = self._secrets.certificate(accepted.plan_id)
        if signed is None:
            return None
        identity = self._secrets.identity(accepted.plan_id)
        certificate = verified_certificate(signed, _authority(accepted), plan_id=accepted.plan_id)
        if certificate.identity != identity.public():
            raise EnrolmentError("the certificate on this device is not its own; leave the fleet and enrol again")
        return Member(accepted.plan_id, identity, certificate.pseudonym, signed)

    def enrol(self, accepted: Accepted) -> None:
        """Get a certificate and keep it.

        Raises:
            CallbackError: The app's `token` failed.
            EnrolmentError: The authority gives none, or a wrong one.
            FleetError: Nothing may be sent, or no answer came.
            VaultError: The vault cannot be used.
        """
        identity = self._secrets.identity(accepted.plan_id)
        token = called("token", self._token, str, accepted.plan_id)
        signed = self._authority.certify(accepted.plan_id, identity, token)
        self._secrets.keep_certificate(accepted.plan_id, signed, _authority(accepted))

    def least_serial(self) -> int:
        """The lowest serial of a key set that is still accepted.

        Raises:
            VaultError: The vault cannot be used.
        """
        return self._secrets.least_serial(self._server)

    def saw_serial(self, serial: int) -> None:
        """Keep the serial of a key set that was accepted, so that no older one ever is.

        Raises:
            VaultError: The vault cannot be used.
        """
        self._secrets.saw_serial(self._server, serial)

    def forget(self) -> None:
        """Forget identities and certificates of all plans. Serials stay: they say nothing of the shopper.

        Raises:
            VaultError: The vault cannot be used.
        """
        plans = {name.split("/")[1] for name in self._vault().names() if name.startswith(_PLANS)}
        for plan_id in plans:
            self._secrets.forget_plan(plan_id)

    @property
    def _secrets(self) -> FleetSecrets:
        return FleetSecrets(self._vault())


def _authority(accepted: Accepted) -> bytes:
    return bytes.fromhex(accepted.plan.authority)
