"""A student learns from its teacher as well as from the events, and the pair goes on after a kill as one run does."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hushrec_model.evaluate import evaluate
from hushrec_model.model import Model, ModelScorer
from hushrec_model.settings import Settings
from hushrec_model.teacher import teacher_checkpoint, train_taught
from hushrec_model.training import Trained, train_model
from hushrec_privacy.errors import CheckpointError

from tests.killed_training import KilledError, killer
from tests.planted import SETTINGS, chain, nothing_known, split_of

ITEMS = 12
SPLIT = split_of(chain(40, ITEMS, 9))
KNOWN = nothing_known(ITEMS)
TAUGHT = replace(SETTINGS, teacher_epochs=2)


def same_weights(one: Model, other: Model) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole() -> Trained:
    """A run that nobody interrupted."""
    return train_taught(SPLIT, KNOWN, TAUGHT)


@pytest.fixture(scope="module")
def teacher() -> Model:
    """A model that knows the chain."""
    return train_model(SPLIT, KNOWN, replace(SETTINGS, epochs=10, seed=1)).model


def test_a_student_learns_what_only_its_teacher_knows() -> None:
    """Its own events are in random order: the chain it can have from the teacher alone."""
    items = 40
    split, known, settings = split_of(chain(200, items, 9)), nothing_known(items), replace(SETTINGS, epochs=10)
    order = np.random.default_rng(0).permutation(split.train.item)
    silent = replace(split, train=replace(split.train, item=order))
    teacher = train_model(split, known, settings).model
    taught = train_model(silent, known, settings, teacher=teacher).model
    alone = train_model(silent, known, settings).model
    found = [
        evaluate(ModelScorer(model, filter_seen=False), split.test, items).ndcg for model in (teacher, taught, alone)
    ]
    assert found[0] > 0.9
    assert found[1] > found[2] + 0.3


def test_a_teacher_is_left_as_it_is(teacher: Model) -> None:
    before = copy.deepcopy(teacher)
    train_model(SPLIT, KNOWN, SETTINGS, teacher=teacher)
    assert same_weights(teacher, before)


@pytest.mark.parametrize(
    "kills",
    [
        [("teach", 0.5)],
        [("teach", 1.0)],
        [("teach", 2.0)],
        [("train", 0.5)],
        [("train", 2.0)],
        [("teach", 1.5), ("train", 1.2), ("train", 2.9)],
    ],
)
def test_a_killed_pair_ends_where_it_would_have_ended(
    whole: Trained, kills: list[tuple[str, float]], tmp_path: Path
) -> None:
    state = tmp_path / "training.pt"
    for where, moment in kills:
        with pytest.raises(KilledError):
            train_taught(SPLIT, KNOWN, TAUGHT, checkpoint=state, progress=killer(where, moment))
    torch.manual_seed(len(kills))  # another process starts from another random state
    found = train_taught(SPLIT, KNOWN, TAUGHT, checkpoint=state)
    assert same_weights(found.model, whole.model)
    assert [epoch["loss"] for epoch in found.history] == [epoch["loss"] for epoch in whole.history]


def test_a_student_goes_on_with_its_own_teacher_only(teacher: Model, tmp_path: Path) -> None:
    state = tmp_path / "training.pt"
    train_model(SPLIT, KNOWN, SETTINGS, teacher=teacher, checkpoint=state)
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        other.items.id.weight[0, 0] += 1
    with pytest.raises(CheckpointError, match="started with other teacher"):
        train_model(SPLIT, KNOWN, SETTINGS, teacher=other, checkpoint=state)


def test_without_epochs_for_a_teacher_there_is_none(tmp_path: Path) -> None:
    found = train_taught(SPLIT, KNOWN, SETTINGS, checkpoint=tmp_path / "training.pt", progress=killer("teach", 0))
    assert same_weights(found.model, train_model(SPLIT, KNOWN, SETTINGS).model)
    assert not teacher_checkpoint(tmp_path / "training.pt").exists()


def test_the_teacher_has_a_seed_of_its_own_even_at_the_largest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def spy(*given: object, **more: object) -> Trained:  # noqa: ARG001
        settings = given[2]
        assert isinstance(settings, Settings)
        seeds.append(settings.seed)
        return train_model(SPLIT, KNOWN, replace(settings, seed=0, epochs=1))

    monkeypatch.setattr("hushrec_model.teacher.train_model", spy)
    train_taught(SPLIT, KNOWN, replace(TAUGHT, seed=2**64 - 1))
    assert seeds == [0, 2**64 - 1]


def test_a_time_limit_holds_for_both_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second, an epoch of either forty."""
    steps = [0]
    step = torch.optim.AdamW.step

    def spy(optimizer: torch.optim.AdamW, *rest: object) -> object:
        steps[0] += 1
        return step(optimizer, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    monkeypatch.setattr("hushrec_model.training.time.monotonic", lambda: float(steps[0]))
    settings = replace(SETTINGS, tokens=7, epochs=8, teacher_epochs=8, patience=8)
    found = train_taught(SPLIT, KNOWN, settings, max_minutes=5)
    assert 0.7 * 300 < steps[0] == found.seconds <= 300
    assert 1 < len(found.history) < 8
