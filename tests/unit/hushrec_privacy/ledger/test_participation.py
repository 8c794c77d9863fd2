"""A device takes part no more often than its plan and its lifetime allow, and remembers nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hushrec_privacy.errors import BudgetError, ConfigError, LedgerError
from hushrec_privacy.ledger import Limits, MemoryLedgerStore, ParticipationRecord, SqliteLedgerStore, history

from tests.ledger_plans import made_up_plan

PLAN = made_up_plan(limits=Limits(2000, cap=3, separation=200))


@pytest.fixture
def record() -> Iterator[ParticipationRecord]:
    record = ParticipationRecord.begin(MemoryLedgerStore(), lifetime_rho="1")
    record.join(PLAN)
    yield record
    record.close()


def test_a_device_takes_part_at_most_k_times(record: ParticipationRecord) -> None:
    assert record.left(PLAN.plan) == 3
    for round_ in (10, 210, 500):
        record.participate(PLAN.plan, round_, rho="0.1")
    assert record.left(PLAN.plan) == 0
    with pytest.raises(BudgetError, match="3 of at most 3 rounds are spent"):
        record.participate(PLAN.plan, 1_000, rho="0.1")
    assert record.totals().rho == "0.3"


def test_a_round_nearer_than_b_or_asked_for_again_is_refused(record: ParticipationRecord) -> None:
    record.participate(PLAN.plan, 300, rho="0.1")
    for round_, message in ((300, "spent already"), (299, "only increase"), (499, "must be 200 apart")):
        for dry_run in (True, False):
            with pytest.raises(BudgetError, match=message):
                record.participate(PLAN.plan, round_, rho="0.1", dry_run=dry_run)
    record.participate(PLAN.plan, 500, rho="0.1", dry_run=True)
    record.participate(PLAN.plan, 500, rho="0.1")


def test_the_lifetime_rho_holds_over_all_plans(record: ParticipationRecord) -> None:
    other = made_up_plan("other", limits=PLAN.limits)
    record.join(other)
    record.participate(PLAN.plan, 1, rho="0.7")
    with pytest.raises(BudgetError, match="all plans together"):
        record.participate(other.plan, 1, rho="0.4")
    record.participate(other.plan, 1, rho="0.3")


def test_joining_twice_changes_nothing_and_never_loosens_a_limit(record: ParticipationRecord) -> None:
    record.participate(PLAN.plan, 1, rho="0.1")
    record.join(PLAN)
    assert record.left(PLAN.plan) == 2
    with pytest.raises(BudgetError, match="opened once"):
        record.join(replace(PLAN, limits=Limits(2000, cap=9)))


@pytest.mark.parametrize("changed", [{"limits": Limits(2000)}, {"at_s": 1}])
def test_a_plan_without_a_cap_or_with_a_time_is_not_joined(record: ParticipationRecord, changed: Any) -> None:
    with pytest.raises(ConfigError):
        record.join(replace(made_up_plan("other", limits=PLAN.limits), **changed))


def test_a_lifetime_limit_is_needed() -> None:
    with pytest.raises(ConfigError, match="lifetime_rho is missing"):
        ParticipationRecord.begin(MemoryLedgerStore(), lifetime_rho=None)  # type: ignore[arg-type]


def test_no_entry_tells_a_time() -> None:
    store = MemoryLedgerStore()
    record = ParticipationRecord.begin(store, lifetime_rho="1")
    record.join(PLAN)
    record.participate(PLAN.plan, 1, rho="0.1")
    assert [entry.at_s for _, entry in history(store)] == [None, None, None]


def test_the_record_in_a_file_goes_on_where_it_was_and_keeps_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "participation.sqlite"
    record = ParticipationRecord.at(path, lifetime_rho="1")
    record.join(PLAN)
    record.participate(PLAN.plan, 1, rho="0.1")
    record.close()
    record = ParticipationRecord.at(path, lifetime_rho="99")
    assert record.left(PLAN.plan) == 2
    assert record.totals().rho_left == "0.9"
    record.close()


def test_a_file_that_a_killed_begin_left_empty_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "participation.sqlite"
    path.touch()
    record = ParticipationRecord.at(path, lifetime_rho="1")
    assert record.totals().entries == 1
    record.close()


@pytest.mark.parametrize("content", [b"x" * 100, b"x" * 5_000])
def test_another_file_is_not_taken_for_a_record(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "participation.sqlite"
    path.write_bytes(content)
    with pytest.raises(LedgerError):
        ParticipationRecord.at(path, lifetime_rho="1")
    assert path.read_bytes() == content


def test_whoever_is_slower_to_begin_goes_on_with_the_other_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, create = tmp_path / "participation.sqlite", SqliteLedgerStore.create

    def overtaken(path: Path) -> SqliteLedgerStore:
        monkeypatch.undo()
        ParticipationRecord.at(path, lifetime_rho="1").close()
        return create(path)

    monkeypatch.setattr(SqliteLedgerStore, "create", overtaken)
    record = ParticipationRecord.at(path, lifetime_rho="5")
    assert record.totals().genesis.lifetime_rho == "1"
    record.close()


def test_a_place_where_nothing_can_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="check its folder"):
        ParticipationRecord.at(tmp_path / "none" / "record.sqlite", lifetime_rho="1")
    with pytest.raises(ConfigError):
        ParticipationRecord.at(tmp_path / "record.sqlite", lifetime_rho="1e3")
