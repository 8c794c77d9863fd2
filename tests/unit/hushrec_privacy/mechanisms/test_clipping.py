"""An update leaves with the bound at most, whatever it was."""

import numpy as np
import pytest
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.clipping import clip_update


def test_a_long_update_keeps_its_direction_and_gets_the_norm() -> None:
    np.testing.assert_allclose(clip_update(np.array([30, -40], np.float32), clip_norm=2.0), [1.2, -1.6], rtol=1e-6)


def test_a_short_update_is_unchanged_and_copied() -> None:
    update = np.array([0.25, -0.5], np.float32)
    clipped = clip_update(update, clip_norm=1.0)
    np.testing.assert_array_equal(clipped, update)
    assert not np.shares_memory(clipped, update)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_adds_nothing(bad: float) -> None:
    assert not clip_update(np.array([1.0, bad], np.float32), clip_norm=1.0).any()


def test_the_largest_floats_do_not_overflow_the_norm() -> None:
    clipped = clip_update(np.full(1000, np.finfo(np.float32).max), clip_norm=1.0)
    assert np.linalg.norm(clipped) == pytest.approx(1.0, rel=1e-6)


def test_zeros_and_nothing_stay_as_they_are() -> None:
    assert not clip_update(np.zeros(3, np.float32), clip_norm=1.0).any()
    assert clip_update(np.zeros(0, np.float32), clip_norm=1.0).shape == (0,)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, np.nan, np.inf])
def test_a_bound_that_is_no_finite_number_above_zero_is_refused(clip_norm: float) -> None:
    with pytest.raises(ConfigError, match="clip_norm"):
        clip_update(np.ones(2, np.float32), clip_norm=clip_norm)
