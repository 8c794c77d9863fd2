"""What this device counts for a round: items looked at, how well bundles guess, and counters of the app.

What a bundle is asked to guess is held out: no training on this device sees it.

From the shopper's own events to the segments that a signed plan asks for. What a device does not have it leaves out,
which counts as zeros. Clips nothing and sends nothing: `encode_update(plan, join_segments(plan, segments), source)`
bounds it, and secure aggregation hides it among others.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.schema import EVALUATION, GAIN, TRENDING
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.history import known_events
from hushrec.profile import Event, Profile
from hushrec.ranking import Ranked, Request

__all__ = [
    "AT",
    "Events",
    "Ranker",
    "evaluation",
    "held_out",
    "is_counted",
    "own_events",
    "own_segments",
    "training_events",
    "trending",
]

AT = 10
"""Metrics are of the first ten items."""

_TRAINED_UNTIL = "federated.trained-until"
"""Setting of the profile: the last event that training saw, as `_moment` gives it, in JSON."""

_DAY_US = 86_400 * 10**6

Floats = NDArray[np.float32]


class Events(NamedTuple):
    """The shopper's events on items of the catalogue, oldest first, all of shape (n,), int64.

    Attributes:
        items: Item indexes, 1..V.
        behaviors: Behaviour indexes.
        at_us: Microseconds since 1970-01-01 UTC, never falling.
    """

    items: NDArray[np.int64]
    behaviors: NDArray[np.int64]
    at_us: NDArray[np.int64]


class Ranker(Protocol):
    """Ranks the catalogue after a history; `hushrec.ranking.Ranking` is one."""

    def rank(self, request: Request) -> Ranked:
        """The best items."""


def trending(events: Events, *, length: int, days: int, now_us: int) -> Floats:
    """Which items this device had an event on in the last days.

    Args:
        events: Of the shopper.
        length: V: items of the catalogue; those that came later are left out.
        days: The window, which ends at `now_us`; 0: all events before it.
        now_us: Microseconds since 1970-01-01 UTC; later events are not seen.

    Returns:
        Shape (length,): 1 at index - 1 of every item with an event, however many, else 0. The norm of n items is
        sqrt(n), so that a clip of 3 leaves 9 of them whole.

    Raises:
        ConfigError: `length` is below 1, or `days` below 0.

    >>> none = np.zeros(3, np.int64)
    >>> trending(Events(np.array([2, 2, 4]), none, none), length=4, days=7, now_us=5).tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    checks.at_least(1, length=length)
    checks.at_least(0, days=days)
    seen = events.at_us <= now_us
    if days:
        seen &= events.at_us > now_us - days * _DAY_US
    items = events.items[seen]
    counted = np.zeros(length, np.float32)
    counted[items[(items >= 1) & (items <= length)] - 1] = 1
    return counted


def held_out(events: Events, *, filter_seen: bool, targets: int = 1) -> NDArray[np.int64]:
    """Places of the newest events that an evaluation asks for; local training leaves out all from the first of them on.

    Events that repeat the item before them are none of their own. Where the bundle leaves out seen items, only first
    events on an item count, as in evaluation on the shop's log.

    Args:
        events: Of the shopper.
        filter_seen: Whether the bundle is used so that seen items are not shown.
        targets: How many events are held out at most.

    Returns:
        Rising, shape (n,), n at most `targets`; none where no event comes before.

    Raises:
        ConfigError: `targets` is below 1.

    >>> none = np.zeros(4, np.int64)
    >>> events = Events(np.array([4, 9, 9, 4]), none, none)
    >>> held_out(events, filter_seen=False).tolist(), held_out(events, filter_seen=True).tolist()
    ([3], [1])
    """
    checks.at_least(1, targets=targets)
    places = np.flatnonzero(_changes(events.items))
    if filter_seen:
        places = np.intersect1d(places, np.unique(events.items, return_index=True)[1])
    return places[places > 0][-targets:]  # one event must come before


