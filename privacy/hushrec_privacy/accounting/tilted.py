"""The curve of many sampled and unsampled Gaussian steps together, with full relative precision in the far tail.

The losses of all steps add up, so their masses on a grid are convolved by FFT (Koskela et al. 2020, arXiv:1906.03049).
An FFT errs by about 1e-16 of the whole mass, which buries a delta of 1e-15. So each step's mass at s is first
multiplied by exp(lambda s) and divided by the sum M of that (after Alghamdi et al. 2022, arXiv:2208.09595): powers of
tilted masses are tilted powers, and with the lambda at which the tilted sum of losses lies around epsilon,

    delta(epsilon) = M^T exp(-lambda epsilon) sum of p(s) exp(-lambda y) (1 - exp(-y)) over y = s - epsilon > 0

is a common number times what the FFT is good at. Never below the truth: the grid is pessimistic (`step_loss`); the
error of FFT and power is bounded at every frequency and added to every mass; mass that wraps around from below only
adds; what lies above the window is bounded by Chernoff; what a grid leaves out counts as lost whole. Which lambda,
window and grid are taken changes tightness, never validity.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.accounting.privacy_loss import SampledSteps
from hushrec_privacy.accounting.step_loss import StepGrid, StepLoss

__all__ = ["tilted_delta", "tilted_epsilon"]

Floats = NDArray[np.float64]

_TIGHT = 2e-5  # of epsilon, that the grid may cost
_OF_EPSILON = 1e-3  # that an interval of the grid is at most
_NEGLIGIBLE = math.log(1e-8)  # share of delta that lies outside of grid and window
_UNDER = 1e-7  # mass, of all steps together, whose loss is taken for a larger one
_FARTHEST = 100.0  # most that the tilt times epsilon is, in log(1 / delta)
_MOST_POINTS, _MOST_COMPOSED = 2**20, 2**21
_ULP = 2.0**-52
_NOTHING = 1e-300
_LIGHTER = 3.0  # of log delta, that a lower order may cost in accuracy
_FAR = 60.0  # at this many tilts above epsilon a mass counts as if it were there
_FFT = 8 * _ULP  # error of one of log2(n) levels: Higham 2002, theorem 24.2, has 3.4 for powers of two
_POWER = 8 * _ULP  # error of one of T factors
_CLOSE = 1e-6  # of log delta, that the search leaves
_SUMS = 1e-9  # relative, of everything else
_GOLDEN = (math.sqrt(5) - 1) / 2


def tilted_epsilon(parts: Sequence[SampledSteps], delta: float) -> float:
    """An epsilon of all parts together, add-or-remove; tight to about 1e-4, never below.

    Args:
        parts: At least one, each with noise, a rate above 0 and at least one step.
        delta: Above 0, below 1.
    """
    removed = _Direction(parts, math.log(delta), removed=True).epsilon(0.0)
    return _Direction(parts, math.log(delta), removed=False).epsilon(removed)


def tilted_delta(parts: Sequence[SampledSteps], epsilon: float) -> float:
    """A delta of all parts together, add-or-remove; never below the true one, at least the smallest float above 0."""
    found = []
    for removed in (True, False):
        rough = _Direction(parts, -700.0, removed=removed).rough_log_delta(epsilon)
        found.append(_Direction(parts, max(-700.0, rough), removed=removed).log_delta(epsilon))
    return min(1.0, max(math.exp(min(0.0, max(found))), math.ulp(0.0)))


class _Direction:
    """All parts while a user is removed, or added, around one delta."""

    def __init__(self, parts: Sequence[SampledSteps], log_delta: float, *, removed: bool) -> None:
        self._counts = [part.steps for part in parts]
        self._steps = math.fsum(self._counts)
        self._log_delta = log_delta
        reach = math.sqrt(2 * (math.log(self._steps) - log_delta - _NEGLIGIBLE))
        self._log_outside = math.log(self._steps) - 0.5 * reach * reach  # two tails of at most half of this
        self._losses = [StepLoss(p.sampling_rate, p.noise_multiplier, reach, removed=removed) for p in parts]

    def epsilon(self, least: float) -> float:
        """An epsilon, or `least` if that is enough here."""
        order, rough = _least(lambda order: (self._cumulant(order) - self._log_delta + _best_log(order)) / order)
        guess = max(0.0, rough)
        found, widest = guess, math.inf
        while True:
            sums = self._composed(self._kept(order, guess), guess, widest)
            if sums.renyi_epsilon(self._log_delta) <= least or sums.log_delta(least) <= self._log_delta:
                return least
            found = min(_crossing(sums, self._log_delta, found), sums.renyi_epsilon(self._log_delta))
            widest = found * _OF_EPSILON
            if sums.interval <= max(2 * widest, sums.finest):
                return found

    def rough_log_delta(self, epsilon: float) -> float:
        return _least(lambda order: self._cumulant(order) - order * epsilon + _best_log(order))[1]

    def log_delta(self, epsilon: float) -> float:
        order, _ = _least(lambda order: self._cumulant(order) - order * epsilon + _best_log(order))
        sums = self._composed(self._kept(order, epsilon), epsilon, epsilon * _OF_EPSILON or math.inf)
        return sums.log_delta(epsilon)

    def _kept(self, order: float, epsilon: float) -> float:
        """The order, unless it is out of all proportion because the losses are bounded."""
        return min(order, _FARTHEST * max(1.0, -self._log_delta) / max(epsilon, 1e-9))

    def _cumulant(self, order: float) -> float:
        return math.fsum(count * loss.cumulant(order) for count, loss in zip(self._counts, self._losses, strict=True))

    def _composed(self, order: float, around: float, widest: float) -> "_Sums":
        """All steps together, tilted by `order`, on a grid no wider than asked for, if that can be afforded."""
        higher, top = _least(lambda above: (self._cumulant(above) - self._log_delta - _NEGLIGIBLE) / above)
        order, wrapped = self._light(order, around, 2 * top)
        bottom, top = min(-self._tail(order, -1), around), max(top, wrapped, around)
        bottom = max(bottom, self._sum_of(lambda loss: loss.least))
        top = min(top, self._sum_of(lambda loss: loss.most))
        lowest = [loss.lowest(_UNDER / self._steps) for loss in self._losses]
        reach = max(loss.most - low for loss, low in zip(self._losses, lowest, strict=True))
        finest = max(reach * len(self._losses) / _MOST_POINTS, (top - bottom) / _MOST_COMPOSED)
        allowed = _TIGHT * max(1.0, order * around)
        interval = math.sqrt(12 * allowed / (order * (order + 1) * self._steps))  # if losses lie all over their cells
        interval = max(finest, min(interval, 1.0, 1.0 / order, widest))
        while True:
            grids = [loss.on_grid(interval, order, low) for loss, low in zip(self._losses, lowest, strict=True)]
            gap = math.fsum(
                count * math.log(float(grid.masses.sum())) for count, grid in zip(self._counts, grids, strict=True)
            )  # what the grid costs in log delta
            if gap <= 2 * allowed or interval <= finest:
                break
            interval = max(finest, interval * min(0.7, max(0.1, math.sqrt(allowed / gap))))
        window = _Window(interval, order, bottom, top, finest)
        return _Sums(list(zip(grids, self._counts, strict=True)), window, higher, self._log_outside)

    def _light(self, order: float, around: float, far: float) -> tuple[float, float]:
        """An order, lowered a little if its tilted sum reaches far out, and how far it does."""
        allowed = self._cumulant(order) - order * around + _LIGHTER
        reached = self._tail(order, 1)
        while reached > far and self._cumulant(0.9 * order) - 0.9 * order * around < allowed:
            order *= 0.9
            reached = self._tail(order, 1)
        return order, reached

    def _tail(self, order: float, sign: int) -> float:
        """What the tilted sum, or minus that sum, hardly ever exceeds."""
        here = self._cumulant(order) + _NEGLIGIBLE
        return _least(lambda more: (self._cumulant(order + sign * more) - here) / more)[1]

    def _sum_of(self, end: Callable[[StepLoss], float]) -> float:
        return math.fsum(count * end(loss) for count, loss in zip(self._counts, self._losses, strict=True))


@dataclass(frozen=True, slots=True)
class _Window:
    """Which losses are looked at, under which tilt, on which grid."""

    interval: float
    order: float
    bottom: float
    top: float
    finest: float


class _Sums:
    """Tilted masses of the sum of all losses, each raised by its error, above the window's bottom."""

    def __init__(
        self,
        grids: Sequence[tuple[StepGrid, int]],
        window: "_Window",
        higher: float,
        log_outside: float,
    ) -> None:
        self.order, self.interval, self.finest = window.order, window.interval, window.finest
        first = math.floor(window.bottom / self.interval)
        points = _size((window.top - window.bottom) / self.interval + 8)
        masses = np.roll(_convolved(grids, points), -(first % points))
        self._losses = (first + np.arange(points)) * self.interval
        self._masses, self._total = masses, float(masses.sum())
        self._log_scale = math.fsum(count * (grid.shift + grid.error) for grid, count in grids)
        self._log_whole = math.fsum(count * math.log(float(grid.masses.sum())) for grid, count in grids)
        self.least = float(self._losses[0])
        self.most = float(self._losses[-1])
        above = math.fsum(count * _log_mean(grid, window, higher) for grid, count in grids)
        self._log_outside = log_outside
        self._log_rest = float(np.logaddexp(above - higher * self.most, log_outside))

    def renyi_epsilon(self, log_delta: float) -> float:
        """What the sum of the tilted masses alone says, without FFT: valid, looser (Canonne et al. 2020)."""
        allowed = log_delta + math.log1p(-math.exp(self._log_outside - log_delta)) - _SUMS
        return max(0.0, (self._log_scale + self._log_whole - allowed + _best_log(self.order)) / self.order)

    def log_delta(self, epsilon: float) -> float:
        """log of a delta at an epsilon; 0, which promises nothing, below the window and where floats overflow."""
        if epsilon < self.least:
            return 0.0
        start = int(np.searchsorted(self._losses, epsilon, side="right"))
        stop = int(np.searchsorted(self._losses, epsilon + _FAR / self.order, side="right"))
        beyond = epsilon - self._losses[start:stop]
        found = float(np.dot(self._masses[start:stop] * np.exp(self.order * beyond), -np.expm1(beyond)))
        found += self._total * math.exp(-_FAR)
        if not found < math.inf:  # also NaN, which compares as if it were allowed
            return 0.0
        inside = self._log_scale - self.order * epsilon + math.log(found)
        return float(np.logaddexp(inside, self._log_rest)) + _SUMS


