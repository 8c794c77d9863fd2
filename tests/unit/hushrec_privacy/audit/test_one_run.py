"""Bounds from canaries: values worked by hand, randomised response, and the power that the table promises."""

import json
import math

import numpy as np
import pytest
from hushrec_privacy.audit.one_run import audit_one_run, epsilon_lower_bound, guess_p_value
from hushrec_privacy.audit.power import best_guesses, detection_power, expected_epsilon, power_table
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray
from scipy import stats


def _reference(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Theorem 5.2 by its definition, one probability at a time."""
    law = stats.binom(r, 1 / (1 + math.exp(-epsilon)))
    alpha = max(((law.cdf(v - 1) - law.cdf(v - i - 1)) / i for i in range(1, v + 1)), default=0.0)
    return float(min(1.0, law.sf(v - 1) + 2 * m * delta * alpha))


def test_p_values_worked_by_hand() -> None:
    # epsilon 0: a fair coin. P(B >= 2 of 3) = 4/8; P(B = 1) = 3/8, P(0 or 1)/2 = 1/4: alpha = 3/8, twice 3 delta alpha
    assert guess_p_value(3, 3, 2, epsilon=0.0, delta=0.0) == pytest.approx(1 / 2)
    assert guess_p_value(3, 3, 2, epsilon=0.0, delta=0.1) == pytest.approx(1 / 2 + 6 * 0.1 * 3 / 8)
    # epsilon ln 3: success 3/4; all 4 of 4: 81/256
    assert guess_p_value(9, 4, 4, epsilon=math.log(3), delta=0.0) == pytest.approx(81 / 256)
    assert guess_p_value(9, 4, 0, epsilon=1.0, delta=0.0) == 1.0
    assert guess_p_value(9, 4, 4, epsilon=100.0, delta=0.0) == 1.0


@pytest.mark.parametrize(("m", "r", "v"), [(10, 10, 7), (100, 40, 40), (1000, 200, 150), (1000, 1000, 560)])
@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
def test_p_values_are_those_of_the_theorem(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    expected = _reference(m, r, v, epsilon, delta)
    assert guess_p_value(m, r, v, epsilon=epsilon, delta=delta) == pytest.approx(expected, rel=1e-8, abs=1e-15)


def test_all_right_gives_the_bound_worked_by_hand() -> None:
    # (1 / (1 + e^-epsilon))^r = 0.05
    for r in (10, 100, 1000):
        success = 0.05 ** (1 / r)
        expected = math.log(success / (1 - success))
        assert epsilon_lower_bound(1000, r, r, delta=0.0) == pytest.approx(expected, abs=2e-6)


def test_a_larger_delta_or_confidence_never_raises_the_bound() -> None:
    bounds = [epsilon_lower_bound(1000, 200, 180, delta=delta) for delta in (0.0, 1e-6, 1e-4, 1e-2)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[-1]
    assert epsilon_lower_bound(1000, 200, 180, delta=0.0, confidence=0.99) < bounds[0]


def test_half_right_shows_nothing() -> None:
    assert epsilon_lower_bound(1000, 1000, 500, delta=0.0) == 0.0


def _randomized_response(
    rng: np.random.Generator, m: int, epsilon: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Each coin is told truly with chance 1 / (1 + exp(-epsilon)): exactly epsilon-DP."""
    included = rng.integers(0, 2, m).astype(bool)
    told = np.where(rng.random(m) < 1 / (1 + math.exp(-epsilon)), included, ~included)
    return told + rng.uniform(0, 0.5, m), included


def test_randomized_response_is_bounded_closely_and_hardly_ever_falsely() -> None:
    rng, epsilon, runs = np.random.default_rng(1), 1.5, 400
    found = [
        audit_one_run(*_randomized_response(rng, 2000, epsilon), guesses=1000, delta=0.0).epsilon_lower
        for _ in range(runs)
    ]
    assert np.mean(found) > 1.2
    assert sum(bound > epsilon for bound in found) <= stats.binom.ppf(1 - 1e-6, runs, 0.05)
    assert sum(bound > 1.2 for bound in found) > runs / 2  # the bound is no vain one


def test_several_numbers_of_guesses_share_the_confidence() -> None:
    scores, included = _randomized_response(np.random.default_rng(2), 2000, 2.0)
    one = audit_one_run(scores, included, guesses=1000, delta=1e-5)
    several = audit_one_run(scores, included, guesses=[1000, 10], delta=1e-5)
    assert several.guesses == 1000
    assert several.tried == 2
    assert 0 < several.epsilon_lower < one.epsilon_lower
    assert several.epsilon_lower == epsilon_lower_bound(2000, 1000, several.correct, delta=1e-5, confidence=0.975)


def test_guesses_are_the_extreme_scores() -> None:
    scores, included = np.array([3.0, -1.0, 2.0, 0.0, 1.0, 9.0]), np.array([True, False, False, True, False, True])
    assert audit_one_run(scores, included, guesses=2, delta=0.0).correct == 2
    assert audit_one_run(scores, included, guesses=4, delta=0.0).correct == 3  # 9, 3 in; -1 out; 0 was in
    assert audit_one_run(scores, included, guesses=6, delta=0.0).correct == 4


def test_a_result_refutes_claims_below_it_and_is_json() -> None:
    result = audit_one_run(np.arange(200.0), np.arange(200) >= 100, guesses=200, delta=0.0)
    assert result.refutes(4.0)
    assert not result.refutes(result.epsilon_lower)
    assert json.loads(json.dumps(result.to_dict()))["correct"] == 200


def _gaussian(rng: np.random.Generator, m: int, mu: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    included = rng.integers(0, 2, m).astype(bool)
    return rng.normal(0, 1, m) + mu * included, included


@pytest.mark.parametrize(("mu", "epsilon"), [(0.5, 0.6), (1.0, 1.5), (2.0, 3.5), (2.6, 4.0)])
def test_audits_of_a_gaussian_refute_as_often_as_the_power_says(mu: float, epsilon: float) -> None:
    rng, runs, m, r = np.random.default_rng(3), 300, 1000, 200
    power = detection_power(m, r, mu=mu, epsilon=epsilon, delta=1e-5)
    assert 0.02 < power < 0.99
    found = sum(audit_one_run(*_gaussian(rng, m, mu), guesses=r, delta=1e-5).refutes(epsilon) for _ in range(runs))
    low, high = stats.binom.ppf([5e-7, 1 - 5e-7], runs, power)
    assert low - 0.03 * runs <= found <= high + 0.03 * runs  # the guesses are nearly independent


def test_the_table_tells_what_a_typical_audit_of_a_gaussian_finds() -> None:
    (row,) = power_table([2000], [2.5], delta=1e-5)
    rng = np.random.default_rng(4)
    found = [
        audit_one_run(*_gaussian(rng, 2000, 2.5), guesses=row.guesses, delta=1e-5).epsilon_lower for _ in range(100)
    ]
    assert np.median(found) == pytest.approx(row.epsilon_revealed, rel=0.1)


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 50.0])
def test_the_best_number_of_guesses_refutes_at_least_as_often_as_any_other(epsilon: float) -> None:
    def chance(guesses: int) -> float:
        return detection_power(4000, guesses, mu=1.8, epsilon=epsilon, delta=1e-5)

    best = best_guesses(4000, mu=1.8, epsilon=epsilon, delta=1e-5)
    assert chance(best) == max(chance(guesses) for guesses in (40, 80, 200, 400, 800, 1200, 2000, 4000))
    assert best == 4000 or chance(best) > 0  # where nothing can be seen, all are guessed


