"""Pairs of nearby items against a plain loop, and a start of the ID table that puts companions together."""

import numpy as np
import pytest
import torch
from hushrec_model.svd import nearby_pairs, svd_start
from hypothesis import given
from hypothesis import strategies as st

from tests.planted import sequences

rows = st.lists(st.lists(st.integers(0, 5), max_size=9), min_size=1, max_size=6)
WEIGHTS = np.array([1.0, 0.5, 0.25])


@given(rows, st.sampled_from([0.0, 0.25, 1.0]), st.booleans())
def test_pairs_equal_a_plain_loop(lists: list[list[int]], reverse: float, repeats: bool) -> None:
    wanted = np.zeros((6, 6))
    for row in lists:
        for at, earlier in enumerate(row):
            for later, weight in zip(row[at + 1 :], WEIGHTS, strict=False):
                if earlier and later and (repeats or earlier != later):
                    wanted[earlier, later] += weight
                    wanted[later, earlier] += weight * reverse
    found = nearby_pairs(sequences(lists), 5, WEIGHTS, reverse=reverse, repeats=repeats)
    np.testing.assert_allclose(found.toarray(), wanted)


def test_a_distance_without_pairs_does_not_hide_the_farther_ones() -> None:
    """1 2 1 2: nothing new at distance 2, but 1 and 2 again at distance 3."""
    found = nearby_pairs(sequences([[1, 2, 1, 2]]), 2, np.ones(3), reverse=0.0).toarray()
    assert (found[1, 2], found[2, 1]) == (3, 1)


def start(lists: list[list[int]], items: int, seed: int = 0) -> torch.Tensor:
    return svd_start(sequences(lists), items, 16, torch.Generator().manual_seed(seed))


def groups(items: int, size: int) -> list[list[int]]:
    """Shoppers each of whom stays within one group of items."""
    rng = np.random.default_rng(0)
    firsts = rng.integers(0, items // size, 300) * size
    return [(first + 1 + rng.permutation(size)[:6]).tolist() for first in firsts]


def test_items_that_are_bought_together_start_near_each_other() -> None:
    vectors = torch.nn.functional.normalize(start(groups(80, 8), 80), dim=1)
    near = (vectors @ vectors.t()).view(10, 8, 10, 8).mean((1, 3))
    assert near.diagonal().min() > 0.6
    assert (near - torch.diag(near.diagonal())).abs().max() < 0.01


def test_the_start_has_the_scale_that_was_asked_for_and_little_noise_elsewhere() -> None:
    vectors = start(groups(80, 8), 90)
    assert vectors.dtype == torch.float32
    assert vectors[:80].std() == pytest.approx(0.05, rel=0.02)
    assert 0 < vectors[80:].std() < 0.01


def test_the_start_repeats_with_its_generator() -> None:
    assert torch.equal(start(groups(80, 8), 80), start(groups(80, 8), 80))


@pytest.mark.parametrize("lists", [[[1]], [[1, 2]], [[1, 1, 1]], groups(32, 8)], ids=["one", "pair", "same", "few"])
def test_too_little_to_learn_from_gives_noise(lists: list[list[int]]) -> None:
    vectors = start(lists, 32)
    assert torch.isfinite(vectors).all()
    assert vectors.std() == pytest.approx(0.05, rel=0.2)
