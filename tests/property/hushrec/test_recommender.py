"""Whatever a shopper does, a list holds at most k different known items, in falling score, the same after reopening."""

import functools
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hushrec import Recommendation, Recommender
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny_bundle import BEHAVIORS, CATEGORIES, ITEMS, tiny_bundle

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass
class Observe:
    """One call of `observe`."""

    item: str
    behavior: str
    at: datetime | None


@dataclass
class Recommend:
    """One call of `recommend`."""

    k: int
    exclude_seen: bool | None
    within: dict[str, list[str]] | None
    at: datetime | None


moments = (
    st.none()
    | st.integers(-5, 5).map(lambda hours: NOON + timedelta(hours=hours))
    | st.datetimes(timezones=st.timezones())
)
any_item = st.sampled_from(ITEMS) | st.text(max_size=8)
any_within = st.none() | st.dictionaries(
    st.sampled_from(["category", "brand", "title", "price", "item"]),
    st.lists(st.sampled_from([*CATEGORIES, "Brand 1", "Brand 3", "Thing number 4", "1.5", *ITEMS[:9]]), max_size=4),
    max_size=2,
)
steps = st.lists(
    st.builds(Observe, any_item, st.sampled_from([*BEHAVIORS, "add_to_cart", "unheard-of"]), moments)
    | st.builds(Recommend, st.integers(0, 80), st.sampled_from([None, False, True]), any_within, moments),
    max_size=40,
)


@functools.cache
def bundle() -> Path:
    _kept.append(tempfile.TemporaryDirectory(prefix="hushrec-tests-"))
    return tiny_bundle(Path(_kept[-1].name))


_kept: list[tempfile.TemporaryDirectory[str]] = []


def check(rec: Recommender, call: Recommend) -> list[Recommendation]:
    found = rec.recommend(call.k, exclude_seen=call.exclude_seen, within=call.within, at=call.at)
    shown = [recommendation.item for recommendation in found]
    assert len(shown) <= call.k
    assert len(set(shown)) == len(shown)
    assert set(shown) <= set(ITEMS)
    scores = [recommendation.score for recommendation in found]
    assert scores == sorted(scores, reverse=True)
    until = ((call.at or NOON) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    seen = {event.item for event in rec.profile.events() if event.at_us <= until}
    if call.exclude_seen:
        assert not seen & set(shown)
    assert {item for recommendation in found for item in recommendation.reason.items} <= seen
    allowed = set(ITEMS)
    for column, values in (call.within or {}).items():
        choice = {"item": values}.get(column) or [i for v in values for i in with_value(rec, column, v)]
        allowed &= set(choice)
    assert set(shown) <= allowed
    possible = allowed - seen if call.exclude_seen else allowed
    assert len(shown) == min(call.k, len(possible))
    return found


def with_value(rec: Recommender, column: str, value: str) -> list[str]:
    """The plain way to find items with one value: look at every item."""
    matching = []
    for name in ITEMS:
        item = rec.catalog.get(name)
        assert item is not None
        values = {"title": (item.title,), "price": (str(item.price),)}.get(column, item.attributes.get(column, ()))
        if value in values:
            matching.append(name)
    return matching


@settings(deadline=None)
@given(steps=steps, last=st.builds(Recommend, st.integers(0, 80), st.sampled_from([None, True]), any_within, moments))
def test_any_sequence_of_calls_keeps_the_promises(steps: list[Observe | Recommend], last: Recommend) -> None:
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "p"
        with Recommender.open(bundle(), profile=profile, clock=lambda: NOON) as rec:
            for step in steps:
                if isinstance(step, Observe):
                    rec.observe(step.item, step.behavior, step.at)
                else:
                    check(rec, step)
            before = check(rec, last)
        with Recommender.open(bundle(), profile=profile, clock=lambda: NOON) as rec:
            assert check(rec, last) == before
