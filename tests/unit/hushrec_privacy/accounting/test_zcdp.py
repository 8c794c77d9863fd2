"""The two meanings of rho, against published figures and a fine search in many digits."""

import math
from collections.abc import Callable

import mpmath
import pytest
from hushrec_privacy.accounting.zcdp import (
    gaussian_rho,
    gaussian_rho_delta,
    gaussian_rho_epsilon,
    rho_of_gaussian_epsilon,
    rho_of_zcdp_epsilon,
    zcdp_delta,
    zcdp_epsilon,
)
from hushrec_privacy.errors import ConfigError
from hypothesis import example, given, settings
from hypothesis import strategies as st

rhos = st.floats(-8, 3).map(lambda power: 10**power)
deltas = st.floats(-20, -1.1).map(lambda power: 10**power)


def bound(rho: float, delta: float, alpha: mpmath.mpf) -> mpmath.mpf:
    """Canonne, Kamath, Steinke 2020, corollary 13, for one alpha."""
    return alpha * rho + mpmath.log(1 / (alpha * delta)) / (alpha - 1) + mpmath.log(1 - 1 / alpha)


def least_bound(rho: float, delta: float) -> float:
    """The least over a dense grid of alpha, around the best alpha of the plain bound, and a finer one around that."""
    guess = mpmath.sqrt(-mpmath.log(mpmath.mpf(delta)) / rho)

    def at(n: int) -> mpmath.mpf:
        return bound(rho, delta, 1 + guess * mpmath.mpf(2) ** (n / mpmath.mpf(2048)))

    best = min(range(-20480, 20481, 32), key=at)
    return float(min(at(n) for n in range(best - 32, best + 33)))


@pytest.mark.parametrize(
    ("rho", "exact", "any_mechanism"), [(0.014342572, 0.9935499, 1.0423), (0.15068403, 3.4240073, 3.5824)]
)
def test_published_values_of_both(rho: float, exact: float, any_mechanism: float) -> None:
    assert gaussian_rho_epsilon(rho, 1e-10) == pytest.approx(exact, rel=1e-6)
    assert zcdp_epsilon(rho, 1e-10) == pytest.approx(any_mechanism, abs=5e-5)


@settings(max_examples=25)
@given(rho=rhos, delta=deltas)
@example(rho=0.01, delta=10**-1.5)
def test_the_bound_is_the_least_one(rho: float, delta: float) -> None:
    found, dense = zcdp_epsilon(rho, delta), least_bound(rho, delta)
    assert found <= max(dense, 0) * (1 + 1e-9) + 1e-12
    assert found >= dense - 2e-5 * abs(dense) - 1e-9


@settings(max_examples=100)
@given(rho=rhos, delta=deltas)
def test_the_bound_for_any_mechanism_is_never_below_the_exact_curve(rho: float, delta: float) -> None:
    assert zcdp_epsilon(rho, delta) >= gaussian_rho_epsilon(rho, delta) * (1 - 1e-9)


@settings(max_examples=100)
@given(rho=rhos, delta=deltas)
def test_every_conversion_has_its_inverse(rho: float, delta: float) -> None:
    for forth, back, delta_of in (
        (gaussian_rho_epsilon, rho_of_gaussian_epsilon, gaussian_rho_delta),
        (zcdp_epsilon, rho_of_zcdp_epsilon, zcdp_delta),
    ):
        epsilon = forth(rho, delta)
        if epsilon > 1e-6:
            assert back(epsilon, delta) == pytest.approx(rho, rel=1e-6)
            assert forth(back(epsilon, delta), delta) <= epsilon * (1 + 1e-12), "the epsilon itself was rounded up"
            assert delta_of(rho, epsilon) == pytest.approx(delta, rel=1e-4)


def test_rho_of_noise_and_edges() -> None:
    assert gaussian_rho(8.35, 2) == pytest.approx(2 / (2 * 8.35**2), rel=1e-14)
    assert gaussian_rho(0.0, 1) == gaussian_rho(1e-200, 1) == math.inf
    assert zcdp_epsilon(0.0, 0.0) == 0.0
    assert zcdp_epsilon(0.1, 0.0) == zcdp_epsilon(math.inf, 0.1) == math.inf
    assert zcdp_epsilon(1e-12, 0.5) == 0.0
    assert zcdp_delta(0.0, 0.0) == 0.0
    assert zcdp_delta(1.0, 0.5) == 1.0
    assert zcdp_delta(1e-9, 5.0) == math.ulp(0.0)
    assert zcdp_delta(1.0, math.inf) == 0.0
    assert rho_of_zcdp_epsilon(math.inf, 1e-6) == math.inf
    assert rho_of_zcdp_epsilon(1.0, 0.0) == 0.0


@pytest.mark.parametrize("wrong", [math.nan, -1.0])
def test_nan_and_negative_input_is_refused(wrong: float) -> None:
    calls: list[Callable[[], float]] = [
        lambda: zcdp_epsilon(wrong, 1e-6),
        lambda: zcdp_epsilon(1.0, wrong),
        lambda: zcdp_delta(wrong, 1.0),
        lambda: zcdp_delta(1.0, wrong),
        lambda: rho_of_zcdp_epsilon(wrong, 1e-6),
        lambda: gaussian_rho_epsilon(wrong, 1e-6),
        lambda: gaussian_rho(wrong),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="it must be"):
            call()
