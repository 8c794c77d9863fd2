"""Baselines against plain loops: what was counted, ties by popularity, seen items left out."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hushrec.counts import CountSource, Neighbours, Own, Popularity
from hushrec_model.baselines import CountScorer, baseline_scorers
from hushrec_model.counting import count_tables
from hushrec_model.splits import Split
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.planted import chain, queries, sequences, split_of

ITEMS, NEAR = 9, 3
NAMES = ["popularity", "recent_popularity", "markov", "last_item", "item_knn", "personal_frequency"]


def neighbour_table(seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.float32]]:
    """Small whole weights, so that sums are exact and ties are many."""
    rng = np.random.default_rng(seed)
    near = rng.integers(0, ITEMS + 1, (ITEMS + 1, NEAR)).astype(np.uint32)
    return near, rng.integers(0, 3, near.shape).astype(np.uint8), np.ones(ITEMS + 1, np.float32)


def plain_counts(kind: str, history: list[int], seed: int, popularity: list[int]) -> list[Fraction]:
    counts = [Fraction(0)] * (ITEMS + 1)
    near, weights, _ = neighbour_table(seed)
    for age, event in enumerate(reversed(history)):
        if kind == "own":
            counts[event] += Fraction(1, 2**age)
        elif kind == "neighbours" and age < 4:
            for item, weight in zip(near[event].tolist(), weights[event].tolist(), strict=True):
                counts[item] += Fraction(weight, 2**age)
    return [Fraction(count) for count in popularity] if kind == "popularity" else counts


@given(
    kind=st.sampled_from(["own", "neighbours", "popularity"]),
    history=st.lists(st.integers(0, ITEMS), max_size=7),
    popularity=st.lists(st.integers(0, 3), min_size=ITEMS, max_size=ITEMS),
    filter_seen=st.booleans(),
    k=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_a_ranking_equals_the_plain_loop(
    kind: str, history: list[int], popularity: list[int], filter_seen: bool, k: int, seed: int
) -> None:
    counted = np.array([0, *popularity], np.float32)
    sources: dict[str, CountSource] = {
        "own": Own(0.5, 0),
        "neighbours": Neighbours(*neighbour_table(seed), 0.5, 4),
        "popularity": Popularity(counted),
    }
    known = [item for item in history if item]
    counts = plain_counts(kind, known, seed, [0, *popularity])
    shown = [item for item in range(1, ITEMS + 1) if not (filter_seen and item in known)]
    wanted = sorted(shown, key=lambda item: (-counts[item], -popularity[item - 1], item))[:k]
    scorer = CountScorer(sources[kind], counted, filter_seen=filter_seen)
    asked = queries([[1], history], [[1], [1]])
    found = scorer.top(asked, np.array([0, 1, 1]), k)
    np.testing.assert_array_equal(found[1], found[2])  # the query before leaves no trace
    assert found[1].tolist() == wanted + [0] * (k - len(wanted))


def test_ties_go_by_popularity_however_large_the_counts_and_small_the_difference() -> None:
    popularity = np.array([0, 1_000_000, 1_000_001, 999_999, 5], np.float32)
    scorer = CountScorer(Own(1.0, 0), popularity, filter_seen=False)
    asked = queries([[1, 2, 3] * 50], [[1]])
    assert scorer.top(asked, np.zeros(1, np.int64), 4).tolist() == [[2, 1, 3, 4]]


def test_popularity_never_outweighs_a_count() -> None:
    tiny = Neighbours(
        np.array([[0], [2], [0], [0]], np.uint32),
        np.array([[0], [1], [0], [0]], np.uint8),
        np.full(4, 1e-20, np.float32),
        1.0,
        0,
    )
    scorer = CountScorer(tiny, np.array([0, 9, 0, 1e6], np.float32), filter_seen=False)
    assert scorer.top(queries([[1]], [[1]]), np.zeros(1, np.int64), 3).tolist() == [[2, 3, 1]]


def scorers(split: Split) -> dict[str, CountScorer | None]:
    return baseline_scorers(split, count_tables(split.train, len(split.items)))


def first(split: Split, name: str, history: list[int]) -> int:
    scorer = scorers(split)[name]
    assert scorer is not None
    return int(scorer.top(queries([history], [[1]]), np.zeros(1, np.int64), 1)[0, 0])


def test_every_baseline_is_there_in_the_order_of_reports() -> None:
    found = scorers(split_of(chain(10, 6, 5)))
    assert list(found) == NAMES
    assert [name for name, scorer in found.items() if scorer is None] == ["recent_popularity"]


def test_each_baseline_ranks_first_what_its_name_says() -> None:
    """Training: 1→2 often, 4 most often of all, 5 lately; the shopper comes back to 3."""
    train = sequences([[1, 2], [1, 2], [1, 2], [4, 4], [4, 6], [4, 7], [4], [3], [5, 5]])
    split = replace(split_of([[1, 2, 3, 4, 5, 6, 7]]), train=train, filter_seen=False)
    timed = replace(split, train=replace(train, time=np.arange(len(train.item), dtype=np.int64)))
    assert first(split, "popularity", [1]) == 4
    assert first(timed, "recent_popularity", [1]) == 5
    assert first(split, "last_item", [4, 1]) == 2
    assert first(split, "item_knn", [1]) == 2
    assert first(split, "personal_frequency", [3, 1, 3, 4]) == 3
    assert first(split, "markov", [1]) == 2


def test_seen_items_leave_the_lists_where_the_split_says_so() -> None:
    split = split_of(chain(20, 6, 5))
    assert split.filter_seen
    for scorer in filter(None, scorers(split).values()):
        listed = scorer.top(split.test, np.arange(len(split.test)), 10)
        for query, row in enumerate(listed):
            assert not set(row[row > 0]) & set(split.test.history(query).tolist())


@pytest.mark.parametrize(("target_of", "decay"), [("oldest", 0.95), ("newest", 0.3)])
def test_the_decay_of_transitions_is_chosen_on_validation(target_of: str, decay: float) -> None:
    """One event leads to 2 or 4, another, older one to 2; validation decides whether the older one matters."""
    train = sequences([[1, 2]] * 12 + [[3, 4]] * 9 + [[5, 6]] * 8)
    histories = [[1, 5, 3]] * 4
    wanted = [[2]] * 4 if target_of == "oldest" else [[4]] * 4
    split = replace(split_of([[1, 2, 3, 4, 5, 6]]), train=train, valid=queries(histories, wanted), filter_seen=False)
    tables = count_tables(train, 6)
    chosen = baseline_scorers(split, tables)["markov"]
    popularity = tables["popularity"].astype(np.float32)
    fixed = CountScorer(Neighbours.named(tables, "transitions", decay, 20), popularity, filter_seen=False)
    assert chosen is not None
    asked = queries([[1, 5, 3], [3, 1, 5], [5, 1, 1]], [[1]] * 3)
    np.testing.assert_array_equal(chosen.top(asked, np.arange(3), 6), fixed.top(asked, np.arange(3), 6))
