"""The coefficients are those of (1 - x)^(-1/2)."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hushrec_privacy.accounting.toeplitz import square_root_coefficients
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.toeplitz import fixed_point_coefficients

EXACT = [Fraction(comb(2 * j, j), 4**j) for j in range(2000)]


def test_the_square_of_the_matrix_is_the_prefix_sum() -> None:
    c = square_root_coefficients(300)
    np.testing.assert_allclose(np.convolve(c, c)[:300], np.ones(300), rtol=1e-13)


def test_every_coefficient_is_the_exact_one_to_its_last_bits() -> None:
    found = square_root_coefficients(2000)
    assert all(abs(Fraction(a) / b - 1) < Fraction(1, 2**42) for a, b in zip(found, EXACT, strict=True))


def test_whole_coefficients_are_the_exact_ones_rounded_down() -> None:
    assert fixed_point_coefficients(2000).tolist() == [int(c * 2**24) for c in EXACT]


def test_whole_coefficients_never_grow() -> None:
    c = fixed_point_coefficients(5000)
    assert (np.diff(c) <= 0).all()
    assert c[-1] >= 0


@pytest.mark.parametrize("bands", [0, -1, 1.5])
def test_less_than_one_band_is_refused(bands: int) -> None:
    with pytest.raises(ConfigError, match="bands"):
        square_root_coefficients(bands)
    with pytest.raises(ConfigError, match="bands"):
        fixed_point_coefficients(bands)
