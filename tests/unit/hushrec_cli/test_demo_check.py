"""A demo whose fleet came to less than it must is a failure, whatever it printed."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from hushrec_cli.demo_check import check_fleet
from hushrec_privacy.errors import FleetError

PUBLISHED = {"round": 1, "state": "published", "reason": ""}
ABORTED = {"round": 1, "state": "aborted", "reason": "too few devices"}
WHOLE: dict[str, Any] = {
    "devices": [{"version": [1, 3]}, {"version": [1, 1]}],
    "rounds": {"training": [PUBLISHED], "counts": [PUBLISHED], "features": [PUBLISHED]},
    "counts": {"rounds": [{"segments": {"trending": {"values": [0.0]}}}]},
    "features": {"rounds": [{"segments": {"interests": {"values": [0.0]}}}]},
    "direct": 1,
    "budget": {"epsilon": 7.5, "plans": [{"spent": {"rounds": 1}}, {"spent": {"rounds": 2}}]},
}


def broken(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    fleet = copy.deepcopy(WHOLE)
    change(fleet)
    return fleet


def test_a_fleet_that_did_everything_passes() -> None:
    check_fleet(WHOLE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda fleet: fleet["rounds"].update(training=[ABORTED]),
            "no round that trains was published (round 1 is aborted: too few devices)",
        ),
        (lambda fleet: fleet["rounds"].update(training=[]), "no round that trains was published (nobody came)"),
        (lambda fleet: fleet["devices"].pop(0), "no new release reached a device"),
        (lambda fleet: fleet.update(counts={"rounds": []}), "nothing was counted (round 1 is published)"),
        (
            lambda fleet: fleet["features"]["rounds"].clear(),
            "no feature vector arrived in a sum (round 1 is published)",
        ),
        (
            lambda fleet: fleet["features"]["rounds"][0]["segments"]["interests"]["values"].clear(),
            "no feature vector arrived in a sum (round 1 is published)",
        ),
        (lambda fleet: fleet.update(direct=0), "no feature vector that a device sends by itself arrived"),
        (lambda fleet: fleet["budget"]["plans"].pop(), "the budget report lacks rounds: 1 spent, 3 published"),
        (lambda fleet: fleet["budget"].update(epsilon="inf"), "the budget report's epsilon is inf"),
    ],
)
def test_whatever_is_missing_fails_it_and_is_named(change: Callable[[dict[str, Any]], object], told: str) -> None:
    with pytest.raises(FleetError, match=f"did not do what it must: {re.escape(told)}$"):
        check_fleet(broken(change))


def test_all_that_is_missing_is_in_one_line() -> None:
    nothing = broken(lambda fleet: fleet.update(rounds={"training": [ABORTED], "counts": [], "features": []}, direct=0))
    with pytest.raises(FleetError) as error:
        check_fleet(nothing)
    assert error.value.message.count(";") == 1
    assert "\n" not in error.value.message
