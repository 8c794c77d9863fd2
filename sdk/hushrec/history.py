"""The part of a profile that ranking reads, kept as arrays of item indexes between calls.

Holds the newest known events, as many as model and blend look at, and which items were ever seen. What is older stays
in the profile and is read again only when somebody asks for the past. Not thread-safe.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hushrec.behaviors import DEFAULT_BEHAVIOR
from hushrec.catalog import Catalog
from hushrec.manifest import Manifest
from hushrec.profile import Event, Profile

__all__ = ["History", "Recent", "kept_events", "known_events"]

KEPT_EVENTS = 1_000
"""Events of the history that a part of the blend without a window looks at."""

_NEVER = 2**63


class Recent(NamedTuple):
    """The newest known events, oldest first; valid until the next `History.add`.

    Attributes:
        items: Item indexes, 1..V, int64, shape (n,).
        behaviors: Behaviour indexes, int64, shape (n,).
    """

    items: NDArray[np.int64]
    behaviors: NDArray[np.int64]


class History:
    """Known events of a profile, in order of time, those of one moment by arrival."""

    def __init__(self, profile: Profile, catalog: Catalog, behaviors: tuple[str, ...], keep: int) -> None:
        """Read the newest events of a profile.

        Args:
            profile: Where all events are.
            catalog: Says which items are known.
            behaviors: Names that the bundle knows; any other is read as "view", or the first if there is none such.
            keep: How many events `recent` gives at most.

        Raises:
            ProfileError: The profile cannot be read.
        """
        self._profile, self._catalog, self._keep = profile, catalog, keep
        self._behaviors = {name: index for index, name in enumerate(behaviors)}
        self._default = self._behaviors.get(DEFAULT_BEHAVIOR, 0)
        self._events = np.zeros((3, 2 * keep), np.int64)  # rows: time, item, behaviour
        loaded, self._all_held = self._read(None)
        self._size = loaded.shape[1]
        self._events[:, : self._size] = loaded
        self._seen = _SeenItems(profile.first_seen(), catalog)

    def add(self, item: int, behavior: str, at_us: int) -> None:
        """Take in an event that was just appended to the profile.

        Args:
            item: Item index, 1..V.
            behavior: Its name.
            at_us: Microseconds since 1970-01-01 UTC.
        """
        self._seen.add(item, at_us)
        if self._size == self._events.shape[1]:
            self._events[:, : self._keep] = self._events[:, -self._keep :]
            self._size, self._all_held = self._keep, False
        times = self._events[0, : self._size]
        place = self._size
        if place and at_us < times[-1]:
            place = int(np.searchsorted(times, at_us, side="right"))
            if place == 0 and not self._all_held:
                return  # older than all that is held, like others that the profile has
            self._events[:, place + 1 : self._size + 1] = self._events[:, place : self._size].copy()
        self._events[:, place] = at_us, item, self._behaviors.get(behavior, self._default)
        self._size += 1

    def recent(self, at_us: int) -> Recent:
        """Give the newest events that are not later than a moment.

        Args:
            at_us: Microseconds since 1970-01-01 UTC.

        Raises:
            ProfileError: Older events were needed and the profile cannot be read.
        """
        end = self._size
        if end and self._events[0, end - 1] > at_us:
            end = int(np.searchsorted(self._events[0, :end], at_us, side="right"))
            if end < self._keep and not self._all_held:
                older, _ = self._read(at_us)
                return Recent(older[1], older[2])
        start = max(0, end - self._keep)
        return Recent(self._events[1, start:end], self._events[2, start:end])

    def seen(self, at_us: int) -> NDArray[np.int64]:
        """Give the different items with an event not later than a moment, in no order, shape (n,).

        Args:
            at_us: Microseconds since 1970-01-01 UTC.
        """
        return self._seen.until(at_us)

    def have_seen(self, items: NDArray[np.int64], at_us: int) -> list[bool]:
        """Say of every item whether it has an event not later than a moment."""
        first = self._seen.first
        return [first.get(item, _NEVER) <= at_us for item in items.tolist()]

    def _read(self, until_us: int | None) -> tuple[NDArray[np.int64], bool]:
        """Read the newest known events, shape (3, n), and whether that is all there are."""
        wanted = self._keep
        while True:
            events = self._profile.events(until_us, newest=wanted)
            known = self._known(events)
            complete = len(events) < wanted
            if complete or known.shape[1] >= self._keep:
                return known[:, -self._keep :], complete and known.shape[1] <= self._keep
            wanted *= 4  # many unknown items: look further back

    def _known(self, events: list[Event]) -> NDArray[np.int64]:
        return known_events(events, self._catalog, self._behaviors)[:3]


def known_events(events: Sequence[Event], catalog: Catalog, behaviors: Mapping[str, int]) -> NDArray[np.int64]:
    """The events on items that a catalogue has, in their order.

    Args:
        events: Of a profile.
        catalog: Says which items are known.
        behaviors: Index by name; any other is read as "view", or the first if there is none such.

    Returns:
        Rows: time in microseconds since 1970-01-01 UTC, item index 1..V, behaviour index, and which of the given events
        it is, from 0; shape (4, n).
    """
    indexes, default = catalog.indexes(event.item for event in events), behaviors.get(DEFAULT_BEHAVIOR, 0)
    rows = [
        (event.at_us, indexes[event.item], behaviors.get(event.behavior, default), place)
        for place, event in enumerate(events)
        if event.item in indexes
    ]
    return np.array(rows, np.int64).reshape(-1, 4).T


def kept_events(manifest: Manifest) -> int:
    """How many of the newest known events the ranking of a bundle looks at."""
    return max([manifest.model.max_history, *(part.window or KEPT_EVENTS for part in manifest.blend)])


class _SeenItems:
    """The different known items of a profile and the time of the first event of each."""

    def __init__(self, first_seen: dict[str, int], catalog: Catalog) -> None:
        indexes = catalog.indexes(first_seen)
        self.first = {index: first_seen[item] for item, index in indexes.items()}
        self._places = {index: place for place, index in enumerate(self.first)}
        self._items = np.array([*self.first, *[0] * 64], np.int64)
        self._times = np.array([*self.first.values(), *[0] * 64], np.int64)
        self._newest = max(self.first.values(), default=0)

    def add(self, item: int, at_us: int) -> None:
        place = self._places.setdefault(item, len(self._places))
        if place == len(self._items):
            self._items = np.concatenate([self._items, np.zeros_like(self._items)])
            self._times = np.concatenate([self._times, np.zeros_like(self._times)])
        first = min(at_us, self.first.get(item, at_us))
        self.first[item] = self._times[place] = first
        self._items[place] = item
        self._newest = max(self._newest, first)

    def until(self, at_us: int) -> NDArray[np.int64]:
        items = self._items[: len(self._places)]
        return items if self._newest <= at_us else items[self._times[: len(items)] <= at_us]
