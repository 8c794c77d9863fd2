"""The ring in which updates are summed: how fine the steps can be if no sum may wrap around.

A device turns its clipped update by the plan's rotation, so that every coordinate is about clip / sqrt(d), scales it to
ring steps, cuts each coordinate to what M devices can add up without wrapping, and rounds (Kairouz, Liu, Steinke 2021,
arXiv:2102.06387, section 4). Cutting only shrinks, so no bound depends on the rotation; it is rare: the steps are
chosen so that a coordinate of six standard deviations still fits.
"""

import math
from dataclasses import dataclass

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.norm_bound import rounded_norm_bound

__all__ = ["MAX_RING_BITS", "Ring", "smallest_ring"]

MAX_RING_BITS = 32
_DEVIATIONS = 6.0
_MOST_INFLATION = 0.01  # share by which rounding may raise the norm bound
_MOST_STEPS = 2**24


@dataclass(frozen=True)
class Ring:
    """Whole numbers modulo 2^bits.

    Attributes:
        bits: Of one coordinate on the wire.
        coordinate_limit: Largest magnitude of one device's coordinate, in steps; the cohort times it does not wrap.
        clip_steps: The clip norm in steps.
        rounded_norm_squared: Bound of the squared norm after conditional rounding, in steps squared.
    """

    bits: int
    coordinate_limit: int
    clip_steps: int
    rounded_norm_squared: int

    @property
    def inflation(self) -> float:
        """Share by which rounding raises the norm bound."""
        return math.sqrt(self.rounded_norm_squared) / self.clip_steps - 1


def smallest_ring(cohort: int, coordinates: int) -> Ring:
    """The ring of fewest bits in which a cohort's sum cannot wrap and rounding costs at most 1 % of the norm bound.

    Args:
        cohort: M, devices of a round.
        coordinates: d, of the rotated update.

    Raises:
        ConfigError: An argument is not a whole number of at least 1, or no ring of 32 bits is enough.

    >>> smallest_ring(1000, 2048).bits, smallest_ring(1000, 500_000).bits
    (16, 16)
    """
    checks.at_least(1, cohort=cohort, coordinates=coordinates)
    for bits in range(8, MAX_RING_BITS + 1):
        limit = (2 ** (bits - 1) - 1) // cohort
        clip_steps = min(_MOST_STEPS, int(limit * max(1.0, math.sqrt(coordinates) / _DEVIATIONS)))
        if clip_steps < 1:
            continue
        squared = int(rounded_norm_bound(float(clip_steps), coordinates) ** 2)
        ring = Ring(bits, limit, clip_steps, squared)
        if ring.inflation <= _MOST_INFLATION:
            return ring
    raise ConfigError(
        f"no ring of at most {MAX_RING_BITS} bits holds the sum of {cohort} devices; use a smaller cohort"
    )
