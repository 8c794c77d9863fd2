"""A private run: what it spends and when, what it reads, and that it learns where there is enough to learn from."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hushrec_model.evaluate import evaluate
from hushrec_model.model import Model, ModelScorer
from hushrec_model.network import EncoderShape
from hushrec_model.poisson import PoissonSampler
from hushrec_model.private_optimizer import PrivateOptimizer
from hushrec_model.private_training import (
    BudgetSpentError,
    PrivatelyTrained,
    PrivateSettings,
    Spend,
    build_public_model,
    train_private,
)
from hushrec_model.user_sequences import UserSequences
from hushrec_model.user_step import Candidates, UserStep
from hushrec_privacy.errors import CheckpointError, ConfigError
from torch.nn import functional

from tests.planted import SMALL, all_known, chain, nothing_known, split_of

ITEMS, USERS = 12, 60
SPLIT = split_of(chain(USERS, ITEMS, 7))
SETTINGS = PrivateSettings(
    shape=SMALL,
    groups=("encoder", "rows"),
    sampling_rate=0.5,
    steps=6,
    noise_multiplier=1.0,
    population=USERS,
    block=2,
)


class KilledError(Exception):
    """Stands for the end of the process."""


def free(_first: int, _steps: int) -> None:
    pass


def train(
    settings: PrivateSettings = SETTINGS, spend: Spend = free, checkpoint: Path | None = None
) -> PrivatelyTrained:
    return train_private(SPLIT, nothing_known(ITEMS), settings, spend=spend, checkpoint=checkpoint)


def weights(model: Model) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_it_learns_without_noise() -> None:
    settings = replace(SETTINGS, noise_multiplier=0.0, sampling_rate=1.0, steps=80, learning_rate=0.05)
    before = build_public_model(nothing_known(ITEMS), settings)
    scores = [
        evaluate(ModelScorer(model, filter_seen=False), SPLIT.valid, ITEMS).ndcg
        for model in (before, train(settings).model)
    ]
    assert scores[1] > 0.8 > scores[0] + 0.2


def test_one_seed_twice_gives_different_weights_under_noise() -> None:
    assert not torch.isclose(weights(train().model), weights(train().model)).all()


def test_the_seed_repeats_what_is_public() -> None:
    first, second = (build_public_model(nothing_known(ITEMS), SETTINGS) for _ in range(2))
    assert torch.equal(weights(first), weights(second))


def test_initial_weights_know_nothing_of_the_log() -> None:
    model = build_public_model(all_known(ITEMS), SETTINGS)
    assert model.items.trained.all()
    assert (model.chance == model.chance[0]).all()


def test_each_block_is_spent_before_anybody_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    def draw(_: PoissonSampler) -> np.ndarray:
        told.append("draw")
        return np.arange(3)

    monkeypatch.setattr(PoissonSampler, "draw", draw)
    train(replace(SETTINGS, steps=5), lambda first, steps: told.append((first, steps)))
    assert told == [(0, 2), "draw", "draw", (2, 2), "draw", "draw", (4, 1), "draw"]


def test_an_empty_batch_is_a_step_with_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PoissonSampler, "draw", lambda _: np.zeros(0, np.int64))
    before = build_public_model(nothing_known(ITEMS), SETTINGS)
    trained = train(replace(SETTINGS, steps=1, averaging=0.0))
    assert trained.steps == 1
    assert (trained.model.items.id.weight != before.items.id.weight).all()


def test_a_spent_budget_ends_training_with_the_steps_paid_for() -> None:
    def spend(first: int, _steps: int) -> None:
        if first >= 4:
            raise BudgetSpentError

    assert train(spend=spend).steps == 4


def test_a_budget_that_is_spent_at_once_leaves_the_public_model() -> None:
    def spend(_first: int, _steps: int) -> None:
        raise BudgetSpentError

    trained = train(spend=spend)
    assert trained.steps == 0
    assert torch.equal(weights(trained.model), weights(build_public_model(nothing_known(ITEMS), SETTINGS)))


def test_any_other_trouble_of_the_ledger_ends_the_run() -> None:
    def spend(_first: int, _steps: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        train(spend=spend)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6])
def test_a_killed_run_spends_again_for_what_it_does_again(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its step number `at`: every noised step ever taken was told of before."""
    spent, taken, path = [0], [0], tmp_path / "training.pt"
    honest = PrivateOptimizer.step_on

    def step_on(*given: object) -> None:
        taken[0] += 1
        assert taken[0] <= spent[0]
        honest(*given)  # type: ignore[arg-type]
        if taken[0] == at:
            raise KilledError

    def spend(_first: int, steps: int) -> None:
        spent[0] += steps

    monkeypatch.setattr(PrivateOptimizer, "step_on", step_on)
    with pytest.raises(KilledError):
        train(spend=spend, checkpoint=path)
    assert train(spend=spend, checkpoint=path).steps == SETTINGS.steps
    assert taken[0] <= spent[0] == SETTINGS.steps + 2


