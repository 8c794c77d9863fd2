"""What a device pays is that of its own participations in the whole plan, and never less."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hushrec_privacy.accounting import gaussian_guarantee
from hushrec_privacy.canonical import add_decimals, decimal, float_text_up
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.ledger import Limits
from hushrec_privacy.ledger.device_cost import device_guarantee, device_opening, device_rho, participation_rho
from hushrec_privacy.ledger.openings import guarantee_after
from hushrec_privacy.plans.limits import DeviceLimits

from tests.ledger_plans import made_up_plan
from tests.participations import a_plan, joined


def test_the_stricter_limit_of_plan_and_device_is_recorded() -> None:
    plan = a_plan()
    assert plan.participations == 5
    assert device_opening(plan, DeviceLimits(participations=3)).limits == Limits(100, cap=3, separation=20)
    assert joined(plan).limits == Limits(100, cap=5, separation=20)
    assert joined(plan).plan == plan.plan_id


def test_all_participations_of_a_plan_cost_what_it_states() -> None:
    plan, opened = a_plan(), joined(a_plan())
    found = device_guarantee(opened, plan.participations)
    assert found == plan.guarantee()
    assert device_rho(opened, 5) == pytest.approx(plan.mu() ** 2 / 2, rel=1e-14)
    assert device_rho(opened, 5) >= plan.mu() ** 2 / 2


def test_without_a_participation_nothing_is_spent() -> None:
    found = device_guarantee(joined(a_plan()), 0)
    assert (found.epsilon, device_rho(joined(a_plan()), 0)) == (0, 0)
    assert found.assumptions == device_guarantee(joined(a_plan()), 2).assumptions


def test_an_early_round_costs_as_much_as_a_late_one() -> None:
    """Rounds published later tell of it: a server's count up to round 1 would be far too small for the device."""
    opened = joined(a_plan())
    server_in_round_one = guarantee_after(replace(opened, limits=Limits(100)), 1, 1)
    assert device_guarantee(opened, 1).epsilon > 1.2 * server_in_round_one.epsilon


def test_rounds_nearer_than_the_plan_has_them_cost_more() -> None:
    opened = joined(a_plan())
    nearer = replace(opened, limits=replace(opened.limits, separation=2))
    assert device_guarantee(nearer, 3).epsilon > device_guarantee(opened, 3).epsilon * 1.1


def test_a_delta_that_differs_from_the_parameters_counts_as_the_entry_says() -> None:
    smaller = replace(joined(a_plan()), delta="0.000000001")
    assert device_guarantee(smaller, 2).delta == 1e-9
    assert device_guarantee(smaller, 2).epsilon > device_guarantee(joined(a_plan()), 2).epsilon


def test_independent_noise_is_the_exact_gaussian() -> None:
    limits = Limits(2000, cap=10)
    opened = made_up_plan(mechanism="gaussian", parameters={"noise_multiplier": "8.35"}, limits=limits)
    found = device_guarantee(opened, 2)
    assert found.epsilon == gaussian_guarantee(8.35, 2, 1e-6).epsilon
    assert "at most 10 times" in found.assumptions[0]
    whole_number = replace(opened, parameters={"noise_multiplier": 8})
    assert device_guarantee(whole_number, 2).epsilon == gaussian_guarantee(8.0, 2, 1e-6).epsilon


def test_what_is_told_sums_up_to_what_it_costs() -> None:
    opened = joined(a_plan())
    told = [participation_rho(opened, before) for before in range(5)]
    assert all(decimal(rho) > 0 for rho in told)
    assert add_decimals(*told) == float_text_up(device_rho(opened, 5))


@pytest.mark.parametrize(
    "changed",
    [
        {"mechanism": "poisson-gaussian", "parameters": {"sampling_rate": "0.01", "noise_multiplier": "2"}},
        {"mechanism": "laplace"},
        {"parameters": {}},
        {"parameters": {"rounds": "2000.5", "min_separation": 20}},
        {"adjacency": "add-or-remove"},
    ],
)
def test_what_a_device_does_not_know_has_no_guarantee(changed: dict[str, Any]) -> None:
    opened = replace(joined(a_plan()), **changed)
    found = device_guarantee(opened, 1)
    assert found.to_dict()["epsilon"] == "inf"
    assert found.mechanism.startswith("no guarantee: ")
    assert device_rho(opened, 1) == math.inf
    assert (device_guarantee(opened, 0).epsilon, device_rho(opened, 0)) == (0, 0)
    with pytest.raises(ConfigError, match="no guarantee"):
        participation_rho(opened, 0)


def test_more_participations_than_fit_have_no_guarantee() -> None:
    assert device_guarantee(joined(a_plan()), 6).epsilon == math.inf


@pytest.mark.parametrize("wrong", [-1, 1.5, True])
def test_participations_are_counted(wrong: Any) -> None:
    for function in (device_guarantee, device_rho):
        with pytest.raises(ConfigError, match="participations"):
            function(joined(a_plan()), wrong)
