"""Poisson-sampled noise against an exact integral, Opacus' accountants and the unsampled curve."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hushrec_privacy.accounting import gaussian_epsilon
from hushrec_privacy.accounting.sampled import poisson_delta, poisson_epsilon, poisson_noise_multiplier
from hushrec_privacy.errors import ConfigError
from opacus.accountants.analysis import rdp
from opacus.accountants.prv import PRVAccountant


def one_step_delta(q: float, z: float, epsilon: float) -> float:
    """Hockey-stick divergence of (1-q) N(0, z^2) + q N(1, z^2) and N(0, z^2), the worse direction."""

    def upper(x: mpmath.mpf, mean: float) -> mpmath.mpf:
        return mpmath.erfc((x - mean) / (z * mpmath.sqrt(2))) / 2

    def crossing(ratio: mpmath.mpf) -> mpmath.mpf:  # where the mixture is `ratio` times as likely as N(0, z^2)
        return z * z * mpmath.log((ratio - 1 + q) / q) + mpmath.mpf(1) / 2

    with mpmath.workdps(50):
        grow = mpmath.e ** mpmath.mpf(epsilon)
        x = crossing(grow)
        added = (1 - q) * upper(x, 0) + q * upper(x, 1) - grow * upper(x, 0)
        removed = mpmath.mpf(0)
        if 1 / grow > 1 - q:
            x = crossing(1 / grow)
            removed = (1 - upper(x, 0)) - grow * (1 - (1 - q) * upper(x, 0) - q * upper(x, 1))
        return float(max(added, removed))


@pytest.mark.parametrize(("q", "z"), [(0.01, 1.0), (0.3, 0.7), (0.9, 3.0), (1e-4, 0.6), (0.5, 50.0)])
@pytest.mark.parametrize("delta", [0.01, 1e-5, 1e-9])
def test_one_step_against_the_exact_integral(q: float, z: float, delta: float) -> None:
    found = poisson_epsilon(q, 1, z, delta)
    assert one_step_delta(q, z, found) <= delta * (1 + 1e-9)
    if found > 3e-4:
        assert one_step_delta(q, z, found * (1 - 1e-3) - 1e-4) > delta


@pytest.mark.filterwarnings("ignore:Optimal order")  # of Opacus, about its own list of orders
@pytest.mark.parametrize(
    ("q", "steps", "z", "delta"), [(0.01, 1000, 1.0, 1e-6), (0.1, 300, 4.0, 1e-5), (0.004, 5000, 0.8, 1e-5)]
)
def test_opacus_agrees(q: float, steps: int, z: float, delta: float) -> None:
    found = poisson_epsilon(q, steps, z, delta)
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(11, 200))
    renyi, _ = rdp.get_privacy_spent(
        orders=orders, rdp=rdp.compute_rdp(q=q, noise_multiplier=z, steps=steps, orders=orders), delta=delta
    )
    assert found <= renyi, "the Renyi bound is valid and looser"
    accountant = PRVAccountant()
    accountant.history = [(z, q, steps)]
    assert found == pytest.approx(accountant.get_epsilon(delta, eps_error=0.01), abs=0.011)


def test_taking_everybody_is_the_exact_curve() -> None:
    assert poisson_epsilon(1.0, 4, 2.0, 1e-6) == pytest.approx(gaussian_epsilon(1.0, 1e-6), rel=1e-12)
    for q in (0.999, 0.5, 0.01):
        assert poisson_epsilon(q, 4, 2.0, 1e-6) <= gaussian_epsilon(1 + 4e-16, 1e-6)


@pytest.mark.parametrize("delta", [1e-15, 1e-12, 1e-6, 0.1])
@pytest.mark.parametrize(
    ("q", "steps", "z"), [(0.01, 100, 1e4), (1e-9, 10, 1e-9), (0.5, 10, 0.01), (0.01, 10, 0.3), (1e-3, 10**6, 5.0)]
)
def test_extreme_inputs_give_a_bound(q: float, steps: int, z: float, delta: float) -> None:
    found = poisson_epsilon(q, steps, z, delta)
    assert 0 <= found < math.inf
    assert np.sign(found) >= np.sign(poisson_epsilon(q, steps, z * 2, delta))


def test_delta_and_epsilon_are_each_other_s_inverse() -> None:
    for delta in (1e-4, 1e-8, 1e-14):
        epsilon = poisson_epsilon(0.02, 500, 1.2, delta)
        assert poisson_delta(0.02, 500, 1.2, epsilon) == pytest.approx(delta, rel=0.05)


def test_the_noise_of_an_epsilon_stays_within_it() -> None:
    z = poisson_noise_multiplier(0.05, 200, 3.0, 1e-6)
    assert 3.0 * 0.995 < poisson_epsilon(0.05, 200, z, 1e-6) <= 3.0


@pytest.mark.parametrize("q", [1e-300, 1e-16, 1e-12, 1e-10])
def test_rates_of_next_to_nothing_give_a_bound(q: float) -> None:
    assert poisson_epsilon(q, 1000, 1.0, 1e-6) == 0.0, "hardly anybody is ever taken"
    few = poisson_epsilon(q, 1000, 1.0, 1e-15)
    assert 0 <= few <= poisson_epsilon(1e-8, 1000, 1.0, 1e-15)
    assert poisson_delta(q, 1000, 1.0, 0.0) <= q * 1000 * (1 + 1e-13)
    released = poisson_epsilon(q, 1000, 1.0, 1e-6, released_mu=0.3)
    assert released == pytest.approx(gaussian_epsilon(0.3, 1e-6), rel=0.1)


@pytest.mark.parametrize("z", [1e-9, 1e-155, 1e-200, 1e-307])
def test_noise_that_is_next_to_nothing_never_gives_a_small_epsilon(z: float) -> None:
    assert poisson_epsilon(0.01, 10, z, 1e-6) > 1e15


def test_what_needs_no_arithmetic() -> None:
    assert poisson_epsilon(0.1, 0, 1.0, 0.0) == poisson_epsilon(0.0, 5, 0.0, 0.0) == 0.0
    assert poisson_epsilon(0.1, 5, 0.0, 0.1) == poisson_epsilon(0.1, 5, 1.0, 0.0) == math.inf
    assert poisson_delta(0.1, 0, 1.0, 0.0) == poisson_delta(0.1, 5, 1.0, math.inf) == 0.0
    assert poisson_delta(0.1, 5, 0.0, 3.0) == 1.0
    assert poisson_noise_multiplier(0.1, 5, math.inf, 0.0) == 0.0
    with pytest.raises(ConfigError, match="no finite noise"):
        poisson_noise_multiplier(0.1, 5, 0.0, 1e-6)


@pytest.mark.parametrize("wrong", [math.nan, -0.1])
def test_nan_and_negative_input_is_refused(wrong: float) -> None:
    calls: list[Callable[[], float]] = [
        lambda: poisson_epsilon(wrong, 1, 1.0, 1e-6),
        lambda: poisson_epsilon(0.1, 1, wrong, 1e-6),
        lambda: poisson_epsilon(0.1, 1, 1.0, wrong),
        lambda: poisson_epsilon(1.1, 1, 1.0, 1e-6),
        lambda: poisson_epsilon(0.1, -1, 1.0, 1e-6),
        lambda: poisson_delta(0.1, 1, 1.0, wrong),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="it must be"):
            call()
