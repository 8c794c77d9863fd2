"""Windows: cut from the newest end, padded on the right, targets of baskets in the next basket."""

import numpy as np
from hushrec_model.batches import Batch, Windows
from hushrec_model.sequences import Sequences

from tests.planted import sequences


def all_of(events: Sequences, max_history: int) -> Batch:
    windows = Windows(events, max_history)
    rng = np.random.default_rng(0)
    return windows.batch(np.concatenate(windows.plan(10**6, rng)), rng)


def test_the_newest_window_is_whole_and_the_oldest_one_short() -> None:
    batch = all_of(sequences([[1, 2, 3, 4, 5, 6]]), 3)
    assert sorted(batch.items.tolist()) == [[1, 2, 0], [3, 4, 5]]
    pairs = zip(batch.items.flatten()[batch.positions].tolist(), batch.targets.tolist(), strict=True)
    assert sorted(pairs) == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]


def test_a_sequence_of_one_event_or_none_has_no_window() -> None:
    windows = Windows(sequences([[4], [], [1, 2]]), 5)
    (group,) = windows.plan(100, np.random.default_rng(0))
    assert len(group) == 1
    assert Windows(sequences([[4], []]), 1).plan(100, np.random.default_rng(0)) == []


def test_behaviours_travel_with_their_events_and_padding_has_the_first() -> None:
    batch = all_of(sequences([[1, 2, 3], [4, 5]], behaviors=[[2, 1, 0], [1, 2]]), 9)
    rows = sorted(zip(batch.items.tolist(), batch.behaviors.tolist(), strict=True))
    assert rows == [([1, 2], [2, 1]), ([4, 0], [1, 0])]


def test_an_item_outside_the_catalogue_is_read_but_never_a_target() -> None:
    batch = all_of(sequences([[1, 0, 2, 3]]), 9)
    assert batch.items.tolist() == [[1, 0, 2]]
    assert batch.positions.tolist() == [1, 2]
    assert batch.targets.tolist() == [2, 3]


def test_a_target_lies_in_the_next_basket_of_the_same_shopper() -> None:
    events = sequences([[1, 2, 3, 4, 5], [6, 7]], baskets=[[0, 0, 1, 1, 2], [0, 1]])
    wanted = {1: {3, 4}, 2: {3, 4}, 3: {5}, 4: {5}, 6: {7}}
    seen: dict[int, set[int]] = {}
    windows, rng = Windows(events, 9), np.random.default_rng(1)
    for _ in range(50):
        for batch in windows.batches(8, rng):
            events_read = batch.items.flatten()[batch.positions].tolist()
            for event, target in zip(events_read, batch.targets.tolist(), strict=True):
                seen.setdefault(event, set()).add(target)
    assert seen == wanted  # every item of the next basket comes up sooner or later


def test_a_batch_without_any_target_is_passed_over() -> None:
    events = sequences([[1, 2, 3]], baskets=[[0, 0, 0]])
    assert list(Windows(events, 9).batches(8, np.random.default_rng(0))) == []


def test_the_order_repeats_with_its_seed_only() -> None:
    windows = Windows(sequences([[1, 2, 3]] * 40), 9)
    plans = [[g.tolist() for g in windows.plan(6, np.random.default_rng(seed))] for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]
