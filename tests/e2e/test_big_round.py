"""A hundred devices over real HTTP and a real database: the sum is that of the vectors that were acknowledged."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hushrec_privacy.plans.plan import Plan
from hushrec_server.database import Database

from tests.benchmark_scripts import benchmark


@pytest.fixture
def script() -> Iterator[ModuleType]:
    """The script of the full run as a module."""
    with benchmark("big_round") as module:
        yield module


@pytest.mark.slow
def test_a_round_comes_to_the_sum_of_those_who_sent_and_the_check_would_see_another(
    script: ModuleType, tmp_path: Path
) -> None:
    facts = script.run_round(tmp_path, "", devices=120, numbers=2_000, processes=2, round_seconds=200)
    assert facts.acknowledged == facts.survivors == 108
    assert facts.exact
    plan = Plan.decode((tmp_path / "plan.json").read_bytes())
    database = Database.open(f"sqlite:///{tmp_path / 'data' / 'hushrec.sqlite'}")
    others = [number for number in range(120) if number % 10 != 1]
    script._check(facts, database, plan, tmp_path, others)
    assert not facts.exact
    database.close()
