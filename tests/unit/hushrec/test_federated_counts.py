"""What a device counts: worked out by hand, from its own events alone, and read back beside the noise."""

import math
from pathlib import Path

import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.federated_counts import evaluation, own_segments, trending
from hushrec.own_events import Events
from hushrec.profile import Profile
from hushrec.ranking import Ranked, Request
from hushrec_privacy.encoding import (
    Reading,
    decode_sum,
    encode_update,
    join_segments,
    read_counts,
    read_evaluation,
    read_gain,
    to_lattice,
)
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.plans.schema import Segment, Vector
from numpy.typing import NDArray

from tests.all_events import all_events, events_on
from tests.fixed_random import FixedRandom
from tests.fleet_plans import a_fleet_plan
from tests.tiny_bundle import tiny_bundle

DAY_US = 86_400 * 10**6
NOW_US = 100 * DAY_US
VECTOR = Vector(
    "counts",
    (
        Segment("trending", 60, "3", "which items were looked at", 7),
        Segment("trending-ever", 60, "5", "which items were ever looked at"),
        Segment("evaluation", 3, "2", "how well the model would have guessed what you took last"),
        Segment("visits", 2, "7", "how often the app was opened, and how often at night"),
    ),
)


def events(*items: int, ages: tuple[float, ...] | None = None) -> Events:
    """Events on these items, the last just now unless told how many days ago each was."""
    at_us = [int(NOW_US - age * DAY_US) for age in ages or range(len(items) - 1, -1, -1)]
    return events_on(*items, at_us=at_us)


class Fixed:
    """Ranks the same items whatever comes; remembers what it was asked."""

    def __init__(self, *items: int) -> None:
        self._items = np.array(items)
        self.asked: list[tuple[list[int], list[int] | None, int]] = []

    def rank(self, request: Request) -> Ranked:
        """The best items."""
        hidden = None if request.hidden is None else request.hidden.tolist()
        self.asked.append((request.items.tolist(), hidden, request.k))
        return Ranked(self._items, np.zeros(len(self._items), np.float32))


def test_an_item_counts_once_however_often_it_was_looked_at() -> None:
    assert trending(events(3, 3, 5), length=5, days=7, now_us=NOW_US).tolist() == [0, 0, 1, 0, 1]


def test_only_the_window_counts() -> None:
    seen = events(1, 2, 3, 4, ages=(8, 7, 6.99, -1))
    assert trending(seen, length=4, days=7, now_us=NOW_US).tolist() == [0, 0, 1, 0]
    assert trending(seen, length=4, days=0, now_us=NOW_US).tolist() == [1, 1, 1, 0], "never what is to come"


def test_items_beyond_the_plan_s_catalogue_are_left_out() -> None:
    assert trending(events(2, 3), length=2, days=7, now_us=NOW_US).tolist() == [0, 1]
    for wrong in ({"length": 0, "days": 7}, {"length": 2, "days": -1}):
        with pytest.raises(ConfigError):
            trending(events(2), now_us=NOW_US, **wrong)


@pytest.mark.parametrize(
    ("ranked", "found"),
    [
        ((9, 1, 2), [1, 1, 1]),  # first: 1 / log2(2)
        ((1, 2, 9), [1, 0.5, 1]),  # third: 1 / log2(4)
        ((1, 2, 3), [0, 0, 1]),
        ((), [0, 0, 1]),
    ],
)
def test_the_last_event_is_guessed_from_those_before(ranked: tuple[int, ...], found: list[float]) -> None:
    ranker = Fixed(*ranked)
    np.testing.assert_allclose(evaluation(events(4, 5, 9), ranker, filter_seen=False), found)
    assert ranker.asked == [([4, 5], None, 10)]


def test_a_repeat_of_the_item_before_is_no_event_of_its_own() -> None:
    ranker = Fixed(9)
    assert evaluation(events(4, 9, 9), ranker, filter_seen=False).tolist() == [1, 1, 1]
    assert ranker.asked[0][0] == [4]


