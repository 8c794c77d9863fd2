"""What releases about one unit cost, in terms that add up: shifts of Gaussian noise, sampled steps, rho of the rest.

    unsampled Gaussian noise   mu^2 adds up: the exact curve (Dong, Roth, Su 2019, arXiv:1905.02383, corollary 3.3)
    Poisson-sampled steps      privacy losses add up, see `tilted` (Zhu, Dong, Wang 2021, arXiv:2106.08567)
    any zCDP mechanism         rho adds up: an upper bound (Bun, Steinke 2016, arXiv:1605.02065, lemma 1.7)

All three hold for releases chosen by looking at earlier ones, as long as noise, rates and numbers of steps are not.
Which unit and adjacency they are about is the caller's business: see `guarantee`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hushrec_privacy import checks
from hushrec_privacy.accounting.gaussian import (
    check_delta,
    check_epsilon,
    check_noise,
    gaussian_delta,
    gaussian_epsilon,
    mu_of_participations,
)
from hushrec_privacy.accounting.zcdp import zcdp_epsilon
from hushrec_privacy.errors import ConfigError

__all__ = ["PrivacyLoss", "SampledSteps"]

_SMALLEST_RATE = 1e-9  # a smaller one is taken for it: valid, and at such rates delta is hardly ever worth more
_SMALLEST_MU = 1e-9  # likewise
_LARGEST = 1e7  # loss of one step; above it sampling is not worth a grid
_FAR = 11.0  # standard deviations at which that loss is looked at
_MOST_KINDS = 32  # of steps; more are joined in groups
_UP = 1 + 2.0**-48
_SHARES = (0.01, 0.1, 0.5, 0.9, 0.99)  # of delta for what is composed exactly, the rest for the bound on zCDP


@dataclass(frozen=True, slots=True, order=True)
class SampledSteps:
    """Steps of training with Gaussian noise over Poisson-sampled batches, all of one kind.

    Attributes:
        sampling_rate: q, 0 to 1: the chance of each user to be in a step.
        noise_multiplier: z, standard deviation of the noise over the clip norm.
        steps: T.

    Raises:
        ConfigError: One of them is NaN or out of range.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 <= self.sampling_rate <= 1:
            raise ConfigError(f"sampling_rate is {self.sampling_rate!r}; it must be 0 to 1")
        checks.at_least(0, steps=self.steps)
        check_noise(self.noise_multiplier)

    @property
    def unsampled_mu(self) -> float:
        """Separation if every step took everybody: a bound for taking some."""
        return mu_of_participations(self.noise_multiplier, self.steps)


