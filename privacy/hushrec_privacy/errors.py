"""Every error that hushrec raises on purpose, in one tree.

    HushrecError
    ├── ConfigError       an argument or option is wrong                     change the call
    ├── DataError         the shop's event or item file is wrong             change the file
    ├── CheckpointError   a training folder is missing, damaged or foreign   train again, or name another
    ├── BundleError       a bundle is damaged, foreign or too new            fetch the bundle again
    ├── ProfileError      a profile file cannot be used                      name another file
    ├── CatalogError      an unknown column of the catalogue was named       use a column that exists
    ├── ToleranceError    a bundle would rank worse than allowed             loosen the pruning, train longer
    ├── BudgetError       a privacy budget would be overspent                stop, or make a new plan
    ├── LedgerError       a privacy ledger is damaged, foreign or altered    restore it, or look who changed it
    ├── PlanError         a plan is unsigned, damaged or past a limit        fetch it again, or plan anew
    ├── NoiseStateError   the noise of a plan is spent, lost or damaged      abandon the round, or end the plan
    ├── SecAggError       a message of secure aggregation is wrong or lies   leave the round; nothing is revealed
    ├── EnvelopeError     something sealed or signed cannot be accepted      fetch the keys again, send anew
    ├── EnrolmentError    a certificate is missing, wrong or not given       enrol again, or ask the shop
    ├── VaultError        the sealed store of a device cannot be opened      give the right key
    ├── FleetError        the server refused, or could not be reached        come back when it says so
    ├── ReleaseError      a release is not authentic, worse, or unusable     keep the last good one
    └── StorageError      the server's database cannot be used               mend it, or update hushrec

`code` is stable, names the page docs/errors/<code>.md, and is what programs branch on; the wording may change.
`exit_code` is what the command line ends with. Texts on a device never hold item ids, keys or a shopper's data; the
shop's own tools name file, row and column.
"""

from typing import Any, ClassVar

__all__ = [
    "BudgetError",
    "BundleError",
    "CatalogError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EnrolmentError",
    "EnvelopeError",
    "FleetError",
    "HushrecError",
    "LedgerError",
    "NoiseStateError",
    "PlanError",
    "ProfileError",
    "ReleaseError",
    "SecAggError",
    "StorageError",
    "ToleranceError",
    "VaultError",
]


class HushrecError(Exception):
    """Root of all errors of hushrec.

    Attributes:
        code: Stable name of the kind of error.
        exit_code: Exit status of the command line for it.

    >>> HushrecError("it broke").code
    'error'
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross process pools whole."""
        return type(self), (self.message,)


class ConfigError(HushrecError):
    """An argument or option is outside what is allowed."""

    code = "config"
    exit_code = 2


class DataError(HushrecError):
    """An event or item file cannot be read as it is; names file, row and column."""

    code = "data"
    exit_code = 3


class CheckpointError(HushrecError):
    """A training folder is missing, incomplete, or was made from other data."""

    code = "checkpoint"
    exit_code = 4


class BundleError(HushrecError):
    """A bundle is damaged, incomplete, not a bundle, or of a newer major version."""

    code = "bundle"
    exit_code = 5


class ProfileError(HushrecError):
    """A profile file cannot be opened, read or written."""

    code = "profile"
    exit_code = 6


class CatalogError(HushrecError):
    """A column that the catalogue does not have was asked for; names the nearest one."""

    code = "catalog"
    exit_code = 2


class ToleranceError(HushrecError):
    """A quantized model lost more quality than its tolerance allows; no bundle was written."""

    code = "tolerance"
    exit_code = 7


class PlanError(HushrecError):
    """A privacy plan is unsigned, damaged, of another version, or past what this side allows."""

    code = "plan"
    exit_code = 10


class NoiseStateError(HushrecError):
    """A round's noise was drawn before, or the sealed noise of earlier rounds cannot be used."""

    code = "noise-state"
    exit_code = 1


class BudgetError(HushrecError):
    """A privacy budget would be overspent, or its rules broken; nothing was spent."""

    code = "budget"
    exit_code = 8


class LedgerError(HushrecError):
    """A privacy ledger is missing, damaged, foreign, altered, older than its anchor, or cannot be written."""

    code = "ledger"
    exit_code = 9


class SecAggError(HushrecError):
    """A message of a round of secure aggregation is malformed, out of place, or shows that the other side lies."""

    code = "secure-aggregation"
    exit_code = 11


class EnvelopeError(HushrecError):
    """A sealed or signed message cannot be accepted; says no more than that, whatever the reason."""

    code = "envelope"
    exit_code = 12


class EnrolmentError(HushrecError):
    """A device has no certificate for a plan, a wrong one, or the authority does not give one."""

    code = "enrolment"
    exit_code = 13


class VaultError(HushrecError):
    """The sealed store of a device's keys is missing, damaged, a copy, or the key is not its own."""

    code = "vault"
    exit_code = 14


class ReleaseError(HushrecError):
    """A release is not authentic, incomplete, older than the one in use, worse, or does not work here."""

    code = "release"
    exit_code = 16


class StorageError(HushrecError):
    """The server's database is missing, of a newer hushrec, or could not be read or written."""

    code = "storage"
    exit_code = 17


class FleetError(HushrecError):
    """The server refused a request, or could not be reached.

    Attributes:
        reason: Stable name of the refusal, to branch on; the wording may change.
        retry_after_s: Seconds until asking again makes sense; None: never for this request.
    """

    code = "fleet"
    exit_code = 15

    def __init__(self, message: str, *, reason: str = "refused", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason, self.retry_after_s = reason, retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross process pools whole."""
        return _fleet_error, (self.message, self.reason, self.retry_after_s)


def _fleet_error(message: str, reason: str, retry_after_s: float | None) -> HushrecError:
    return FleetError(message, reason=reason, retry_after_s=retry_after_s)
