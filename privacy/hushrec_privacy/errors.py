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
    └── NoiseStateError   the noise of a plan is spent, lost or damaged      abandon the round, or end the plan

`code` is stable, names the page docs/errors/<code>.md, and is what programs branch on; the wording may change.
`exit_code` is what the command line ends with. Texts on a device never hold item ids, keys or a shopper's data; the
shop's own tools name file, row and column.
"""

from typing import ClassVar

__all__ = [
    "BudgetError",
    "BundleError",
    "CatalogError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "HushrecError",
    "LedgerError",
    "NoiseStateError",
    "PlanError",
    "ProfileError",
    "ToleranceError",
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

    def __reduce__(self) -> tuple[type["HushrecError"], tuple[str]]:
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
