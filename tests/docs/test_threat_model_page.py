"""docs/threat-model.md: the figures of secure aggregation are the code's, and the single operator comes first."""

import re
from pathlib import Path

import numpy as np
import pytest
from hushrec.federated.fedadam import AdamSettings, FedAdam
from hushrec.fleet import joining
from hushrec.fleet.pacing import WORK
from hushrec_privacy.plans.limits import COHORT_FLOOR, DeviceLimits
from hushrec_privacy.secagg import neighbourhood, smallest_sum
from hushrec_server.features import NONCE_S
from hushrec_server.rounds import schedule

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "threat-model.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([\d,]+) \| (\d+), (\d+) \| (\d+), (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)


def test_the_first_paragraph_is_about_a_single_operator() -> None:
    first = PAGE.split("\n\n")[1]
    assert "both the aggregation server and the authority" in first
    assert "it does\nnot protect against that shop" in first


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_table_of_secure_aggregation_is_the_code_s(row: tuple[str, ...]) -> None:
    devices, *told = (int(number.replace(",", "")) for number in row)
    active, curious = neighbourhood(devices, "active"), neighbourhood(devices, "curious")
    assert told == [active.chosen, active.threshold, curious.chosen, curious.threshold, smallest_sum(devices)]


def test_there_is_a_table() -> None:
    assert len(ROWS) == 4


def test_a_poisoned_round_moves_a_number_as_far_as_the_page_says() -> None:
    adam, rate = FedAdam(1, AdamSettings()), AdamSettings().rate
    steps = [float(adam.step(np.array([1e6]))[0]), *(float(adam.step(np.zeros(1))[0]) for _ in range(300))]
    assert steps[0] == pytest.approx(rate, rel=0.01)
    assert 10 < sum(steps) / rate < 11


def test_the_limits_that_are_named_are_those_of_the_code() -> None:
    assert f"a cohort of {COHORT_FLOOR} devices" in PAGE
    assert DeviceLimits().cohort_floor == COHORT_FLOOR
    assert joining._CLOCK_SLACK_S == 60
    assert "clock\n  may be 60 s behind" in PAGE
    assert WORK == schedule.ANSWER == 0.06 < schedule.UPLOAD
    assert "a\n  device is silent for 6 % of `round_seconds`" in PAGE
    assert NONCE_S == 600
    assert "is kept for ten minutes" in PAGE