@dataclass(frozen=True, slots=True)
class PrivacyLoss:
    """What several releases about one unit, under one adjacency, cost together. Losses are added by `+`.

    Attributes:
        mu: Separation by unsampled Gaussian noise, in standard deviations.
        sampled: Poisson-sampled steps; only under add-or-remove.
        rho: Of mechanisms of which nothing but rho-zCDP is known.

    Raises:
        ConfigError: mu or rho is NaN or negative.

    >>> both = PrivacyLoss(mu=3.0) + PrivacyLoss(mu=4.0)
    >>> round(both.mu, 12), both.epsilon(1e-6) < PrivacyLoss(mu=3.0).epsilon(5e-7) + PrivacyLoss(mu=4.0).epsilon(5e-7)
    (5.0, True)
    """

    mu: float = 0.0
    sampled: tuple[SampledSteps, ...] = ()
    rho: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mu", "rho"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be at least 0")

    def __add__(self, other: "PrivacyLoss") -> "PrivacyLoss":
        rho = self.rho + other.rho
        return PrivacyLoss(
            _together(self.mu, other.mu),
            self.sampled + other.sampled,
            rho if 0 in (self.rho, other.rho) else math.nextafter(rho, math.inf),
        )

    @property
    def exact(self) -> bool:
        """Whether epsilon is tight: nothing is known by its rho alone."""
        return not self.rho

    def epsilon(self, delta: float) -> float:
        """An epsilon of all of it together.

        Args:
            delta: 0 (included) to 1 (excluded).

        Returns:
            0 to infinity. The exact curve without sampled steps, at most about 1e-4 above it with them (where delta is
            neither far below the rates nor above the chance to be taken at all); with rho, the best of three bounds.

        Raises:
            ConfigError: delta is NaN or out of range.
        """
        check_delta(delta)
        if not self.rho:
            return self._exact_epsilon(delta)
        if delta == 0:
            return math.inf
        gaussian = PrivacyLoss(self._unsampled_mu())
        found = zcdp_epsilon((self.rho + gaussian.mu**2 / 2) * _UP, delta)  # all of it as zCDP
        if self.mu or self.sampled:
            known = PrivacyLoss(self.mu, self.sampled)
            for share in _SHARES:  # basic composition of the two, delta split
                rest = zcdp_epsilon(self.rho, delta * (1 - share) / _UP)
                if rest < found:
                    found = min(found, (known._exact_epsilon(delta * share) + rest) * _UP)
        return found

    def delta(self, epsilon: float) -> float:
        """A delta of all of it together at an epsilon, never below the true one; not where rho is all that is known.

        Args:
            epsilon: At least 0, or infinity.

        Raises:
            ConfigError: epsilon is NaN or negative, or rho is above 0.
        """
        check_epsilon(epsilon)
        if self.rho:
            raise ConfigError("rho has no exact curve; ask for the epsilon of a delta")
        steps = tuple(self._merged())
        if not steps:
            return gaussian_delta(self.mu, epsilon)
        if epsilon == math.inf:
            return 0.0
        if any(kind.noise_multiplier == 0 for kind in steps):
            return 1.0
        unsampled = gaussian_delta(self._unsampled_mu(), epsilon)
        bound = min(unsampled, gaussian_delta(self.mu, epsilon) + _ever(steps))
        tractable = self._tractable(steps)
        if not tractable.sampled:
            return bound
        from hushrec_privacy.accounting.tilted import tilted_delta  # NumPy is not needed for other mechanisms

        return min(bound, tilted_delta(tractable._parts(), epsilon))

    def _exact_epsilon(self, delta: float) -> float:
        steps = tuple(self._merged())
        if not steps:
            return gaussian_epsilon(self.mu, delta)
        if delta == 0 or any(kind.noise_multiplier == 0 for kind in steps):
            return math.inf
        unsampled = gaussian_epsilon(self._unsampled_mu(), delta)
        if _ever(steps) < delta:  # without being taken nothing is lost
            return min(unsampled, gaussian_epsilon(self.mu, delta - _ever(steps)))
        tractable = self._tractable(steps)
        if unsampled == 0 or not tractable.sampled:
            return unsampled
        from hushrec_privacy.accounting.tilted import tilted_epsilon

        return min(unsampled, tilted_epsilon(tractable._parts(), delta))

    def _merged(self) -> Iterator[SampledSteps]:
        """One for each kind of step; none that costs nothing."""
        counts: dict[tuple[float, float], int] = {}
        for kind in self.sampled:
            if kind.sampling_rate and kind.steps:
                key = kind.sampling_rate, kind.noise_multiplier
                counts[key] = counts.get(key, 0) + kind.steps
        kinds = sorted(SampledSteps(*key, steps) for key, steps in counts.items())
        size = -(-len(kinds) // _MOST_KINDS)
        for start in range(0, len(kinds), max(1, size)):  # a higher rate and less noise are never better
            group = kinds[start : start + size]
            least_noise = min(kind.noise_multiplier for kind in group)
            yield SampledSteps(group[-1].sampling_rate, least_noise, sum(kind.steps for kind in group))

    def _unsampled_mu(self) -> float:
        return _together(self.mu, *(kind.unsampled_mu for kind in self._merged()))

    def _tractable(self, steps: tuple[SampledSteps, ...]) -> "PrivacyLoss":
        """Never better than it is: sampling that is not worth a grid taken for none, tiny rates for larger ones."""
        whole = [k for k in steps if k.sampling_rate == 1 or _largest_loss(k.noise_multiplier) > _LARGEST]
        sampled = [k for k in steps if k not in whole]
        return PrivacyLoss(
            _together(self.mu, *(kind.unsampled_mu for kind in whole)),
            tuple(SampledSteps(max(k.sampling_rate, _SMALLEST_RATE), k.noise_multiplier, k.steps) for k in sampled),
        )

    def _parts(self) -> list[SampledSteps]:
        """All of it as sampled steps, unsampled noise being one step at rate 1."""
        unsampled = [SampledSteps(1.0, 1 / (max(self.mu, _SMALLEST_MU) * _UP), 1)] if self.mu else []
        return [*self.sampled, *unsampled]


def _together(*shifts: float) -> float:
    """Root of the sum of squares, rounded up."""
    found = [mu for mu in shifts if mu]
    return math.hypot(*found) * (_UP if len(found) > 1 else 1)


def _ever(steps: tuple[SampledSteps, ...]) -> float:
    """The chance of a user to be in any step, at most."""
    return math.fsum(kind.sampling_rate * kind.steps for kind in steps) * _UP


def _largest_loss(noise_multiplier: float) -> float:
    return (_FAR + 0.5 / noise_multiplier) / noise_multiplier
