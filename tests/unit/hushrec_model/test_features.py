"""What is known of items as integers: attribute values, price buckets, words."""

import numpy as np
from hushrec.words import word_buckets
from hushrec_model.features import Bags, item_features
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

UNKNOWN = float("nan")


def rows(bags: Bags) -> list[list[int]]:
    return [bags.values[a:b].tolist() for a, b in zip(bags.offsets, bags.offsets[1:], strict=False)]


def buckets(*prices: float) -> tuple[list[int], NDArray[np.floating]]:
    found = item_features([None] * len(prices), np.array(prices), {})
    return found.price_bucket.tolist(), found.price_edges


@given(st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=9))
def test_bags_give_back_their_rows(lists: list[list[int]]) -> None:
    assert rows(Bags.pack(lists)) == lists


def test_one_number_an_attribute_value_and_column() -> None:
    found = item_features(
        [None] * 3,
        np.full(3, UNKNOWN),
        {"category": [("mugs",), ("gifts", "mugs"), ()], "brand": [("mugs",), (), ("acme", "acme")]},
    )
    names = found.attribute_names
    assert len(set(names)) == len(names) == 4
    told = [[names[value] for value in row] for row in rows(found.attributes)]
    assert told[0] == [("category", "mugs"), ("brand", "mugs")]
    assert told[1] == [("category", "gifts"), ("category", "mugs")]
    assert told[2] == [("brand", "acme")]  # named twice, counted once


def test_words_are_hashed_and_a_missing_title_has_none() -> None:
    found = item_features(["Red mug", None, ""], np.full(3, UNKNOWN), {})
    assert rows(found.words) == [word_buckets("red mug"), [], []]


def test_an_unknown_price_is_bucket_0_and_no_price_at_all_has_no_edges() -> None:
    assert buckets(UNKNOWN, 5.0, float("inf"))[0] == [0, 1, 0]
    found, edges = buckets(UNKNOWN, UNKNOWN)
    assert (found, len(edges)) == ([0, 0], 0)


def test_one_price_for_all_is_one_bucket() -> None:
    assert buckets(3.0, 3.0, 3.0)[0] == [1, 1, 1]


def test_sixteen_buckets_of_equal_count() -> None:
    found, edges = buckets(*np.arange(160.0).tolist())
    assert len(edges) == 15
    assert np.bincount(found).tolist() == [0, *[10] * 16]


@given(st.lists(st.floats(0, 1e6) | st.just(UNKNOWN), min_size=1, max_size=60))
def test_dearer_items_never_have_a_lower_bucket_and_edges_belong_to_the_lower_one(prices: list[float]) -> None:
    found, edges = buckets(*prices)
    assert (np.diff(edges) > 0).all()
    for price, bucket in zip(prices, found, strict=True):
        known = price == price
        assert bucket == (1 + int((np.float32(price) > edges).sum()) if known else 0)
        assert bucket <= len(edges) + 1


def test_a_device_finds_the_bucket_of_training_from_the_edges_that_ship() -> None:
    """Edges ship as float32: a price on an edge must not fall to the other side of it there."""
    prices = np.round(np.random.default_rng(0).uniform(0.1, 3, 300), 2)
    found = item_features([None] * 300, prices, {})
    assert found.price_edges.dtype == np.float32
    again = 1 + np.searchsorted(found.price_edges, prices.astype(np.float32), side="left")
    np.testing.assert_array_equal(again, found.price_bucket)
