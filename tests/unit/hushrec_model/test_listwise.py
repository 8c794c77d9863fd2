"""The likelihood against a plain sum over the catalogue, its gradient against differences, and what the fit finds."""

import math

import numpy as np
import pytest
from hushrec_model.listwise import Chosen, fit_weights, loss
from numpy.typing import NDArray

QUESTIONS, ITEMS, FEATURES = 6, 9, 3


def whole(seed: int = 0, questions: int = QUESTIONS, items: int = ITEMS) -> tuple[NDArray[np.float32], Chosen]:
    """Questions about all items of a catalogue; the first has two answers."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(FEATURES, questions, items)).astype(np.float32)
    owner = np.array([0, *range(questions)])
    place = rng.integers(1, items, len(owner))
    place[0] = 0
    worth = np.array([0.5, 0.5, *[1.0] * (questions - 1)], np.float32)
    return features, Chosen(np.zeros((questions, items), np.float32), owner, place, worth)


def plain_loss(weights: list[float], features: NDArray[np.float32], chosen: Chosen) -> float:
    total = 0.0
    for question, place, worth in zip(chosen.owner, chosen.place, chosen.worth, strict=True):
        scores = [sum(w * float(x) for w, x in zip(weights, at, strict=True)) for at in features[:, question].T]
        total += float(worth) * (math.log(sum(math.exp(score) for score in scores)) - scores[place])
    return total / len(chosen.share)


def test_the_loss_is_the_mean_negative_log_likelihood() -> None:
    features, chosen = whole()
    weights = [0.7, 0.0, 1.3]
    assert loss(np.array(weights), features, chosen)[0] == pytest.approx(
        plain_loss(weights, features, chosen), abs=1e-5
    )


def test_an_item_that_is_only_there_because_it_was_chosen_counts_for_its_own_choice_alone() -> None:
    """It is no rival of the other answer, and of the items that stand for more than themselves each counts so often."""
    features, chosen = whole()
    share = chosen.share.copy()
    share[0, 0], share[0, 3] = -np.inf, math.log(4)
    weights = np.array([0.7, 0.2, 1.3])
    scores = np.tensordot(weights, features, 1)[0]
    others = [math.exp(score) for score in scores]
    pool = sum(others[1:]) + 3 * others[3]
    found = loss(weights, features, Chosen(share, chosen.owner[:2], chosen.place[:2], chosen.worth[:2]))[0]
    wanted = [math.log(pool + others[0]) - scores[0], math.log(pool) - scores[chosen.place[1]]]
    assert found * QUESTIONS == pytest.approx(sum(wanted) / 2, abs=1e-5)


@pytest.mark.parametrize("left_out", [False, True])
def test_the_gradient_is_the_slope_of_the_loss(left_out: bool) -> None:
    features, chosen = whole(3)
    if left_out:
        chosen.share[0, 0] = -np.inf
        chosen.share[1, :3] = 1.5
    weights, step = np.array([0.4, 0.9, 0.1]), 1e-2
    slope = [
        (loss(weights + step * one, features, chosen)[0] - loss(weights - step * one, features, chosen)[0]) / (2 * step)
        for one in np.eye(FEATURES)
    ]
    np.testing.assert_allclose(loss(weights, features, chosen)[1], slope, atol=1e-3)


def answered(weights: list[float], questions: int = 4_000, items: int = 20) -> tuple[NDArray[np.float32], Chosen]:
    """Answers drawn as the softmax of known weights says."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(len(weights), questions, items)).astype(np.float32)
    scores = np.tensordot(np.array(weights), features, 1) + rng.gumbel(size=(questions, items))
    return features, Chosen(
        np.zeros((questions, items), np.float32),
        np.arange(questions),
        scores.argmax(1),
        np.ones(questions, np.float32),
    )


def test_weights_that_answers_were_drawn_by_are_found_again() -> None:
    features, chosen = answered([1.0, 0.5, 0.0])
    weights, value = fit_weights(features, chosen)
    np.testing.assert_allclose(weights, [1.0, 0.5, 0.0], atol=0.1)
    assert value == pytest.approx(loss(weights, features, chosen)[0])


def test_no_weight_is_below_zero_and_the_first_stays_above_it() -> None:
    features, chosen = answered([-1.0, -0.5, 0.8])
    weights, _ = fit_weights(features, chosen)
    assert 0 < weights[0] <= 0.011
    assert weights[1] == 0
    assert weights[2] == pytest.approx(0.8, abs=0.15)


def test_candidates_and_a_few_others_find_the_weights_of_the_whole_catalogue() -> None:
    """The strongest 15 of 200 for certain, 40 of the others at random; without these few the weights come out wrong."""
    features, chosen = answered([1.0, 0.7], items=200)
    rng = np.random.default_rng(2)
    near = np.argsort(-features[0], axis=1)[:, :15]
    drawn = np.array(
        [rng.choice(np.setdiff1d(np.arange(200), [*at, it]), 40) for at, it in zip(near, chosen.place, strict=True)]
    )
    items = np.concatenate([near, drawn, chosen.place[:, None]], axis=1)
    share = np.zeros(items.shape, np.float32)
    share[:, 15:-1] = math.log((200 - 16) / 40)
    share[:, -1] = -np.inf
    place = np.where(
        (near == chosen.place[:, None]).any(1), (near == chosen.place[:, None]).argmax(1), items.shape[1] - 1
    )
    picked = np.take_along_axis(features, np.broadcast_to(items, (2, *items.shape)), 2)
    few = Chosen(share, chosen.owner, place, chosen.worth)
    np.testing.assert_allclose(fit_weights(picked, few)[0], [1.0, 0.7], atol=0.12)
    share[:, 15:] = -np.inf
    assert fit_weights(picked, few)[0][0] < 0.8


def test_the_same_answers_give_the_same_weights() -> None:
    features, chosen = answered([1.0, 0.5], questions=200)
    np.testing.assert_array_equal(fit_weights(features, chosen)[0], fit_weights(features, chosen)[0])
