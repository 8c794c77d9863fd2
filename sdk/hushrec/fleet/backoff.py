"""How long a device waits before it asks again: exponential with full jitter, bounded on both sides.

Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), "full jitter": a uniform draw from 0 to
the ceiling spreads a crowd of devices best. The server may ask for more patience and never for less: a server that says
0 for ever is asked ever more rarely all the same. What it asks for beyond that is kept, with a little jitter on top.
"""

import math
import secrets
from collections.abc import Callable

from hushrec_privacy.checks import positive
from hushrec_privacy.errors import ConfigError

__all__ = ["Backoff", "uniform"]

LONGEST_WAIT_S = 86_400.0
"""Whatever a server asks for, a device comes back within a day (and its jitter)."""

_DOUBLINGS = 40  # beyond these every ceiling is reached; a float stays finite


def uniform() -> float:
    """A draw of the operating system's randomness from [0, 1)."""
    return secrets.randbits(53) * 2.0**-53


class Backoff:
    """The waits of one kind of request. Not for several threads at once.

    >>> backoff = Backoff(least_s=1, most_s=8, uniform=lambda: 0.5)
    >>> [backoff.wait_s() for _ in range(5)]
    [1.5, 2.0, 3.0, 5.0, 5.0]
    >>> backoff.wait_s(retry_after_s=60)
    60.5
    """

    def __init__(self, *, least_s: float, most_s: float, uniform: Callable[[], float] = uniform) -> None:
        """Begin without a failure.

        Args:
            least_s: The shortest wait, and the first ceiling of the jitter.
            most_s: The largest ceiling of the jitter.
            uniform: Draws from 0 (included) to 1 (excluded).

        Raises:
            ConfigError: A bound is no finite number above 0, or the two are in the wrong order.
        """
        positive(least_s=least_s, most_s=most_s)
        if most_s < least_s:
            raise ConfigError(f"most_s is {most_s:g}, below least_s, {least_s:g}")
        self._least_s, self._most_s = least_s, most_s
        self._uniform = uniform
        self._tries = 0

    def wait_s(self, retry_after_s: float | None = None) -> float:
        """The wait after one more try without success, in seconds.

        Args:
            retry_after_s: What the server asked for; one that is no finite number of at least 0 is passed over.
        """
        ceiling = min(self._most_s, self._least_s * 2.0 ** min(self._tries, _DOUBLINGS))
        self._tries += 1
        asked = 0.0
        if retry_after_s is not None and math.isfinite(retry_after_s):
            asked = min(retry_after_s, LONGEST_WAIT_S)
        return max(self._least_s + self._uniform() * ceiling, asked + self._uniform() * self._least_s)

    def succeeded(self) -> None:
        """Start anew with short waits."""
        self._tries = 0
