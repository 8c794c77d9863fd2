"""The server's optimizer is Algorithm 2 of the paper, coordinate by coordinate, and goes on where it stopped."""

import math

import numpy as np
import pytest
from hushrec.federated.fedadam import AdamSettings, FedAdam
from hushrec_privacy.errors import ConfigError

SETTINGS = AdamSettings(rate=0.1, momentum=0.9, second=0.99, floor=1e-3)


def test_steps_are_those_of_a_plain_loop() -> None:
    rng, adam = np.random.default_rng(0), FedAdam(3, SETTINGS)
    m, v = [0.0] * 3, [1e-6] * 3
    for _ in range(20):
        change = rng.standard_normal(3)
        expected = []
        for i, delta in enumerate(change):
            m[i] = 0.9 * m[i] + 0.1 * delta
            v[i] = 0.99 * v[i] + 0.01 * delta * delta
            expected.append(0.1 * m[i] / (math.sqrt(v[i]) + 1e-3))
        np.testing.assert_allclose(adam.step(change), expected, rtol=1e-12)


def test_a_coordinate_that_never_changes_never_moves() -> None:
    adam = FedAdam(2, SETTINGS)
    for _ in range(5):
        step = adam.step(np.array([0.0, 1.0]))
    assert step[0] == 0
    assert step[1] > 0


def test_a_restored_state_goes_on_alike() -> None:
    rng, adam = np.random.default_rng(1), FedAdam(5, SETTINGS)
    adam.step(rng.standard_normal(5))
    again, change = FedAdam.from_bytes(adam.to_bytes(), SETTINGS), rng.standard_normal(5)
    assert again.to_bytes() == adam.to_bytes()
    np.testing.assert_array_equal(again.step(change), adam.step(change))
    assert again.to_bytes() == adam.to_bytes()


@pytest.mark.parametrize("cut", [0, 8, 15, 16, 47, 95])
def test_a_state_that_was_cut_is_refused(cut: int) -> None:
    state = FedAdam(5, SETTINGS).to_bytes()
    assert len(state) == 96
    with pytest.raises(ConfigError, match="state"):
        FedAdam.from_bytes(state[:cut], SETTINGS)


def test_a_state_of_something_else_is_refused() -> None:
    state = FedAdam(2, SETTINGS).to_bytes()
    for wrong in (state + b"\0", b"fedadam2" + state[8:], state[:8] + b"\3" + state[9:]):
        with pytest.raises(ConfigError, match="state"):
            FedAdam.from_bytes(wrong, SETTINGS)


@pytest.mark.parametrize("mean", [np.zeros(4), np.zeros((5, 1)), np.array([0, 0, np.nan, 0, 0]), np.full(5, np.inf)])
def test_a_mean_that_cannot_be_used_is_refused_and_changes_nothing(mean: np.ndarray) -> None:
    adam = FedAdam(5, SETTINGS)
    before = adam.to_bytes()
    with pytest.raises(ConfigError, match="mean"):
        adam.step(mean)
    assert adam.to_bytes() == before


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"momentum": 1.0}, {"second": -0.1}, {"floor": 0.0}])
def test_settings_outside_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        AdamSettings(**wrong)
