"""What the data decides about a run, and that every decision is said aloud."""

from dataclasses import replace

import numpy as np
import pytest
from hushrec_model.settings import decide
from hushrec_model.splits import Split

from tests.planted import sequences, split_of

SPLIT = split_of([[1, 2, 3, 4]] * 2)


def shop(users: int, length: int) -> Split:
    return replace(SPLIT, train=sequences(np.ones((users, length), int).tolist()))


@pytest.mark.parametrize(("length", "history"), [(39, 50), (40, 200)])
def test_the_median_length_decides_the_history_and_what_goes_with_it(length: int, history: int) -> None:
    settings, lines = decide(shop(5, length), 1)
    assert settings.shape.max_history == history
    assert settings.dropout == (0.2 if history == 50 else 0.1)
    layers = 1 if history == 50 else 2
    assert (len(settings.shape.heads), len(settings.shape.channels)) == (layers, layers)
    assert f"history {history}: the median training sequence has {length} events" in lines[0]
    assert f"with it come {layers} layer" in lines[0]


def test_epochs_aim_at_a_number_of_steps_within_bounds() -> None:
    few, many = decide(shop(10, 5), 1)[0], decide(shop(200_000, 11), 1)[0]
    assert few.epochs > many.epochs >= 1


def test_behaviours_and_seed_are_passed_on() -> None:
    settings, _ = decide(SPLIT, 3, seed=17)
    assert (settings.shape.behaviors, settings.seed) == (3, 17)


def test_a_teacher_is_announced_unless_there_is_none() -> None:
    taught, lines = decide(SPLIT, 1)
    alone, fewer = decide(SPLIT, 1, teacher=False)
    assert taught.teacher_epochs > 0 == alone.teacher_epochs
    assert replace(taught, teacher_epochs=0) == alone
    assert f"a teacher of the same size is trained first, {taught.teacher_epochs} epochs" in lines[-1]
    assert fewer == lines[:-1]
