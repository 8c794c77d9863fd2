"""The privacy loss of one Poisson-sampled Gaussian step, put on a grid so that nothing is underestimated.

With noise of deviation z and t = (output) / z, the step releases N(0, 1) without a user and, with m = 1/z, the mixture
(1 - q) N(0, 1) + q N(m, 1) with that user. The log ratio of the two densities is l(t) = log(1 - q + q exp(y)) with
y = m (t - m/2). Removing a user has the loss l under the mixture, adding one has -l under N(0, 1). q = 1 is Gaussian
noise of separation m, unsampled.

On the grid ("connect the dots", Doroshenko et al. 2022, arXiv:2207.04380) the mass of a loss L between two points
e < e + h is split between them so that the masses under both neighbours stay what they are: the share
(1 - exp(e - L)) / (1 - exp(-h)) goes up. So delta, which is convex in exp(epsilon), is replaced by its chords from
point to point and lies nowhere below; what is worse in one step is worse in a sum of steps. Masses are sums of positive
terms (Gauss-Legendre, six nodes on panels inside one cell, 1/32 wide at most and narrower where l bends): no tail is
the difference of near numbers. What lies further out than `reach` is left to the caller.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

__all__ = ["StepGrid", "StepLoss"]

_NODES, _WEIGHTS = (0.5 * part for part in np.polynomial.legendre.leggauss(6))
_NODES = _NODES + 0.5  # on [0, 1]
_PANEL = 1 / 32
_BEND = 40.0  # so far, in y, from where l bends it is a straight line to exp(-40)
_BENT_PANEL = 1 / 16  # in y
_CHUNK = 2**14
_LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)
_QUADRATURE = 1e-12  # relative error of a mass beside that of its exponent
_ULPS = 2.0**-48  # relative error of a loss


@dataclass(frozen=True)
class StepGrid:
    """Masses of one step on a grid, under a tilt.

    Attributes:
        first: Number n of the first point; the points are n h, (n + 1) h, ...
        masses: At each point the mass times exp(tilt times loss - shift).
        shift: Taken off the exponents, so that the masses sum to about 1.
        error: By how much, relatively, a mass can be too small.
    """

    first: int
    masses: Floats
    shift: float
    error: float


class StepLoss:
    """The loss of one step in one direction.

    Args:
        sampling_rate: q, above 0, at most 1.
        noise_multiplier: z.
        reach: Standard deviations up to which outputs are looked at.
        removed: Whether the user is removed (or else added).
    """

    def __init__(self, sampling_rate: float, noise_multiplier: float, reach: float, *, removed: bool) -> None:
        self._q, self._m, self._reach, self._removed = sampling_rate, 1 / noise_multiplier, reach, removed
        self._parts = _joined([(-reach, reach), (self._m - reach, self._m + reach)] if removed else [(-reach, reach)])
        if removed and sampling_rate == 1:
            self._parts = [(self._m - reach, self._m + reach)]
        ends = self._sign * self._log_ratio(np.array([self._parts[0][0], self._parts[-1][1]]))
        self.least, self.most = float(ends.min()), float(ends.max())

    @property
    def _sign(self) -> float:
        return 1.0 if self._removed else -1.0

    def cumulant(self, order: float) -> float:
        """log of the mean of exp(order times loss), to about 1e-12."""
        losses, logs = self._atoms
        exponents = logs + order * losses
        top = float(exponents.max())
        return top + math.log(float(np.exp(exponents - top).sum()))

    def lowest(self, mass: float) -> float:
        """A loss, at most 0, below which there is no more than this mass."""
        losses, logs = self._atoms
        order = np.argsort(losses)
        below = np.cumsum(np.exp(logs[order]))
        return min(0.0, float(losses[order[np.searchsorted(below, mass)]]))

    def on_grid(self, interval: float, tilt: float, lowest: float) -> StepGrid:
        """The step on the points that are multiples of an interval.

        Args:
            interval: h.
            tilt: Order of the exponential tilt.
            lowest: Smaller losses are taken for this one.
        """
        low, high = math.floor(lowest / interval), math.floor(self.most / interval) + 2
        masses = np.zeros(high - low + 1)
        shift = self.cumulant(tilt)
        inner = np.arange(low, high) if self._removed else -np.arange(high - 1, low - 1, -1)
        bounds = self._output_of((inner * interval).astype(np.float64))
        inner, bounds = inner[np.isfinite(bounds)], bounds[np.isfinite(bounds)]
        before = int(inner[0]) - 1 if len(inner) else (low if self._removed else -high)
        for left, width in self._panels(bounds):
            cell = before + np.searchsorted(bounds, left + 0.5 * width, side="right")
            lower = np.maximum(low, cell if self._removed else -cell - 1)
            t = left[:, None] + width[:, None] * _NODES
            ratio = self._log_ratio(t)
            logs = self._log_density(t, ratio) + (lower * interval * tilt - shift)[:, None]
            share = self._share_up(t, self._sign * ratio, lower * interval, interval)
            mass = np.exp(logs) * (_WEIGHTS * width[:, None])
            up, all_ = (mass * share).sum(axis=1), mass.sum(axis=1)
            place = lower - low
            masses += np.bincount(place, weights=all_ - up, minlength=len(masses))
            masses[1:] += np.bincount(place, weights=up, minlength=len(masses))[:-1] * math.exp(tilt * interval)
        exponents = self._reach * (2 * self._reach + self._m) + abs(shift) + tilt * interval * max(abs(low), abs(high))
        return StepGrid(low, masses, shift, _QUADRATURE + 2.0**-50 * exponents)

    def _share_up(self, t: Floats, loss: Floats, lower: Floats, interval: float) -> Floats:
        """What part of a mass goes to the upper point: above its exact value by more than the loss's rounding."""
        if interval > 1:
            return np.ones_like(t)  # rounded up: panels are fit for exp(-loss) over 1 at most
        y = np.abs(self._m * (t - 0.5 * self._m))
        small = np.minimum(1.0, 2 * self._q * np.exp(np.minimum(y, 700.0))) if self._q <= 0.5 else 1.0
        rounding = _ULPS * ((1 + y) * small + np.abs(lower)[:, None])
        share = np.expm1(lower[:, None] - loss - rounding) / math.expm1(-interval)
        return np.clip(share, 0.0, 1.0)

    def _log_ratio(self, t: Floats) -> Floats:
        """l: how much likelier an output is with the user, as a logarithm."""
        y = self._m * (t - 0.5 * self._m)
        if self._q == 1:
            return y
        if self._q > 0.5:
            return np.logaddexp(math.log1p(-self._q), math.log(self._q) + y)
        return np.where(
            y < 600, np.log1p(self._q * np.expm1(np.minimum(y, 600.0))), math.log(self._q) + np.maximum(y, 600.0)
        )

    def _log_density(self, t: Floats, ratio: Floats) -> Floats:
        """Of what is released: under the mixture if the user is removed, else under N(0, 1)."""
        plain = -0.5 * t * t - _LOG_ROOT_TWO_PI
        if not self._removed:
            return plain
        moved = -0.5 * (t - self._m) ** 2 - _LOG_ROOT_TWO_PI
        if self._q == 1:
            return moved
        y = self._m * (t - 0.5 * self._m)
        share = np.logaddexp(math.log(self._q), math.log1p(-self._q) - np.maximum(y, 0.0))
        return np.where(y > 0, moved + share, plain + ratio)  # of the larger of the two

    def _output_of(self, ratio: Floats) -> Floats:
        """The output of a log ratio; not finite where there is none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._q == 1:
                y = ratio
            else:
                small = np.minimum(ratio, 600.0)
                y = np.where(ratio < 600, np.log1p(np.expm1(small) / self._q), ratio - math.log(self._q))
        return y / self._m + 0.5 * self._m

    @cached_property
    def _atoms(self) -> tuple[Floats, Floats]:
        """Losses and logarithms of their masses."""
        losses, logs = [], []
        for left, width in self._panels(np.empty(0)):
            t = left[:, None] + width[:, None] * _NODES
            ratio = self._log_ratio(t)
            losses.append(self._sign * ratio.ravel())
            logs.append((self._log_density(t, ratio) + np.log(_WEIGHTS * width[:, None])).ravel())
        return np.concatenate(losses), np.concatenate(logs)

    def _panels(self, bounds: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Left ends and widths of panels that no bound lies inside of."""
        bend = 0.5 * self._m
        if self._q < 1:
            bend += (math.log1p(-self._q) - math.log(self._q)) / self._m
        fine = bend + np.arange(-_BEND, _BEND, _BENT_PANEL) / self._m
        for low, high in self._parts:
            edges = np.concatenate([np.linspace(low, high, 2 + int((high - low) / _PANEL)), fine, bounds])
            edges = np.unique(edges[(edges >= low) & (edges <= high)])
            left, width = edges[:-1], np.diff(edges)
            for start in range(0, len(left), _CHUNK):
                yield left[start : start + _CHUNK], width[start : start + _CHUNK]


def _joined(parts: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Intervals in order, those that overlap as one."""
    found = [parts[0]]
    for low, high in parts[1:]:
        if low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found
