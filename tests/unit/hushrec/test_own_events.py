"""A profile is read backwards in blocks, no further than is asked for, and reading stops between two of them."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hushrec import profile as profile_module
from hushrec.bundle import Bundle
from hushrec.federated_counts import evaluation, own_segments, trending
from hushrec.held_out import held_out, training_events
from hushrec.own_events import Events, StoppedError, changes, own_events, until
from hushrec.profile import Event, Place, Profile
from hushrec.ranking import Ranked, Request
from hushrec.recommender import Recommender
from hushrec_privacy.plans.schema import Segment, Vector

from tests.all_events import all_events
from tests.fleet_plans import a_fleet_plan
from tests.tiny_bundle import tiny_bundle, write_tiny_bundle

DAY_US = 86_400 * 10**6
NOW_US = 400 * DAY_US
WEEK = Segment("trending-week", 60, "3", "which items were looked at", 7)
EVER = Segment("trending", 60, "3", "which items were ever looked at")
GUESSES = Segment("evaluation", 3, "2", "how well the model would have guessed what you took last")


@pytest.fixture(params=[False, True], ids=["returns", "first only"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    return Bundle.open(tiny_bundle(tmp_path, filter_seen=request.param))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "BLOCK_EVENTS", 10)


def a_long_profile(events: int = 400) -> Profile:
    """One event a day on items in turn, every fifth on one that no bundle has; the last is now."""
    kept = Profile()
    for day in range(events):
        item = "gone" if day % 5 == 4 else f"item-{day * day % 59 + 1}"
        kept.append(item, "view", NOW_US - (events - 1 - day) * DAY_US)
    return kept


class Asking:
    """Counts how often it was asked, and says stop from some time on."""

    def __init__(self, most: int = 10**9) -> None:
        self.asked, self._most = 0, most

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked > self._most


def test_blocks_hold_every_event_once_in_its_order_from_a_place_back() -> None:
    with a_long_profile(95) as kept:
        for _ in range(5):
            kept.append("item-7", "cart", NOW_US)  # of one moment, in the order they arrived
        everything = kept.events()
        for before, expected in ((until(NOW_US), 100), (until(NOW_US - 1), 94), (Place(NOW_US, 98), 97)):
            blocks = list(kept.blocks(before))
            assert [event for block in reversed(blocks) for event in block.events] == everything[:expected]
            arrivals = [arrival for block in reversed(blocks) for arrival in block.arrivals]
            assert arrivals == list(range(1, expected + 1))
            assert all(len(block.events) <= 10 for block in blocks)
        since = [event for block in kept.blocks(until(NOW_US), since_us=NOW_US - 3 * DAY_US) for event in block.events]
        assert len(since) == 3 + 5
    with Profile() as empty:
        assert not list(empty.blocks(until(NOW_US)))


def test_events_that_arrive_meanwhile_move_none_of_those_that_are_to_come() -> None:
    with a_long_profile(30) as kept:
        blocks, before = kept.blocks(until(NOW_US)), kept.events()
        found = [next(blocks)]
        kept.append("item-9", "view", NOW_US)
        found += list(blocks)
        assert [event for block in reversed(found) for event in block.events] == before
        assert next(kept.blocks(until(NOW_US))).events[-1] == Event("item-9", "view", NOW_US)


def test_the_index_on_time_finds_a_block() -> None:
    with a_long_profile(30) as kept:
        rows = kept._run(
            "EXPLAIN QUERY PLAN SELECT item FROM events WHERE (at_us, n) < (?, ?) AND at_us >= ? "
            "ORDER BY at_us DESC, n DESC LIMIT ?",
            *(NOW_US, 3, 0, 10),
        )
        assert "USING INDEX events_by_time" in rows[0][3]
        assert len(rows) == 1, "and sorts nothing"


def test_what_is_known_of_a_bundle_comes_with_its_place(bundle: Bundle) -> None:
    with a_long_profile() as kept:
        found = Events.none()
        for block in own_events(kept, bundle, until(NOW_US), Asking()):
            found = block.then(found)
        expected = all_events(kept, bundle)
        for name in ("items", "behaviors", "at_us"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert [found.place(index) for index in (0, 4, -1)] == [
            Place(NOW_US - 399 * DAY_US, 1),
            Place(NOW_US - 394 * DAY_US, 6),
            Place(NOW_US - DAY_US, 399),
        ]
        assert repr(found) == "Events()"


def counted(segment: Segment, kept: Profile, bundle: Bundle, stop: Callable[[], bool]) -> list[float]:
    plan = a_fleet_plan(vector=Vector("counts", (segment,)))
    found: list[float] = own_segments(plan, bundle, kept, now_us=NOW_US, stop=stop)[segment.name].tolist()
    return found


def test_no_more_is_read_than_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hushrec.federated_counts.kept_events", lambda _: 8)
    bundle = Bundle.open(tiny_bundle(tmp_path))
    with a_long_profile() as kept:
        asking = Asking()
        week = counted(WEEK, kept, bundle, asking)
        assert week == trending(all_events(kept, bundle), length=60, days=7, now_us=NOW_US).tolist()
        assert asking.asked == 2, "one block of a week, and no more of it"
        asking = Asking()
        assert counted(GUESSES, kept, bundle, asking)[2] == 1
        assert asking.asked == 1 + 2, "the newest block, then as far as the bundle looks back, and one event more"
        asking = Asking()
        assert len(training_events(kept, bundle, now_us=NOW_US, newest=25, stop=asking).items) == 25
        assert asking.asked == 1 + 4, "25 events, of which each block has 8"


@pytest.mark.parametrize("blocks", [0, 1, 5, 39])
def test_reading_stops_between_two_blocks(bundle: Bundle, blocks: int) -> None:
    with a_long_profile() as kept:
        tried: list[Callable[[Asking], object]] = [
            lambda stop: counted(EVER, kept, bundle, stop),
            lambda stop: training_events(kept, bundle, now_us=NOW_US, newest=1_000, stop=stop),
        ]
        if bundle.manifest.model.filter_seen:
            tried.append(lambda stop: counted(GUESSES, kept, bundle, stop))
        for work in tried:
            asking = Asking(blocks)
            with pytest.raises(StoppedError):
                work(asking)
            assert asking.asked == blocks + 1
        assert kept.get("federated.trained-until") is None, "stopped training saw nothing"


class Noted:
    """Ranks nothing; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def rank(self, request: Request) -> Ranked:
        self.asked.append(request)
        return Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32))


