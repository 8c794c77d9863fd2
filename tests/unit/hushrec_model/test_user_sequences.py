"""One sample a user: which events it holds."""

import numpy as np
from hushrec_model.sequences import Sequences
from hushrec_model.user_sequences import UserSequences

from tests.planted import sequences


def samples(train: Sequences, max_history: int) -> list[list[int]]:
    users = UserSequences(train, max_history)
    return [users.batch(np.array([user])).items[0].tolist() for user in range(len(users))]


def test_a_sample_is_the_newest_events() -> None:
    assert samples(sequences([[1, 2, 3, 4, 5], [6, 7]]), 3) == [[2, 3, 4, 5], [6, 7]]


def test_who_has_no_target_is_nobody() -> None:
    assert samples(sequences([[1], [2, 3], [4, 0]]), 3) == [[2, 3]]


def test_events_outside_the_catalogue_are_passed_over() -> None:
    assert samples(sequences([[1, 0, 2, 0]]), 1) == [[1, 2]]


def test_of_several_sequences_of_one_shopper_only_the_newest_with_a_target_counts() -> None:
    rows = sequences([[1, 2], [3, 4], [5, 6], [7]])
    shoppers = np.array([9, 4, 9, 9], np.int32)
    train = Sequences(rows.offsets, rows.item, rows.behavior, None, None, shoppers)
    assert samples(train, 3) == [[3, 4], [5, 6]]


def test_shorter_samples_are_padded_and_not_asked_beyond_their_end() -> None:
    rows = sequences([[1, 2, 3], [4, 5]], behaviors=[[1, 2, 1], [2, 2]])
    batch = UserSequences(rows, 5).batch(np.array([1, 0]))
    assert batch.items.tolist() == [[4, 5, 0], [1, 2, 3]]
    assert batch.behaviors.tolist() == [[2, 2], [1, 2]]
    assert batch.asked.tolist() == [[True, False], [True, True]]


def test_what_lies_in_the_same_basket_is_no_target() -> None:
    rows = sequences([[1, 2, 3, 4]], baskets=[[0, 0, 1, 1]])
    assert UserSequences(rows, 5).batch(np.array([0])).asked.tolist() == [[False, True, False]]
