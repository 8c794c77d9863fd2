"""Count tables against counts made by hand and by a plain loop."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hushrec_model.counting import (
    count_tables,
    item_knn,
    neighbours_a_row,
    next_items,
    popularity,
    recent_popularity,
    successors,
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
    rows = np.repeat(np.arange(items + 1), table["items"].shape[1])
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


def test_successors_of_one_short_sequence_by_hand() -> None:
    """1 2 3 4 5: 1 goes on to 2 at once, to 3 next and to 4 after it, and never to 5 or back."""
    found = dense(successors(sequences([1, 2, 3, 4, 5]), 5), 5)
    first = {2: Fraction(1), 3: Fraction(1, 10), 4: Fraction(1, 100)}
    for item, count in first.items():
        assert found[1, item] == pytest.approx(float(count) / float(sum(first.values())) ** 0.5, abs=0.005)
    assert found[1, 5] == 0
    assert found[5].sum() == 0


def test_pairs_of_too_few_shoppers_are_no_successors() -> None:
    found = dense(successors(sequences([1, 2], [1, 2], [1, 3]), 3, min_shoppers=2), 3)
    assert found[1, 2] > 0
    assert found[1, 3] == 0


def test_a_table_is_bounded_in_bytes_but_for_the_least_number_of_neighbours() -> None:
    for items in (10, 3_416, 12_101, 25_000, 1_000_000):
        kept = neighbours_a_row(items)
        assert 32 <= kept <= 128
        assert kept == 32 or (items + 1) * kept * 5 <= 2_000_000
    assert neighbours_a_row(12_101) > 32


def test_a_row_of_a_small_catalogue_keeps_more_than_a_row_of_a_large_one() -> None:
    rows = [[1, other] for other in range(2, 200)]
    small = count_tables(sequences(*rows), 200)["successors.items"]
    large = count_tables(sequences(*rows), 100_000)["successors.items"]
    assert small.shape == (201, 128)
    assert large.shape == (100_001, 32)
    np.testing.assert_array_equal(small[1, :32], large[1])


def test_every_table_has_a_row_for_every_item_and_no_column_that_no_row_fills() -> None:
    tables = count_tables(sequences([1, 2], [1, 3]), 9)
    assert tables["transitions.items"].shape == tables["item_knn.weights"].shape == (10, 2)
    assert tables["popularity"].shape == (10,)
    empty = count_tables(sequences([1], [2]), 9)
    assert empty["successors.items"].shape == empty["successors.weights"].shape == (10, 1)
    assert empty["successors.scales"].shape == (10,)
