"""The receipt: computed from the device's own record, and never below what its rounds cost."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hushrec_privacy.accounting import gaussian_rho_epsilon
from hushrec_privacy.accounting.claims import DEVICE
from hushrec_privacy.errors import BudgetError, ConfigError, LedgerError, PlanError
from hushrec_privacy.ledger import Anchor, Ledger, MemoryLedgerStore, ParticipationRecord, SqliteLedgerStore
from hushrec_privacy.ledger.device_cost import (
    device_guarantee,
    device_opening,
    device_rho,
    direct_opening,
    participation_rho,
)
from hushrec_privacy.ledger.openings import plan_opening
from hushrec_privacy.mechanisms.local_noise import LocalNoise
from hushrec_privacy.plans.limits import DeviceLimits
from hushrec_privacy.report.receipt import NOT_ON_THE_RECEIPT, device_receipt
from hushrec_privacy.report.spending import spending_report

from tests.fleet_plans import COUNTS, FEATURES, a_fleet_plan
from tests.ledger_plans import made_up_plan
from tests.participations import a_plan, joined, recorded, take_part


def test_an_empty_record_has_a_receipt_of_nothing() -> None:
    store = MemoryLedgerStore()
    record = ParticipationRecord.begin(store, lifetime_rho="1")
    found = device_receipt(store)
    assert (found.total.epsilon, found.total.delta, found.total.unit) == (0, 0, DEVICE)
    assert (found.plans, found.entries, found.rho, found.rho_left) == ((), 1, "0", "1")
    record.join(joined(a_plan()))
    found = device_receipt(store)
    assert (found.total.epsilon, found.total.delta) == (0, 0)
    assert (found.plans[0].sent, found.plans[0].left) == ("nothing", 5)
    assert not found.warnings()


def test_rounds_cost_what_the_plan_s_numbers_give() -> None:
    opened = joined(a_plan())
    found = device_receipt(recorded(opened, [3, 41]))
    plan = found.plans[0]
    assert found.total == plan.spent == device_guarantee(opened, 2)
    assert (found.total.adjacency, found.total.unit, found.total.trust) == ("zero-out", opened.unit, opened.trust)
    assert (plan.rounds, plan.participations, plan.left) == (((3, 3), (41, 41)), 2, 2)
    assert plan.whole == device_guarantee(opened, 4), "61 and 81 are left"
    assert 0 < plan.spent.epsilon < plan.whole.epsilon <= float(a_plan().epsilon)
    assert not plan.understated
    assert "2 times" in plan.sent
    assert "at least" in plan.sent


def test_several_plans_are_composed_exactly() -> None:
    store = MemoryLedgerStore()
    record = ParticipationRecord.begin(store, lifetime_rho="5")
    first, second, never = (joined(a_plan(epsilon=epsilon)) for epsilon in (2.0, 1.0, 0.5))
    take_part(record, first, [1, 30])
    take_part(record, second, [5])
    take_part(record, never, [])
    found = device_receipt(store)
    rho = device_rho(first, 2) + device_rho(second, 1)
    assert found.total.epsilon == pytest.approx(gaussian_rho_epsilon(rho, 2e-6), rel=1e-11)
    assert found.total.epsilon < found.plans[0].spent.epsilon + found.plans[1].spent.epsilon
    assert found.total.delta == pytest.approx(2e-6), "the plan without a round adds none"
    assert [plan.participations for plan in found.plans] == [2, 1, 0]


def test_a_device_at_its_cap_has_nothing_left() -> None:
    opened = joined(a_plan(), participations=2)
    found = device_receipt(recorded(opened, [3, 41])).plans[0]
    assert (found.left, found.whole) == (0, found.spent)


def test_a_device_at_its_lifetime_limit_has_nothing_left() -> None:
    opened = joined(a_plan())
    limit = device_rho(opened, 2) * 1.01
    store = recorded(opened, [1, 21], lifetime_rho=f"{limit:.17f}".rstrip("0"))
    found = device_receipt(store).plans[0]
    assert (found.participations, found.left) == (2, 0)
    with pytest.raises(BudgetError):
        ParticipationRecord(store).participate(opened.plan, 41, rho=participation_rho(opened, 2))


@pytest.mark.parametrize("affordable", [2, 3, 5])
def test_what_is_left_is_what_the_record_allows(affordable: int) -> None:
    opened = joined(a_plan())
    limit = f"{device_rho(opened, affordable) * 1.001:.17f}".rstrip("0")
    store = recorded(opened, [1], lifetime_rho=limit)
    record, left = ParticipationRecord(store), device_receipt(store).plans[0].left
    assert left == affordable - 1
    rounds = [21, 41, 61, 81]
    for before, round_ in enumerate(rounds[:left], start=1):
        record.participate(opened.plan, round_, rho=participation_rho(opened, before))
    if left < len(rounds):
        with pytest.raises(BudgetError):
            record.participate(opened.plan, rounds[left], rho=participation_rho(opened, affordable))


def test_a_limit_of_the_plan_s_own_counts_too() -> None:
    opened = joined(a_plan())
    limited = replace(opened, limits=replace(opened.limits, max_rho=f"{device_rho(opened, 2) * 1.01:.17f}".rstrip("0")))
    assert device_receipt(recorded(limited, [1])).plans[0].left == 1


def test_an_ended_plan_is_left_nothing() -> None:
    store = recorded(joined(a_plan()), [1])
    Ledger(store).close_plan(a_plan().plan_id)
    found = device_receipt(store).plans[0]
    assert (found.closed, found.left) == (True, 0)


def test_a_record_that_was_told_too_little_is_called_so() -> None:
    store = MemoryLedgerStore()
    record = ParticipationRecord.begin(store, lifetime_rho="5")
    opened = joined(a_plan())
    record.join(opened)
    record.participate(opened.plan, 1, rho="0.0001")
    found = device_receipt(store)
    assert found.plans[0].understated
    assert found.total.epsilon == device_guarantee(opened, 1).epsilon, "whatever it was told"
    assert "smaller rho" in found.warnings()[0]


def test_a_plan_that_the_device_cannot_account_for_has_no_guarantee() -> None:
    opened = replace(joined(a_plan()), mechanism="laplace")
    store = MemoryLedgerStore()
    record = ParticipationRecord.begin(store, lifetime_rho="5")
    record.join(opened)
    record.participate(opened.plan, 1, rho="0.1")
    found = device_receipt(store)
    assert found.to_dict()["epsilon"] == "inf"
    assert "no guarantee" in found.warnings()[0]
    assert found.plans[0].left == 4
    assert found.plans[0].sent == "at most once: what this plan calls laplace"


def test_a_demonstration_says_so() -> None:
    found = device_receipt(recorded(replace(joined(a_plan()), demo=True), [1]))
    assert found.plans[0].demo
    assert "DEMO" in found.warnings()[0]


def test_the_values_are_json_and_say_what_is_not_covered() -> None:
    shown = json.loads(json.dumps(device_receipt(recorded(joined(a_plan()), [1, 40])).to_dict(), allow_nan=False))
    assert set(shown) >= {"epsilon", "delta", "adjacency", "assumptions", "unit", "mechanism", "trust", "slack"}
    assert shown["plans"][0]["rounds"] == [[1, 1], [40, 40]]
    assert shown["plans"][0]["spent"]["participations"] == 2
    assert shown["lifetime"]["rho_limit"] == "5"
    assert shown["not_covered"] == list(NOT_ON_THE_RECEIPT)
    assert any(shown["head"] in line for line in shown["how_to_check"])


@pytest.mark.parametrize("lifetime_rho", [None, "5"])
def test_the_ledger_of_a_shop_is_no_record_of_a_device(lifetime_rho: str | None) -> None:
    store = MemoryLedgerStore()
    ledger = Ledger.begin(store, lifetime_rho=lifetime_rho)
    ledger.open_plan(plan_opening(a_plan()))
    with pytest.raises(LedgerError, match="privacy report"):
        device_receipt(store)


def test_a_device_s_record_is_no_ledger_to_report_from() -> None:
    """A report would count the rounds up to the device's last one, and later ones tell of it too."""
    with pytest.raises(ConfigError, match="privacy receipt"):
        spending_report(recorded(joined(a_plan()), [1]))


