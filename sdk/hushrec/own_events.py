"""The shopper's own events on items of a bundle, read backwards from the profile in blocks.

However long a history is, a block at a time is in memory, and whoever reads can be stopped between two of them.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.history import known_events
from hushrec.profile import Place, Profile

__all__ = ["Events", "StoppedError", "changes", "own_events", "until"]

Indexes = NDArray[np.int64]


class StoppedError(Exception):
    """`stop` said so: for whoever gave it to catch. No error to show anybody."""


class Events(NamedTuple):
    """Some of the shopper's events on items of a catalogue, oldest first, all of shape (n,), int64.

    Attributes:
        items: Item indexes, 1..V.
        behaviors: Behaviour indexes.
        at_us: Microseconds since 1970-01-01 UTC, never falling.
        arrivals: Their numbers in the profile; with their times, their places in it.
    """

    items: Indexes
    behaviors: Indexes
    at_us: Indexes
    arrivals: Indexes

    def __repr__(self) -> str:
        """Nothing of what the shopper did."""
        return "Events()"

    @classmethod
    def none(cls) -> Self:
        """No event."""
        return cls(*(np.zeros(0, np.int64) for _ in cls._fields))

    def at(self, which: slice | Indexes | NDArray[np.bool_]) -> Self:
        """Some of them."""
        return type(self)(*(column[which] for column in self))

    def then(self, newer: "Events") -> Self:
        """These, and newer ones after them."""
        return type(self)(*(np.concatenate(columns) for columns in zip(self, newer, strict=True)))

    def place(self, index: int) -> Place:
        """Where one of them stands in the profile."""
        return Place(int(self.at_us[index]), int(self.arrivals[index]))


def until(at_us: int) -> Place:
    """The place after all events that are no later than a moment."""
    return Place(at_us + 1, 0)


def own_events(
    profile: Profile, bundle: Bundle, before: Place, stop: Callable[[], bool], *, since_us: int | None = None
) -> Iterator[Events]:
    """Go through the events before a place, the newest block first.

    Args:
        profile: What the shopper did.
        bundle: Whose catalogue and behaviours give the indexes.
        before: Events from this place on are left out.
        stop: Asked before each block.
        since_us: Events that are no later are left out; None: none is.

    Raises:
        BundleError: The catalogue cannot be read.
        ProfileError: The profile cannot be read.
        StoppedError: `stop` said so.
    """
    behaviors = {name: index for index, name in enumerate(bundle.manifest.model.behaviors)}
    blocks = profile.blocks(before, since_us=since_us)
    with Catalog(bundle.path("catalog.sqlite")) as catalog:
        while True:
            if stop():
                raise StoppedError
            block = next(blocks, None)
            if block is None:
                return
            at_us, items, kinds, which = known_events(block.events, catalog, behaviors)
            yield Events(items, kinds, at_us, np.array(block.arrivals, np.int64)[which])


def changes(items: Indexes) -> NDArray[np.bool_]:
    """Which events do not repeat the item before them, shape (n,).

    >>> changes(np.array([4, 4, 9, 4])).tolist()
    [True, False, True, True]
    """
    found = np.ones(len(items), np.bool_)
    found[1:] = items[1:] != items[:-1]
    return found
