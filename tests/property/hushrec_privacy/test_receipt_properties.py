"""A receipt tells exactly what the accounting gives for the same participations, and adding a round never lowers it."""

import math
from itertools import pairwise

from hushrec_privacy.accounting import gaussian_epsilon, gaussian_guarantee
from hushrec_privacy.accounting.discrete import equivalent_gaussian_deviation
from hushrec_privacy.accounting.toeplitz import sensitivity_squared, square_root_coefficients
from hushrec_privacy.ledger import Limits
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.report.receipt import device_receipt
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger_plans import made_up_plan
from tests.participations import a_plan, joined, recorded


@st.composite
def rounds_apart(draw: st.DrawFn, rounds: int, separation: int, most: int) -> list[int]:
    """Up to `most` rounds of a plan that are far enough apart."""
    found: list[int] = []
    earliest = 1
    for left in range(draw(st.integers(1, most)), 0, -1):
        found.append(draw(st.integers(earliest, rounds - (left - 1) * separation)))
        earliest = found[-1] + separation
    return found


def mu_by_hand(plan: Plan, squared: float) -> float:
    """The plan's separation for an update whose image under C has this squared norm; docs/accounting.md."""
    moved = math.sqrt(squared * plan.rounded_norm_squared) * 2.0**plan.lattice_bits
    rounding = math.sqrt(plan.coordinates * plan.rounds)
    return (moved + rounding) / equivalent_gaussian_deviation(
        float(plan.noise_deviation), plan.coordinates * plan.rounds
    )


def squared_norm_of(plan: Plan, rounds: list[int]) -> float:
    """Squared norm of the sum of exactly these columns of C, up to round T: no worst case, just this device."""
    image = [0.0] * (plan.rounds + 1)
    for round_ in rounds:
        for j, c in enumerate(square_root_coefficients(plan.bands)):
            if round_ + j <= plan.rounds:
                image[round_ + j] += c
    return math.fsum(value * value for value in image)


@settings(max_examples=40)
@given(taken=rounds_apart(100, 20, 5))
def test_correlated_noise_is_counted_as_the_accounting_does_and_never_below_this_device(taken: list[int]) -> None:
    plan = a_plan()
    found = device_receipt(recorded(joined(plan), taken)).plans[0]
    worst = sensitivity_squared(plan.rounds, plan.bands, plan.min_separation, len(taken))
    assert math.isclose(found.spent.epsilon, gaussian_epsilon(mu_by_hand(plan, worst), 1e-6), rel_tol=1e-9)
    assert found.spent.epsilon >= gaussian_epsilon(mu_by_hand(plan, squared_norm_of(plan, taken)), 1e-6)
    assert not found.understated


@settings(max_examples=30)
@given(taken=rounds_apart(100, 20, 5))
def test_a_further_round_never_lowers_a_receipt(taken: list[int]) -> None:
    spent = [device_receipt(recorded(joined(a_plan()), taken[:count])) for count in range(len(taken) + 1)]
    for before, after in pairwise(spent):
        assert after.total.epsilon > before.total.epsilon
        assert float(after.rho) > float(before.rho)
        assert after.plans[0].left <= before.plans[0].left - 1
        assert after.plans[0].whole.epsilon <= before.plans[0].whole.epsilon


@settings(max_examples=60)
@given(
    noise=st.integers(1, 400).map(lambda tenths: tenths / 10),
    taken=rounds_apart(400, 1, 12),
)
def test_independent_noise_is_counted_exactly(noise: float, taken: list[int]) -> None:
    text = f"{noise:g}"
    opened = made_up_plan(
        mechanism="gaussian", parameters={"noise_multiplier": text}, limits=Limits(400, cap=12), delta="0.000001"
    )
    found = device_receipt(recorded(opened, taken, lifetime_rho="1000"))
    assert found.total.epsilon == gaussian_guarantee(float(text), len(taken), 1e-6).epsilon