def _size(least: float) -> int:
    """A length that an FFT is fast at: 4, 5 or 6 times a power of two."""
    step = 1 << max(0, math.ceil(math.log2(least)) - 3)
    return next(step * times for times in (4, 5, 6, 8) if step * times >= least)


def _convolved(grids: Sequence[tuple[StepGrid, int]], points: int) -> Floats:
    """The masses of the sum, modulo the number of points, none below its true value."""
    log, log_above, relative = np.zeros(points // 2 + 1, np.complex128), np.zeros(points // 2 + 1), np.zeros(1)
    level = _FFT * math.log2(points)
    for grid, count in grids:
        place = (grid.first + np.arange(len(grid.masses))) % points
        spectrum = np.fft.rfft(np.bincount(place, weights=grid.masses, minlength=points))
        error = level * float(grid.masses.sum())
        above = np.abs(spectrum) + error
        log += count * np.log(np.where(spectrum == 0, _NOTHING, spectrum))
        log_above += count * np.log(above)
        relative = relative + count * (error / above + _POWER)
    with np.errstate(over="ignore", invalid="ignore"):  # a grid too coarse for its steps: see `_Sums.log_delta`
        powers, bounds = np.exp(log), np.exp(log_above)
        error = 2 / points * float(np.sum(bounds * relative) + level * np.sum(bounds))
        return np.maximum(np.fft.irfft(powers, points), 0.0) + error


def _log_mean(grid: StepGrid, window: _Window, higher: float) -> float:
    """log of the sum of a grid's masses under another tilt, rounded up."""
    with np.errstate(divide="ignore"):
        logs = np.log(grid.masses)
    logs += (higher - window.order) * window.interval * (grid.first + np.arange(len(logs)))
    top = float(logs.max())
    return grid.shift + grid.error + top + math.log(float(np.exp(logs - top).sum()))


def _crossing(sums: _Sums, log_delta: float, guess: float) -> float:
    """The least epsilon at which delta is allowed; the end of the bracket at which it is."""
    too_little, enough = max(0.0, sums.least), max(guess, sums.least, 0.0)
    if sums.log_delta(too_little) <= log_delta:
        return too_little
    while (spare := sums.log_delta(enough) - log_delta) > 0:
        too_little = enough
        if enough >= sums.most:
            return math.inf
        enough = min(sums.most, enough + (spare + _CLOSE) / sums.order)
    for turn in range(120):
        if spare > -_CLOSE or enough - too_little <= 1e-9 * enough:
            break
        middle = enough + (spare + 0.5 * _CLOSE) / sums.order
        if turn % 2 or middle <= too_little:
            middle = 0.5 * (too_little + enough)
        found = sums.log_delta(middle) - log_delta
        if found > 0:
            too_little = middle
        else:
            enough, spare = middle, found
    return enough


def _best_log(order: float) -> float:
    """log of the largest value of exp(-order y) (1 - exp(-y)) over y > 0."""
    return -math.log1p(order) - order * math.log1p(1 / order)


def _least(bound: Callable[[float], float]) -> tuple[float, float]:
    """Where a function of an order has its least value, and that, by golden section on the logarithm."""
    low, high = math.log(1e-7), math.log(1e18)
    inner, outer = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_inner, at_outer = bound(math.exp(inner)), bound(math.exp(outer))
    while high - low > 1e-3:
        if at_inner < at_outer:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - _GOLDEN * (high - low)
            at_inner = bound(math.exp(inner))
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + _GOLDEN * (high - low)
            at_outer = bound(math.exp(outer))
    return math.exp(0.5 * (low + high)), min(at_inner, at_outer)
