"""Likeness of items by their content, on catalogues small enough to see it."""

import numpy as np
import pytest
from hushrec_model.features import ItemFeatures, item_features
from hushrec_model.similar_items import similar_items
from numpy.typing import NDArray

TITLES = ["red mug", "red kettle", "garden chair", "garden table", "red mug large", None]


def titled(titles: list[str | None]) -> ItemFeatures:
    return item_features(titles, np.full(len(titles), np.nan), {})


def seen(items: int, *unseen: int) -> NDArray[np.bool_]:
    return ~np.isin(np.arange(items), unseen)


def test_the_item_with_the_rarer_common_words_counts_most() -> None:
    near, weights = similar_items(titled(TITLES), seen(6, 4), 2)
    assert near[0, weights[0].argmax()] == 0  # shares "mug" and "red", the kettle only "red"
    assert weights[0].sum() == pytest.approx(1)
    assert set(near[0]) == {0, 1}


def test_only_trained_items_are_taken() -> None:
    near, _ = similar_items(titled(TITLES), seen(6, 0, 4), 4)
    assert near.shape == (2, 4)
    assert not set(near.ravel()) & {0, 4}


def test_an_item_like_no_other_gets_no_weight() -> None:
    _, weights = similar_items(titled(TITLES), seen(6, 5), 3)
    assert not weights.any()


def test_without_content_there_is_nothing_to_compare() -> None:
    _, weights = similar_items(titled([None] * 4), seen(4, 1), 3)
    assert not weights.any()


def test_where_everything_is_trained_nothing_is_looked_for() -> None:
    near, weights = similar_items(titled(TITLES), seen(6), 3)
    assert near.shape == weights.shape == (0, 3)


def test_where_nothing_is_trained_there_is_nobody_to_be_like() -> None:
    near, weights = similar_items(titled(TITLES), seen(6, *range(6)), 3)
    assert near.shape == weights.shape == (6, 0)


def test_words_attributes_and_vectors_count_alike() -> None:
    vectors = np.array([[1, 0], [0, 1], [0, 0], [0, 2]], np.float32)
    attributes: dict[str, list[tuple[str, ...]]] = {"brand": [("acme",), ("other",), ("rare",), ("rare",)]}
    features = item_features(["mug", "kettle", "pot", "mug"], np.full(4, np.nan), attributes, vectors)
    near, weights = similar_items(features, seen(4, 3), 3)
    assert dict(zip(near[0].tolist(), weights[0].tolist(), strict=True)) == pytest.approx(
        {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}
    )


def test_many_items_are_compared_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    features, trained = titled(TITLES * 5), seen(30, 3, 4, 10, 22)
    _, whole = similar_items(features, trained, 6)
    monkeypatch.setattr("hushrec_model.similar_items._ROWS", 1)
    _, parted = similar_items(features, trained, 6)
    np.testing.assert_allclose(np.sort(whole), np.sort(parted), atol=1e-6)
