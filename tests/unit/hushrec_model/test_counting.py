"""Count tables against counts made by hand and by a plain loop."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hushrec_model.counting import (
    NEIGHBOURS,
    count_tables,
    item_knn,
    next_items,
    popularity,
    recent_popularity,
    transitions,
)
from hushrec_model.sequences import Sequences
from numpy.typing import NDArray


def sequences(*rows: list[int], time: list[int] | None = None) -> Sequences:
    """Sequences of items, oldest first."""
    item = np.array([item for row in rows for item in row], np.int32)
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    at = None if time is None else np.array(time, np.int64)
    return Sequences(offsets, item, np.zeros(len(item), np.int8), at, None)


def dense(table: dict[str, NDArray[np.generic]], items: int) -> NDArray[np.float64]:
    """A neighbour table as a full matrix."""
    matrix = np.zeros((items + 1, items + 1))
    rows = np.repeat(np.arange(items + 1), NEIGHBOURS)
    values = table["weights"].astype(np.float64) * table["scales"].astype(np.float64)[:, None]
    np.add.at(matrix, (rows, table["items"].ravel().astype(int)), values.ravel())
    matrix[:, 0] = 0
    return matrix


def test_transitions_of_one_short_sequence_by_hand() -> None:
    """1 2 3: forward 1→2 1, 2→3 1, 1→3 .8; backward a quarter; each row over the root of its sum."""
    found = dense(transitions(sequences([1, 2, 3]), 3), 3)
    first = {2: Fraction(1), 3: Fraction(4, 5)}
    for item, count in first.items():
        assert found[1, item] == pytest.approx(float(count) / float(sum(first.values())) ** 0.5, rel=0.01)
    assert found[2, 3] / found[2, 1] == pytest.approx(4, rel=0.02)
    assert found[3, 3] == 0


def test_no_transition_crosses_from_one_sequence_to_the_next_or_out_of_the_catalogue() -> None:
    found = dense(transitions(sequences([1, 0], [2, 3]), 3), 3)
    assert found[1].sum() == 0
    assert found[2, 3] > 0


def test_next_items_count_only_direct_followers() -> None:
    found = dense(next_items(sequences([1, 2, 3], [1, 2], [1, 3]), 3), 3)
    np.testing.assert_allclose(found[1, 2:], [2, 1], rtol=0.01)
    assert found[2, 1] == 0


def test_an_item_may_follow_itself() -> None:
    found = dense(next_items(sequences([1, 1, 2], [1, 1]), 2), 2)
    np.testing.assert_allclose(found[1, 1:], [2, 1], rtol=0.01)
    assert dense(transitions(sequences([1, 1, 2]), 2), 2)[1, 1] > 0


def test_item_knn_is_the_cosine_of_the_sequences_that_hold_both() -> None:
    """1 is in three sequences, 2 in two, both in two: 2 / sqrt(3 · 2)."""
    found = dense(item_knn(sequences([1, 2, 2], [2, 1], [1, 3]), 3), 3)
    assert found[1, 2] == pytest.approx(2 / 6**0.5, rel=0.01)
    assert found[2, 1] == pytest.approx(2 / 6**0.5, rel=0.01)
    assert found[1, 3] == pytest.approx(1 / 3**0.5, rel=0.01)
    assert found[1, 1] == 0


def test_a_row_keeps_its_strongest_neighbours_and_ties_go_to_the_lower_item() -> None:
    rows = [[1, other] for other in range(2, 60)] + [[1, 59]] * 3
    kept = next_items(sequences(*rows), 60)["items"][1]
    assert kept[0] == 59
    np.testing.assert_array_equal(kept[1:], np.arange(2, 33))


def test_the_stored_steps_are_within_half_a_step_of_the_count() -> None:
    rng = np.random.default_rng(5)
    rows = [rng.integers(1, 30, 12).tolist() for _ in range(40)]
    table = next_items(sequences(*rows), 29)
    exact = np.zeros((30, 30))
    for row in rows:
        for one, two in pairwise(row):
            exact[one, two] += 1
    assert np.abs(dense(table, 29) - exact).max() <= table["scales"].max() / 2 + 1e-6


def test_popularity_counts_events_and_leaves_out_the_unknown() -> None:
    assert popularity(sequences([1, 2, 0], [2]), 3).tolist() == [0, 1, 2, 0]


def test_recent_popularity_counts_the_latest_tenth() -> None:
    data = sequences([1] * 18, [2, 3], time=[*range(18), 100, 101])
    assert recent_popularity(data, 3).tolist() == [0, 0, 1, 1]  # type: ignore[union-attr]
    assert recent_popularity(sequences([1, 2]), 2) is None


def test_every_table_has_a_row_for_every_item_even_without_events() -> None:
    tables = count_tables(sequences([1, 2]), 9)
    assert tables["transitions.items"].shape == tables["item_knn.weights"].shape == (10, NEIGHBOURS)
    assert tables["popularity"].shape == (10,)
