"""The report: computed from the ledger alone, and never below what was spent."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hushrec_privacy.accounting import gaussian_epsilon, poisson_epsilon
from hushrec_privacy.accounting.gaussian import mu_of_participations
from hushrec_privacy.errors import ConfigError, LedgerError
from hushrec_privacy.ledger import Ledger, MemoryLedgerStore, Open, Record, SqliteLedgerStore
from hushrec_privacy.ledger.openings import (
    counts_opening,
    guarantee_after,
    plan_opening,
    run_id,
    training_opening,
)
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.report.spending import NOT_COVERED, spending_report, together


def a_plan() -> Plan:
    found = make_plan(Request(population=20_000, cohort=1000, rounds=100, delta=1e-6, epsilon=2.0))
    assert found is not None
    return found


def training(steps: int = 300) -> Open:
    return training_opening(run_id(kind="training"), sampling_rate=0.05, noise_multiplier=2.0, steps=steps, delta=1e-6)


def test_a_whole_plan_costs_what_it_states() -> None:
    plan = a_plan()
    ledger, store = begun()
    ledger.open_plan(plan_opening(plan))
    assert spending_report(store).total.epsilon == 0
    ledger.spend(plan.plan_id, 1)
    ledger.spend(plan.plan_id, 40)
    part = spending_report(store, curves=True).plans[0]
    assert 0 < part.spent.epsilon < part.whole.epsilon == pytest.approx(float(plan.epsilon), rel=3e-9)
    assert (part.rounds, part.rounds_left) == (2, 60)
    assert [rounds for rounds, _ in part.curve] == [1, 2]
    ledger.spend(plan.plan_id, 100)
    assert spending_report(store).total.epsilon == pytest.approx(float(plan.epsilon), rel=3e-9)


def test_ledgers_of_run_after_run_are_composed_and_no_copy_counts_twice() -> None:
    reports = []
    for nonce in ("a", "b"):
        opened = training_opening(
            run_id(kind="training", nonce=nonce), sampling_rate=0.05, noise_multiplier=2.0, steps=300, delta=1e-6
        )
        ledger, store = begun()
        ledger.open_plan(opened)
        ledger.spend(opened.plan, 1, 300)
        reports.append(spending_report(store))
    found = together(reports)
    assert found.total.epsilon == pytest.approx(poisson_epsilon(0.05, 600, 2.0, 2e-6), rel=1e-3)
    assert found.total.epsilon < sum(report.total.epsilon for report in reports)
    assert (len(found.plans), found.entries, len(found.heads)) == (2, 6, 2)
    assert together(reports[:1]) is reports[0]
    with pytest.raises(ConfigError, match="in two of the ledgers"):
        together([reports[0], reports[0]])


def begun() -> tuple[Ledger, MemoryLedgerStore]:
    store = MemoryLedgerStore()
    return Ledger.begin(store), store


def test_rounds_that_were_left_out_are_counted_up_to_the_last() -> None:
    opened = plan_opening(a_plan())
    assert guarantee_after(opened, 1, 90).epsilon == guarantee_after(opened, 90, 90).epsilon


def tables() -> Open:
    return counts_opening(run_id(kind="tables"), noise_multiplier=10.0, releases=2, delta=1e-7)


def test_training_and_tables_are_composed_as_one_run_with_both_would_be() -> None:
    ledger, store = begun()
    ledger.open_plan(training())
    ledger.spend(training().plan, 1, 250)
    ledger.open_plan(tables())
    ledger.spend(tables().plan, 1, 2)
    found = spending_report(store, curves=True)
    assert found.plans[0].spent.epsilon == poisson_epsilon(0.05, 250, 2.0, 1e-6)
    whole = poisson_epsilon(0.05, 250, 2.0, found.total.delta, released_mu=mu_of_participations(10.0, 2))
    assert found.total.epsilon == pytest.approx(whole, rel=1e-9)
    assert found.total.delta == pytest.approx(1.1e-6)
    assert found.total.epsilon < 0.9 * sum(plan.spent.epsilon for plan in found.plans)
    assert found.total.adjacency == "add-or-remove"
    assert any("chosen without looking" in line for line in found.total.assumptions)
    assert found.plans[0].noise_multiplier == 2.0


def test_a_plan_that_spent_nothing_adds_nothing_to_the_total() -> None:
    ledger, store = begun()
    ledger.open_plan(training())
    ledger.open_plan(tables())
    assert spending_report(store).total.epsilon == 0
    ledger.spend(tables().plan, 1, 2)
    found = spending_report(store)
    assert found.total is found.plans[1].spent, "its delta does not count, and nothing is composed"


def test_rounds_of_several_plans_are_composed() -> None:
    ledger, store = begun()
    plans = [replace(plan_opening(a_plan()), plan=run_id(number=number)) for number in range(2)]
    for opened in plans:
        ledger.open_plan(opened)
        ledger.spend(opened.plan, 100)
    whole = gaussian_epsilon(2**0.5 * a_plan().mu(), 2e-6)
    assert spending_report(store).total.epsilon == pytest.approx(whole, rel=1e-11)


def test_many_different_runs_cost_no_less_than_so_many_of_the_mildest() -> None:
    ledger, store = begun()
    for number in range(40):
        opened = training_opening(
            run_id(number=number), sampling_rate=0.05 + number / 1e5, noise_multiplier=2.0, steps=10, delta=1e-8
        )
        ledger.open_plan(opened)
        ledger.spend(opened.plan, 1, 10)
    found = spending_report(store).total
    assert poisson_epsilon(0.05, 400, 2.0, found.delta) < found.epsilon < poisson_epsilon(0.0504, 400, 2.0, found.delta)


def test_one_plan_without_a_guarantee_leaves_none_in_all_and_the_others_are_told() -> None:
    ledger, store = begun()
    ledger.open_plan(tables())
    ledger.spend(tables().plan, 1)
    unknown = replace(tables(), plan=run_id(kind="other"), mechanism="laplace")
    ledger.open_plan(unknown)
    ledger.spend(unknown.plan, 1)
    found = spending_report(store)
    assert found.total.epsilon == math.inf
    assert "no guarantee: the mechanism 'laplace'" in found.total.mechanism
    assert found.plans[0].spent.epsilon < 1


@pytest.mark.parametrize(
    ("opened", "adjacency"),
    [(training(), "zero-out"), (plan_opening(a_plan()), "add-or-remove")],
    ids=["run", "rounds"],
)
def test_an_entry_of_another_adjacency_than_its_mechanism_has_no_guarantee(opened: Open, adjacency: str) -> None:
    """Such plans could stand beside others of that adjacency, and must not be summed with them."""
    ledger, store = begun()
    for entry in (replace(tables(), adjacency=adjacency, unit=opened.unit), replace(opened, adjacency=adjacency)):
        ledger.open_plan(entry)
        ledger.spend(entry.plan, 1)
    found = spending_report(store)
    assert (found.total.epsilon, found.total.adjacency) == (math.inf, adjacency)
    assert f"its entry says {adjacency}" in found.plans[1].spent.mechanism
    assert found.plans[0].spent.epsilon < 1


def test_the_delta_of_the_entry_is_the_one_that_counts() -> None:
    opened = plan_opening(a_plan())
    stricter = replace(opened, delta="0.000000000001")
    found = guarantee_after(stricter, 100, 100)
    assert (found.epsilon, found.delta) == (gaussian_epsilon(a_plan().mu(), 1e-12), 1e-12)


def test_curves_end_where_the_report_does_although_a_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, store = begun()
    ledger.open_plan(tables())
    ledger.spend(tables().plan, 1)
    scan = store.scan

    def grown(start: int = 0) -> Iterator[Record]:
        yield from scan(start)
        monkeypatch.undo()
        other = replace(tables(), plan=run_id(kind="other"))
        ledger.open_plan(other)
        ledger.spend(other.plan, 1)

    monkeypatch.setattr(store, "scan", grown)
    found = spending_report(store, curves=True)
    assert [plan.rounds for plan in found.plans] == [plan.curve[-1][0] for plan in found.plans] == [1]


def test_a_step_is_no_release_of_tables_because_the_first_round_was_left_out() -> None:
    ledger, store = begun()
    opened = training_opening(
        run_id(kind="training"), sampling_rate=1.0, noise_multiplier=0.5, steps=10, delta=1e-6, released_mu=0.01
    )
    ledger.open_plan(opened)
    ledger.spend(opened.plan, 2)
    assert spending_report(store).total.epsilon >= poisson_epsilon(1.0, 1, 0.5, 1e-6)
    ledger.spend(opened.plan, 3, 11)
    assert spending_report(store).total.epsilon >= poisson_epsilon(1.0, 10, 0.5, 1e-6)


@pytest.mark.parametrize(
    "changes", [{"mechanism": "laplace"}, {"parameters": {}}, {"parameters": {"sampling_rate": "7"}}, {"delta": "1"}]
)
def test_what_the_ledger_does_not_explain_has_no_guarantee(changes: dict[str, object]) -> None:
    if changes == {"delta": "1"}:
        with pytest.raises(ConfigError, match="delta"):
            guarantee_after(replace(training(), delta="1"), 1, 1)
        return
    opened = replace(training(), **changes)  # type: ignore[arg-type]
    found = guarantee_after(opened, 1, 1)
    assert found.to_dict()["epsilon"] == "inf"
    assert "no guarantee" in found.mechanism


def test_an_empty_ledger_has_nothing_to_report() -> None:
    _, store = begun()
    with pytest.raises(ConfigError, match="no plan yet"):
        spending_report(store)


def test_a_report_says_what_a_standard_asks_and_what_is_not_covered() -> None:
    ledger, store = begun()
    ledger.open_plan(training())
    ledger.spend(training().plan, 1)
    shown = json.loads(json.dumps(spending_report(store).to_dict(), allow_nan=False))
    assert set(shown) >= {"epsilon", "delta", "adjacency", "assumptions", "unit", "mechanism", "trust", "slack"}
    assert shown["not_covered"] == list(NOT_COVERED)
    assert "unit of privacy" in shown["nist_sp_800_226"]


def test_an_older_copy_is_found_by_its_anchor(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedgerStore.create(path) as store:
        ledger = Ledger.begin(store)
        ledger.open_plan(training())
        ledger.spend(training().plan, 1)
    older = path.read_bytes()
    with SqliteLedgerStore(path) as store:
        anchor = Ledger(store).spend(training().plan, 2)
    for name in tmp_path.iterdir():
        name.unlink()
    path.write_bytes(older)
    path.chmod(0o600)
    with SqliteLedgerStore(path, read_only=True) as store:
        assert spending_report(store).plans[0].rounds == 1, "without an anchor nobody can tell"
        with pytest.raises(LedgerError, match="older copy"):
            spending_report(store, anchor=anchor)


def test_a_total_without_sampled_steps_loads_no_numpy(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with SqliteLedgerStore.create(path) as store:
        ledger = Ledger.begin(store)
        for opened in (tables(), replace(tables(), plan=run_id(kind="more tables"))):
            ledger.open_plan(opened)
            ledger.spend(opened.plan, 1)
    code = (
        "import sys; from hushrec_privacy.ledger import SqliteLedgerStore as S;"
        "from hushrec_privacy.report.spending import spending_report as r;"
        f"r(S({str(path)!r}, read_only=True)); sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
