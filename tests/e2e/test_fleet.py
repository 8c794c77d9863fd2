"""A server, an authority and devices, each a process of its own: rounds come to exact sums whoever is killed."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmark_scripts import benchmark
from tests.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script of the full run as a module."""
    with benchmark("fleet") as module:
        yield module


@pytest.mark.slow
def test_six_devices_of_which_one_is_killed_come_to_an_exact_sum_and_a_release(
    script: ModuleType, tmp_path: Path
) -> None:
    bundle = write_tiny_bundle(tmp_path / "shop.hush")
    kills = [script.Kill(2, 1, "mask", False)]
    facts = script.run_fleet(tmp_path / "fleet", bundle, devices=6, cohort=6, rounds=1, round_seconds=120, kills=kills)
    assert facts.kills == {"before mask": 1}
    assert facts.summed == {1: 5}
    assert (facts.exact, facts.spent, facts.published) == (1, 1, 1)
    assert facts.masked_twice == facts.not_on_record == 0


def test_a_quarter_of_the_devices_is_aimed_at_in_each_round_and_every_message_has_its_turn(script: ModuleType) -> None:
    kills = script.plan_kills(50, 5)
    assert all(len({kill.device for kill in kills if kill.round_number == number}) == 12 for number in range(1, 6))
    assert {(kill.phase, kill.after) for kill in kills} == {(phase, side) for phase in script.PHASES for side in (0, 1)}
