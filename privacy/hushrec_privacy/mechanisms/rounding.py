"""Round an update to whole numbers without bias and with a bound on the norm: conditional stochastic rounding.

Kairouz, Liu and Steinke 2021, arXiv:2102.06387, section 4.1, equations 18 and 19, and Algorithm 1: each coordinate goes
up with a chance equal to its fraction; the vector is drawn again until its norm is within the bound. That condition
moves the mean by a share of at most beta / (1 - beta). Does not clip (see `clipping.py`) and does not rotate.
"""

import math
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.norm_bound import BETA, rounded_norm_bound
from hushrec_privacy.randomness import OsRandom

__all__ = ["BETA", "round_conditionally", "rounded_norm_bound"]

_GIVE_UP_CHANCE = math.exp(-50)  # for a vector within the clip norm; beyond it the loop could run for ever

_Floats: TypeAlias = NDArray[np.float64]


def round_conditionally(
    source: OsRandom,
    vector: NDArray[np.floating],
    *,
    clip_norm: float,
    beta: float = BETA,
    most_square: int | None = None,
) -> NDArray[np.int64]:
    """Round `vector` to whole numbers, each coordinate to a neighbour, unbiased but for the condition on the norm.

    Guarantee:
        The L2 norm of every result is at most `rounded_norm_bound(clip_norm, P, beta)`, in exact whole-number
        arithmetic, whatever `vector` is; its square at most `most_square`, if given.

    Args:
        source: Where the coins come from.
        vector: Shape (P,), in lattice steps, clipped to L2 norm `clip_norm` before (and rotated, if at all). Private.
        clip_norm: Bound of its norm, in lattice steps, up to 2^30. Public configuration.
        beta: As in `rounded_norm_bound`; a clipped vector is drawn 1 / (1 - beta) times at most on average.
        most_square: The squared norm that a plan states, whatever the bound comes to on this machine.

    Returns:
        Shape (P,), int64.

    Raises:
        ConfigError: An argument is outside its range, `vector` is empty, not finite, or so far beyond `clip_norm` that
            no draw came within the bound (for a clipped vector this happens with chance exp(-50) or less).

    >>> round_conditionally(OsRandom(), np.array([2.0, -3.0]), clip_norm=4.0)
    array([ 2, -3])
    """
    wide = np.asarray(vector, np.float64)
    if wide.ndim != 1 or not wide.size or not np.isfinite(wide).all():
        raise ConfigError("vector must be one row of at least one finite number; clip it first")
    bound = rounded_norm_bound(clip_norm, len(wide), beta)
    largest_square = int(Fraction(bound) ** 2)
    if most_square is not None:
        largest_square = min(largest_square, most_square)
    size = np.minimum(np.abs(wide), 2 * bound)  # what is longer can only be refused, and need not fit a square
    whole = np.floor(size)
    part, low = size - whole, whole.astype(np.int64)
    for _ in range(_most_draws(beta)):
        rounded = low + _bernoulli(source, part)
        if _square_sum(rounded) <= largest_square:
            return np.where(wide < 0, -rounded, rounded)
    raise ConfigError("vector is longer than clip_norm allows: no rounding of it came within the bound; clip it first")


def _most_draws(beta: float) -> int:
    return 1 if beta == 0 else math.ceil(math.log(_GIVE_UP_CHANCE) / math.log(beta))


def _square_sum(values: NDArray[np.int64]) -> int:
    """Exact: a sum that could pass 2^63 is seen in floats first."""
    rough = float(np.square(values.astype(np.float64)).sum())
    return int(np.dot(values, values)) if rough < 2.0**62 else int(rough)


def _bernoulli(source: OsRandom, chance: _Floats) -> NDArray[np.bool_]:
    """Coins with exactly these chances in [0, 1), shape (n,): a 64-bit word against the first 64 bits of the chance.

    A word equal to them (once in 2^64) leaves it to the bits that follow.
    """
    scaled = np.ldexp(chance, 64)
    first = np.floor(scaled)
    threshold = first.astype(np.uint64)
    words = source.words(len(chance))
    won: NDArray[np.bool_] = words < threshold
    tied = np.flatnonzero(words == threshold)
    if len(tied):
        won[tied] = _bernoulli(source, (scaled - first)[tied])
    return won
