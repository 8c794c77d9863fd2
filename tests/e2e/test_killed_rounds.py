"""Two processes run rounds over one ledger and one noise store and are killed in every step: no round is paid for too
little, none has two results, and no noise is used twice."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hushrec_privacy.ledger import Ledger, SqliteLedgerStore

from tests.benchmark_scripts import benchmark
from tests.fixed_random import FixedRandom


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script of the full run as a module."""
    with benchmark("killed_rounds") as module:
        yield module


@pytest.mark.parametrize(("kills", "each"), [(22, 1), pytest.param(200, 20, marks=pytest.mark.slow)])
def test_no_kill_makes_a_round_cheaper_or_its_noise_used_twice(
    script: ModuleType, tmp_path: Path, kills: int, each: int
) -> None:
    told, facts = script.kill_rounds(tmp_path, kills, each=each)
    assert sum(told.kills.values()) >= kills
    assert all(told.kills[step] >= each for step in script.STEPS)
    assert facts.noised == facts.published > kills / 2
    assert facts.faults == dict.fromkeys(facts.faults, 0)


@pytest.fixture
def ran(script: ModuleType, tmp_path: Path) -> tuple[Path, Any]:
    """Twelve rounds that nothing went wrong in, and what was told of them."""
    told = script.Told()
    script.begin(tmp_path)
    rounds = script.Rounds(tmp_path, lambda line: hear(told, line))
    for _ in range(12):
        rounds.one()
    rounds.ledger.close()
    return tmp_path, told


def hear(told: Any, line: str) -> None:
    word, *values = line.split()
    if word == "spent":
        told.spent[int(values[0])] += 1
    elif word == "noised":
        told.noised.add(int(values[0]))
    elif word == "published":
        told.published[int(values[0])].add(values[1])


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "noise.sqlite", isolation_level=None)) as database:
        for statement in statements:
            assert database.execute(statement).rowcount > 0


def faults(script: ModuleType, ran: tuple[Path, Any]) -> dict[str, int]:
    return {name: count for name, count in script.check(*ran).faults.items() if count}


def test_the_check_finds_nothing_where_nothing_is_wrong(script: ModuleType, ran: tuple[Path, Any]) -> None:
    assert faults(script, ran) == {}


def test_the_check_finds_a_ledger_that_forgot(script: ModuleType, ran: tuple[Path, Any]) -> None:
    ledger = ran[0] / script.LEDGER
    ledger.unlink()
    with SqliteLedgerStore.create(ledger) as store:
        Ledger.begin(store, lifetime_rho="1000000").open_plan(script.OPENING)
        Ledger(store).spend(script.ID, 1, 10, rho="0.01")
    assert faults(script, ran) == {"lost": 1, "unpaid": 1, "repeatable": 1, "stuck": 1}  # 11 it spent itself, in vain


def test_the_check_finds_a_round_that_was_not_paid_for(script: ModuleType, ran: tuple[Path, Any]) -> None:
    script.Rounds(ran[0])._result(14)  # noise before the ledger
    assert faults(script, ran)["unpaid"] == 1


def test_the_check_finds_a_spend_and_a_sum_that_came_twice(script: ModuleType, ran: tuple[Path, Any]) -> None:
    ran[1].spent[3] += 1
    change(ran[0], "INSERT INTO noised SELECT * FROM noised WHERE round = 4")
    assert faults(script, ran) == {"doubled": 2}


def test_the_check_finds_two_results_of_a_round(script: ModuleType, ran: tuple[Path, Any]) -> None:
    ran[1].published[3].add("00" * 32)
    (ran[0] / script.PUBLISHED / "5.txt").write_text("00" * 32)
    assert faults(script, ran) == {"changed": 2}


def test_the_check_finds_a_source_that_begins_anew_in_every_process(
    script: ModuleType, ran: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "OsRandom", lambda: FixedRandom(1))
    for _ in range(2):
        script.Rounds(ran[0]).one()
    assert faults(script, ran) == {"reused": 1}


def test_the_check_finds_noise_that_was_used_twice(script: ModuleType, ran: tuple[Path, Any]) -> None:
    change(ran[0], "UPDATE noised SET total = (SELECT total FROM noised WHERE round = 2) WHERE round = 12")
    assert faults(script, ran) == {"changed": 1, "misstated": 1, "reused": 1}


def test_the_check_finds_a_noise_store_that_was_set_back(script: ModuleType, ran: tuple[Path, Any]) -> None:
    older = ran[0] / "older"
    shutil.copy(ran[0] / script.STORE, older)
    script.Rounds(ran[0], lambda line: hear(ran[1], line)).one()
    shutil.copy(older, ran[0] / script.STORE)
    assert faults(script, ran) == {"lost": 1, "changed": 1}  # published, and its sum is gone; not drawn anew
    assert script.Rounds(ran[0]).ledger.plan(script.ID).last == 14


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_noise_that_was_not_taken_back_as_it_should_be_is_seen(
    script: ModuleType, ran: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, kept: float
) -> None:
    right = script.fixed_point_coefficients
    monkeypatch.setattr(script, "fixed_point_coefficients", lambda bands: right(bands) * [1, *[kept] * (bands - 1)])
    assert faults(script, ran) == {"reused": 1}
