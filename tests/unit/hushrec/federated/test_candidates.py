"""Candidates are drawn evenly, from the seed alone, and always the same."""

import hashlib

import numpy as np
import pytest
from hushrec.federated.candidates import draw_candidates
from hushrec_privacy.errors import ConfigError


def test_the_draw_is_that_of_the_description() -> None:
    stream = hashlib.shake_256(b"plan/3/0").digest(8 * 50)
    words = [int.from_bytes(stream[8 * n : 8 * n + 8], "little") for n in range(50)]
    smallest = sorted(sorted(range(50), key=words.__getitem__)[:7])
    assert draw_candidates(50, 7, "plan/3/0").tolist() == [n + 1 for n in smallest]


@pytest.mark.parametrize(("items", "count"), [(1, 1), (5, 5), (5, 900)])
def test_a_small_catalogue_is_taken_whole(items: int, count: int) -> None:
    assert draw_candidates(items, count, "any").tolist() == list(range(1, items + 1))


def test_every_item_has_the_same_chance() -> None:
    counts = np.zeros(41, int)
    for number in range(2_000):
        drawn = draw_candidates(40, 10, f"round {number}")
        assert len(set(drawn.tolist())) == 10
        counts[drawn] += 1
    assert counts[0] == 0
    assert np.abs(counts[1:] - 500).max() < 5 * np.sqrt(2_000 * 0.25 * 0.75)


def test_another_seed_draws_others() -> None:
    assert not np.array_equal(draw_candidates(1_000, 50, "a"), draw_candidates(1_000, 50, "b"))


@pytest.mark.parametrize(("items", "count"), [(0, 1), (1, 0), (-3, 2)])
def test_counts_below_one_are_refused(items: int, count: int) -> None:
    with pytest.raises(ConfigError):
        draw_candidates(items, count, "any")