def evaluation(events: Events, ranker: Ranker, *, filter_seen: bool, targets: int = 1) -> Floats:
    """How well a bundle would have guessed what this shopper took last, from what came before.

    The newest events are held out one by one: see `held_out`.

    Args:
        events: Of the shopper.
        ranker: Of the bundle that is evaluated.
        filter_seen: Whether the bundle is used so that seen items are not shown.
        targets: How many events are held out at most.

    Returns:
        Sum of hits@10, sum of NDCG@10, number of events: shape (3,), at most `targets` each.

    Raises:
        ConfigError: `targets` is below 1.
    """
    found = np.zeros(3, np.float32)
    for place in held_out(events, filter_seen=filter_seen, targets=targets).tolist():
        before = Events(*(column[:place] for column in events))
        found[:2] += _guessed(ranker, before, int(events.items[place]), filter_seen=filter_seen)
        found[2] += 1
    return found


def own_events(profile: Profile, bundle: Bundle) -> Events:
    """The shopper's events on items of a bundle.

    Raises:
        ProfileError: The profile cannot be read.
    """
    return _on_items(profile.events(), bundle)[0]


def training_events(profile: Profile, bundle: Bundle, *, now_us: int) -> Events:
    """What this device may train on: its events until the one that an evaluation would ask for now.

    Guarantee:
        `own_segments` asks for no event that this function ever gave for the same profile, whatever happened since:
        another catalogue, another rule on seen items, a clock that went back, older events that came later. How far
        it came is kept in the profile, before it returns.

    Args:
        profile: What the shopper did.
        bundle: That is trained on.
        now_us: Microseconds since 1970-01-01 UTC; later events are left out.

    Raises:
        ProfileError: The profile cannot be read or written.
    """
    kept = profile.events(now_us)
    events, places = _on_items(kept, bundle)
    held = held_out(events, filter_seen=bundle.manifest.model.filter_seen)
    end = int(held[0]) if len(held) else len(events.items)
    if end:
        _trained(profile, _moment(kept, int(places[end - 1])))
    return Events(*(column[:end] for column in events))


def own_segments(
    plan: Plan,
    bundle: Bundle,
    profile: Profile,
    *,
    now_us: int,
    app: Mapping[str, NDArray[np.floating]] | None = None,
    candidate: Bundle | None = None,
) -> dict[str, NDArray[np.floating]]:
    """All segments of a plan that this device can fill.

    Args:
        plan: One that this device joined, for counts or features.
        bundle: The release in use: what is evaluated, and whose catalogue gives the indexes.
        profile: What the shopper did.
        now_us: Microseconds since 1970-01-01 UTC.
        app: Counters of the app by name; those that the plan does not name stay here.
        candidate: What a plan that compares compares with `bundle`; None, or one that does not work on this device:
            it finds nothing.

    Returns:
        By name: what `hushrec_privacy.encoding.join_segments` takes.

    Raises:
        ConfigError: The app fills a segment that hushrec counts itself.
        BundleError: The bundle cannot be opened by the engine.
        ProfileError: The profile cannot be read.
    """
    given = dict(app or {})
    reserved = sorted(name for name in given if is_counted(name))
    if reserved:
        raise ConfigError(f"the counter {reserved[0]!r} is counted by hushrec itself; name the app's otherwise")
    events, names = own_events(profile, bundle), {segment.name for segment in plan.schema}
    found: dict[str, NDArray[np.floating]] = {name: given[name] for name in names & set(given)}
    for segment in plan.schema:
        if _is_trending(segment.name):
            found[segment.name] = trending(events, length=segment.length, days=segment.days, now_us=now_us)
    if EVALUATION in names:
        question = _question(profile, bundle, now_us)
        found[EVALUATION] = (
            np.zeros(3, np.float32) if question is None else np.append(_answer(question, bundle, profile), 1.0)
        )
        if GAIN in names:
            found[GAIN] = _candidate_answer(question, candidate, profile) - found[EVALUATION][:2]
    return {segment.name: found[segment.name] for segment in plan.schema if segment.name in found}


def is_counted(name: str) -> bool:
    """Whether hushrec counts a segment of this name by itself.

    >>> is_counted("trending-week"), is_counted("visits")
    (True, False)
    """
    return name in (EVALUATION, GAIN) or _is_trending(name)


