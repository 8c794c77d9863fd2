"""Named checks: one that fails is named and told, and takes no other down."""

import pytest
from hushrec_privacy.errors import ConfigError, StorageError
from hushrec_server.readiness import CheckResult, Readiness


def test_all_checks_run_and_each_has_its_result() -> None:
    ready = Readiness()

    def broken() -> None:
        raise StorageError("the database cannot be reached")

    ready.add("database", broken)
    ready.add("rounds", lambda: None)
    answer = ready.answer()
    assert not answer.ready
    assert answer.checks == (
        CheckResult("database", ok=False, detail="the database cannot be reached"),
        CheckResult("rounds", ok=True),
    )


def test_a_check_that_has_a_bug_fails_without_its_text() -> None:
    ready = Readiness()
    ready.add("odd", lambda: 1 / 0)
    (result,) = ready.answer().checks
    assert (result.ok, "division" in result.detail) == (False, False)


def test_two_checks_of_one_name_are_refused() -> None:
    ready = Readiness()
    ready.add("rounds", lambda: None)
    with pytest.raises(ConfigError, match="already"):
        ready.add("rounds", lambda: None)
