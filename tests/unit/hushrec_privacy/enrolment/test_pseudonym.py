"""An account has one pseudonym a plan, and no two that can be linked."""

import hashlib
import hmac

import pytest
from hushrec_privacy.enrolment import pseudonym
from hushrec_privacy.errors import ConfigError, EnrolmentError

SECRET, PLAN = bytes(range(32)), "ab" * 32


def test_a_pseudonym_is_the_start_of_an_hmac() -> None:
    data = b"hushrec pseudonym v1\0" + b"\xab" * 32 + "ännchen".encode()
    expected = hmac.new(SECRET, data, hashlib.sha256).hexdigest()[:32]
    assert pseudonym(SECRET, "ännchen", PLAN) == expected


def test_account_plan_and_secret_each_change_it() -> None:
    names = {
        pseudonym(SECRET, "ann", PLAN),
        pseudonym(SECRET, "anne", PLAN),
        pseudonym(SECRET, "ann", "ac" + PLAN[2:]),
        pseudonym(bytes(32), "ann", PLAN),
    }
    assert len(names) == 4


@pytest.mark.parametrize("account", ["", "a" * 257, "ä" * 129, "\ud800", None, b"ann"])
def test_what_is_no_name_of_an_account_is_refused(account: str) -> None:
    with pytest.raises(EnrolmentError, match="account"):
        pseudonym(SECRET, account, PLAN)


@pytest.mark.parametrize("plan", ["", "ab" * 33, "AB" * 32, "ab" * 32 + "\n", None])
def test_what_is_no_id_of_a_plan_is_refused(plan: str) -> None:
    with pytest.raises(EnrolmentError, match="plan"):
        pseudonym(SECRET, "ann", plan)


@pytest.mark.parametrize("secret", [b"", bytes(31), "x" * 32, None])
def test_a_short_secret_is_refused(secret: bytes) -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        pseudonym(secret, "ann", PLAN)
