"""Pairs of enough shoppers against a plain loop, and what they leave of the tables."""

from collections import defaultdict
from datetime import UTC, datetime

import numpy as np
import pytest
from hushrec_model import shared_pairs as module
from hushrec_model.counting import count_tables
from hushrec_model.sequences import Sequences
from hushrec_model.shared_pairs import shared_pairs
from hushrec_model.splits import split_log
from hypothesis import example, given
from hypothesis import strategies as st

from tests.planted import sequences
from tests.small_log import small_log

ITEMS = 5
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, ITEMS), min_size=1, max_size=6)), min_size=1, max_size=8
)


def of_shoppers(rows: list[tuple[int, list[int]]]) -> Sequences:
    laid = sequences([row for _, row in rows])
    return Sequences(laid.offsets, laid.item, laid.behavior, None, None, np.array([who for who, _ in rows], np.int32))


@example(rows=[(0, [1, 0, 2])], window=2, least=1, at_once=10**6)
@given(rows=ROWS, window=st.integers(1, 6), least=st.integers(1, 4), at_once=st.sampled_from([1, 7, 10**6]))
def test_pairs_are_those_of_a_plain_loop(
    rows: list[tuple[int, list[int]]], window: int, least: int, at_once: int
) -> None:
    made = defaultdict(set)
    for who, row in rows:
        for place, one in enumerate(row):
            for other in row[place + 1 : place + 1 + window]:
                if one and other:
                    made[frozenset((one, other))].add(who)
    expected = np.zeros((ITEMS + 1, ITEMS + 1))
    for pair, shoppers in made.items():
        if len(shoppers) >= least:
            expected[min(pair), max(pair)] = expected[max(pair), min(pair)] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAIRS_AT_ONCE", at_once)
        np.testing.assert_array_equal(shared_pairs(of_shoppers(rows), ITEMS, window, least).toarray(), expected)


def test_the_tables_hold_no_pair_of_fewer_shoppers() -> None:
    rows = [(0, [1, 2]), (0, [1, 2]), (0, [3, 4]), (1, [4, 3]), (2, [5, 5])]
    tables = count_tables(of_shoppers(rows), ITEMS, min_shoppers=2)
    for name in ("transitions", "item_knn"):
        held = zip(*np.nonzero(tables[f"{name}.weights"]), strict=True)
        pairs = {(row, int(tables[f"{name}.items"][row, at])) for row, at in held}
        assert pairs == {(3, 4), (4, 3)}
    everything = count_tables(of_shoppers(rows), ITEMS)
    assert everything["transitions.weights"][1].any()
    np.testing.assert_array_equal(tables["popularity"], everything["popularity"])


def test_events_that_item_knn_does_not_look_at_lend_it_no_shopper() -> None:
    """The first shopper's pair lies before the last 200 events, so the second one's stands alone."""
    rows = [(0, [1, 2, *[3] * 205]), (1, [1, 2])]
    assert not count_tables(of_shoppers(rows), ITEMS, min_shoppers=2)["item_knn.weights"][1].any()


def test_sessions_of_one_shopper_count_once() -> None:
    rows = [("u", item, at) for at, item in enumerate("ababab", start=1)] + [("v", item, 9) for item in "ab"]
    log = small_log(rows, sessions=[0, 0, 1, 1, 2, 2, 3, 3])
    split = split_log(log, "sessions", test_from=datetime(1970, 1, 9, tzinfo=UTC))
    assert len(split.train) > 1
    assert set(split.train.shopper.tolist()) == {0}  # type: ignore[union-attr]
    assert not shared_pairs(split.train, 2, 20, 2).nnz
