"""Scoring by counts: the fast sums against a plain loop, and the rules for what is missing."""

import math

import numpy as np
import pytest
from hushrec.counts import Blend, Neighbours, Own
from hushrec.manifest import BlendPart
from hushrec_privacy.errors import BundleError, ConfigError
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

ITEMS, NEAR = 12, 4
Arrays = dict[str, NDArray[np.generic]]


def _arrays(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    arrays: Arrays = {"popularity": rng.integers(0, 9, ITEMS + 1).astype(np.float32)}
    arrays["unseen"] = rng.integers(0, 2, ITEMS + 1).astype(np.float32)
    for name in ("transitions", "successors", "item_knn", "similar"):
        arrays[f"{name}.items"] = rng.integers(0, ITEMS + 1, (ITEMS + 1, NEAR)).astype(np.uint32)
        arrays[f"{name}.weights"] = rng.integers(0, 256, (ITEMS + 1, NEAR)).astype(np.uint8)
        arrays[f"{name}.scales"] = rng.random(ITEMS + 1).astype(np.float32)
    return arrays


def _plain(parts: list[BlendPart], arrays: Arrays, scores: list[float], history: list[int]) -> list[float]:
    """The definition, item by item."""
    result = list(scores)
    for part in parts:
        counts = [0.0] * (ITEMS + 1)
        recent = history[-part.window :] if part.window else history
        for age, event in enumerate(reversed(recent)):
            fade = part.decay**age
            if part.name == "own":
                counts[event] += fade
            elif part.name not in ("popularity", "unseen"):
                table = [arrays[f"{part.name}.{field}"] for field in ("items", "weights", "scales")]
                for near, weight in zip(table[0][event], table[1][event], strict=True):
                    counts[near] += fade * float(weight) * float(table[2][event])
        if part.name in ("popularity", "unseen") and history:
            counts = [float(count) for count in arrays[part.name]]
        for item, count in enumerate(counts):
            result[item] += part.weight * math.log1p(count / part.epsilon)
    return result


PARTS = [
    BlendPart("own", 2.0, 0.1, 0.7, 0),
    BlendPart("transitions", 0.6, 0.01, 0.6, 3),
    BlendPart("item_knn", 0.4, 1.0, 1.0, 5),
    BlendPart("popularity", 0.2, 3.0),
    BlendPart("transitions", 0.9, 7.0, 0.6, 3),  # counted as the other one is
    BlendPart("transitions", 0.3, 0.01, 0.2, 3),
    BlendPart("successors", 0.7, 0.3, 0.1, 2),
    BlendPart("popularity", 0.5, 1.0),
    BlendPart("unseen", -1.5, 0.5),
    BlendPart("similar", 1.0, 0.1, 0.9, 4),
]


@given(history=st.lists(st.integers(1, ITEMS), max_size=9), chosen=st.sets(st.integers(0, 9)), seed=st.integers(0, 99))
def test_the_blend_equals_its_plain_definition(history: list[int], chosen: set[int], seed: int) -> None:
    arrays, parts = _arrays(seed), [PARTS[i] for i in sorted(chosen)]
    blend = Blend(parts, arrays)
    for _ in range(2):  # the second call finds the buffer of the first one clean
        scores = np.linspace(-1, 1, ITEMS + 5).astype(np.float32)
        wanted = _plain(parts, arrays, scores[: ITEMS + 1].tolist(), history)
        blend.add_to(scores, np.array(history, np.int64))
        np.testing.assert_allclose(scores[1 : ITEMS + 1], wanted[1:], rtol=1e-4, atol=1e-4)


def test_parts_that_differ_only_in_epsilon_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    add = Neighbours.add

    def counting(self: Neighbours, total: NDArray[np.float32], history: NDArray[np.int64]) -> NDArray[np.integer]:
        counted.append(1)
        return add(self, total, history)

    monkeypatch.setattr(Neighbours, "add", counting)
    Blend([PARTS[1], PARTS[4], PARTS[5]], _arrays()).add_to(np.zeros(ITEMS + 1, np.float32), np.array([3]))
    assert len(counted) == 2


def test_a_table_that_names_items_outside_the_catalogue_is_refused_and_leaves_no_trace() -> None:
    arrays = _arrays()
    good = arrays["transitions.items"].copy()
    arrays["transitions.items"][3, -1] = 2**31
    blend, scores = Blend([PARTS[1]], arrays), np.zeros(ITEMS + 1, np.float32)
    with pytest.raises(BundleError, match="'transitions'"):
        blend.add_to(scores, np.array([3]))
    wanted = np.zeros(ITEMS + 1, np.float32)
    Blend([PARTS[1]], {**arrays, "transitions.items": good}).add_to(wanted, np.array([5]))
    blend.add_to(scores, np.array([5]))
    np.testing.assert_array_equal(scores[1:], wanted[1:])


def test_no_history_leaves_the_scores_alone() -> None:
    scores = np.ones(ITEMS + 1, np.float32)
    Blend(PARTS, _arrays()).add_to(scores, np.zeros(0, np.int64))
    assert (scores == 1).all()


@pytest.mark.parametrize("length", [1, 255, 256, 257, 1000])
def test_the_newest_event_counts_most_whatever_the_length(length: int) -> None:
    total = np.zeros(ITEMS + 1, np.float32)
    history = np.ones(length, np.int64)
    history[-1] = 2
    Own(0.5, 0).add(total, history)
    assert total[2] == 1
    assert total[1] == pytest.approx(1 - 0.5 ** (length - 1))


def test_values_and_touched_agree_and_leave_no_trace() -> None:
    blend, history = Blend(PARTS, _arrays()), np.array([3, 4, 3])
    items, counts = blend.touched(1, history)
    np.testing.assert_array_equal(blend.values(1, history, items), counts)
    assert 0 not in items
    assert (blend.values(0, np.array([5]), np.arange(1, ITEMS + 1)) == (np.arange(1, ITEMS + 1) == 5)).all()


def test_the_neighbours_of_one_item_are_its_row() -> None:
    arrays = _arrays()
    near, weights = Neighbours.named(arrays, "transitions", 1.0, 0).of(3)
    np.testing.assert_array_equal(near, arrays["transitions.items"][3])
    np.testing.assert_allclose(weights, arrays["transitions.weights"][3] * arrays["transitions.scales"][3])


def test_an_unknown_part_and_a_missing_table_are_named() -> None:
    with pytest.raises(ConfigError, match="'weather'"):
        Blend([BlendPart("weather", 1.0, 1.0)], _arrays())
    arrays = _arrays()
    del arrays["transitions.weights"]
    with pytest.raises(ConfigError, match=r"transitions\.weights"):
        Blend([PARTS[1]], arrays)
