"""Rounds begin by the plan's clock and never before; every phase has its time, and all of them fit into a round."""

from pathlib import Path

import pytest
from hushrec_server.rounds.schedule import Schedule
from hushrec_server.rounds.states import PHASES, State, state_of

from tests.small_fleet import ROUND_S, START, SmallFleet


@pytest.fixture(scope="module")
def schedule(tmp_path_factory: pytest.TempPathFactory) -> Schedule:
    folder: Path = tmp_path_factory.mktemp("schedule")
    return Schedule(SmallFleet(folder, "").plan)


@pytest.mark.parametrize(
    ("now", "number"),
    [
        (0, 0),
        (START - 1, 0),
        (START, 1),
        (START + ROUND_S - 1, 1),
        (START + ROUND_S, 2),
        (START + 49 * ROUND_S, 50),
        (START + 50 * ROUND_S, 51),
    ],
)
def test_the_clock_tells_the_round(schedule: Schedule, now: int, number: int) -> None:
    assert schedule.number_at(now) == number


def test_no_round_is_the_clocks_before_it_starts(schedule: Schedule) -> None:
    for number in range(1, 51):
        assert schedule.number_at(schedule.start(number)) == number
        assert schedule.number_at(schedule.start(number) - 1) == number - 1
    assert schedule.end() == schedule.start(51)


def test_all_phases_at_their_longest_end_before_the_next_round_starts(schedule: Schedule) -> None:
    longest = schedule.advertise_until(1) + sum(schedule.seconds(state) for state in PHASES[1:])
    assert longest < schedule.start(2)


def test_whoever_gets_the_last_place_has_time_to_use_it(schedule: Schedule) -> None:
    assert schedule.advertise_until(1) - schedule.admit_until(1) == schedule.answer_s


def test_in_the_shortest_rounds_every_time_is_a_second_at_least(tmp_path: Path) -> None:
    short = Schedule(SmallFleet(tmp_path, "").with_plan(round_seconds=1).plan)
    assert {short.seconds(state) for state in State} | {short.answer_s, short.lease_s} == {1}


def test_states_follow_each_other_to_the_end() -> None:
    way = [State.ADVERTISE]
    while way[-1] is not State.PUBLISHED:
        way.append(way[-1].after)
    assert [str(state) for state in way] == [
        *("advertise", "choose", "share", "mask", "agree", "reveal", "summed", "noised", "erased", "published")
    ]
    assert [state_of(phase).phase for phase in range(1, 7)] == [1, 2, 3, 4, 5, 6]
