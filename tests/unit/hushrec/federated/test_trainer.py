"""What a device computes without torch is what torch computes, and it can be stopped."""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hushrec.bundle import Bundle
from hushrec.engine import Engine
from hushrec.federated.candidates import draw_candidates
from hushrec.federated.layout import ITEM_ROWS, ParameterLayout
from hushrec.federated.start import Start
from hushrec.federated.train_step import Sample, TrainBatch
from hushrec.federated.trainer import LocalTrainer, TrainSettings
from hushrec_model.model import Model
from hushrec_model.user_sequences import UserBatch
from hushrec_model.user_step import Candidates, UserStep
from hushrec_privacy.errors import BundleError, ConfigError
from hushrec_privacy.plans.plan import PARTS
from numpy.typing import NDArray

from tests.learning_bundle import ITEMS, learning_bundle
from tests.model_layout import updates_of
from tests.tiny_bundle import tiny_bundle

Made = tuple[Bundle, Model]
GROUPS = {
    "adapter": ("adapter",),
    "encoder": ("adapter", "encoder"),
    "encoder+features": ("adapter", "encoder", "features"),
    "full": ("adapter", "encoder", "features", "rows"),
}
SETTINGS = TrainSettings(local_steps=1, local_rate=0.5, candidates=12)
HISTORY = Sample(np.array([3, 9, 3, 1, 40, 17, 9, 22, 5]), np.array([0, 2, 1, 0, 0, 1, 2, 0, 0]))


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return learning_bundle(tmp_path_factory.mktemp("described") / "shop.hush")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return learning_bundle(tmp_path_factory.mktemp("bare") / "shop.hush", described=False)


def by_torch(model: Model, part: str, sample: Sample, settings: TrainSettings, seed: str) -> dict[str, torch.Tensor]:
    """Plain gradient descent over the same loss, parameter by parameter: what each one changed by."""
    step = UserStep(model, GROUPS[part], 1e9)
    step.weights.pop("items.projection.weight", None)  # devices do not train it
    before = {name: weight.detach().clone() for name, weight in step.weights.items()}
    batch = UserBatch(
        torch.from_numpy(sample.items)[None],
        torch.from_numpy(sample.behaviors)[None, :-1],
        torch.ones(1, len(sample.items) - 1, dtype=torch.bool),
    )
    for number in range(settings.local_steps):
        drawn = draw_candidates(ITEMS, settings.candidates, f"{seed}/{number}")
        against = Candidates(torch.from_numpy(drawn), torch.zeros(ITEMS + 1))
        sums = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in step.weights.items()}
        found = step.gradients(batch, against, model.items.raw().detach())
        found.weights.pop("items.projection.weight", None)
        replace(found).add_to(sums, torch.ones(1, dtype=torch.float64))
        with torch.no_grad():
            for name, weight in step.weights.items():
                weight.sub_(settings.local_rate * sums[name].float())
    changed = {name: weight.detach() - before[name] for name, weight in step.weights.items()}
    with torch.no_grad():
        for name, weight in step.weights.items():
            weight.copy_(before[name])
    return changed


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("which", ["described", "bare"])
def test_an_update_is_that_of_torch(part: str, steps: int, which: str, request: pytest.FixtureRequest) -> None:
    bundle, model = request.getfixturevalue(which)
    settings = replace(SETTINGS, local_steps=steps, local_rate=0.02)
    layout = ParameterLayout.of(bundle.manifest, part)
    found = LocalTrainer.open(bundle, part, settings).update([HISTORY], "round 1")
    assert found is not None
    expected = updates_of(model, by_torch(model, part, HISTORY, settings, "round 1"), layout)
    for name, array in layout.unflatten(found).items():
        assert np.abs(array - expected[name]).max() <= 1e-5, name
        assert array.any(), f"{name}: nothing to compare"


def test_a_smaller_part_s_update_begins_a_larger_one_s(described: Made) -> None:
    found = [LocalTrainer.open(described[0], part, SETTINGS).update([HISTORY], "s") for part in PARTS]
    for smaller, larger in itertools.pairwise(found):
        assert smaller is not None
        assert larger is not None
        assert len(smaller) < len(larger)
        np.testing.assert_array_equal(smaller, larger[: len(smaller)])


