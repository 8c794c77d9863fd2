"""The page of a receipt: words for the shopper, with no number below what holds."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
from hushrec.receipt import PLAN_COLUMNS, meaning, plan_rows, receipt_page
from hushrec_privacy.ledger import MemoryLedgerStore, ParticipationRecord
from hushrec_privacy.report.receipt import NOT_ON_THE_RECEIPT, Receipt, device_receipt

from tests.participations import a_plan, joined, recorded


@pytest.fixture
def receipt() -> Receipt:
    return device_receipt(recorded(joined(a_plan()), [3, 41]))


def test_the_page_holds_everything_that_a_receipt_says(receipt: Receipt) -> None:
    page = receipt_page(receipt)
    plan = receipt.plans[0]
    assert page.startswith("# Privacy receipt of this device: epsilon ")
    for text in (plan.plan[:16], "3, 41", plan.sent, receipt.total.unit, receipt.total.trust, str(receipt.head)):
        assert text in page
    for line in (*receipt.total.assumptions, *NOT_ON_THE_RECEIPT, *receipt.checks()):
        assert f"- {line}" in page
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [
        "What this device took part in",
        "What left this device",
        "What is left",
        "It holds only if",
        "What it does not cover",
        "How to check it",
    ]
    assert "**" not in page, "nothing to warn of"


def test_no_printed_number_is_below_what_holds(receipt: Receipt) -> None:
    row = dict(zip(PLAN_COLUMNS, plan_rows(receipt)[0], strict=True))
    assert float(row["epsilon spent"]) >= receipt.plans[0].spent.epsilon
    assert float(row["epsilon at the end"]) >= receipt.plans[0].whole.epsilon
    printed = re.findall(r"epsilon ([\d.e-]+) at delta ([\d.e-]+)", receipt_page(receipt))[0]
    assert float(printed[0]) >= receipt.total.epsilon
    assert float(printed[1]) >= receipt.total.delta
    assert float(re.findall(r"rho ([\d.e-]+) of 5 is spent", receipt_page(receipt))[0]) >= float(receipt.rho)


def test_a_device_that_sent_nothing_is_told_so() -> None:
    store = MemoryLedgerStore()
    ParticipationRecord.begin(store, lifetime_rho="1").join(joined(a_plan()))
    page = receipt_page(device_receipt(store))
    assert "has sent nothing" in page
    assert "| none | 0 |" in page
    empty = MemoryLedgerStore()
    ParticipationRecord.begin(empty, lifetime_rho="1")
    page = receipt_page(device_receipt(empty))
    assert "No plan was joined." in page
    assert "It holds only if" not in page


def test_a_warning_comes_first_and_a_device_at_its_limit_says_so() -> None:
    opened = replace(joined(a_plan(), participations=1), demo=True)
    page = receipt_page(device_receipt(recorded(opened, [1])))
    assert page.splitlines()[2].startswith("**DEMO")
    assert "nothing more, the device refuses further rounds" in page


@pytest.mark.parametrize("epsilon", [101.0, float("inf")])
def test_a_huge_epsilon_is_called_no_protection(receipt: Receipt, epsilon: float) -> None:
    assert "no protection" in meaning(replace(receipt.total, epsilon=epsilon))


def test_a_device_makes_its_receipt_without_a_training_library() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import hushrec.receipt, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in shown.stdout.split()}
    assert not loaded & {"torch", "scipy", "onnx", "polars", "typer", "opacus", "dp_accounting"}
