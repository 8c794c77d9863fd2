"""The exact Gaussian curve against 60-digit arithmetic, published figures, and its own inverse."""

import math
from collections.abc import Callable

import mpmath
import pytest
from hushrec_privacy.accounting.gaussian import (
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    mu_of_mixed_noise,
    mu_of_participations,
    noise_of_mu,
)
from hushrec_privacy.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st


def exact_delta(mu: float, epsilon: float) -> mpmath.mpf:
    """Q(e/mu - mu/2) - exp(e) Q(e/mu + mu/2) as Balle and Wang write it, in enough digits for the subtraction."""
    with mpmath.workdps(120):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        upper = [mpmath.erfc((e / m + sign * m / 2) / mpmath.sqrt(2)) / 2 for sign in (-1, 1)]
        return upper[0] - mpmath.e**e * upper[1]


separations = st.floats(-5, 2).map(lambda power: 10**power)


@settings(max_examples=300)
@given(mu=separations, deviations=st.floats(0, 35))
def test_delta_is_never_below_the_truth_and_hardly_above(mu: float, deviations: float) -> None:
    epsilon = max(0.0, mu * (deviations + mu / 2 - 5))
    truth = exact_delta(mu, epsilon)
    found = mpmath.mpf(gaussian_delta(mu, epsilon))
    if truth > 1e-300:
        assert truth <= found <= truth * (1 + mpmath.mpf("1e-10"))
    else:
        assert found > 0


@settings(max_examples=200)
@given(mu=separations, power=st.floats(-300, -1))
def test_epsilon_is_never_below_the_truth_and_hardly_above(mu: float, power: float) -> None:
    delta = 10**power
    epsilon = gaussian_epsilon(mu, delta)
    assert exact_delta(mu, epsilon) <= delta
    if epsilon > 0:
        assert exact_delta(mu, epsilon * (1 - 1e-7)) > delta


@settings(max_examples=200)
@given(epsilon=st.floats(-6, 3).map(lambda power: 10**power), power=st.floats(-30, -1))
def test_the_separation_of_an_epsilon_is_never_above_the_truth_and_hardly_below(epsilon: float, power: float) -> None:
    delta = 10**power
    mu = gaussian_mu(epsilon, delta)
    assert exact_delta(mu, epsilon) <= delta
    assert exact_delta(mu * (1 + 1e-7), epsilon) > delta


@pytest.mark.parametrize(
    ("noise_multiplier", "participations", "delta", "epsilon"),
    [
        (8.35, 2, 1e-10, 0.9935499),  # Gboard's pt-BR model: Xu et al. 2023, arXiv:2305.18465
        (1.0, 1, 1e-5, 4.377178096),  # by mpmath.findroot on `exact_delta`
        (0.5, 1, 1e-6, 10.99715121),
        (100.0, 1000, 1e-8, 1.65865711),
    ],
)
def test_published_and_independent_values(
    noise_multiplier: float, participations: int, delta: float, epsilon: float
) -> None:
    found = gaussian_epsilon(mu_of_participations(noise_multiplier, participations), delta)
    assert found == pytest.approx(epsilon, rel=1e-6)


@pytest.mark.parametrize("delta", [1e-15, 1e-6, 0.1])
@pytest.mark.parametrize("noise_multiplier", [1e-300, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("participations", [0, 1, 10**6])
def test_extreme_inputs_give_a_bound(noise_multiplier: float, participations: int, delta: float) -> None:
    mu = mu_of_participations(noise_multiplier, participations)
    epsilon = gaussian_epsilon(mu, delta)
    assert epsilon >= 0
    if 0 < epsilon < math.inf:
        assert gaussian_delta(mu, epsilon) == pytest.approx(delta, rel=1e-3)


@pytest.mark.parametrize("noise_multiplier", [1e-150, 1e-154, 1e-155, 1e-200, 1e-307, 5e-309, 5e-324])
def test_noise_that_is_next_to_nothing_never_gives_a_small_epsilon(noise_multiplier: float) -> None:
    mu = mu_of_participations(noise_multiplier, 2)
    assert gaussian_epsilon(mu, 1e-6) > 1e290
    assert gaussian_delta(mu, 1.0) == 1.0


def test_what_needs_no_arithmetic() -> None:
    assert gaussian_epsilon(mu_of_participations(0.0, 1), 1e-6) == math.inf
    assert gaussian_epsilon(0.1, 0.0) == math.inf
    assert gaussian_epsilon(0.0, 0.0) == 0.0
    assert gaussian_epsilon(0.01, 0.1) == 0.0, "delta covers everything"
    assert gaussian_delta(math.inf, 3.0) == 1.0
    assert gaussian_delta(1.0, math.inf) == 0.0
    assert gaussian_delta(1e-200, 1e300) == math.ulp(0.0), "not 0, however small"
    assert gaussian_mu(math.inf, 0.0) == math.inf
    assert gaussian_mu(3.0, 0.0) == 0.0
    assert gaussian_mu(0.0, 1e-6) == pytest.approx(1e-6 * math.sqrt(2 * math.pi), rel=1e-9)
    assert mu_of_participations(0.0, 0) == 0.0


def test_mixed_noise_adds_up_in_squares() -> None:
    assert mu_of_mixed_noise([(2.0, 4), (1.0, 3), (5.0, 0)]) == pytest.approx(2.0, rel=1e-14)
    assert mu_of_mixed_noise([(2.0, 4)]) == mu_of_mixed_noise([(2.0, 1)] * 4)
    assert mu_of_mixed_noise([]) == 0.0
    assert mu_of_mixed_noise([(1.0, 1), (0.0, 1)]) == math.inf


def test_noise_reaches_its_separation() -> None:
    z = noise_of_mu(gaussian_mu(1.0, 1e-6), math.sqrt(7))
    assert gaussian_epsilon(mu_of_participations(z, 7), 1e-6) == pytest.approx(1.0, rel=1e-9)
    assert gaussian_epsilon(mu_of_participations(z, 7), 1e-6) <= 1.0
    assert noise_of_mu(1.0, 0.0) == 0.0
    with pytest.raises(ConfigError, match="no finite noise"):
        noise_of_mu(0.0, 1.0)


@pytest.mark.parametrize("wrong", [math.nan, -1.0, -0.001])
def test_nan_and_negative_input_is_refused(wrong: float) -> None:
    calls: list[Callable[[], float]] = [
        lambda: gaussian_epsilon(wrong, 1e-6),
        lambda: gaussian_epsilon(1.0, wrong),
        lambda: gaussian_delta(wrong, 1.0),
        lambda: gaussian_delta(1.0, wrong),
        lambda: gaussian_mu(wrong, 1e-6),
        lambda: gaussian_mu(1.0, wrong),
        lambda: mu_of_participations(wrong, 1),
        lambda: noise_of_mu(wrong, 1.0),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="it must be"):
            call()


@pytest.mark.parametrize("delta", [1.0, 2.0, math.inf])
def test_a_delta_of_one_or_more_is_refused(delta: float) -> None:
    with pytest.raises(ConfigError, match="below 1"):
        gaussian_epsilon(1.0, delta)


@pytest.mark.parametrize("participations", [-1, 1.5, True, 10**400])
def test_participations_are_whole(participations: int) -> None:
    with pytest.raises(ConfigError, match=r"whole number|2\^64"):
        mu_of_participations(1.0, participations)


def test_infinite_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="finite"):
        mu_of_participations(math.inf, 1)
