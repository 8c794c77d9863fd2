"""Two clocks that no setting of the device's own clock can hold up: waits that go on, and seconds that only rise.

A device without a battery for its clock starts years behind and is put right a minute later; one whose clock was ahead
is put back. What is to happen "an hour from now" must happen about then all the same. Plans, keys and events are
dated by the wall clock itself, wherever it stands.
"""

import sys
import time
from collections.abc import Callable

__all__ = ["Waits", "elapsed_s"]


class Waits:
    """A wall clock for waits: where that goes back this goes on. Not for several threads at once.

    A wait for a moment by the wall clock ends when the clock says so, also if it was put forward meanwhile; one that
    was begun while the clock was ahead takes no longer because it was put back.

    >>> times = iter([100.0, 160.0, 20.0, 30.0])
    >>> waits = Waits(lambda: next(times))
    >>> waits(), waits(), waits()
    (160.0, 160.0, 170.0)
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take the wall clock, in seconds since 1970-01-01 UTC."""
        self._clock, self._last, self._lost = clock, clock(), 0.0

    def __call__(self) -> float:
        """Seconds; never fewer than before."""
        now = self._clock()
        self._lost += max(0.0, self._last - now)
        self._last = now
        return now + self._lost


def elapsed_s() -> float:
    """Seconds since some moment, rising whatever is done to the clock; a device's sleep counts, where that is told."""
    if sys.platform == "win32":
        return time.monotonic()
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