def test_an_edited_row_is_refused() -> None:
    store = recorded(joined(a_plan()), [1, 40])
    row = store.records[2]
    store.records[2] = replace(
        row, entry=row.entry.replace(b'"first":1', b'"first":2').replace(b'"last":1', b'"last":2')
    )
    with pytest.raises(LedgerError, match="altered"):
        device_receipt(store)


def test_an_older_copy_is_found_by_the_head_of_an_earlier_receipt(tmp_path: Path) -> None:
    path, opened = tmp_path / "participation.db", joined(a_plan())
    record = ParticipationRecord.at(path, lifetime_rho="5")
    take_part(record, opened, [1])
    older = path.read_bytes()
    record.participate(opened.plan, 40, rho=participation_rho(opened, 1))
    with SqliteLedgerStore(path, read_only=True) as store:  # while the app has it open
        receipt = device_receipt(store)
        assert device_receipt(store, anchor=receipt.head).anchored
    record.close()
    path.write_bytes(older)
    with SqliteLedgerStore(path, read_only=True) as store:
        assert device_receipt(store).plans[0].participations == 1, "without the head nobody can tell"
        with pytest.raises(LedgerError, match="older copy"):
            device_receipt(store, anchor=Anchor.parse(str(receipt.head)))


def test_a_made_up_plan_without_numbers_is_infinite() -> None:
    store = MemoryLedgerStore()
    record = ParticipationRecord.begin(store, lifetime_rho="5")
    plan = made_up_plan(limits=joined(a_plan()).limits)
    record.join(plan)
    record.participate(plan.plan, 1, rho="0.1")
    assert device_receipt(store).total.epsilon == math.inf