def test_a_finished_run_is_not_taken_further(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    first = train(checkpoint=path)
    again = train(spend=lambda *_: pytest.fail("nothing is left to spend"), checkpoint=path)
    assert torch.equal(weights(first.model), weights(again.model))


def test_a_checkpoint_of_other_settings_or_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    train(checkpoint=path)
    with pytest.raises(CheckpointError, match="settings"):
        train(replace(SETTINGS, noise_multiplier=0.5), checkpoint=path)
    other = split_of(chain(USERS, ITEMS, 7, seed=1))
    with pytest.raises(CheckpointError, match="data"):
        train_private(other, nothing_known(ITEMS), SETTINGS, spend=free, checkpoint=path)


def test_progress_never_hears_of_a_loss() -> None:
    heard: list[tuple[object, ...]] = []
    train_private(SPLIT, nothing_known(ITEMS), SETTINGS, spend=free, progress=lambda *told: heard.append(told))
    assert heard == [("train", done, 6) for done in (2, 4, 6)]


def test_validation_and_test_are_not_read() -> None:
    blind = replace(SPLIT, valid=None, test=None)  # type: ignore[arg-type]
    assert train_private(blind, nothing_known(ITEMS), SETTINGS, spend=free).steps == 6


def test_rows_that_are_not_trained_leave_content_alone() -> None:
    model = build_public_model(all_known(ITEMS), replace(SETTINGS, groups=("encoder", "features")))
    assert not model.items.id.weight.any()


def test_the_encoder_may_start_as_the_decayed_mean_of_the_history() -> None:
    """Of two events, the older counts exp(-1/2) times as much inside the mean; the newest is added to it once more."""
    shape = EncoderShape(heads=(2, 2), channels=(16, 16), max_history=8)
    encoder = build_public_model(nothing_known(ITEMS), replace(SETTINGS, shape=shape, start="mean")).encoder
    with torch.no_grad():
        encoder.layers[0].query_gate.weight[:] = 0  # queries: near 0 as they start; the gate: half open
        vectors = functional.normalize(torch.randn(1, 2, 64, generator=torch.Generator().manual_seed(1)), dim=2)
        older, newest = 8 * vectors[0]
        mean = (newest + older * math.exp(-0.5)) / (1 + math.exp(-0.5))
        wanted = functional.normalize(functional.layer_norm(8 * vectors[0, 1] + mean, (64,)), dim=0)
        found = functional.normalize(encoder(vectors, torch.zeros(1, 2, dtype=torch.int64))[0, 1], dim=0)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_random_encoder_is_another_start() -> None:
    first, second = (
        build_public_model(nothing_known(ITEMS), replace(SETTINGS, start=start)) for start in ("mean", "random")
    )
    assert not torch.equal(weights(first), weights(second))


def test_a_prior_is_what_the_scores_build_on() -> None:
    """With the right answer known already there is nothing to push: the gradient is 0, and so is the step."""
    certain = np.zeros(ITEMS + 1, np.float32)
    certain[ITEMS] = 1e4
    split = split_of([[1, ITEMS, 2, 3]] * 10)
    settings = replace(SETTINGS, noise_multiplier=0.0, population=10)
    trained = train_private(split, nothing_known(ITEMS), settings, spend=free, prior=certain)
    before = build_public_model(nothing_known(ITEMS), settings)
    assert torch.equal(weights(trained.model), weights(before))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("population", 0),
        ("negatives", 0),
        ("block", 0),
        ("sampling_rate", 0.0),
        ("sampling_rate", 1.5),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", float("nan")),
        ("max_grad_norm", 0.0),
        ("learning_rate", float("inf")),
        ("averaging", 1.0),
        ("score_scale", 0.0),
        ("start", "warm"),
        ("groups", ()),
        ("groups", ("heads",)),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_before_anything_is_spent(field: str, value: object) -> None:
    with pytest.raises(ConfigError):
        train(replace(SETTINGS, **{field: value}), lambda *_: pytest.fail("spent"))  # type: ignore[arg-type]


def test_a_watcher_sees_what_each_step_releases_before_it_moves_the_weights() -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watch(model: Model, candidates: Candidates, released: dict[str, torch.Tensor]) -> None:
        assert len(candidates.items) == ITEMS
        seen.append((weights(model).clone(), released["items.id.weight"].clone()))

    settings = replace(SETTINGS, sampling_rate=1.0, noise_multiplier=0.0, steps=3)
    train_private(SPLIT, nothing_known(ITEMS), settings, spend=free, watch=watch)
    assert len(seen) == 3
    model, users = build_public_model(nothing_known(ITEMS), settings), UserSequences(SPLIT.train, SMALL.max_history)
    assert torch.equal(seen[0][0], weights(model))
    step = UserStep(model, settings.groups, settings.max_grad_norm)
    sums = step.clipped_sum(np.arange(USERS), users, Candidates.draw(ITEMS, torch.zeros(ITEMS + 1), torch.Generator()))
    torch.testing.assert_close(seen[0][1].double(), sums["items.id.weight"] / USERS, rtol=1e-5, atol=1e-9)
    assert not torch.equal(seen[1][0], seen[0][0])