def test_a_return_is_no_target_where_seen_items_are_hidden() -> None:
    ranker = Fixed(9)
    assert evaluation(events(4, 9, 4), ranker, filter_seen=True).tolist() == [1, 1, 1]
    assert ranker.asked == [([4], [4], 10)]
    assert evaluation(events(4, 9, 4), ranker, filter_seen=False).tolist() == [0, 0, 1]


@pytest.mark.parametrize("known", [(), (7,), (7, 7)])
def test_too_few_events_evaluate_nothing(known: tuple[int, ...]) -> None:
    assert evaluation(events(*known), Fixed(7), filter_seen=False).tolist() == [0, 0, 0]


def profile(*items: str) -> Profile:
    """A profile in memory, one event a day, the last just now."""
    kept = Profile()
    for age, item in enumerate(reversed(items)):
        kept.append(item, "view", NOW_US - age * DAY_US)
    return kept


def test_a_device_fills_what_the_plan_asks_for_and_leaves_out_the_rest(tmp_path: Path) -> None:
    plan, bundle = a_fleet_plan(vector=VECTOR), Bundle.open(tiny_bundle(tmp_path))
    with profile("item-1", "gone", *["item-2"] * 8, "item-60") as kept:
        assert all_events(kept, bundle).items.tolist() == [1, *[2] * 8, 60]
        found = own_segments(plan, bundle, kept, now_us=NOW_US)
        own = {"visits": np.array([3.0, 1.0]), "other": np.ones(5)}
        with_app = own_segments(plan, bundle, kept, now_us=NOW_US, app=own)
        assert own_segments(plan, bundle, kept, now_us=NOW_US - 50 * DAY_US)["evaluation"].tolist() == [0, 0, 0]
    assert list(found) == ["trending", "trending-ever", "evaluation"]
    assert np.flatnonzero(found["trending"]).tolist() == [1, 59]
    assert np.flatnonzero(found["trending-ever"]).tolist() == [0, 1, 59]
    assert found["evaluation"][2] == 1
    assert with_app.keys() - found.keys() == {"visits"}, "what the plan does not name stays on the device"
    assert join_segments(plan, found)[-2:].tolist() == [0, 0]
    assert join_segments(plan, with_app)[-2:].tolist() == [3, 1]


def test_the_app_fills_no_counter_of_ours(tmp_path: Path) -> None:
    plan, bundle = a_fleet_plan(vector=VECTOR), Bundle.open(tiny_bundle(tmp_path))
    for name in ("evaluation", "trending", "trending-week"):
        with profile() as kept, pytest.raises(ConfigError, match=name):
            own_segments(plan, bundle, kept, now_us=NOW_US, app={name: np.zeros(3)})


def test_an_empty_profile_counts_nothing(tmp_path: Path) -> None:
    plan, bundle = a_fleet_plan(vector=VECTOR), Bundle.open(tiny_bundle(tmp_path))
    with profile() as kept:
        assert not join_segments(plan, own_segments(plan, bundle, kept, now_us=NOW_US)).any()


def test_a_round_of_counts_is_read_as_sums_beside_their_noise() -> None:
    plan, source = a_fleet_plan(vector=VECTOR), FixedRandom(21)
    total = np.zeros(plan.coordinates, np.int64)
    for device in range(160):
        own: dict[str, NDArray[np.floating]] = {"evaluation": np.array([device % 2, 0.5 * (device % 2), 1.0])}
        own["trending"] = trending(events(1, 2 + device % 4), length=60, days=7, now_us=NOW_US)
        total += encode_update(plan, join_segments(plan, own), source)
    noised = to_lattice(plan, total) + np.random.default_rng(0).normal(
        scale=plan.noise_deviation, size=plan.coordinates
    ).round().astype(np.int64)
    found = read_counts(plan, decode_sum(plan, noised))
    trend, scores = found["trending"], found["evaluation"]
    assert trend.deviation == pytest.approx(4.0 * 3 * math.sqrt(4), rel=0.01), "noise multiplier, clip, four segments"
    wanted = np.zeros(60)
    wanted[:5] = 160, 40, 40, 40, 40
    assert np.abs(trend.values - wanted).max() < 4.5 * trend.deviation
    assert float(np.std(trend.values - wanted)) == pytest.approx(trend.deviation, rel=0.3)
    read = read_evaluation(found)
    assert read is not None
    assert abs(read.hit_rate - 0.5) < 4 * read.deviation
    assert read.deviation == pytest.approx(scores.deviation / scores.values[2] * math.hypot(1, read.hit_rate))