def _is_trending(name: str) -> bool:
    """Whether a segment of this name counts items."""
    return name == TRENDING or name.startswith(f"{TRENDING}-")


class _Question(NamedTuple):
    """A held-out event, as any bundle can be asked for it.

    Attributes:
        before: What the shopper did before it.
        item: The shop's id of what was taken.
    """

    before: list[Event]
    item: str


def _question(profile: Profile, bundle: Bundle, now_us: int) -> _Question | None:
    """The event that the release in use is asked for; None: there is none that was never trained on."""
    kept = profile.events(now_us)
    events, places = _on_items(kept, bundle)
    held = held_out(events, filter_seen=bundle.manifest.model.filter_seen)
    if not len(held):
        return None
    place = int(places[held[0]])
    return _Question(kept[:place], kept[place].item) if _moment(kept, place) > _trained_until(profile) else None


def _answer(question: _Question, bundle: Bundle, memory: Profile) -> Floats:
    """Hits@10 and NDCG@10 of a bundle; an item that it does not have it does not find.

    What the profile remembers is which scorer is used: the app's own, and the same for both bundles.
    """
    from hushrec.engine import Engine  # loads ONNX Runtime
    from hushrec.ranking import bundle_ranking

    with Catalog(bundle.path("catalog.sqlite")) as catalog:
        item = catalog.indexes([question.item]).get(question.item)
    if item is None:
        return np.zeros(2, np.float32)
    before, filter_seen = _on_items(question.before, bundle)[0], bundle.manifest.model.filter_seen
    return _guessed(bundle_ranking(bundle, Engine(bundle, memory)), before, item, filter_seen=filter_seen)


def _candidate_answer(question: _Question | None, candidate: Bundle | None, memory: Profile) -> Floats:
    if question is None or candidate is None:
        return np.zeros(2, np.float32)
    try:
        return _answer(question, candidate, memory)
    except Exception:  # noqa: BLE001  whatever ONNX Runtime or NumPy raised: what does not work here finds nothing
        return np.zeros(2, np.float32)


def _guessed(ranker: Ranker, before: Events, item: int, *, filter_seen: bool) -> Floats:
    """Hits@10 and NDCG@10 of one guess, shape (2,)."""
    changes = _changes(before.items)
    items, behaviors = before.items[changes], before.behaviors[changes]
    request = Request(items, behaviors, AT, hidden=items if filter_seen else None)
    rank = np.flatnonzero(ranker.rank(request).items == item)
    return np.array([1.0, 1 / np.log2(2.0 + rank[0])] if len(rank) else [0.0, 0.0], np.float32)


def _changes(items: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which events do not repeat the item before them."""
    changes = np.ones(len(items), np.bool_)
    changes[1:] = items[1:] != items[:-1]
    return changes


def _on_items(kept: Sequence[Event], bundle: Bundle) -> tuple[Events, NDArray[np.int64]]:
    """Those on items of a bundle, and where each is among all."""
    behaviors = {name: index for index, name in enumerate(bundle.manifest.model.behaviors)}
    with Catalog(bundle.path("catalog.sqlite")) as catalog:
        known = catalog.indexes(event.item for event in kept)
        at_us, items, kinds = known_events(kept, catalog, behaviors)
    return Events(items, kinds, at_us), np.flatnonzero([event.item in known for event in kept])


def _moment(kept: Sequence[Event], place: int) -> tuple[int, int]:
    """Where an event stands in the order of a profile, whatever is added to it: its time, its number at that time."""
    at_us = kept[place].at_us
    return at_us, place - bisect_left(kept, at_us, key=lambda event: event.at_us)


def _trained(profile: Profile, moment: tuple[int, int]) -> None:
    profile.put(_TRAINED_UNTIL, json.dumps(max(moment, _trained_until(profile))).encode())


def _trained_until(profile: Profile) -> tuple[int, int]:
    """The last event that training ever saw."""
    found = profile.get(_TRAINED_UNTIL)
    at_us, number = (-(2**63), 0) if found is None else json.loads(found)
    return at_us, number
