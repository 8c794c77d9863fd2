"""How many neighbours a device chooses, and how many of them it takes to recover a secret: k and t.

As in Bell, Bonawitz, Gascon, Lepoint and Raykova 2020 (eprint 2020/704), protocol for the malicious server, each device
chooses k of the n - 1 others at random and shares its secrets among them, any t of which suffice; and as there k and t
follow from tails of the hypergeometric distribution. The conditions are written out here, for 5 % corrupt devices, that
is such as work for the server, and 10 % that drop out. HG(N, K, k) is the number of marked ones among k drawn from N of
which K are marked:

    too many corrupt    n P[HG(n-1, corrupt, k) >= t]        <= 2^-40   curious server: it recovers no secret by itself
                        n P[HG(n-1, corrupt, k) >= 2t - k]   <= 2^-40   active server: no device loses both its secrets
    too few left        n P[HG(n-1, dropped, k) > k - t]     <= 2^-20   a round that ends is likely to have its sum
    cut in two          sum over s of C(h, s) P[no edge between s survivors and the h - s others] <= 2^-40
                                                                        curious server: it sees one sum, not two

The smallest k is taken, and the largest t that it allows. `smallest_sum` says over how many honest devices every sum is
that an active server can learn. Below 100 devices each chooses all others, holds a share of its own, and t is two
thirds of n, as in Bonawitz et al. 2017 (eprint 2017/281): no device loses both secrets while fewer than a third are
corrupt.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.errors import SecAggError
from hushrec_privacy.secagg.session import MAX_DEVICES, Setting

__all__ = ["COMPLETE_BELOW", "MOST_CHOSEN", "MOST_HELD", "Neighbourhood", "neighbourhood", "smallest_sum"]

COMPLETE_BELOW = 100
MOST_CHOSEN = COMPLETE_BELOW - 2  # more than 10,000 devices choose, 94
MOST_HELD = 3 * MOST_CHOSEN + 1
_CORRUPT, _DROPPED = 0.05, 0.10
_SECURITY, _CORRECTNESS = 2.0**-40, 2.0**-20


@dataclass(frozen=True)
class Neighbourhood:
    """What one device does with the others.

    Attributes:
        chosen: k, others that it chooses; they hold the shares of its secrets.
        threshold: t, shares that recover a secret, and signatures without which a device reveals nothing.
        complete: Every device chooses all others, and itself counts as a holder of its own shares.
    """

    chosen: int
    threshold: int
    complete: bool

    @property
    def most_choosers(self) -> int:
        """By how many others a device lets itself be chosen: three times the mean, as in Bell et al."""
        return self.chosen if self.complete else 3 * self.chosen


@lru_cache(maxsize=256)
def neighbourhood(devices: int, setting: Setting) -> Neighbourhood:
    """Give k and t for a roster.

    Args:
        devices: n, on the roster; 2 to 10,000.
        setting: Of the server.

    Raises:
        SecAggError: `devices` is outside its range.

    >>> neighbourhood(1000, "active")
    Neighbourhood(chosen=74, threshold=49, complete=False)
    >>> neighbourhood(50, "active").threshold
    34
    """
    if not 2 <= devices <= MAX_DEVICES:
        raise SecAggError(f"a round has 2 to {MAX_DEVICES} devices; start another with as many")
    if devices < COMPLETE_BELOW:
        return Neighbourhood(devices - 1, math.ceil(2 * devices / 3), complete=True)
    for chosen in range(2, MOST_CHOSEN + 1):
        threshold = _largest_threshold(devices, chosen, setting)
        if threshold:
            return Neighbourhood(chosen, threshold, complete=False)
    raise SecAggError("no number of neighbours is enough for so many devices; start a smaller round")


@lru_cache(maxsize=256)
def smallest_sum(devices: int) -> int:
    """Fewest honest devices in any sum that an active server can learn, but for a chance of 2^-40.

    For the sum over a set S of honest devices, each of them needs t of its holders in S or corrupt (`device.py`). Each
    chooses at random after the roster is fixed, so some S of s devices is as lucky with chance at most
    C(h, s) P[HG(n-1, s-1 + corrupt, k) >= t]^s. Above h / 2 no two such sets fit beside each other: the server then
    learns one sum at most.

    Args:
        devices: n, on the roster; 2 to 10,000.

    >>> smallest_sum(100), smallest_sum(1000), smallest_sum(60)
    (46, 581, 37)
    """
    agreed = neighbourhood(devices, "active")
    corrupt = math.ceil(_CORRUPT * devices)
    if agreed.complete:
        return agreed.threshold - corrupt
    honest, total = devices - corrupt, 0.0
    logs = _log_factorials()
    for size in range(1, honest + 1):
        lucky = float(_tails(devices - 1, size - 1 + corrupt, agreed.chosen)[agreed.threshold])
        sets = float(logs[honest] - logs[size] - logs[honest - size])
        exponent = sets + size * math.log(lucky) if lucky > 0 else -math.inf
        total += math.exp(min(0.0, exponent))
        if total > _SECURITY:
            return size
    return honest


def _largest_threshold(devices: int, chosen: int, setting: Setting) -> int:
    """The largest t that a k allows; 0: none."""
    corrupt = devices * _tails(devices - 1, math.ceil(_CORRUPT * devices), chosen)
    dropped = devices * _tails(devices - 1, math.ceil(_DROPPED * devices), chosen)
    for threshold in range(chosen, 0, -1):
        if dropped[chosen - threshold + 1] > _CORRECTNESS:
            continue
        needed = 2 * threshold - chosen if setting == "active" else threshold
        safe = needed > 0 and corrupt[needed] <= _SECURITY
        return threshold if safe and (setting == "active" or _cut_chance(devices, chosen) <= _SECURITY) else 0
    return 0


def _cut_chance(devices: int, chosen: int) -> float:
    """Bound of the chance that the honest survivors are not connected, over all ways to cut them in two."""
    honest = devices - math.ceil(_CORRUPT * devices) - math.ceil(_DROPPED * devices)
    logs = _log_factorials()
    sizes = np.arange(1, honest // 2 + 1)

    def misses(others: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log of the chance that one device chooses none of `others`."""
        left = devices - 1 - others
        drawn = np.where(left >= chosen, logs[left] - logs[np.maximum(left - chosen, 0)], -np.inf)
        return np.asarray(drawn - (logs[devices - 1] - logs[devices - 1 - chosen]))

    ways = logs[honest] - logs[sizes] - logs[honest - sizes]
    exponents = ways + sizes * misses(honest - sizes) + (honest - sizes) * misses(sizes)
    return float(np.exp(np.minimum(exponents, 0.0)).sum())


def _tails(total: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """P[HG(total, marked, drawn) >= x] for x from 0 to drawn + 1, shape (drawn + 2,)."""
    logs = _log_factorials()
    x = np.arange(drawn + 1)
    possible = (x <= marked) & (drawn - x <= total - marked)
    x = x[possible]
    chance = np.zeros(drawn + 2)
    chance[:-1][possible] = np.exp(
        (logs[marked] - logs[x] - logs[marked - x])
        + (logs[total - marked] - logs[drawn - x] - logs[total - marked - drawn + x])
        - (logs[total] - logs[drawn] - logs[total - drawn])
    )
    return np.asarray(chance[::-1].cumsum()[::-1])


@lru_cache(maxsize=1)
def _log_factorials() -> NDArray[np.float64]:
    """log 0!, log 1!, ..., of every number up to the largest round."""
    return np.concatenate(([0.0], np.log(np.arange(1, MAX_DEVICES + 1)).cumsum()))