@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_in_blocks_of_any_size_the_same_is_held_out_trained_on_and_asked(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(profile_module, "BLOCK_EVENTS", size)
    monkeypatch.setattr("hushrec.engine.Engine", lambda *_: None)
    rng, filter_seen = np.random.default_rng(size), bundle.manifest.model.filter_seen
    for _ in range(12):
        with Profile() as kept:
            for item in rng.choice(["item-1", "item-2", "item-3", "gone"], rng.integers(0, 14)):
                kept.append(str(item), str(rng.choice(["view", "cart"])), NOW_US - int(rng.integers(0, 9)) * DAY_US)
            everything = all_events(kept, bundle)
            plain, blockwise = Noted(), Noted()
            found = evaluation(everything, plain, filter_seen=filter_seen)
            monkeypatch.setattr("hushrec.ranking.bundle_ranking", lambda *_, ranker=blockwise: ranker)
            assert counted(GUESSES, kept, bundle, Asking()) == found.tolist()
            for expected, asked in zip(plain.asked, blockwise.asked, strict=True):
                np.testing.assert_array_equal(asked.items, expected.items)
                np.testing.assert_array_equal(asked.behaviors, expected.behaviors)
                assert (asked.hidden is None) == (expected.hidden is None)
                assert set([] if asked.hidden is None else asked.hidden) == set(
                    [] if expected.hidden is None else expected.hidden
                )
            for segment in (WEEK, EVER):
                whole = trending(everything, length=60, days=segment.days, now_us=NOW_US)
                assert counted(segment, kept, bundle, Asking()) == whole.tolist()
            held = held_out(kept, bundle, now_us=NOW_US, stop=Asking())
            before = list(kept.blocks(until(NOW_US) if held is None else held.place))
            known = [event.item for block in reversed(before) for event in block.events if event.item != "gone"]
            read = training_events(kept, bundle, now_us=NOW_US, newest=4, stop=Asking())
            assert [f"item-{item}" for item in read.items] == known[-4:]


def test_a_bundle_is_asked_with_as_many_events_as_the_app_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hushrec.history.KEPT_EVENTS", 20)
    monkeypatch.setattr("hushrec.engine.Engine", lambda *_: None)
    bundle, noted = Bundle.open(write_tiny_bundle(tmp_path / "shop.hush")), Noted()
    monkeypatch.setattr("hushrec.ranking.bundle_ranking", lambda *_: noted)
    with a_long_profile() as kept:
        counted(GUESSES, kept, bundle, Asking())
        everything = all_events(kept, bundle)
        before = everything.at(slice(-1))
        np.testing.assert_array_equal(noted.asked[0].items, before.items[changes(before.items)][-20:])


def test_the_app_and_the_evaluation_look_back_as_far(tmp_path: Path) -> None:
    with Recommender.open(tiny_bundle(tmp_path)) as shop:
        for number in range(1_100):
            shop.observe(f"item-{number % 60 + 1}", at=datetime.fromtimestamp(number, UTC))
        assert len(shop._history.recent(2**62).items) == 1_000
