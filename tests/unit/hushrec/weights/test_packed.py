"""Rounding a model again that was rounded already changes nothing where nothing changed."""

import numpy as np
import pytest
from hushrec.tables import dequantize_rows
from hushrec.weights.packed import RoundedItems, round_encoder, round_items
from hushrec_privacy.errors import ConfigError

from tests.encoder_reference import random_encoder, random_items

WEIGHTS, ROWS = random_encoder(heads=(1,), channels=(32,), max_history=10), random_items(120)


def test_rounded_rows_are_near_the_vectors_in_a_basis_of_their_own() -> None:
    items = round_items(WEIGHTS, ROWS)
    np.testing.assert_allclose(items.rotation @ items.rotation.T, np.eye(64), atol=1e-5)
    assert np.linalg.norm(items.rows() - ROWS, axis=1).max() < 0.05
    assert not items.rows()[0].any()
    np.testing.assert_array_equal(items.turned(), dequantize_rows(items.codes, items.scale))


def test_basis_and_step_of_an_earlier_table_are_kept() -> None:
    basis = np.eye(64, dtype=np.float32)[::-1].copy()
    items = round_items(WEIGHTS, ROWS, RoundedItems(np.zeros((121, 64), np.uint8), 0.004, basis))
    np.testing.assert_array_equal(items.rotation, basis)
    assert items.scale == 0.004
    assert np.linalg.norm(items.rows() - ROWS, axis=1).max() < 0.05


def test_the_encoder_follows_from_its_weights_and_the_rounded_table_alone() -> None:
    items = round_items(WEIGHTS, ROWS)
    again = RoundedItems.of(items.pack(128), 128, 120, items.rotation)
    for ours, theirs in zip(items, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert round_encoder(WEIGHTS, items) == round_encoder(WEIGHTS, again)
    other = round_items(WEIGHTS, random_items(120, seed=9))
    assert round_encoder(WEIGHTS, other) != round_encoder(WEIGHTS, items)


def test_vectors_that_are_not_finite_are_refused() -> None:
    rows = ROWS.copy()
    rows[3, 5] = np.nan
    with pytest.raises(ConfigError, match="NaN"):
        round_items(WEIGHTS, rows)
