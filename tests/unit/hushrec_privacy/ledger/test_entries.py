"""An entry has one byte string; a wrong, foreign or oddly written one is refused."""

import dataclasses
from typing import Any

import pytest
from hushrec_privacy.canonical import encode
from hushrec_privacy.errors import ConfigError, LedgerError
from hushrec_privacy.ledger import Close, Entry, Genesis, Limits, Open, Spend
from hushrec_privacy.ledger.entries import entry_bytes, read_entry

from tests.ledger_plans import made_up_plan, plan_id

PLAN = plan_id("plan")
ALL_LIMITS = Limits(max_rounds=10, cap=2, separation=3, max_rho="0.5", max_epsilon="8")
ENTRIES: list[Entry] = [
    Genesis(),
    Genesis("2.5", at_s=1_700_000_000),
    made_up_plan(),
    made_up_plan(limits=ALL_LIMITS, demo=True, at_s=0),
    Spend(PLAN, 1, 1),
    Spend(PLAN, 3, 7, "0", "1.5", at_s=9),
    Close(PLAN),
    Close(PLAN, at_s=9),
]
OPEN: dict[str, Any] = {field.name: getattr(made_up_plan(), field.name) for field in dataclasses.fields(Open)}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.kind)
def test_an_entry_is_read_back_as_it_was_written(entry: Entry) -> None:
    assert read_entry(entry_bytes(entry)) == entry


def test_a_spend_is_written_like_this() -> None:
    assert entry_bytes(Spend("ab" * 32, 3, 7, "0.5", at_s=9)) == (
        b'{"at_s":9,"first":3,"kind":"spend","last":7,"plan":"' + b"ab" * 32 + b'","rho":"0.5"}'
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"plan": "ab"},
        {"plan": "AB" * 32},
        {"mechanism": ""},
        {"mechanism": "x" * 201},
        {"unit": "two\nlines"},
        {"trust": 1},
        {"adjacency": "replace-one"},
        {"delta": "1.5"},
        {"delta": "1e-6"},
        {"delta": 0.1},
        {"parameters": {"z": 1.5}},
        {"parameters": {"z": "8.350"}},
        {"parameters": {"z": True}},
        {"parameters": {"z": -1}},
        {"parameters": []},
        {"limits": {"max_rounds": 1}},
        {"demo": 1},
        {"at_s": -1},
        {"at_s": 1.5},
    ],
)
def test_a_plan_with_a_wrong_field_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Open(**{**OPEN, **changed})


@pytest.mark.parametrize(
    "limits",
    [
        {"max_rounds": 0},
        {"max_rounds": 2**53},
        {"max_rounds": True},
        {"max_rounds": 1, "cap": 0},
        {"max_rounds": 1, "separation": 0},
        {"max_rounds": 1, "max_rho": "-1"},
        {"max_rounds": 1, "max_epsilon": "inf"},
    ],
)
def test_wrong_limits_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Limits(**limits)


@pytest.mark.parametrize(
    "spend", [(PLAN, 0, 1), (PLAN, 2, 1), (PLAN, 1, 1.0), (PLAN, 1, 1, 0.5), (PLAN, 1, 1, None, "NaN"), ("x", 1, 1)]
)
def test_a_wrong_spend_is_refused(spend: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError):
        Spend(*spend)


@pytest.mark.parametrize("genesis", [{"lifetime_rho": "1e1"}, {"lifetime_rho": 1}, {"at_s": -1}])
def test_a_wrong_first_entry_is_refused(genesis: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Genesis(**genesis)


def fields_of(entry: Entry) -> dict[str, Any]:
    from hushrec_privacy.canonical import decode

    fields: dict[str, Any] = decode(entry_bytes(entry))
    return fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "is no ledger entry"),
        ({}, "is no ledger entry"),
        ({"kind": 1}, "is no ledger entry"),
        ({"kind": "refund"}, "does not know; update hushrec"),
        ({"kind": "genesis", "budget": "9"}, "wrong field"),
        ({"kind": "close"}, "wrong field"),
        ({"kind": "close", "plan": PLAN[:-1]}, "wrong field"),
        ({**fields_of(Spend(PLAN, 1, 1)), "first": True}, "wrong field"),
        ({**fields_of(Spend(PLAN, 1, 1)), "last": 0}, "wrong field"),
        ({**fields_of(made_up_plan()), "limits": {"max_rounds": 1, "min_rounds": 1}}, "wrong field"),
        ({**fields_of(made_up_plan()), "limits": 3}, "wrong field"),
        ({**fields_of(made_up_plan()), "limits": {"max_rounds": 1}}, "not written as hushrec writes it"),
        ({k: v for k, v in fields_of(made_up_plan()).items() if k != "demo"}, "not written as hushrec writes it"),
    ],
)
def test_bytes_that_are_no_entry_are_refused(fields: object, message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        read_entry(encode(fields), name="entry 3")


def test_bytes_that_are_not_canonical_are_refused() -> None:
    with pytest.raises(LedgerError, match="entry 3 is not canonical JSON"):
        read_entry(entry_bytes(Close(PLAN)) + b" ", name="entry 3")


def test_an_entry_has_at_most_64_kib() -> None:
    large = made_up_plan(parameters={f"p{n}": 1 for n in range(8_000)})
    with pytest.raises(ConfigError, match="65536"):
        entry_bytes(large)
    with pytest.raises(LedgerError, match="65536"):
        read_entry(b"x" * 65_537)


def test_a_purpose_is_told_or_left_out() -> None:
    assert b"purpose" not in entry_bytes(made_up_plan())
    told = dataclasses.replace(made_up_plan(), purpose="visits: how often the app was opened")
    assert read_entry(entry_bytes(told)) == told
    for wrong in ("", "a\nb", "a" * 4001):
        with pytest.raises(ConfigError, match="purpose"):
            dataclasses.replace(made_up_plan(), purpose=wrong)
