"""What people are told of a plan's times, and that one without a round to come is refused."""

from dataclasses import replace

import pytest
from hushrec_privacy.errors import PlanError
from hushrec_privacy.plans.timing import check_not_over, utc_text, when

from tests.fleet_plans import a_fleet_plan

FIRST = 1_801_382_400
PLAN = a_fleet_plan(rounds=20, first_round_at=FIRST, round_seconds=3_600)
END = FIRST + 20 * 3_600


@pytest.mark.parametrize(
    ("at_s", "told"),
    [
        (FIRST - 1, "the first round begins at 2027-01-31 08:00 UTC"),
        (FIRST, "the first round began at 2027-01-31 08:00 UTC and is on"),
        (FIRST + 3_599, "the first round began at 2027-01-31 08:00 UTC and is on"),
        (FIRST + 3_600, "the first round began at 2027-01-31 08:00 UTC, and 1 of 20 rounds are over"),
        (END - 1, "the first round began at 2027-01-31 08:00 UTC, and 19 of 20 rounds are over"),
        (END, "the first round began at 2027-01-31 08:00 UTC, and all rounds are over"),
    ],
)
def test_how_far_a_plan_is_is_told_to_the_second(at_s: int, told: str) -> None:
    assert when(PLAN, at_s) == told


def test_a_plan_is_refused_from_the_end_of_its_last_round_on() -> None:
    check_not_over(PLAN, 0)
    check_not_over(PLAN, END - 1)
    with pytest.raises(PlanError, match=r"all 20 rounds of the plan are over: .* ended at 2027-02-01 04:00 UTC"):
        check_not_over(PLAN, END)


def test_a_time_that_no_calendar_has_is_no_fault() -> None:
    assert utc_text(2**60) == "9999-12-31 23:59 UTC"
    assert when(replace(PLAN, first_round_at=2**60), 0).endswith("9999-12-31 23:59 UTC")
