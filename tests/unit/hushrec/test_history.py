"""The history in memory equals what the profile says at any moment, however events arrive."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hushrec.catalog import Catalog
from hushrec.history import History
from hushrec.profile import Profile
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_bundle import write_tiny_catalog

BEHAVIORS = ("view", "cart")
KEEP = 4
NOW = 2**62


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    path = tmp_path_factory.mktemp("catalog") / "catalog.sqlite"
    write_tiny_catalog(path, 9)
    with Catalog(path) as catalog:
        yield catalog


@pytest.fixture
def profile() -> Iterator[Profile]:
    with Profile() as profile:
        yield profile


def observe(
    profile: Profile, history: History, catalog: Catalog, item: str, at_us: int, behavior: str = "view"
) -> None:
    profile.append(item, behavior, at_us)
    if index := catalog.index(item):
        history.add(index, behavior, at_us)


def expected(profile: Profile, catalog: Catalog, at_us: int) -> list[tuple[int, int]]:
    """The plain way: read everything, leave out the unknown, take the last."""
    known = [(catalog.index(event.item), event.behavior) for event in profile.events(at_us)]
    indexes = {"view": 0, "cart": 1}
    return [(index, indexes.get(behavior, 0)) for index, behavior in known if index][-KEEP:]


events = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 6), st.sampled_from(["view", "cart", "wish"])), max_size=30
)


@given(before=events, after=events, at_us=st.integers(-1, 7))
def test_recent_and_seen_are_what_the_profile_says(
    catalog: Catalog, before: list[tuple[int, int, str]], after: list[tuple[int, int, str]], at_us: int
) -> None:
    with Profile() as profile:
        for number, moment, behavior in before:
            profile.append(f"item-{number}", behavior, moment)
        history = History(profile, catalog, BEHAVIORS, KEEP)
        for number, moment, behavior in after:
            observe(profile, history, catalog, f"item-{number}", moment, behavior)
        for moment in (at_us, NOW):
            recent = history.recent(moment)
            shown = list(zip(recent.items.tolist(), recent.behaviors.tolist(), strict=True))
            assert shown == expected(profile, catalog, moment)
            seen = {catalog.index(event.item) for event in profile.events(moment)} - {0}
            assert sorted(history.seen(moment).tolist()) == sorted(seen)
            assert history.have_seen(np.arange(1, 10), moment) == [index in seen for index in range(1, 10)]


def test_an_empty_profile_has_no_history(catalog: Catalog, profile: Profile) -> None:
    history = History(profile, catalog, BEHAVIORS, KEEP)
    assert len(history.recent(NOW).items) == len(history.seen(NOW)) == 0


def test_many_unknown_items_hide_no_known_one(catalog: Catalog, profile: Profile) -> None:
    profile.append("item-3", "view", 0)
    for number in range(100):
        profile.append("unknown", "view", number)
    assert History(profile, catalog, BEHAVIORS, KEEP).recent(NOW).items.tolist() == [3]


def test_more_different_items_than_the_first_room_are_all_seen(tmp_path: Path, profile: Profile) -> None:
    write_tiny_catalog(tmp_path / "c", 500)
    with Catalog(tmp_path / "c") as catalog:
        history = History(profile, catalog, BEHAVIORS, KEEP)
        for number in range(1, 501):
            observe(profile, history, catalog, f"item-{number}", number)
    assert sorted(history.seen(NOW).tolist()) == list(range(1, 501))
    assert sorted(history.seen(7).tolist()) == list(range(1, 8))


def test_a_behaviour_is_the_first_one_where_the_bundle_has_no_view(catalog: Catalog, profile: Profile) -> None:
    profile.append("item-1", "view", 1)
    assert History(profile, catalog, ("purchase", "cart"), KEEP).recent(NOW).behaviors.tolist() == [0]
