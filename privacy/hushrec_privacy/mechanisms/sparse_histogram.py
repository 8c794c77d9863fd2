"""A histogram of very many cells under Gaussian noise, of which only what reaches a threshold is kept.

Noise falls on *every* cell, also on those that nobody touched: dropping empty cells before would tell which ones are.
Of the empty cells only those above the threshold are drawn: how many, which, and by how much. What comes out has the
same distribution as noise on each cell (Cormode, Procopiuc, Srivastava and Tran 2012, "Differentially private
summaries for sparse data", section 4), at a cost that follows the cells kept, not the cells there are.

The noise is the discrete Gaussian on whole numbers (Canonne, Kamath and Steinke 2020, arXiv:2004.00010). Values,
positions and comparisons are exact; the number of empty cells above the threshold is binomial with a chance and a
distribution function worked out in whole numbers of 320 bits, which is off by less than 2^-150 altogether.
"""

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.discrete_gaussian import sample_discrete_gaussian, sample_tail
from hushrec_privacy.randomness import OsRandom

__all__ = ["noised_above"]

_BITS = 320
_ONE = 1 << _BITS
_NOTHING = 1 << (_BITS - 256)  # a weight 2^-256 of the largest one ends a sum
_MOST_CELLS = 2**60

_Ints = NDArray[np.int64]


def noised_above(
    source: OsRandom, cells: int, index: _Ints, counts: _Ints, *, deviation: int, threshold: int
) -> tuple[_Ints, _Ints]:
    """Add discrete Gaussian noise to every cell and keep the cells of at least `threshold`.

    Guarantee:
        If one unit moves the counts by at most S in L2, this is the Gaussian mechanism of
        mu = S / `accounting.discrete.equivalent_gaussian_deviation(deviation, cells)`, followed by post-processing.

    Args:
        source: Of the noise.
        cells: How many cells there are, chosen without the data; at most 2^60.
        index: Cells that are not empty, rising, 0 to `cells` - 1, shape (n,).
        counts: What they hold, shape (n,).
        deviation: Of the noise, 1 to 2^20.
        threshold: At least `deviation`; chosen without the data.

    Returns:
        The cells kept, rising, and their noised counts, both of shape (m,).

    Raises:
        ConfigError: An argument is outside its range.

    >>> kept, noised = noised_above(OsRandom(), 10**12, np.array([7]), np.array([10**6]), deviation=100, threshold=800)
    >>> 7 in kept, bool((noised >= 800).all())
    (True, True)
    """
    checks.at_least(1, cells=cells, deviation=deviation)
    checks.at_least(deviation, threshold=threshold)
    if cells > _MOST_CELLS or deviation > 2**20 or threshold > deviation << 20:
        raise ConfigError("cells must be at most 2^60, the deviation 2^20 and the threshold 2^20 deviations")
    index, counts = np.asarray(index, np.int64), np.asarray(counts, np.int64)
    if index.shape != counts.shape or index.ndim != 1 or (np.diff(index) <= 0).any():
        raise ConfigError("index must rise, and there must be one count for each cell in it")
    if len(index) and not 0 <= index[0] <= index[-1] < cells:
        raise ConfigError(f"index must be between 0 and {cells - 1}")
    noised = counts + sample_discrete_gaussian(source, len(counts), deviation)
    kept = noised >= threshold
    empty = cells - len(index)
    appeared = _binomial(source, empty, _tail_chance(deviation, threshold))
    where = np.concatenate([index[kept], _distinct_outside(source, cells, index, appeared)])
    values = np.concatenate([noised[kept], sample_tail(source, appeared, deviation, threshold)])
    order = np.argsort(where)
    return where[order], values[order]


def _tail_chance(deviation: int, least: int) -> int:
    """P(Y >= least) for least >= 1, in units of 2^-320.

    Weights exp(-y^2 / (2 s^2)) follow from their predecessors by factors that follow from theirs: two products each.
    """
    step = _exp_minus(1, deviation * deviation)  # the factor of the factor
    factor = _exp_minus(1, 2 * deviation * deviation)
    weight, beyond, above = _ONE, 0, 0
    for y in range(40 * deviation):  # beyond 40 deviations all weights together are below 2^-1100
        if y >= least:
            above += weight
        elif y:
            beyond += weight
        weight = weight * factor >> _BITS
        if weight < _NOTHING >> 56:
            break
        factor = factor * step >> _BITS
    return (above << _BITS) // (_ONE + 2 * (beyond + above))


def _exp_minus(numerator: int, denominator: int) -> int:
    """exp(-numerator / denominator) in units of 2^-320, for at most 1."""
    term, total, n = _ONE, _ONE, 0
    while term:
        n += 1
        term = term * numerator // (denominator * n)
        total += -term if n % 2 else term
    return total


def _binomial(source: OsRandom, count: int, chance: int) -> int:
    """Draw from the binomial of `count` trials of `chance` / 2^320, by inversion.

    Weights relative to the likeliest value go out from it by the ratio of neighbours until they vanish; a uniform
    number of 256 bits picks one.
    """
    if not count or not chance:
        return 0
    other = _ONE - chance
    middle = min(count, (count + 1) * chance >> _BITS)
    below, above = [], []
    k, weight = middle, _ONE
    while k > 0 and weight >= _NOTHING:
        weight = weight * (k * other) // ((count - k + 1) * chance)
        k -= 1
        below.append(weight)
    k, weight = middle, _ONE
    while k < count and weight >= _NOTHING:
        weight = weight * ((count - k) * chance) // ((k + 1) * other)
        k += 1
        above.append(weight)
    weights = [*reversed(below), _ONE, *above]
    at = sum(weights) * int.from_bytes(source.words(4).tobytes(), "little") >> 256
    for k, weight in enumerate(weights, start=middle - len(below)):
        at -= weight
        if at < 0:
            return k
    raise AssertionError("a number below the sum lies in one of the weights")


def _distinct_outside(source: OsRandom, cells: int, taken: _Ints, count: int) -> _Ints:
    """A uniform set of `count` cells that are not in `taken`, which rises."""
    free = cells - len(taken)
    if count > free // 2:  # leave out the others instead: drawing would meet the same cells again and again
        rest = _distinct_outside(source, cells, taken, free - count)
        out = np.setdiff1d(np.arange(cells), np.concatenate([taken, rest]), assume_unique=True)
        return out.astype(np.int64)
    found = np.zeros(0, np.int64)
    while len(found) < count:
        drawn = source.below(cells, count - len(found) + 16)
        if len(taken):
            drawn = drawn[taken[np.minimum(np.searchsorted(taken, drawn), len(taken) - 1)] != drawn]
        found = np.concatenate([found, drawn])
        _, first = np.unique(found, return_index=True)
        found = found[np.sort(first)]  # in the order they were drawn: cutting the end favours nobody
    return found[:count]
