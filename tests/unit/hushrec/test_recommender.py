"""The recommender keeps its promises: what is seen, when, by whom, and what is refused."""

import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hushrec import (
    BundleError,
    CatalogError,
    ConfigError,
    ProfileError,
    ReasonCode,
    Recommendation,
    Recommender,
)
from hushrec.bundle import Bundle, write_bundle
from hushrec.catalog import write_catalog

from tests.tiny_bundle import ITEMS, tiny_bundle, write_tiny_bundle

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def one_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recommenders in one test must not measure anew which scorer is fastest: they round differently."""
    monkeypatch.setattr("hushrec.engine.fastest", lambda scorers, _: ("product", scorers["product"]()))


@pytest.fixture
def rec(root: Path) -> Iterator[Recommender]:
    with Recommender.open(root, clock=Clock()) as opened:
        yield opened


def items(found: list[Recommendation]) -> list[str]:
    return [recommendation.item for recommendation in found]


def test_a_shopper_without_history_gets_what_is_popular(rec: Recommender) -> None:
    found = rec.recommend(k=3)
    assert items(found) == ["item-1", "item-2", "item-3"]
    assert {recommendation.reason.code for recommendation in found} == {ReasonCode.POPULAR}


def test_the_next_list_sees_the_last_event(rec: Recommender) -> None:
    before = rec.recommend()
    rec.observe("item-30")
    after = rec.recommend()
    assert before != after
    assert ReasonCode.POPULAR not in {recommendation.reason.code for recommendation in after}


def test_reasons_name_the_shoppers_own_items(rec: Recommender) -> None:
    for item in ("item-5", "item-9", "item-14"):
        rec.observe(item)
    for recommendation in rec.recommend(k=60):
        assert set(recommendation.reason.items) <= {"item-5", "item-9", "item-14"}
        assert 1 <= len(recommendation.reason.items) <= 3
    again = {r.item for r in rec.recommend(k=60) if r.reason.code is ReasonCode.AGAIN}
    assert again == {"item-5", "item-9", "item-14"}


def test_events_count_by_their_time_not_by_their_arrival(root: Path) -> None:
    lists = []
    for order in ((1, 2, 3), (3, 1, 2)):
        with Recommender.open(root, clock=Clock()) as rec:
            for hour in order:
                rec.observe(f"item-{hour * 10}", at=NOON - timedelta(hours=10 - hour))
            lists.append(rec.recommend())
    assert lists[0] == lists[1]


def test_an_event_later_than_the_moment_is_not_seen(rec: Recommender) -> None:
    rec.observe("item-20", at=NOON - timedelta(hours=2))
    earlier = rec.recommend(exclude_seen=True)
    rec.observe("item-40", at=NOON + timedelta(seconds=1))
    assert rec.recommend(exclude_seen=True) == earlier
    assert rec.recommend(exclude_seen=True, at=NOON + timedelta(seconds=1)) != earlier
    assert "item-40" not in items(rec.recommend(60, exclude_seen=True, at=NOON + timedelta(seconds=1)))
    assert rec.recommend(at=NOON - timedelta(days=1))[0].reason.code is ReasonCode.POPULAR


def test_the_same_moment_in_two_time_zones_is_the_same(rec: Recommender) -> None:
    rec.observe("item-20", at=NOON.astimezone(timezone(timedelta(hours=9))))
    assert rec.recommend(at=NOON)[0].reason.code is not ReasonCode.POPULAR


def test_the_clock_says_what_now_is(root: Path) -> None:
    clock = Clock()
    with Recommender.open(root, clock=clock) as rec:
        rec.observe("item-20")
        clock.now = NOON - timedelta(hours=1)
        assert rec.recommend()[0].reason.code is ReasonCode.POPULAR


def test_without_a_clock_of_its_own_it_is_the_systems(root: Path) -> None:
    with Recommender.open(root) as rec:
        rec.observe("item-20")
        assert rec.recommend()[0].reason.code is not ReasonCode.POPULAR
        assert abs(rec.profile.events()[0].at_us - datetime.now(UTC).timestamp() * 1e6) < 60e6


@pytest.mark.parametrize("at", [datetime(2026, 3, 1), "2026-03-01", 1.0])  # noqa: DTZ001 - that is the point
def test_a_moment_without_time_zone_is_refused_and_nothing_kept(rec: Recommender, at: datetime) -> None:
    with pytest.raises(ConfigError, match="time zone"):
        rec.observe("item-1", at=at)
    with pytest.raises(ConfigError, match="time zone"):
        rec.recommend(at=at)
    assert rec.profile.events() == []


def test_seen_items_stay_out_if_asked_or_if_the_bundle_says_so(root: Path, tmp_path: Path) -> None:
    filtering = write_tiny_bundle(tmp_path / "filtering.hush", filter_seen=True)
    for bundle, default in ((root, False), (filtering, True)):
        with Recommender.open(bundle) as rec:
            rec.observe("item-7")
            assert ("item-7" not in items(rec.recommend(60))) is default
            assert "item-7" not in items(rec.recommend(60, exclude_seen=True))
            assert "item-7" in items(rec.recommend(60, exclude_seen=False))


def test_within_is_exact(rec: Recommender) -> None:
    rec.observe("item-7")
    expected = {item for item in ITEMS if "Lamps" in rec.catalog.get(item).attributes["category"]}  # type: ignore[union-attr]
    assert set(items(rec.recommend(60, within={"category": "Lamps"}))) == expected
    assert items(rec.recommend(60, within={"category": "Lamps", "brand": "no such brand"})) == []
    assert set(items(rec.recommend(60, within={"item": ["item-3", "item-4"]}))) == {"item-3", "item-4"}
    assert len(rec.recommend(60, within={})) == 60
    with pytest.raises(CatalogError, match="did you mean 'category'"):
        rec.recommend(within={"kategory": "Lamps"})


@pytest.mark.parametrize("k", [0, 1, 59, 60, 61, 10**9])
def test_at_most_k_and_never_more_than_there_are(rec: Recommender, k: int) -> None:
    rec.observe("item-7")
    found = rec.recommend(k)
    assert len(found) == min(k, 60)
    assert len(set(items(found))) == len(found)
    scores = [recommendation.score for recommendation in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("k", [-1, 1.5, "10", True, None])
def test_a_k_that_is_no_number_of_items_is_refused(rec: Recommender, k: int) -> None:
    with pytest.raises(ConfigError, match="k is"):
        rec.recommend(k)


def test_unknown_items_are_kept_counted_and_never_shown(rec: Recommender) -> None:
    for item in ("gone-1", "gone-2", "gone-1", "", "\ud800", "item-3"):
        rec.observe(item)
    assert rec.unknown_items() == {"gone-1": 2, "gone-2": 1, "": 1, "\ud800": 1}
    assert set(items(rec.recommend(60))) == set(ITEMS)
    assert len(rec.profile.events()) == 6


def test_only_unknown_items_are_no_history(rec: Recommender) -> None:
    rec.observe("gone")
    assert rec.recommend()[0].reason.code is ReasonCode.POPULAR


def test_an_unknown_item_counts_once_a_bundle_has_it(root: Path, tmp_path: Path) -> None:
    larger = write_tiny_bundle(tmp_path / "larger.hush", items=70)
    with Recommender.open(root, profile=tmp_path / "p") as rec:
        rec.observe("item-65")
        assert rec.unknown_items() == {"item-65": 1}
    with Recommender.open(larger, profile=tmp_path / "p") as rec:
        assert rec.unknown_items() == {}
        assert rec.recommend(70, exclude_seen=False)[0].reason.code is not ReasonCode.POPULAR


def test_an_unknown_behaviour_is_kept_and_read_as_a_view(root: Path) -> None:
    lists = []
    for behavior in ("view", "gift-wrap", "view_item"):
        with Recommender.open(root) as rec:
            rec.observe("item-7", behavior)
            lists.append(rec.recommend())
            assert rec.profile.events()[0].behavior == {"view_item": "view"}.get(behavior, behavior)
    assert lists[0] == lists[1] == lists[2]


def test_behaviours_matter_and_ga4_names_are_understood(root: Path) -> None:
    lists = {}
    for behavior in ("view", "cart", "add_to_cart"):
        with Recommender.open(root) as rec:
            rec.observe("item-7", behavior)
            lists[behavior] = rec.recommend()
    assert lists["cart"] == lists["add_to_cart"] != lists["view"]


@pytest.mark.parametrize(("item", "behavior"), [(7, "view"), (None, "view"), ("item-7", 1), (b"item-7", "view")])
def test_ids_that_are_no_strings_are_refused(rec: Recommender, item: str, behavior: str) -> None:
    with pytest.raises(ConfigError, match="must be strings"):
        rec.observe(item, behavior)


def test_a_reopened_profile_gives_the_same_list_and_hashes_nothing_again(root: Path, tmp_path: Path) -> None:
    with Recommender.open(root, profile=tmp_path / "p", clock=Clock()) as rec:
        assert rec.bundle.hashed
        for number in range(1, 30):
            rec.observe(f"item-{number * 2}", at=NOON - timedelta(minutes=number % 7))
        before = rec.recommend(60)
    with Recommender.open(root, profile=tmp_path / "p", clock=Clock()) as rec:
        assert rec.bundle.hashed == ()
        assert rec.recommend(60) == before
    with Recommender.open(root, profile=tmp_path / "p", verify=True) as rec:
        assert rec.bundle.hashed


def test_a_closed_recommender_says_so(root: Path, tmp_path: Path) -> None:
    rec = Recommender.open(root, profile=tmp_path / "p")
    rec.close()
    rec.close()
    for call in (rec.recommend, lambda: rec.observe("item-1")):
        with pytest.raises(ConfigError, match="closed"):
            call()


def test_a_profile_inside_the_bundle_is_refused_and_nothing_written(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    before = sorted(path.name for path in root.iterdir())
    with pytest.raises(ProfileError, match="nothing is written into a bundle"):
        Recommender.open(root, profile=root / "p")
    assert sorted(path.name for path in root.iterdir()) == before


def test_nothing_is_written_into_the_bundle(tmp_path: Path) -> None:
    root = tiny_bundle(tmp_path)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.iterdir()}
    with Recommender.open(root, profile=tmp_path / "p") as rec:
        rec.observe("item-1")
        rec.recommend(within={"category": "Mugs"})
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.iterdir()} == before


def test_a_refused_bundle_leaves_the_profile_usable(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        Recommender.open(tmp_path / "nothing", profile=tmp_path / "p")
    with Recommender.open(root, profile=tmp_path / "p") as rec:
        rec.observe("item-1")


def test_a_catalogue_of_another_size_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path))
    files: dict[str, bytes | Path] = {name: bundle.path(name) for name in bundle.manifest.files}
    other = tmp_path / "other.sqlite"
    write_catalog(other, ["a", "b"], [None, None], np.array([1.0, 2.0]), {})
    files["catalog.sqlite"] = other
    origins = {name: info.origin for name, info in bundle.manifest.files.items()}
    root = write_bundle(tmp_path / "other.hush", bundle.manifest, files, origins).root
    with pytest.raises(BundleError, match="has 2 items, the model 60"):
        Recommender.open(root)


def test_threads_share_one_recommender(root: Path, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def shop(rec: Recommender, name: int) -> None:
        try:
            for number in range(60):
                rec.observe(f"item-{(name * 13 + number) % 60 + 1}")
                found = rec.recommend(5, exclude_seen=number % 2 == 0, within={"category": ["Mugs", "Lamps"]})
                assert len(set(items(found))) == len(found) <= 5
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            failures.append(error)

    with Recommender.open(root, profile=tmp_path / "p") as rec:
        threads = [threading.Thread(target=shop, args=(rec, name)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(rec.profile.events()) == 240


def test_two_shoppers_on_one_bundle_do_not_meet(root: Path) -> None:
    with Recommender.open(root) as one, Recommender.open(root) as other:
        expected = other.recommend()
        one.observe("item-7")
        one.recommend()
        assert other.recommend() == expected


def test_the_bundle_may_be_moved_between_runs(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "a.hush")
    with Recommender.open(tmp_path / "a.hush", profile=tmp_path / "p", clock=Clock()) as rec:
        rec.observe("item-7")
        before = rec.recommend()
    (tmp_path / "a.hush").rename(tmp_path / "b.hush")
    with Recommender.open(tmp_path / "b.hush", profile=tmp_path / "p", clock=Clock()) as rec:
        assert rec.recommend() == before
