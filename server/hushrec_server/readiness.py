"""Whether this process can serve: named checks that the parts add, and their answer at /readyz.

A check is a call that returns nothing when all is well, and raises a `HushrecError` whose text says what is wrong and
what to do. It may block. A check that raises anything else counts as failed, without its text. Texts may name files:
they are for whoever has the administrator's token, and anybody else is told the names of the checks alone.
"""

from collections.abc import Callable

import msgspec
from hushrec_privacy.errors import ConfigError, HushrecError

from hushrec_server.logs import log_fault

__all__ = ["CheckResult", "Readiness", "ReadyAnswer"]


class CheckResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One check: its name, whether all is well, and if not, what to do: for the administrator alone."""

    name: str
    ok: bool
    detail: str = ""


class ReadyAnswer(msgspec.Struct, frozen=True):
    """All checks."""

    ready: bool
    checks: tuple[CheckResult, ...]

    def for_anybody(self) -> "ReadyAnswer":
        """The same without details."""
        return ReadyAnswer(self.ready, tuple(msgspec.structs.replace(check, detail="") for check in self.checks))


class Readiness:
    """The checks of one process.

    >>> ready = Readiness()
    >>> ready.add("database", lambda: None)
    >>> ready.answer().ready
    True
    """

    def __init__(self) -> None:
        self._checks: dict[str, Callable[[], object]] = {}

    def add(self, name: str, check: Callable[[], object]) -> None:
        """Add a check.

        Raises:
            ConfigError: There is one of this name.
        """
        if name in self._checks:
            raise ConfigError(f"there is a check {name!r} already")
        self._checks[name] = check

    def answer(self) -> ReadyAnswer:
        """Run all checks."""
        results = tuple(_result(name, check) for name, check in self._checks.items())
        return ReadyAnswer(all(result.ok for result in results), results)


def _result(name: str, check: Callable[[], object]) -> CheckResult:
    try:
        check()
    except HushrecError as error:
        return CheckResult(name, ok=False, detail=error.message)
    except Exception as error:  # noqa: BLE001  a check must not take the others down
        log_fault("check-failed", error)
        return CheckResult(name, ok=False, detail="the check itself failed; look into the log")
    return CheckResult(name, ok=True)
