"""A login token vouches for one account, in one plan, until it ends, under one key."""

import base64
import hashlib
import hmac

import pytest
from hushrec_privacy.enrolment import login_token, plan_of_token, verified_token
from hushrec_privacy.errors import ConfigError, EnrolmentError

KEY, PLAN = bytes(range(32)), "ab" * 32
END = 1_700_000_000
DATA = bytes.fromhex(
    "01"  # version
    "abababababababababababababababababababababababababababababababab"  # plan
    "000000006553f100"  # ends at 1,700,000,000
    "c3a46e6e"  # "änn"
)


def _signed(data: bytes, key: bytes = KEY) -> str:
    mac = hmac.new(key, b"hushrec login token v1\0" + data, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(data + mac).rstrip(b"=").decode()


def test_the_bytes_of_a_token_are_the_published_ones() -> None:
    assert login_token(KEY, "änn", PLAN, END) == _signed(DATA)
    assert verified_token(KEY, _signed(DATA), plan_id=PLAN, at_s=END - 1) == "änn"


@pytest.mark.parametrize("account", ["a", "b" * 256, "c" * 255, "d" * 254])
def test_accounts_of_every_length_come_back(account: str) -> None:
    token = login_token(KEY, account, PLAN, END)
    assert "=" not in token
    assert verified_token(KEY, token, plan_id=PLAN, at_s=0) == account


@pytest.mark.parametrize("late", [0, 1, 10**9])
def test_a_token_that_has_ended_is_refused(late: int) -> None:
    with pytest.raises(EnrolmentError, match="has ended"):
        verified_token(KEY, login_token(KEY, "ann", PLAN, END), plan_id=PLAN, at_s=END + late)


def test_a_token_for_another_plan_is_refused() -> None:
    with pytest.raises(EnrolmentError, match="another plan"):
        verified_token(KEY, login_token(KEY, "ann", PLAN, END), plan_id="ac" + PLAN[2:], at_s=0)


def test_a_token_of_another_key_is_refused() -> None:
    with pytest.raises(EnrolmentError, match="not of this shop"):
        verified_token(KEY, login_token(bytes(32), "ann", PLAN, END), plan_id=PLAN, at_s=0)


def test_every_changed_bit_every_truncation_and_any_extension_is_refused() -> None:
    token = login_token(KEY, "ann", PLAN, END)
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for at in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(EnrolmentError, match="not of this shop"):
            verified_token(KEY, base64.urlsafe_b64encode(changed).rstrip(b"=").decode(), plan_id=PLAN, at_s=0)
    for bad in [*(token[:at] for at in range(len(token))), token + "A", token + "==", token + "\n", " " + token]:
        with pytest.raises(EnrolmentError, match="not of this shop"):
            verified_token(KEY, bad, plan_id=PLAN, at_s=0)


def test_a_token_has_one_spelling() -> None:
    token = login_token(KEY, "ann", PLAN, END)
    assert len(token) % 4 == 2, "the last character carries four bits that decode to nothing"
    other = token[:-1] + chr(ord(token[-1]) + 1)
    raw = [base64.urlsafe_b64decode(text + "==") for text in (token, other)]
    assert raw[0] == raw[1]
    with pytest.raises(EnrolmentError, match="not of this shop"):
        verified_token(KEY, other, plan_id=PLAN, at_s=0)


@pytest.mark.parametrize(
    "data",
    [b"", b"\2" + DATA[1:], b"\0" + DATA[1:], DATA[:41], DATA[:20]],
    ids=["empty", "newer", "zero", "no account", "cut"],
)
def test_what_is_signed_but_no_token_of_this_version_is_refused(data: bytes) -> None:
    with pytest.raises(EnrolmentError, match="not of this shop"):
        verified_token(KEY, _signed(data), plan_id=PLAN, at_s=0)


@pytest.mark.parametrize("token", ["", "ä", "a" * 10_000, None, b"abcd", "ab+/"])
def test_what_is_no_token_at_all_is_refused(token: str) -> None:
    with pytest.raises(EnrolmentError, match="not of this shop"):
        verified_token(KEY, token, plan_id=PLAN, at_s=0)


def test_a_token_tells_whoever_holds_it_which_plan_it_is_for() -> None:
    assert plan_of_token(login_token(KEY, "ann", PLAN, END)) == PLAN
    for other in ("", "ä", "a" * 10_000, "abcd", _signed(b"\2" + DATA[1:]), _signed(DATA[:41])):
        assert plan_of_token(other) is None


def test_keys_and_times_out_of_form_are_a_mistake_of_the_caller() -> None:
    for key in (b"", bytes(31), None):
        with pytest.raises(ConfigError, match="32 bytes"):
            login_token(key, "ann", PLAN, END)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="32 bytes"):
            verified_token(key, login_token(KEY, "ann", PLAN, END), plan_id=PLAN, at_s=0)  # type: ignore[arg-type]
    for end in (-1, 2**63, 1.5):
        with pytest.raises(ConfigError):
            login_token(KEY, "ann", PLAN, end)  # type: ignore[arg-type]


def test_an_account_without_a_name_gets_no_token() -> None:
    with pytest.raises(EnrolmentError, match="account"):
        login_token(KEY, "", PLAN, END)
