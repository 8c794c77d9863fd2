"""What this device counts for a round: items looked at, how well bundles guess, and counters of the app.

What a bundle is asked to guess is held out: no training on this device sees it.

From the shopper's own events to the segments that a signed plan asks for. What a device does not have it leaves out,
which counts as zeros. Clips nothing and sends nothing: `encode_update(plan, join_segments(plan, segments), source)`
bounds it, and secure aggregation hides it among others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.schema import EVALUATION, GAIN, TRENDING, Segment
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.held_out import HeldEvent, held_out, is_trained_on, last_of_its_own
from hushrec.history import kept_events
from hushrec.own_events import Events, StoppedError, changes, own_events, until
from hushrec.profile import Place, Profile
from hushrec.ranking import Ranked, Request

__all__ = ["AT", "Ranker", "evaluation", "is_counted", "own_segments", "trending"]

AT = 10
"""Metrics are of the first ten items."""

_DAY_US = 86_400 * 10**6
_FOUND_NOTHING = np.array([0, 0, 1], np.float32)

Floats = NDArray[np.float32]


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
    >>> trending(Events(np.array([2, 2, 4]), none, none, none), length=4, days=7, now_us=5).tolist()
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


def evaluation(events: Events, ranker: Ranker, *, filter_seen: bool) -> Floats:
    """How well a bundle would have guessed what a shopper took last, from what came before: see `last_of_its_own`.

    Args:
        events: Of the shopper, all of them.
        ranker: Of the bundle that is evaluated.
        filter_seen: Whether the bundle is used so that seen items are not shown.

    Returns:
        Hits@10, NDCG@10, number of events: shape (3,), at most 1 each.
    """
    place = last_of_its_own(events, filter_seen=filter_seen)
    if place is None:
        return np.zeros(3, np.float32)
    before = events.at(slice(place))
    before = before.at(changes(before.items))
    hidden = before.items if filter_seen else None
    return _guessed(ranker, Request(before.items, before.behaviors, AT, hidden=hidden), int(events.items[place]))


def own_segments(
    plan: Plan,
    bundle: Bundle,
    profile: Profile,
    *,
    now_us: int,
    app: Mapping[str, NDArray[np.floating]] | None = None,
    candidate: Bundle | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, NDArray[np.floating]]:
    """All segments of a plan that this device can fill.

    Reads no more of the profile than a segment asks for, and holds a block of it at a time.

    Args:
        plan: One that this device joined, for counts or features.
        bundle: The release in use: what is evaluated, and whose catalogue gives the indexes.
        profile: What the shopper did.
        now_us: Microseconds since 1970-01-01 UTC.
        app: Counters of the app by name; those that the plan does not name stay here.
        candidate: What a plan that compares compares with `bundle`; None, or one that does not work on this device:
            it finds nothing.
        stop: Asked before each segment and each block of events.

    Returns:
        By name: what `hushrec_privacy.encoding.join_segments` takes.

    Raises:
        ConfigError: The app fills a segment that hushrec counts itself.
        BundleError: The bundle cannot be opened by the engine.
        ProfileError: The profile cannot be read.
        StoppedError: `stop` said so.
    """
    given = dict(app or {})
    reserved = sorted(name for name in given if is_counted(name))
    if reserved:
        raise ConfigError(f"the counter {reserved[0]!r} is counted by hushrec itself; name the app's otherwise")
    names = {segment.name for segment in plan.schema}
    found: dict[str, NDArray[np.floating]] = {name: given[name] for name in names & set(given)}
    counting = _Counting(profile, bundle, now_us, stop)
    for segment in plan.schema:
        if _is_trending(segment.name):
            found[segment.name] = counting.trending(segment)
    if EVALUATION in names:
        found |= counting.compared(candidate) if GAIN in names else counting.evaluated()
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


@dataclass(frozen=True)
class _Counting:
    """What the segments of one vector are counted from.

    Attributes:
        profile: What the shopper did.
        bundle: The release in use.
        now_us: Microseconds since 1970-01-01 UTC.
        stop: Asked before each block of events.
    """

    profile: Profile
    bundle: Bundle
    now_us: int
    stop: Callable[[], bool]

    def trending(self, segment: Segment) -> Floats:
        days, found = segment.days, np.zeros(segment.length, np.float32)
        since_us = self.now_us - days * _DAY_US if days else None
        for events in own_events(self.profile, self.bundle, until(self.now_us), self.stop, since_us=since_us):
            counted = trending(events, length=segment.length, days=days, now_us=self.now_us)
            np.maximum(found, counted, out=found)
        return found

    def evaluated(self) -> dict[str, NDArray[np.floating]]:
        held = self._asked_for()
        return {EVALUATION: np.zeros(3, np.float32) if held is None else self._answer(held, self.bundle)}

    def compared(self, candidate: Bundle | None) -> dict[str, NDArray[np.floating]]:
        held = self._asked_for()
        if held is None:
            return {EVALUATION: np.zeros(3, np.float32), GAIN: np.zeros(2, np.float32)}
        ours = self._answer(held, self.bundle)
        return {EVALUATION: ours, GAIN: (self._candidate_answer(held, candidate) - ours)[:2]}

    def _asked_for(self) -> HeldEvent | None:
        """The event that the release in use is asked for; None: there is none that was never trained on."""
        held = held_out(self.profile, self.bundle, now_us=self.now_us, stop=self.stop)
        return None if held is None or is_trained_on(self.profile, held) else held

    def _candidate_answer(self, held: HeldEvent, candidate: Bundle | None) -> Floats:
        if candidate is None:
            return _FOUND_NOTHING
        try:
            return self._answer(held, candidate)
        except StoppedError:
            raise
        except Exception:  # noqa: BLE001  whatever ONNX Runtime or NumPy raised: what does not work here finds nothing
            return _FOUND_NOTHING

    def _answer(self, held: HeldEvent, bundle: Bundle) -> Floats:
        """As `evaluation` gives it; an item that a bundle does not have it does not find.

        What the profile remembers is which scorer is used: the app's own, and the same for both bundles.
        """
        from hushrec.engine import Engine  # loads ONNX Runtime
        from hushrec.ranking import bundle_ranking

        with Catalog(bundle.path("catalog.sqlite")) as catalog:
            item = catalog.indexes([held.item]).get(held.item)
        if item is None:
            return _FOUND_NOTHING
        request = self._request(bundle, held.place)
        return _guessed(bundle_ranking(bundle, Engine(bundle, self.profile)), request, item)

    def _request(self, bundle: Bundle, before: Place) -> Request:
        """What a bundle is asked: as many of the newest events as it looks at in use, each item but once in a row."""
        keep, filter_seen = kept_events(bundle.manifest), bundle.manifest.model.filter_seen
        known, seen = Events.none(), np.zeros(bundle.manifest.model.items + 1, np.bool_)
        for events in own_events(self.profile, bundle, before, self.stop):
            seen[events.items] = True
            if len(known.items) <= keep:  # one more, since the oldest that was read may go on in the next block
                known = events.then(known)
                known = known.at(changes(known.items))
            if len(known.items) > keep and not filter_seen:
                break
        known = known.at(slice(max(0, len(known.items) - keep), None))
        return Request(known.items, known.behaviors, AT, hidden=np.flatnonzero(seen) if filter_seen else None)


def _guessed(ranker: Ranker, request: Request, item: int) -> Floats:
    """Hits@10 and NDCG@10 of one guess, and 1, shape (3,)."""
    rank = np.flatnonzero(ranker.rank(request).items == item)
    return np.array([1.0, 1 / np.log2(2.0 + rank[0]), 1.0] if len(rank) else _FOUND_NOTHING, np.float32)
