"""What this device counts for a round: items looked at, how well a bundle guesses, and counters of the app.

From the shopper's own events to the segments that a signed plan asks for. What a device does not have it leaves out,
which counts as zeros. Clips nothing and sends nothing: `encode_update(plan, join_segments(plan, segments), source)`
bounds it, and secure aggregation hides it among others.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.schema import EVALUATION, TRENDING
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.history import known_events
from hushrec.profile import Profile
from hushrec.ranking import Ranked, Request

__all__ = ["AT", "Events", "Ranker", "evaluation", "own_events", "own_segments", "trending"]

AT = 10
"""Metrics are of the first ten items."""

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


def evaluation(events: Events, ranker: Ranker, *, filter_seen: bool, targets: int = 1) -> Floats:
    """How well a bundle would have guessed what this shopper took last, from what came before.

    The newest events are held out one by one; events that repeat the item before them are none of their own. Where the
    bundle leaves out seen items, only first events on an item count, as in evaluation on the shop's log. Held out is
    what this device does not train on: a plan that trains on the same device sees these events in later rounds.

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
    checks.at_least(1, targets=targets)
    kept = np.ones(len(events.items), np.bool_)
    kept[1:] = events.items[1:] != events.items[:-1]
    items, behaviors = events.items[kept], events.behaviors[kept]
    places = np.arange(1, len(items))  # one event must come before
    if filter_seen:
        first = np.unique(items, return_index=True)[1]
        places = np.intersect1d(places, first)
    found = np.zeros(3, np.float32)
    for place in places[-targets:].tolist():
        before = items[:place]
        request = Request(before, behaviors[:place], AT, hidden=before if filter_seen else None)
        rank = np.flatnonzero(ranker.rank(request).items == items[place])
        if len(rank):
            found[:2] += 1.0, 1 / np.log2(2.0 + rank[0])
        found[2] += 1
    return found


def own_events(profile: Profile, bundle: Bundle) -> Events:
    """The shopper's events on items of a bundle.

    Raises:
        ProfileError: The profile cannot be read.
    """
    behaviors = {name: index for index, name in enumerate(bundle.manifest.model.behaviors)}
    with Catalog(bundle.path("catalog.sqlite")) as catalog:
        at_us, items, kinds = known_events(profile.events(), catalog, behaviors)
    return Events(items, kinds, at_us)


def own_segments(
    plan: Plan,
    bundle: Bundle,
    profile: Profile,
    *,
    now_us: int,
    app: Mapping[str, NDArray[np.floating]] | None = None,
) -> dict[str, NDArray[np.floating]]:
    """All segments of a plan that this device can fill.

    Args:
        plan: One that this device joined, for counts or features.
        bundle: What is evaluated, and whose catalogue gives the indexes.
        profile: What the shopper did.
        now_us: Microseconds since 1970-01-01 UTC.
        app: Counters of the app by name; those that the plan does not name stay here.

    Returns:
        By name: what `hushrec_privacy.encoding.join_segments` takes.

    Raises:
        ConfigError: The app fills a segment that hushrec counts itself.
        BundleError: The bundle cannot be opened by the engine.
        ProfileError: The profile cannot be read.
    """
    given = dict(app or {})
    reserved = sorted(name for name in given if name == EVALUATION or _is_trending(name))
    if reserved:
        raise ConfigError(f"the counter {reserved[0]!r} is counted by hushrec itself; name the app's otherwise")
    events = own_events(profile, bundle)
    found: dict[str, NDArray[np.floating]] = {}
    for segment in plan.schema:
        if _is_trending(segment.name):
            found[segment.name] = trending(events, length=segment.length, days=segment.days, now_us=now_us)
        elif segment.name == EVALUATION:
            found[segment.name] = _evaluated(events, bundle, now_us)
        elif segment.name in given:
            found[segment.name] = given[segment.name]
    return found


def _is_trending(name: str) -> bool:
    """Whether a segment of this name counts items."""
    return name == TRENDING or name.startswith(f"{TRENDING}-")


def _evaluated(events: Events, bundle: Bundle, now_us: int) -> Floats:
    from hushrec.engine import Engine  # loads ONNX Runtime
    from hushrec.ranking import bundle_ranking

    until = int(np.searchsorted(events.at_us, now_us, side="right"))
    seen = Events(*(column[:until] for column in events))
    return evaluation(seen, bundle_ranking(bundle, Engine(bundle)), filter_seen=bundle.manifest.model.filter_seen)