def test_several_histories_weigh_by_their_events(bare: Made) -> None:
    trainer = LocalTrainer.open(bare[0], "encoder", SETTINGS)
    short = Sample(np.array([30, 31, 2]), np.zeros(3, np.int64))
    both, one, other = (trainer.update(histories, "s") for histories in ([HISTORY, short], [HISTORY], [short]))
    assert both is not None
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(both, 0.8 * one + 0.2 * other, atol=1e-5)  # 8 and 2 events that are asked for


def test_more_histories_than_fit_into_a_batch_are_added_up(bare: Made) -> None:
    trainer = LocalTrainer.open(bare[0], "full", replace(SETTINGS, windows=200))
    many, one = trainer.update([HISTORY] * 110, "s"), trainer.update([HISTORY], "s")
    assert many is not None
    assert one is not None
    np.testing.assert_allclose(many, one, atol=1e-5)


def test_the_candidates_do_not_depend_on_the_shopper(bare: Made) -> None:
    settings = replace(SETTINGS, candidates=5)
    touched = []
    for items in ([1, 2], [30, 31, 32]):
        found = LocalTrainer.open(bare[0], "full", settings).update([sample(items)], "seed")
        assert found is not None
        layout = ParameterLayout.of(bare[0].manifest, "full")
        rows = layout.unflatten(found)[ITEM_ROWS]
        touched.append(set((1 + np.flatnonzero(rows.any(1))).tolist()) - set(items))
    drawn = set(draw_candidates(ITEMS, 5, "seed/0").tolist())
    assert touched == [drawn - {1, 2}, drawn - {30, 31, 32}]


def sample(items: list[int]) -> Sample:
    return Sample(np.array(items, np.int64), np.zeros(len(items), np.int64))


@pytest.mark.parametrize("items", [[], [7], [0, 0, 7, 0], [41, 3], [-1, 3]], ids=str)
def test_without_two_known_events_nothing_changes(bare: Made, items: list[int]) -> None:
    found = LocalTrainer.open(bare[0], "full", SETTINGS).update([sample(items)], "s")
    assert found is not None
    assert not found.any()
    assert found.shape == (ParameterLayout.of(bare[0].manifest, "full").size,)


def test_unknown_events_are_passed_over_and_only_the_newest_are_read(bare: Made) -> None:
    trainer = LocalTrainer.open(bare[0], "full", replace(SETTINGS, windows=1))
    items = [8, 0, *HISTORY.items[:4], 99, *HISTORY.items[4:]]
    behaviors = [1, 2, *HISTORY.behaviors[:4], 0, *HISTORY.behaviors[4:]]
    longer = Sample(np.array(items), np.array(behaviors))
    np.testing.assert_array_equal(trainer.update([longer], "s"), trainer.update([HISTORY], "s"))


def test_a_long_history_is_cut_so_that_every_event_is_asked_for_once(bare: Made) -> None:
    trainer = LocalTrainer.open(bare[0], "full", SETTINGS)
    items, behaviors = np.arange(1, 21), np.arange(20) % 3
    parts = [Sample(items[at], behaviors[at]) for at in (slice(0, 4), slice(3, 12), slice(11, 20))]
    whole, cut = trainer.update([Sample(items, behaviors)], "s"), trainer.update(parts, "s")
    assert whole is not None
    assert cut is not None
    np.testing.assert_allclose(whole, cut, atol=1e-6)


def test_only_the_newest_histories_are_read(bare: Made) -> None:
    trainer = LocalTrainer.open(bare[0], "adapter", replace(SETTINGS, windows=1))
    np.testing.assert_array_equal(trainer.update([sample([1, 2]), HISTORY], "s"), trainer.update([HISTORY], "s"))