def test_a_receipt_says_what_the_vector_was() -> None:
    opened = device_opening(a_fleet_plan(vector=COUNTS), DeviceLimits())
    sent = device_receipt(recorded(opened, [3])).plans[0].sent
    assert (
        "at most once: 44 numbers (trending: which items were looked at this week (last 7 days); evaluation: " in sent
    )
    assert "), each part cut to its bound in the plan and masked" in sent, "its clip norm is in no unit of a segment"
    assert "the sum over at least 160 devices" in sent
    update = device_receipt(recorded(device_opening(a_fleet_plan(), DeviceLimits()), [3])).plans[0].sent
    assert "2048 numbers (update: by how much each number of the model should change), cut to a length of 0.1" in update


def test_an_entry_of_before_that_tells_no_purpose_still_has_a_receipt() -> None:
    sent = device_receipt(recorded(replace(joined(a_plan()), purpose=None), [3])).plans[0].sent
    assert "2048 numbers by which the model should change" in sent


def test_a_payload_that_the_server_sees_has_an_epsilon_and_a_line_of_its_own() -> None:
    plan = a_fleet_plan(vector=FEATURES)
    store = MemoryLedgerStore()
    record = ParticipationRecord.begin(store, lifetime_rho="5")
    rounds, direct = device_opening(plan, DeviceLimits()), direct_opening(plan, "user-vector", DeviceLimits())
    assert direct.plan != rounds.plan
    take_part(record, rounds, [2])
    take_part(record, direct, [1, 2])
    found = device_receipt(store)
    by_rounds, by_itself = found.plans
    assert by_itself.spent.epsilon == pytest.approx(LocalNoise(8, 1.0, 4.0, 1e-6).guarantee(2).epsilon, rel=1e-9)
    assert by_itself.left == 3
    assert by_itself.spent.mechanism.startswith("local Gaussian")
    assert "a device sends it at most 5 times, each time with new noise" in by_itself.spent.assumptions
    assert "at most 2 times: 8 numbers (user-vector: to choose what the start page shows)" in by_itself.sent
    assert "the server sees them, each time, and is to delete them after 30 days" in by_itself.sent
    assert "nobody but this device" in by_itself.spent.trust
    assert not by_itself.understated
    losses = [each.loss.mu for each in (found.total, by_itself.spent, by_rounds.spent) if each.loss]
    assert losses[0] == pytest.approx(math.hypot(*losses[1:])), "both count against one lifetime"
    with pytest.raises(BudgetError):
        take_part(record, direct, [1])
    with pytest.raises(PlanError, match="no direct payload 'interests'"):
        direct_opening(plan, "interests", DeviceLimits())


def test_a_device_s_cap_holds_for_direct_payloads_too() -> None:
    opened = direct_opening(a_fleet_plan(vector=FEATURES), "user-vector", DeviceLimits(participations=2))
    assert (opened.limits.max_rounds, opened.limits.cap) == (5, 2)
