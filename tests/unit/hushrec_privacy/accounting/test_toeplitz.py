"""Sensitivity by brute force over every participation pattern, error by the plain matrices."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hushrec_privacy.accounting.toeplitz import (
    most_participations,
    prefix_error,
    sensitivity_squared,
    square_root_coefficients,
    toeplitz_sensitivity_squared,
)
from hushrec_privacy.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray


def matrix(coefficients: list[float], rounds: int) -> NDArray[np.float64]:
    found = np.zeros((rounds, rounds))
    for j, value in enumerate(coefficients[:rounds]):
        found += value * np.eye(rounds, k=-j)
    return found


def patterns(rounds: int, separation: int, most: int) -> Iterator[tuple[int, ...]]:
    for size in range(1, most + 1):
        for chosen in itertools.combinations(range(rounds), size):
            if all(b - a >= separation for a, b in itertools.pairwise(chosen)):
                yield chosen


def by_force(coefficients: list[float], rounds: int, separation: int, most: int) -> float:
    """Squared norm of the worst pattern; all updates pointing the same way is worst, all entries being positive."""
    columns = matrix(coefficients, rounds)
    return max(float((columns[:, list(p)].sum(1) ** 2).sum()) for p in patterns(rounds, separation, most))


@pytest.mark.parametrize("rounds", range(1, 10))
def test_every_small_case_by_force(rounds: int) -> None:
    for bands, separation in itertools.product(range(1, rounds + 2), range(1, rounds + 1)):
        for most in range(1, most_participations(rounds, separation) + 1):
            wanted = by_force(square_root_coefficients(bands), rounds, separation, most)
            assert sensitivity_squared(rounds, bands, separation, most) == pytest.approx(wanted, rel=1e-9)


@settings(max_examples=60)
@given(
    st.integers(1, 9).flatmap(
        lambda rounds: st.tuples(
            st.just(rounds), st.integers(1, rounds), st.lists(st.floats(0, 1), min_size=1, max_size=rounds)
        )
    )
)
def test_any_falling_coefficients_by_force(case: tuple[int, int, list[float]]) -> None:
    rounds, separation, values = case
    falling = sorted(values, reverse=True)
    most = most_participations(rounds, separation)
    found = toeplitz_sensitivity_squared(falling, rounds, separation, most)
    assert found == pytest.approx(by_force(falling, rounds, separation, most), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("coefficients", [[1.0, 1.5], [1.0, -0.5], [0.5, math.nan], [1.0, 0.0, 0.5]])
def test_coefficients_that_the_theorem_does_not_cover_are_refused(coefficients: list[float]) -> None:
    with pytest.raises(ConfigError, match="must not increase"):
        toeplitz_sensitivity_squared(coefficients, 5, 1, 1)


def test_the_values_of_the_design() -> None:
    assert sensitivity_squared(2000, 200, 200, 10) == pytest.approx(27.5238497, rel=1e-9)
    assert prefix_error(2000, 200) * math.sqrt(27.5238497) == pytest.approx(12.853, abs=5e-4)
    assert prefix_error(2000, 1) * math.sqrt(10) == pytest.approx(100.025, abs=5e-4)


@pytest.mark.parametrize(("rounds", "bands"), [(1, 1), (7, 1), (12, 4), (30, 30), (20, 50)])
def test_the_error_is_that_of_the_matrices(rounds: int, bands: int) -> None:
    noise = np.tril(np.ones((rounds, rounds))) @ np.linalg.inv(matrix(square_root_coefficients(bands), rounds))
    assert prefix_error(rounds, bands) == pytest.approx(math.sqrt((noise**2).sum() / rounds), rel=1e-9)


def test_the_square_of_the_coefficients_is_the_prefix_sum() -> None:
    root = matrix(square_root_coefficients(40), 40)
    np.testing.assert_allclose(root @ root, np.tril(np.ones((40, 40))), rtol=1e-12)


def test_a_million_rounds() -> None:
    assert sensitivity_squared(10**6, 1, 1, 10**6) == pytest.approx(1e6, rel=1e-9)
    assert sensitivity_squared(10**6, 200, 200, 5000) == pytest.approx(27.5238497 * 500, rel=1e-8)


def test_bands_beyond_the_rounds_do_not_matter() -> None:
    assert sensitivity_squared(5, 10**9, 2, 3) == sensitivity_squared(5, 5, 2, 3)


def test_no_participation_costs_nothing() -> None:
    assert sensitivity_squared(10, 2, 2, 0) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2000, 200, 200, 11), "at most 10"),
        ((0, 1, 1, 1), "rounds is 0"),
        ((10, 0, 1, 1), "bands is 0"),
        ((10, 1, 0, 1), "min_separation is 0"),
        ((10, 1, 1, -1), "participations is -1"),
        ((10**9, 10**9, 1, 10**9), "too many"),
    ],
)
def test_what_cannot_be_summed_is_refused(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sensitivity_squared(*arguments)


def test_an_error_that_takes_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes too long"):
        prefix_error(10**6, 10**6)