def test_the_expected_bound_is_that_of_the_table() -> None:
    (row,) = power_table([2000], [2.5], delta=1e-5)
    assert expected_epsilon(2000, row.guesses, mu=2.5, delta=1e-5) == row.epsilon_revealed


def test_the_table_grows_with_canaries_and_shift_up_to_its_ceiling() -> None:
    rows = power_table([100, 1000], [0.5, 2.0, 30.0], delta=1e-5)
    assert [(row.canaries, row.mu) for row in rows] == [(m, mu) for m in (100, 1000) for mu in (0.5, 2.0, 30.0)]
    small, large = rows[:3], rows[3:]
    assert all(a.epsilon_revealed <= b.epsilon_revealed for a, b in zip(small, large, strict=True))
    assert all(row.epsilon_revealed <= row.epsilon_ceiling + 1e-5 for row in rows)
    assert large[0].epsilon_revealed < large[1].epsilon_revealed < large[2].epsilon_revealed
    assert json.loads(json.dumps(rows[0].to_dict()))["canaries"] == 100


def test_an_audit_cannot_see_a_claim_above_its_ceiling() -> None:
    (row,) = power_table([20], [8.0], delta=0.0)
    assert detection_power(20, 20, mu=8.0, epsilon=row.epsilon_ceiling + 0.01, delta=0.0) == 0.0
    assert detection_power(20, 20, mu=8.0, epsilon=row.epsilon_ceiling - 0.01, delta=0.0) > 0.99


@pytest.mark.parametrize(
    ("scores", "included", "guesses"),
    [
        ([1.0, np.nan], [True, False], 2),
        ([1.0, 2.0], [True], 2),
        ([1.0, 2.0], [1, 0], 2),
        ([1.0, 2.0], [True, False], 3),
        ([1.0, 2.0], [True, False], 4),
        ([1.0, 2.0], [True, False], 0),
        ([1.0, 2.0], [True, False], []),
    ],
)
def test_canaries_that_make_no_sense_are_refused(scores: list[float], included: list[bool], guesses: int) -> None:
    with pytest.raises(ConfigError):
        audit_one_run(np.array(scores), np.array(included), guesses=guesses, delta=0.0)


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 0, 0, 1.0, 0.0),
        (5, 6, 1, 1.0, 0.0),
        (5, 4, 5, 1.0, 0.0),
        (5, 4, 4, -1.0, 0.0),
        (5, 4, 4, math.nan, 0.0),
        (5, 4, 4, 1.0, 1.0),
    ],
)
def test_p_value_arguments_out_of_range_are_refused(arguments: tuple[int, int, int, float, float]) -> None:
    m, r, v, epsilon, delta = arguments
    with pytest.raises(ConfigError):
        guess_p_value(m, r, v, epsilon=epsilon, delta=delta)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, math.nan])
def test_a_confidence_outside_0_to_1_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigError):
        epsilon_lower_bound(10, 10, 9, delta=0.0, confidence=confidence)
