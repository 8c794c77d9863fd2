"""The whole of a profile at once, as a device never reads it: what reading in blocks is compared with."""

import numpy as np
from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.history import known_events
from hushrec.own_events import Events
from hushrec.profile import Profile

__all__ = ["all_events", "events_on"]


def all_events(profile: Profile, bundle: Bundle, until_us: int | None = None) -> Events:
    """All events on items of a bundle, numbered as they come."""
    behaviors = {name: index for index, name in enumerate(bundle.manifest.model.behaviors)}
    with Catalog(bundle.path("catalog.sqlite")) as catalog:
        at_us, items, kinds, which = known_events(profile.events(until_us), catalog, behaviors)
    return Events(items, kinds, at_us, which)


def events_on(*items: int, at_us: list[int] | None = None) -> Events:
    """Events on these items, a microsecond apart unless told when."""
    numbers = np.arange(len(items))
    return Events(
        np.array(items, np.int64), np.zeros_like(numbers), numbers if at_us is None else np.array(at_us), numbers
    )