def test_a_ratio_of_noise_is_no_metric() -> None:
    plan = a_fleet_plan(vector=VECTOR)
    empty = read_counts(plan, np.zeros(plan.parameters))
    assert read_evaluation(empty) is None
    assert read_evaluation({"visits": empty["visits"]}) is None


def test_a_gain_is_read_by_event_beside_its_noise() -> None:
    readings = {
        "evaluation": Reading(np.array([30.0, 20.0, 200.0]), 8.0),
        "gain": Reading(np.array([-6.0, 1.0]), 3.0),
    }
    found = read_gain(readings)
    assert found is not None
    assert (found.hit_rate, found.ndcg) == (-0.03, 0.005)
    assert found.deviation == pytest.approx(math.sqrt(3.0**2 + (0.03 * 8.0) ** 2) / 200)
    evaluated = read_evaluation(readings)
    assert evaluated is not None
    assert (found.ndcg < -0.02 * evaluated.ndcg) == (1.0 < -0.02 * 20.0), "as sums and as rates it decides the same"


def test_a_gain_over_as_many_events_as_noise_makes_up_is_none() -> None:
    gain = Reading(np.array([5.0, 5.0]), 1.0)
    assert read_gain({"evaluation": Reading(np.array([1.0, 1.0, 24.0]), 8.0), "gain": gain}) is None
    assert read_gain({"evaluation": Reading(np.array([1.0, 1.0, 24.1]), 8.0), "gain": gain}) is not None
    assert read_gain({"evaluation": Reading(np.array([1.0, 1.0, 24.1]), 8.0)}) is None
    assert read_gain({"gain": gain}) is None


def test_the_noise_of_a_gain_is_as_large_as_it_is_read() -> None:
    """Many noised rounds of the same devices: the deviation that one of them states is that of all."""
    plan = a_fleet_plan(
        vector=Vector("counts", (Segment("evaluation", 3, "1.5", "how well"), Segment("gain", 2, "0.5", "how much")))
    )
    own: dict[str, NDArray[np.floating]] = {"evaluation": np.array([1.0, 0.5, 1.0]), "gain": np.array([-0.3, 0.2])}
    total = sum(encode_update(plan, join_segments(plan, own), FixedRandom(n)) for n in range(160))
    rng, found = np.random.default_rng(3), []
    for _ in range(200):
        noise = np.rint(rng.normal(scale=plan.noise_deviation, size=plan.coordinates)).astype(np.int64)
        gain = read_gain(read_counts(plan, decode_sum(plan, to_lattice(plan, np.asarray(total)) + noise)))
        assert gain is not None
        found.append(gain)
    assert np.mean([gain.hit_rate for gain in found]) == pytest.approx(-0.3, abs=0.01)
    assert np.mean([gain.ndcg for gain in found]) == pytest.approx(0.2, abs=0.01)
    stated = float(np.mean([gain.deviation for gain in found]))
    for values in ([gain.hit_rate for gain in found], [gain.ndcg for gain in found]):
        assert 2 / 3 * stated < np.std(values) < 1.1 * stated


def test_an_update_holds_no_counts() -> None:
    with pytest.raises(ConfigError, match="no counts"):
        read_counts(a_fleet_plan(), np.zeros(2048))


def test_an_evaluation_has_three_numbers() -> None:
    with pytest.raises(ConfigError, match="3 numbers"):
        Vector("counts", (Segment("evaluation", 4, "1", "how well the model guesses"),))
