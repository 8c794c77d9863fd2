"""Training learns what is there to learn, repeats with its seed, and goes on after a kill as if there had been none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hushrec_model import model as model_module
from hushrec_model import training
from hushrec_model.network import EncoderShape
from hushrec_model.progress import Progress
from hushrec_model.settings import Settings
from hushrec_model.splits import Split
from hushrec_model.training import Trained, build_model, train_model, validation_sample
from hushrec_privacy.errors import CheckpointError

from tests.planted import SETTINGS, SMALL, all_known, chain, nothing_known, queries, sequences, split_of

ITEMS = 12
SPLIT = split_of(chain(40, ITEMS, 9))


class KilledError(Exception):
    """What the kill of the process stands for."""


def killer(moment: float) -> Progress:
    """Progress that raises once training has come this far, in epochs."""

    def progress(stage: str, done: float, total: float, note: str = "") -> None:  # noqa: ARG001
        if stage == "train" and done >= moment:
            raise KilledError

    return progress


def run(split: Split = SPLIT, settings: Settings = SETTINGS, **options: object) -> Trained:
    features = options.pop("features", None) or nothing_known(len(split.items))
    return train_model(split, features, settings, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole() -> Trained:
    """A run that nobody interrupted."""
    return run()


@pytest.fixture(scope="module")
def whole_with_content() -> Trained:
    """The same on items of which more is known, so that rows are dropped at random."""
    return run(features=all_known(ITEMS))


def assert_same(one: Trained, other: Trained) -> None:
    """The same weights to the last bit, and the same story."""
    first, second = one.model.state_dict(), other.model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [epoch["loss"] for epoch in one.history] == [epoch["loss"] for epoch in other.history]
    assert one.best_epoch == other.best_epoch


def test_a_chain_of_items_is_learned() -> None:
    found = run(settings=replace(SETTINGS, epochs=10))
    assert max(epoch["ndcg@10"] for epoch in found.history) > 0.9
    assert found.history[-1]["loss"] < 0.5 * found.history[0]["loss"]
    assert not found.model.training


def test_a_large_catalogue_learns_from_sampled_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "FULL_SOFTMAX_ITEMS", 5)
    assert max(epoch["ndcg@10"] for epoch in run(settings=replace(SETTINGS, epochs=10)).history) > 0.9


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(whole: Trained) -> None:
    torch.manual_seed(99)  # whatever ran before
    assert_same(run(), whole)
    other = run(settings=replace(SETTINGS, seed=1))
    assert not torch.equal(other.model.items.id.weight, whole.model.items.id.weight)


@pytest.mark.parametrize("moments", [(0.5,), (1.0,), (1.5,), (2.9,), (3.0,), (0.2, 1.2, 1.2, 2.2)])
def test_a_killed_run_ends_where_it_would_have_ended(
    whole: Trained, moments: tuple[float, ...], tmp_path: Path
) -> None:
    state = tmp_path / "training.pt"
    for moment in moments:
        with pytest.raises(KilledError):
            run(checkpoint=state, progress=killer(moment))
    torch.manual_seed(len(moments))  # another process starts from another random state
    assert_same(run(checkpoint=state), whole)


@pytest.mark.parametrize("moment", [1.0, 1.5, 2.0])
def test_a_killed_run_drops_the_rows_that_it_would_have_dropped(
    whole_with_content: Trained, moment: float, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        run(features=all_known(ITEMS), checkpoint=tmp_path / "training.pt", progress=killer(moment))
    assert_same(run(features=all_known(ITEMS), checkpoint=tmp_path / "training.pt"), whole_with_content)


def test_a_run_that_had_ended_is_not_trained_again(whole: Trained, tmp_path: Path) -> None:
    run(checkpoint=tmp_path / "training.pt")
    assert_same(run(checkpoint=tmp_path / "training.pt", progress=killer(0)), whole)


def test_a_kill_while_the_state_is_written_leaves_the_old_one(whole: Trained, tmp_path: Path) -> None:
    state = tmp_path / "training.pt"
    with pytest.raises(KilledError):
        run(checkpoint=state, progress=killer(1.5))
    (tmp_path / "training.pt.part").write_bytes(state.read_bytes()[:100])
    assert_same(run(checkpoint=state), whole)
    assert not (tmp_path / "training.pt.part").exists()


def other_item() -> Split:
    """The same data but for one item in the middle of training."""
    train = SPLIT.train
    item = train.item.copy()
    item[3] = item[3] % ITEMS + 1
    return replace(SPLIT, train=replace(train, item=item))


@pytest.mark.parametrize(
    ("split", "settings", "what"),
    [
        (SPLIT, replace(SETTINGS, seed=7), "settings"),
        (SPLIT, replace(SETTINGS, shape=EncoderShape((2,), (16,), 8)), "settings"),
        (other_item(), SETTINGS, "data"),
        (replace(SPLIT, valid=SPLIT.test), SETTINGS, "data"),
    ],
    ids=["seed", "shape", "one event", "validation"],
)
def test_the_state_of_another_run_is_refused(split: Split, settings: Settings, what: str, tmp_path: Path) -> None:
    state = tmp_path / "training.pt"
    run(checkpoint=state)
    before = state.read_bytes()
    with pytest.raises(CheckpointError, match=f"started with other {what}; continue it with the same data"):
        run(split, settings, checkpoint=state)
    assert state.read_bytes() == before


def test_a_state_made_with_other_content_of_the_items_is_refused(tmp_path: Path) -> None:
    run(checkpoint=tmp_path / "training.pt")
    with pytest.raises(CheckpointError, match="other data"):
        train_model(SPLIT, all_known(ITEMS), SETTINGS, checkpoint=tmp_path / "training.pt")


def test_patience_ends_a_run_that_no_longer_improves() -> None:
    found = run(settings=replace(SETTINGS, epochs=9, learning_rate=1e-12, patience=2))
    assert (len(found.history), found.best_epoch) == (3, 1)


def test_the_best_epoch_is_kept_not_the_last() -> None:
    """The last epochs, at a rate that wrecks the model, are not what is returned."""
    found = run(settings=replace(SETTINGS, epochs=6, learning_rate=2.0, patience=6))
    scores = [epoch["ndcg@10"] for epoch in found.history]
    assert found.best_epoch == 1 + scores.index(max(scores))


def test_the_rate_rises_to_its_peak_and_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    step = torch.optim.AdamW.step

    def spy(optimizer: torch.optim.AdamW, *arguments: object) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(settings=replace(SETTINGS, epochs=10, patience=10))
    peak = rates.index(max(rates))
    assert 0 < peak < len(rates) / 10
    assert max(rates) == pytest.approx(SETTINGS.learning_rate, rel=0.05)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.01 * SETTINGS.learning_rate


@pytest.mark.parametrize(("minutes", "epochs"), [(1e-9, 1), (0.25, 1), (0.51, 3), (60.0, 8)])
def test_a_time_limit_shortens_the_schedule_to_what_fits(
    minutes: float, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch takes ten seconds by this clock; the learning rate reaches its end in the last epoch that fits."""
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("hushrec_model.training.time.monotonic", lambda: float(next(clock)))
    totals = []

    def progress(stage: str, done: float, total: float, note: str = "") -> None:  # noqa: ARG001
        totals.append(total)

    found = run(settings=replace(SETTINGS, epochs=8, patience=8), max_minutes=minutes, progress=progress)
    assert len(found.history) == epochs
    assert found.seconds == 10 * epochs
    assert totals[-1] == epochs


