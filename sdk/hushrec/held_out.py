"""The event that bundles are asked for: held out of all training on this device.

The newest event that is one of its own. Events that repeat the item before them are not; where a bundle leaves out seen
items, only first events on an item are, as in evaluation on the shop's log. Training stops before it, and how far
training ever came is kept in the profile, so that no later evaluation asks for what was trained on.
"""

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.own_events import Events, changes, own_events, until
from hushrec.profile import Place, Profile

__all__ = ["HeldEvent", "held_out", "is_trained_on", "last_of_its_own", "training_events"]

_TRAINED_UNTIL = "federated.trained-until"
"""Setting of the profile: the place of the last event that training saw, in JSON."""


class HeldEvent(NamedTuple):
    """An event that was held out, as any bundle can be asked for it.

    Attributes:
        place: Where it stands in the profile; what is before it is known when it is asked for.
        item: The shop's id of what was taken.
    """

    place: Place
    item: str


def last_of_its_own(events: Events, *, filter_seen: bool) -> int | None:
    """Which of some events is held out: the newest that is one of its own and has another before it.

    Args:
        events: Of the shopper.
        filter_seen: Whether the bundle is used so that seen items are not shown.

    >>> none = np.zeros(4, np.int64)
    >>> events = Events(np.array([4, 9, 9, 4]), none, none, none)
    >>> last_of_its_own(events, filter_seen=False), last_of_its_own(events, filter_seen=True)
    (3, 1)
    """
    own = _firsts(events.items) if filter_seen else np.flatnonzero(changes(events.items))
    return int(own[-1]) if len(own) and own[-1] > 0 else None


def held_out(profile: Profile, bundle: Bundle, *, now_us: int, stop: Callable[[], bool]) -> HeldEvent | None:
    """The event that a bundle is asked for now; None: there is none.

    Where seen items are shown this reads as far as the newest event of its own; else the whole profile, and holds
    the place of the first event of each item.

    Raises:
        BundleError: The catalogue cannot be read.
        ProfileError: The profile cannot be read.
        StoppedError: `stop`, asked before each block, said so.
    """
    blocks = own_events(profile, bundle, until(now_us), stop)
    if bundle.manifest.model.filter_seen:
        read = _firsts_of(blocks, bundle.manifest.model.items)
        return _at(profile, read.place(-1)) if len(read.items) > 1 else None
    newer = Events.none()
    for block in blocks:
        read = block.then(newer)
        found = last_of_its_own(read, filter_seen=False)
        if found is not None:
            return _at(profile, read.place(found))
        newer = read.at(slice(1))  # one item so far: the oldest of it
    return None


def training_events(profile: Profile, bundle: Bundle, *, now_us: int, newest: int, stop: Callable[[], bool]) -> Events:
    """What this device may train on: its newest events before the one that an evaluation would ask for now.

    Guarantee:
        `is_trained_on` is true of every event that this function ever gave for a profile, whatever happened since:
        another catalogue, another rule on seen items, a clock that went back, older events that came later. How far it
        came is kept in the profile, before it returns.

    Args:
        profile: What the shopper did.
        bundle: That is trained on.
        now_us: Microseconds since 1970-01-01 UTC; later events are left out.
        newest: How many at most.
        stop: Asked before each block of events.

    Raises:
        BundleError: The catalogue cannot be read.
        ProfileError: The profile cannot be read or written.
        StoppedError: `stop` said so.
    """
    held, events = held_out(profile, bundle, now_us=now_us, stop=stop), Events.none()
    for block in own_events(profile, bundle, until(now_us) if held is None else held.place, stop):
        events = block.then(events)
        if len(events.items) >= newest:
            break
    events = events.at(slice(max(0, len(events.items) - newest), None))
    if len(events.items):
        kept = max(events.place(-1), _trained_until(profile))
        profile.put(_TRAINED_UNTIL, json.dumps(kept).encode())
    return events


def is_trained_on(profile: Profile, held: HeldEvent) -> bool:
    """Whether any training on this device may have seen an event.

    Raises:
        ProfileError: The profile cannot be read.
    """
    return held.place <= _trained_until(profile)


def _trained_until(profile: Profile) -> Place:
    found = profile.get(_TRAINED_UNTIL)
    return Place(-(2**63), 0) if found is None else Place(*json.loads(found))


def _firsts(items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each item comes first, rising."""
    return np.sort(np.unique(items, return_index=True)[1])


def _firsts_of(blocks: Iterable[Events], items: int) -> Events:
    """The first event of each item, oldest first, of blocks that come newest first; behaviours are not told."""
    at_us, arrivals = np.zeros(items + 1, np.int64), np.zeros(items + 1, np.int64)
    for block in blocks:
        newest_first = block.at(slice(None, None, -1))
        at_us[newest_first.items] = newest_first.at_us  # of an item's several events the last to be written stays
        arrivals[newest_first.items] = newest_first.arrivals
    seen = np.flatnonzero(arrivals)
    order = seen[np.lexsort((arrivals[seen], at_us[seen]))]
    return Events(order, np.zeros_like(order), at_us[order], arrivals[order])


def _at(profile: Profile, place: Place) -> HeldEvent:
    block = next(profile.blocks(Place(place.at_us, place.arrival + 1), size=1))
    return HeldEvent(place, block.events[0].item)
