"""Rounding that knows its inputs loses less of the products, and nothing where there is nothing to know."""

import numpy as np
from hushrec.weights.calibration import fit_rounding, own_histories
from hushrec.weights.rounding import flattening_rotation, round_columns, round_rows
from numpy.typing import NDArray

from tests.encoder_reference import random_encoder, random_items, reference_user

Floats = NDArray[np.float32]


def test_independent_inputs_leave_rounding_to_the_nearest_step() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    scales = np.full(50, 0.02, np.float32)
    nearest = np.clip(np.rint(rows / np.float32(0.02)), -127, 127)
    assert np.array_equal(round_rows(rows, scales, np.eye(64)), nearest)


def test_correlated_inputs_halve_the_error_of_the_products() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((4_000, 8)) @ rng.standard_normal((8, 64)) + 0.1 * rng.standard_normal((4_000, 64))
    matrix = rng.standard_normal((64, 40)).astype(np.float32)
    codes, scales = round_columns(matrix, inputs.T @ inputs / len(inputs))
    plain, _ = round_columns(matrix, np.eye(64))
    errors = [np.square(inputs @ (c * scales - matrix)).mean() for c in (codes, plain)]
    assert errors[0] < errors[1] / 4
    assert np.abs(codes * scales - matrix).max() < 20 * scales.max()


def test_rows_and_columns_of_zeros_stay_zeros() -> None:
    assert not round_rows(np.zeros((2, 64), np.float32), np.zeros(2, np.float32), np.eye(64)).any()
    codes, scales = round_columns(np.zeros((64, 3), np.float32), np.zeros((64, 64)))
    assert not codes.any()
    assert np.isfinite(scales).all()


def test_a_rotation_keeps_products_and_flattens_vectors() -> None:
    rng = np.random.default_rng(2)
    vectors = (rng.standard_normal((2_000, 12)) @ rng.standard_normal((12, 64))).astype(np.float32)
    vectors[:, 3] *= 10
    vectors[7] = 0
    rotation = flattening_rotation(vectors)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(64), atol=1e-5)

    def peak(rows: Floats) -> float:
        return float(np.mean(np.abs(rows).max(1) / np.maximum(np.sqrt(np.square(rows).mean(1)), 1e-9)))

    assert peak(vectors) > 5
    assert peak(vectors @ rotation) < 2.3  # 1 is the least there is; random directions have 2.6


def test_moments_are_those_of_a_plain_loop() -> None:
    weights, rows = random_encoder(heads=(1, 2), channels=(24, 40), max_history=6), random_items(30)
    histories = [np.array([3, 7, 9]), np.array([5]), np.array([1, 2, 3, 4, 5, 6, 7]), np.array([], np.int64)]
    moments, rotation = fit_rounding(weights, rows, histories)
    users = [
        reference_user(weights, rows, kept[: end + 1].tolist()) @ rotation
        for history in histories
        for kept in [history[-6:]]
        for end in range(len(kept))
    ]
    expected = np.mean([np.outer(user, user) for user in users], axis=0)
    np.testing.assert_allclose(moments["user"], expected, atol=1e-3)
    assert moments["0.query"].shape == (64, 64)
    assert moments["1.mix"].shape == (128, 128)
    assert moments["1.down"].shape == (40, 40)


def test_own_histories_are_distinct_items_and_repeat_with_the_seed() -> None:
    weights, rows = random_encoder(heads=(1,), channels=(16,), behaviors=2), random_items(40)
    histories = own_histories(weights, rows)
    assert all(len(set(history)) == 24 and history.min() >= 1 and history.max() <= 40 for history in histories)
    again, other = own_histories(weights, rows), own_histories(weights, rows, seed=1)
    assert np.array_equal(histories, again)
    assert not np.array_equal(histories, other)


def test_own_histories_fit_a_tiny_catalogue() -> None:
    weights = random_encoder(heads=(1,), channels=(16,))
    assert {len(history) for history in own_histories(weights, random_items(2))} == {2}
