"""How often one address or one device may ask: token buckets in memory, never more than a fixed number of them.

Each process counts for itself: n processes allow n times as much. Addresses are kept only here and only until newer
ones push them out; nothing is written or logged.
"""

import ipaddress
import math
import threading
from collections import OrderedDict
from collections.abc import Callable

from hushrec_privacy import checks

__all__ = ["TokenBuckets", "address_key"]

_MOST_BUCKETS = 50_000  # about 10 MB of short strings


class TokenBuckets:
    """One bucket a key: `burst` tokens at first, refilled evenly, one taken by each request.

    Safe to use from several threads. A key that was pushed out by newer ones starts anew with a full bucket.

    Args:
        per_minute: Tokens that return in a minute.
        burst: Tokens of a full bucket.
        clock: Seconds from any start, never backwards.
        most: Buckets that are kept at most.

    >>> buckets = TokenBuckets(per_minute=60, burst=1, clock=lambda: 0.0)
    >>> buckets.take("a"), buckets.take("a"), buckets.take("b")
    (0.0, 1.0, 0.0)
    """

    def __init__(self, *, per_minute: float, burst: int, clock: Callable[[], float], most: int = _MOST_BUCKETS) -> None:
        checks.positive(per_minute=per_minute)
        checks.at_least(1, burst=burst, most=most)
        self._per_second, self._burst, self._clock, self._most = per_minute / 60, float(burst), clock, most
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take a token: 0.0 if there was one, else the seconds until there is."""
        now = self._clock()
        with self._lock:
            tokens, then = self._buckets.pop(key, (self._burst, now))
            tokens = min(self._burst, tokens + max(0.0, now - then) * self._per_second)
            wait = 0.0 if tokens >= 1 else (1 - tokens) / self._per_second
            self._buckets[key] = (tokens - 1 if wait == 0.0 else tokens, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        return math.ceil(wait * 10) / 10

    def __len__(self) -> int:
        """Buckets that are kept now."""
        return len(self._buckets)


def address_key(host: str) -> str:
    """What counts as one address: an IPv4 address, or the first 64 bits of an IPv6 one, which one person has whole.

    A socket for both shows an IPv4 address as the end of an IPv6 one, whose first 64 bits all of them share.

    >>> address_key("192.0.2.7"), address_key("2001:db8:1:2:3::4"), address_key("unknown")
    ('192.0.2.7', '2001:db8:1:2::', 'unknown')
    >>> address_key("::ffff:192.0.2.7")
    '192.0.2.7'
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))
