"""The event that bundles are asked for: held out of all training on this device, and asked of release and candidate."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec import ort
from hushrec.bundle import Bundle
from hushrec.engine import Engine
from hushrec.federated.trainer import LocalTrainer
from hushrec.federated_counts import evaluation, is_counted, own_segments
from hushrec.fleet.contribution import Contribution
from hushrec.fleet.features import Features
from hushrec.fleet.joining import Accepted
from hushrec.held_out import last_of_its_own, training_events
from hushrec.profile import Profile
from hushrec.ranking import Ranked, Request, bundle_ranking
from hushrec_privacy.errors import BundleError, ConfigError
from hushrec_privacy.ledger import MemoryLedgerStore, ParticipationRecord
from hushrec_privacy.ledger.device_cost import device_opening
from hushrec_privacy.plans.limits import DeviceLimits
from hushrec_privacy.plans.schema import Segment, Vector

from tests.all_events import all_events, events_on
from tests.fleet_plans import a_fleet_plan
from tests.tiny_bundle import tiny_bundle, write_tiny_bundle

NOW_US = 1_800_000_000_000_000
COMPARING = a_fleet_plan(
    vector=Vector(
        "counts",
        (
            Segment("evaluation", 3, "1.5", "how well the model does on this device's latest events"),
            Segment("gain", 2, "0.5", "whether a new model would do better on them"),
        ),
    )
)
TRAINING = a_fleet_plan(parameters=2048)


def profile(*items: str) -> Profile:
    """One event a second, the last just now."""
    kept = Profile()
    for place, item in enumerate(items):
        kept.append(item, "view", NOW_US - (len(items) - 1 - place) * 10**6)
    return kept


@pytest.mark.parametrize(
    ("items", "returns", "first_only"),
    [
        ([4, 9], 1, 1),
        ([4, 9, 9], 1, 1),
        ([4, 9, 4], 2, 1),
        ([4, 4, 9, 9, 4, 4], 4, 2),
        ([4, 9, 4, 9, 7, 9], 5, 4),
        ([4, 4, 4], None, None),
        ([4], None, None),
        ([], None, None),
    ],
)
def test_the_last_event_that_is_one_of_its_own_is_held_out(
    items: list[int], returns: int | None, first_only: int | None
) -> None:
    events = events_on(*items)
    assert last_of_its_own(events, filter_seen=False) == returns
    assert last_of_its_own(events, filter_seen=True) == first_only


def trained_on(kept: Profile, bundle: Bundle, now_us: int = NOW_US) -> list[int]:
    """Items of what training reads."""
    found: list[int] = training_events(kept, bundle, now_us=now_us, newest=100, stop=lambda: False).items.tolist()
    return found


def segments(bundle: Bundle, kept: Profile, now_us: int = NOW_US, candidate: Bundle | None = None) -> dict[str, Any]:
    """What the device sends for a plan that compares."""
    return own_segments(COMPARING, bundle, kept, now_us=now_us, candidate=candidate)


@pytest.mark.parametrize(
    ("filter_seen", "did", "trained"),
    [
        (False, (1, 2, 3), [1, 2]),
        (False, (1, 2, 2, 2), [1]),
        (False, (1, 2, 1), [1, 2]),
        (False, (1, 1, 1), [1, 1, 1]),  # nothing of it is asked for
        (False, (1,), [1]),
        (False, (), []),
        (True, (1, 2, 3), [1, 2]),
        (True, (1, 2, 3, 2, 1), [1, 2]),
        (True, (1, 2, 1, 2, 1), [1]),
    ],
)
def test_training_sees_nothing_from_the_held_out_event_on(
    tmp_path: Path, filter_seen: bool, did: tuple[int, ...], trained: list[int]
) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path, filter_seen=filter_seen))
    with profile(*(f"item-{number}" for number in did)) as kept:
        assert trained_on(kept, bundle) == trained


def test_what_is_to_come_is_neither_trained_on_nor_asked_for(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    with profile("item-1", "item-2", "item-3") as kept:
        assert trained_on(kept, bundle, NOW_US - 10**6) == [1]
        assert segments(bundle, kept, NOW_US - 2 * 10**6)["evaluation"].tolist() == [0, 0, 0]


def contribution(kept: Profile) -> Contribution:
    limits = DeviceLimits(lifetime_rho=1000.0)
    record = ParticipationRecord.begin(MemoryLedgerStore(), lifetime_rho="1000")
    return Contribution(kept, Features(lambda: record, limits), lambda: NOW_US / 1e6)


def trained_windows(kept: Profile, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """What a round of training would read, window by window."""
    windows: list[list[int]] = []

    def noted(self: LocalTrainer, histories: Any, _seed: str, **_named: Any) -> Any:
        windows.extend(sample.items.tolist() for sample in self._samples(histories))
        return np.zeros(2048, np.float32)

    monkeypatch.setattr(LocalTrainer, "update", noted)
    accepted = Accepted(TRAINING, TRAINING.plan_id, device_opening(TRAINING, DeviceLimits(lifetime_rho=1000.0)))
    assert contribution(kept).vector(accepted, 1, bundle, None, lambda: False) is not None
    return windows


def test_no_window_of_a_round_has_the_held_out_event_and_the_next_round_has_it_once_there_are_newer_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    with profile(*(f"item-{number}" for number in range(1, 21))) as kept:  # windows of 9
        first = trained_windows(kept, bundle, monkeypatch)
        assert sorted({item for window in first for item in window}) == list(range(1, 20))
        assert segments(bundle, kept)["evaluation"][2] == 1
        kept.append("item-21", "view", NOW_US)
        second = trained_windows(kept, bundle, monkeypatch)
        assert sorted({item for window in second for item in window}) == list(range(1, 21))
        assert segments(bundle, kept)["evaluation"][2] == 1, "item 21 is asked for"


def test_an_update_is_the_same_whatever_the_held_out_event_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, made = Bundle.open(tiny_bundle(tmp_path)), []
    update = LocalTrainer.update

    def noted(self: LocalTrainer, *given: Any, **named: Any) -> Any:
        made.append(update(self, *given, **named))
        return made[-1]

    monkeypatch.setattr(LocalTrainer, "update", noted)
    accepted = Accepted(TRAINING, TRAINING.plan_id, device_opening(TRAINING, DeviceLimits(lifetime_rho=1000.0)))
    for last in ("item-4", "item-5"):
        with profile("item-1", "item-2", "item-3", last) as kept:
            contribution(kept).vector(accepted, 1, bundle, None, lambda: False)
    assert np.any(made[0])
    np.testing.assert_array_equal(made[0], made[1])


def asked_after(kept: Profile, trained_with: Bundle, evaluated: Bundle, *, later_us: int = 0) -> float:
    """How many events are evaluated after training."""
    trained_on(kept, trained_with)
    return float(segments(evaluated, kept, NOW_US + later_us)["evaluation"][2])


def test_an_event_that_was_trained_on_is_not_asked_for_when_the_catalogue_loses_what_came_after_it(
    tmp_path: Path,
) -> None:
    bundle, smaller = Bundle.open(tiny_bundle(tmp_path)), Bundle.open(write_tiny_bundle(tmp_path / "s", items=50))
    with profile("item-1", "item-2", "item-60") as kept:
        assert asked_after(kept, bundle, smaller) == 0, "item 2 was trained on"
    with profile("item-1", "item-2", "item-3") as kept:
        assert asked_after(kept, bundle, smaller) == 1


def test_an_event_that_was_trained_on_is_not_asked_for_when_the_clock_goes_back(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    with profile("item-1", "item-2", "item-3") as kept:
        assert asked_after(kept, bundle, bundle, later_us=-(10**6)) == 0
        assert asked_after(kept, bundle, bundle) == 1


def test_an_event_that_was_trained_on_is_not_asked_for_when_seen_items_are_hidden_from_now_on(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    hides = Bundle.open(write_tiny_bundle(tmp_path / "hides", filter_seen=True))
    with profile("item-1", "item-2", "item-1", "item-2") as kept:
        assert asked_after(kept, bundle, hides) == 0
    with profile("item-1", "item-2", "item-1", "item-3") as kept:
        assert asked_after(kept, bundle, hides) == 1


def test_events_of_one_moment_are_told_apart(tmp_path: Path) -> None:
    """A basket: all at one time, the last of it held out, the others trained on."""
    bundle, kept = Bundle.open(tiny_bundle(tmp_path)), Profile()
    with kept:
        for number in (1, 2, 3, 4):
            kept.append(f"item-{number}", "purchase", NOW_US)
        assert trained_on(kept, bundle) == [1, 2, 3]
        assert segments(bundle, kept)["evaluation"][2] == 1
        kept.append("item-5", "purchase", NOW_US)
        assert trained_on(kept, bundle) == [1, 2, 3, 4]
        assert segments(bundle, kept)["evaluation"][2] == 1


class Fixed:
    """Ranks the same items whatever comes; remembers what it was asked."""

    def __init__(self, *items: int) -> None:
        self.items = np.array(items, np.int64)
        self.asked: list[tuple[list[int], list[int] | None]] = []

    def rank(self, request: Request) -> Ranked:
        """The best items."""
        self.asked.append((request.items.tolist(), None if request.hidden is None else request.hidden.tolist()))
        return Ranked(self.items, np.zeros(len(self.items), np.float32))


def compared(
    monkeypatch: pytest.MonkeyPatch, kept: Profile, release: tuple[Bundle, Fixed], candidate: tuple[Bundle, Any] | None
) -> dict[str, list[float]]:
    """What a device sends if its bundles rank like this."""
    rankers = {bundle.root: ranker for bundle, ranker in (release, *([candidate] if candidate else []))}
    monkeypatch.setattr("hushrec.engine.Engine", lambda bundle, _memory: bundle)
    monkeypatch.setattr("hushrec.ranking.bundle_ranking", lambda bundle, _engine: rankers[bundle.root])
    other = None if candidate is None else candidate[0]
    found = segments(release[0], kept, candidate=other)
    return {name: np.round(values, 6).tolist() for name, values in found.items()}


@pytest.fixture
def release(tmp_path: Path) -> Bundle:
    return Bundle.open(tiny_bundle(tmp_path))


@pytest.fixture
def candidate(tmp_path: Path) -> Bundle:
    return Bundle.open(write_tiny_bundle(tmp_path / "candidate.hush", seed=9))


THIRD = round(1 / math.log2(4), 6)


@pytest.mark.parametrize(
    ("ranked", "by_candidate", "gain"),
    [
        ((9, 1, 2), (1, 2, 9), [0, round(THIRD - 1, 6)]),
        ((1, 2, 9), (9, 1, 2), [0, round(1 - THIRD, 6)]),
        ((1, 2, 3), (9,), [1, 1]),
        ((9,), (1, 2, 3), [-1, -1]),
        ((1, 2, 3), (4, 5), [0, 0]),
        ((9, 1), (9, 2), [0, 0]),
    ],
)
def test_a_gain_is_what_the_candidate_finds_less_what_the_release_finds(
    release: Bundle,
    candidate: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    ranked: tuple[int, ...],
    by_candidate: tuple[int, ...],
    gain: list[float],
) -> None:
    ours, other = Fixed(*ranked), Fixed(*by_candidate)
    with profile("item-4", "item-4", "gone", "item-5", "item-9") as kept:
        found = compared(monkeypatch, kept, (release, ours), (candidate, other))
    assert found["gain"] == gain
    assert found["evaluation"] == [float(9 in ranked), found["evaluation"][1], 1.0]
    assert ours.asked == other.asked == [([4, 5], None)], "one question to both"


def test_a_candidate_that_does_not_work_here_finds_nothing(
    release: Bundle, candidate: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Fixed):
        def rank(self, request: Request) -> Ranked:
            raise RuntimeError(f"ONNX Runtime says no to {request}")

    with profile("item-4", "item-9") as kept:
        assert compared(monkeypatch, kept, (release, Fixed(9)), None)["gain"] == [-1, -1]
        assert compared(monkeypatch, kept, (release, Fixed(9)), (candidate, Broken()))["gain"] == [-1, -1]
        assert compared(monkeypatch, kept, (release, Fixed(1)), None)["gain"] == [0, 0], "nor did the release"


def test_a_release_that_does_not_work_here_is_no_reason_to_praise_a_candidate(
    release: Bundle, candidate: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Fixed):
        def rank(self, request: Request) -> Ranked:
            raise BundleError(f"damaged, {request}")

    with profile("item-4", "item-9") as kept, pytest.raises(BundleError):
        compared(monkeypatch, kept, (release, Broken()), (candidate, Fixed(9)))


def test_a_candidate_is_asked_by_its_own_catalogue_and_its_own_rule_on_seen_items(
    release: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = Bundle.open(write_tiny_bundle(tmp_path / "larger.hush", items=70, filter_seen=True))
    smaller = Bundle.open(write_tiny_bundle(tmp_path / "smaller.hush", items=50))
    with profile("item-70", "item-4", "item-70", "item-55") as kept:
        other = Fixed(55)
        assert compared(monkeypatch, kept, (release, Fixed(1)), (larger, other))["gain"] == [1, 1]
        assert other.asked == [([70, 4, 70], [4, 70])], "it knows an item that the release does not"
        lacking = Fixed(55)
        assert compared(monkeypatch, kept, (release, Fixed(55)), (smaller, lacking))["gain"] == [-1, -1]
        assert not lacking.asked, "what it does not have it does not find"


def test_without_an_event_to_ask_for_nothing_is_compared(
    release: Bundle, candidate: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with profile("item-4", "item-4") as kept:
        found = compared(monkeypatch, kept, (release, Fixed(4)), (candidate, Fixed(4)))
    assert found == {"evaluation": [0, 0, 0], "gain": [0, 0]}


def test_the_app_gives_no_gain(release: Bundle) -> None:
    with profile() as kept, pytest.raises(ConfigError, match="gain"):
        own_segments(COMPARING, release, kept, now_us=NOW_US, app={"gain": np.zeros(2)})


@pytest.mark.parametrize("filter_seen", [False, True])
def test_the_gain_of_real_bundles_is_the_difference_of_two_plain_evaluations(
    tmp_path: Path, filter_seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_tiny_bundle(tmp_path / f"{seed}.hush", seed=seed, filter_seen=filter_seen) for seed in (7, 9)]
    bundles = [Bundle.open(path) for path in paths]
    engines = {bundle.root: Engine(bundle) for bundle in bundles}
    monkeypatch.setattr("hushrec.engine.Engine", lambda bundle, _memory: engines[bundle.root])
    rng, gains = np.random.default_rng(4), []
    for _ in range(60):
        with profile(*(f"item-{number}" for number in rng.integers(1, 61, rng.integers(0, 9)))) as kept:
            plain = [
                evaluation(
                    all_events(kept, bundle),
                    bundle_ranking(bundle, engines[bundle.root]),
                    filter_seen=filter_seen,
                )
                for bundle in bundles
            ]
            found = segments(bundles[0], kept, candidate=bundles[1])
        np.testing.assert_array_equal(found["evaluation"], plain[0])
        np.testing.assert_array_equal(found["gain"], plain[1][:2] - plain[0][:2])
        gains.append(float(found["gain"][0]))
    assert {-1.0, 0.0, 1.0} == set(gains), "or nothing was compared"


def test_both_bundles_are_asked_through_the_scorer_that_the_app_uses(release: Bundle, candidate: Bundle) -> None:
    """Two scorers round differently: what differs must be the models."""
    with profile("item-4", "item-9") as kept:
        for scorer in ("plain", "product"):
            kept.put(f"scorer/{release.manifest.model.capacity}/onnxruntime-{ort.version()}", scorer.encode())
            engines: list[str] = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("hushrec.ranking.bundle_ranking", lambda _bundle, engine: noted(engine, engines))  # noqa: B023
                own_segments(COMPARING, release, kept, now_us=NOW_US, candidate=candidate)
            assert engines == [scorer] * 2


def noted(engine: Engine, engines: list[str]) -> Fixed:
    engines.append(engine.scorer)
    return Fixed(9)


def test_reserved_names_are_those_that_are_counted() -> None:
    names = ("evaluation", "gain", "trending", "trending-7d", "trend", "gains")
    assert [name for name in names if is_counted(name)] == ["evaluation", "gain", "trending", "trending-7d"]


def test_every_device_and_round_scores_against_candidates_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, seeds = Bundle.open(tiny_bundle(tmp_path)), []

    def noted(_self: LocalTrainer, _histories: Any, seed: str, **_named: Any) -> Any:
        seeds.append(seed)
        return np.zeros(2048, np.float32)

    monkeypatch.setattr(LocalTrainer, "update", noted)
    accepted = Accepted(TRAINING, TRAINING.plan_id, device_opening(TRAINING, DeviceLimits(lifetime_rho=1000.0)))
    for number in (1, 1, 2):
        with profile("item-1", "item-2", "item-3") as kept:
            assert contribution(kept).vector(accepted, number, bundle, None, lambda: False) is not None
    assert len(set(seeds)) == 3
