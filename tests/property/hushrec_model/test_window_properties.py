"""For any sequences: an epoch of windows holds every target exactly once, as a plain loop finds them."""

from collections import Counter
from itertools import groupby

import numpy as np
from hushrec_model.batches import Batch, Windows
from hypothesis import given
from hypothesis import strategies as st

from tests.planted import sequences

rows = st.lists(st.lists(st.integers(0, 9), max_size=17), max_size=8)
lengths = st.integers(1, 7)
tokens = st.integers(1, 40)
Basket = list[list[int]]


def epoch(windows: Windows, tokens: int, seed: int = 0) -> list[Batch]:
    return list(windows.batches(tokens, np.random.default_rng(seed)))


@given(rows, lengths, tokens, st.integers(0, 9))
def test_every_target_comes_once_an_epoch_after_its_own_past(
    lists: list[list[int]], longest: int, tokens: int, seed: int
) -> None:
    """An event is told apart by its behaviour number, which is its position among all events."""
    numbers = iter(range(127))
    numbered = [[next(numbers, 126) for _ in row] for row in lists]
    wanted = Counter(
        (row[at], row[at + 1], number[at])
        for row, number in zip(lists, numbered, strict=True)
        for at in range(len(row) - 1)
        if row[at + 1]
    )
    found: Counter[tuple[int, int, int]] = Counter()
    for batch in epoch(Windows(sequences(lists, behaviors=numbered), longest), tokens, seed):
        assert batch.items.shape[1] <= longest
        items, behaviors = batch.items.flatten(), batch.behaviors.flatten()
        for at, target in zip(batch.positions.tolist(), batch.targets.tolist(), strict=True):
            found[int(items[at]), target, int(behaviors[at])] += 1
    assert found == wanted


@given(rows, lengths, tokens)
def test_windows_are_stretches_of_one_sequence_whole_at_its_newest_end(
    lists: list[list[int]], longest: int, tokens: int
) -> None:
    wanted: Counter[tuple[int, ...]] = Counter()
    for row in lists:
        stop = len(row) - 1
        while stop > 0:
            wanted[tuple(row[max(0, stop - longest) : stop])] += 1
            stop -= longest
    windows = Windows(sequences(lists), longest)
    found: Counter[tuple[int, ...]] = Counter()
    rng = np.random.default_rng(3)
    for group in windows.plan(tokens, rng):
        for window in group:
            batch = windows.batch(np.array([window]), rng)
            found[tuple(batch.items[0].tolist())] += 1
    assert found == wanted


@given(rows, lengths, tokens)
def test_a_batch_keeps_to_its_tokens_unless_one_window_is_longer(
    lists: list[list[int]], longest: int, tokens: int
) -> None:
    windows, rng = Windows(sequences(lists), longest), np.random.default_rng(0)
    for group in windows.plan(tokens, rng):
        batch = windows.batch(group, rng)
        assert batch.items.numel() <= tokens or len(group) == 1
        assert batch.items.shape == batch.behaviors.shape
        assert len(batch.items) == len(group)


baskets = st.lists(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), max_size=5), max_size=6)


@given(baskets, lengths, st.integers(0, 9))
def test_targets_of_baskets_never_leave_the_next_basket(lists: list[Basket], longest: int, seed: int) -> None:
    """Items are numbered apart, so that a target tells its basket."""
    numbers = iter(range(1, 10_000))
    apart = [[[next(numbers) for _ in basket] for basket in shopper] for shopper in lists]
    following = {
        item: set(shopper[at + 1]) for shopper in apart for at, basket in enumerate(shopper[:-1]) for item in basket
    }
    events = sequences(
        [[item for basket in shopper for item in basket] for shopper in apart],
        baskets=[[at for at, basket in enumerate(shopper) for _ in basket] for shopper in apart],
    )
    asked = []
    for batch in epoch(Windows(events, longest), 30, seed):
        items = batch.items.flatten()[batch.positions].tolist()
        for item, target in zip(items, batch.targets.tolist(), strict=True):
            assert target in following[item]
            asked.append(item)
    assert sorted(asked) == sorted(following)


@given(rows, lengths)
def test_padding_is_on_the_right_and_has_no_target(lists: list[list[int]], longest: int) -> None:
    positive = [[item + 1 for item in row] for row in lists]
    for batch in epoch(Windows(sequences(positive), longest), 50):
        for row in batch.items.tolist():
            runs = [filled for filled, _ in groupby(row, key=bool)]
            assert runs in ([True], [True, False])
        assert (batch.items.flatten()[batch.positions] > 0).all()
        assert len(batch.positions) == int((batch.items > 0).sum())
