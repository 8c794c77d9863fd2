"""Each item gets the first reason that fits, with the own items that a reader can work out by hand."""

from typing import Any

import numpy as np
import pytest
from hushrec.manifest import BlendPart
from hushrec.reasons import TEMPLATES, Cause, Explainer, Reason, ReasonCode
from numpy.typing import NDArray

# Five items. After 1 shoppers went on to 3 (weight 8) and 2 (weight 1), after 2 to 3 (weight 2); whoever had 1 had 4
# (weight 5).
ARRAYS: dict[str, NDArray[Any]] = {
    "popularity": np.zeros(6, np.float32),
    "items.codes": np.array([[128, 128], [138, 128], [128, 138], [0, 0], [0, 0], [137, 129]], np.uint8),
    "items.scale": np.ones(1, np.float32),
    "transitions.items": np.array([[0, 0], [3, 2], [3, 0], [0, 0], [0, 0], [0, 0]], np.uint32),
    "transitions.weights": np.array([[0, 0], [8, 1], [2, 0], [0, 0], [0, 0], [0, 0]], np.uint8),
    "transitions.scales": np.ones(6, np.float32),
    "item_knn.items": np.array([[0], [4], [0], [0], [0], [0]], np.uint32),
    "item_knn.weights": np.array([[0], [5], [0], [0], [0], [0]], np.uint8),
    "item_knn.scales": np.ones(6, np.float32),
}
PARTS = (BlendPart("own", 1, 1), BlendPart("transitions", 1, 1, 0.5, 4), BlendPart("item_knn", 1, 1))


def explain(shown: list[int], own: list[int], parts: tuple[BlendPart, ...] = PARTS) -> list[Cause]:
    again = [index in own for index in shown]
    return Explainer(parts, ARRAYS, history=4).explain(np.array(shown), np.array(own, np.int64), again)


def test_without_history_everything_is_popular() -> None:
    assert explain([3, 1], []) == [Cause(ReasonCode.POPULAR, ())] * 2


def test_what_the_shopper_had_comes_again() -> None:
    assert explain([2, 1], [1, 2]) == [Cause(ReasonCode.AGAIN, (2,)), Cause(ReasonCode.AGAIN, (1,))]


def test_the_own_item_that_gave_most_comes_first() -> None:
    # From 1, one event ago: 8 · 0.5 = 4; from 2, the last event: 2.
    assert explain([3], [1, 2]) == [Cause(ReasonCode.BECAUSE_OF, (1, 2))]
    # From 1, three events ago: 8 · 0.125 = 1; from 2, twice: 2 + 2 · 0.5 = 3.
    assert explain([3], [1, 5, 2, 2]) == [Cause(ReasonCode.BECAUSE_OF, (2, 1))]


def test_an_event_outside_the_window_gives_nothing() -> None:
    assert explain([3], [1, 5, 5, 5, 5])[0].code is ReasonCode.SIMILAR


def test_either_table_is_a_cause() -> None:
    assert explain([4], [1]) == [Cause(ReasonCode.BECAUSE_OF, (1,))]


def test_a_part_that_weighs_nothing_is_no_cause() -> None:
    parts = (BlendPart("transitions", 1, 1, 0.5, 4), BlendPart("item_knn", 0, 1))
    assert explain([4], [1], parts)[0].code is ReasonCode.SIMILAR


def test_at_most_three_items_are_named() -> None:
    arrays = ARRAYS | {
        "transitions.items": np.array([[0], [5], [5], [5], [5], [0]], np.uint32),
        "transitions.weights": np.array([[0], [9], [9], [9], [9], [0]], np.uint8),
    }
    explainer = Explainer((BlendPart("transitions", 1, 1, 0.5, 0),), arrays, history=4)
    assert explainer.explain(np.array([5]), np.array([1, 2, 3, 4]), [False]) == [
        Cause(ReasonCode.BECAUSE_OF, (4, 3, 2))
    ]


def test_otherwise_the_nearest_own_item_is_named() -> None:
    # Item 5 is (9, 1), item 1 is (10, 0), item 2 is (0, 10).
    parts = (BlendPart("own", 1, 1),)
    assert explain([5], [1, 2], parts) == [Cause(ReasonCode.SIMILAR, (1,))]
    assert explain([5], [2, 2], parts) == [Cause(ReasonCode.SIMILAR, (2,))]


def test_reasons_of_one_list_do_not_leak_into_the_next() -> None:
    explainer = Explainer(PARTS, ARRAYS, history=4)
    own = np.array([1])
    assert explainer.explain(np.array([3, 4]), own, [False, False])[0].code is ReasonCode.BECAUSE_OF
    assert explainer.explain(np.array([5]), own, [False]) == [Cause(ReasonCode.SIMILAR, (1,))]
    assert explainer.explain(np.array([], np.int64), own, []) == []


@pytest.mark.parametrize("code", ReasonCode)
def test_every_code_has_a_text(code: ReasonCode) -> None:
    assert TEMPLATES[code].format(items="a mug")


def test_codes_are_stable_words() -> None:
    assert [str(code) for code in ReasonCode] == ["again", "because-of", "similar", "popular", "new"]
    assert Reason(ReasonCode("because-of"), ("a",)) == Reason(ReasonCode.BECAUSE_OF, ("a",))