@pytest.mark.parametrize(
    ("minutes", "validating", "epochs", "steps"),
    [(1e-9, 0, 1, 20), (0.5, 0, 1, 20), (0.75, 0, 1, 35), (1.8, 0, 1, 40), (1.9, 0, 2, 80), (3.6, 15, 3, 120)],
)
def test_a_short_time_limit_ends_with_a_low_learning_rate(
    minutes: float, validating: int, epochs: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty steps an epoch, each takes a second, the first five two seconds more that no other is judged by."""
    rates: list[float] = []
    step, validate = torch.optim.AdamW.step, training._Run._validate
    idle = [0.0]

    def spy(optimizer: torch.optim.AdamW, *rest: object) -> object:
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *rest)

    def slow(self: training._Run) -> float:
        idle[0] += validating
        return validate(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    monkeypatch.setattr(training._Run, "_validate", slow)
    monkeypatch.setattr("hushrec_model.training.time.monotonic", lambda: len(rates) + 2 * min(len(rates), 5) + idle[0])
    found = run(settings=replace(SETTINGS, tokens=7, epochs=8, patience=8), max_minutes=minutes)
    assert (len(found.history), len(rates)) == (epochs, steps)
    assert rates[-1] < 0.02 * max(rates) or steps == 20


def test_the_time_limit_decided_before_a_kill_still_holds_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("hushrec_model.training.time.monotonic", lambda: float(next(clock)))
    settings = replace(SETTINGS, epochs=8, patience=8)
    with pytest.raises(KilledError):
        run(settings=settings, checkpoint=tmp_path / "training.pt", max_minutes=0.5, progress=killer(1.5))
    assert len(run(settings=settings, checkpoint=tmp_path / "training.pt", max_minutes=0.5).history) == 3


def test_without_validation_the_last_epoch_is_kept_and_no_score_is_claimed() -> None:
    found = run(replace(SPLIT, valid=queries([], [])))
    assert found.best_epoch == len(found.history) == SETTINGS.epochs
    assert all(np.isnan(epoch["ndcg@10"]) for epoch in found.history)


def test_training_goes_on_from_a_given_model_and_changes_it() -> None:
    model = build_model(SPLIT, nothing_known(ITEMS), SETTINGS)
    first = run(settings=replace(SETTINGS, epochs=10), start=model)
    second = run(settings=replace(SETTINGS, epochs=1), start=model)
    assert first.model is second.model is model
    assert second.history[0]["loss"] < first.history[0]["loss"]


def test_the_adapter_is_left_alone() -> None:
    assert (run().model.encoder.adapter_up.weight == 0).all()


def test_sequences_without_a_single_target_train_to_nothing_without_failing() -> None:
    split = split_of([[1, 2, 3], [2, 3, 1]])
    assert [epoch["loss"] for epoch in run(split, replace(SETTINGS, epochs=1)).history] == [0.0]


def test_baskets_of_which_some_batches_have_no_target_are_learned() -> None:
    rows = [[1, 2, 3, 4], [5, 6, 7], [8, 9], [10, 11, 12]] * 5
    baskets = [[0, 0, 1, 1], [0, 0, 0], [0, 0], [0, 1, 1]] * 5
    split = replace(SPLIT, train=sequences(rows, baskets=baskets))
    found = run(split, replace(SETTINGS, tokens=4))
    assert np.isfinite([epoch["loss"] for epoch in found.history]).all()
    assert all(torch.isfinite(weight).all() for weight in found.model.parameters())


def test_behaviours_that_decide_what_comes_next_are_learned() -> None:
    """After the same items, those who bought go on to 2, those who looked to 3."""
    rows, behaviors = [[1, 1, 2], [1, 1, 3]] * 20, [[1, 1, 0], [0, 0, 0]] * 20
    asked = queries([[1, 1], [1, 1]], [[2], [3]], behaviors=[[1, 1], [0, 0]])
    split = replace(SPLIT, train=sequences(rows, behaviors=behaviors), valid=asked)
    shape = replace(SMALL, behaviors=2)
    found = run(split, replace(SETTINGS, shape=shape, epochs=15, patience=15))
    assert max(epoch["ndcg@10"] for epoch in found.history) == 1.0


def test_validation_asks_evenly_spaced_queries_and_the_same_ones_each_time() -> None:
    many = queries([[1]] * 100, [[2]] * 100)
    assert validation_sample(many, 200).tolist() == list(range(100))
    some = validation_sample(many, 7)
    assert len(set(some.tolist())) == 7
    assert (some[0], some[-1]) == (0, 99)
    assert np.ptp(np.diff(some)) <= 1
    np.testing.assert_array_equal(some, validation_sample(many, 7))