def test_an_item_without_a_vector_gets_a_gradient_of_ordinary_size(tmp_path: Path) -> None:
    bundle, _ = learning_bundle(tmp_path / "shop.hush", described=False, unseen=3)
    found = LocalTrainer.open(bundle, "full", SETTINGS).update([sample([1, 2, 40, 3])], "s")
    assert found is not None
    rows = ParameterLayout.of(bundle.manifest, "full").unflatten(found)[ITEM_ROWS]
    lengths = np.linalg.norm(rows, axis=1)
    assert 0 < lengths[39] < 10 * lengths[:3].max()


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_training_ends_when_it_is_told_to(bare: Made, asked: int) -> None:
    count = iter(range(100))
    trainer = LocalTrainer.open(bare[0], "adapter", replace(SETTINGS, local_steps=3, windows=60))
    assert trainer.update([HISTORY] * 60, "s", stop=lambda: next(count) >= asked) is None
    assert next(count) == asked + 1  # and not again afterwards


def test_the_candidates_of_a_step_are_drawn_when_it_begins_and_only_its_items_are_held(
    bare: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, held, of = [], [], Start.vectors

    def noted(items: int, count: int, seed: str) -> NDArray[np.int64]:
        drawn.append(seed)
        return draw_candidates(items, count, seed)

    def counted(start: Start, items: NDArray[np.int64]) -> NDArray[np.float32]:
        held.append(len(items))
        return of(start, items)

    monkeypatch.setattr("hushrec.federated.trainer.draw_candidates", noted)
    monkeypatch.setattr(Start, "vectors", counted)
    trainer = LocalTrainer.open(bare[0], "adapter", replace(SETTINGS, local_steps=10_000, candidates=5))
    asked = iter(range(100))
    assert trainer.update([HISTORY], "s", stop=lambda: next(asked) >= 40) is None
    assert drawn == [f"s/{step}" for step in range(20)], "asked before each draw, and before the one batch of a step"
    assert max(held) <= 5 + len(set(HISTORY.items.tolist()))


def test_training_gives_up_when_its_time_is_over(bare: Made) -> None:
    def ticking() -> Iterator[float]:
        yield from (0.0, 1.0, 2.0, 3.5)

    times = ticking()
    settings = replace(SETTINGS, local_steps=5, limit_s=3.0)
    trainer = LocalTrainer.open(bare[0], "adapter", settings, clock=lambda: next(times))
    assert trainer.update([HISTORY], "s") is None


def test_an_engine_answers_while_training_runs(bare: Made) -> None:
    bundle, _ = bare
    engine, items = Engine(bundle), np.array([1, 2, 3])
    expected, done = engine.scores(items).copy(), threading.Event()
    trainer = LocalTrainer.open(bundle, "full", replace(SETTINGS, local_steps=10_000))
    training = threading.Thread(target=trainer.update, args=([HISTORY], "s"), kwargs={"stop": done.is_set})
    training.start()
    try:
        for _ in range(50):
            np.testing.assert_array_equal(engine.scores(items), expected)
        assert training.is_alive()
    finally:
        done.set()
        training.join()


def test_a_bundle_without_a_train_step_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path, train=False))
    with pytest.raises(BundleError, match="no train step"):
        LocalTrainer.open(bundle, "adapter", SETTINGS)


@pytest.mark.parametrize("behaviors", [[0, 3], [-1, 0], [0], [0, 0, 0]], ids=str)
def test_behaviours_that_do_not_exist_are_refused(bare: Made, behaviors: list[int]) -> None:
    trainer = LocalTrainer.open(bare[0], "adapter", SETTINGS)
    with pytest.raises(ConfigError, match="behaviour"):
        trainer.update([Sample(np.array([1, 2]), np.array(behaviors))], "s")


@pytest.mark.parametrize("wrong", [{"local_steps": 0}, {"local_rate": 0.0}, {"candidates": 0}, {"limit_s": np.inf}])
def test_settings_that_cannot_train_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        replace(SETTINGS, **wrong)  # type: ignore[arg-type]


def test_what_a_shopper_did_is_in_no_repr() -> None:
    batch = TrainBatch.of([HISTORY], 8)
    assert (repr(HISTORY), repr(batch)) == ("Sample()", "TrainBatch()")
