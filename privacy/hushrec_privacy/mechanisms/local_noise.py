"""Noise that one device adds to a vector before it sends it by itself: local differential privacy.

Clip to an L2 norm, put on a grid of 2^20 steps to the clip norm, round conditionally, add discrete Gaussian noise:
Kairouz, Liu and Steinke 2021, arXiv:2102.06387, Algorithm 1, with one client. Any two vectors are 2 norms apart, so the
noise is twice as large as zero-out alone would need; and no cohort shares it, so that one release says little.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks
from hushrec_privacy.accounting.claims import local_guarantee
from hushrec_privacy.accounting.discrete import ROUNDING_VARIANCE, equivalent_gaussian_deviation
from hushrec_privacy.accounting.gaussian import gaussian_mu
from hushrec_privacy.accounting.guarantee import Guarantee
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.clipping import clip_update
from hushrec_privacy.mechanisms.discrete_gaussian import MAX_TERM, sample_discrete_gaussian
from hushrec_privacy.mechanisms.norm_bound import rounded_norm_bound
from hushrec_privacy.mechanisms.rounding import round_conditionally
from hushrec_privacy.randomness import OsRandom

__all__ = ["LocalNoise"]

_STEPS = 2**20  # of the grid to the clip norm: rounding lengthens a vector of 500,000 numbers by 1e-6 of itself
_MOST_LENGTH = 2**20
_UP, _DOWN = 1 + 2.0**-40, 1 - 2.0**-48  # so that what is stated is kept where logarithms differ in the last bits


@dataclass(frozen=True)
class LocalNoise:
    """How one kind of payload is noised.

    Attributes:
        length: Numbers of a payload, at most 2^20.
        clip_norm: L2 bound before the noise, at least 1e-30.
        epsilon: Of one release.
        delta: Of one release, above 0.

    Raises:
        ConfigError: A field is out of range, or no noise that can be drawn is enough.

    >>> noise = LocalNoise(length=8, clip_norm=1.0, epsilon=4.0, delta=1e-6)
    >>> sent = noise.release(np.ones(8, np.float32), OsRandom())
    >>> noise.read(sent).shape, round(noise.guarantee().epsilon, 4), round(noise.deviation_of_a_number, 2)
    ((8,), 4.0, 2.39)
    """

    length: int
    clip_norm: float
    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        checks.at_least(1, length=self.length)
        checks.positive(clip_norm=self.clip_norm, epsilon=self.epsilon, delta=self.delta)
        if self.length > _MOST_LENGTH or self.clip_norm < 1e-30:
            raise ConfigError(f"length {self.length} must be at most 2^20, clip_norm {self.clip_norm!r} at least 1e-30")
        if self.deviation > MAX_TERM:
            raise ConfigError(f"an epsilon of {self.epsilon:g} needs noise beyond what can be drawn; allow more")

    @property
    def deviation(self) -> int:
        """sigma of the discrete Gaussian noise, in grid steps: the least that keeps epsilon and delta."""
        mu = gaussian_mu(self.epsilon, self.delta)
        return math.ceil(math.sqrt((self._distance / mu) ** 2 + ROUNDING_VARIANCE) * _UP)

    @property
    def noise_multiplier(self) -> float:
        """Deviation of the noise over the largest distance of two vectors, all rounding included; rounded down."""
        return equivalent_gaussian_deviation(float(self.deviation), self.length) / self._distance * _DOWN

    @property
    def deviation_of_a_number(self) -> float:
        """Standard deviation of the noise in one number of `read`, in the unit of the vector."""
        return self.deviation * self.clip_norm / _STEPS

    @property
    def _distance(self) -> float:
        """The largest distance of two rounded vectors, in grid steps."""
        return 2 * rounded_norm_bound(float(_STEPS), self.length)

    def release(self, vector: NDArray[np.float32], source: OsRandom) -> NDArray[np.int64]:
        """Noise one vector. Each call is a release of its own and costs `guarantee` again.

        Guarantee:
            (epsilon, delta)-differential privacy between any two vectors, in exact whole-number arithmetic, for every
            input; one that is not finite counts as zeros.

        Args:
            vector: Shape (length,). Private.
            source: Where the randomness comes from.

        Returns:
            Shape (length,), in grid steps: what may leave the device.

        Raises:
            ConfigError: `vector` has another shape. Never depends on its values.
        """
        if np.shape(vector) != (self.length,):
            raise ConfigError(f"the payload has shape {np.shape(vector)}; it must have {self.length} numbers")
        clipped = clip_update(vector, clip_norm=self.clip_norm).astype(np.float64)
        try:
            rounded = round_conditionally(source, clipped * (_STEPS / self.clip_norm), clip_norm=float(_STEPS))
        except ConfigError:  # no draw was within the bound: chance exp(-50), and a bound is a bound
            rounded = np.zeros(self.length, np.int64)
        return rounded + sample_discrete_gaussian(source, self.length, self.deviation)

    def read(self, released: NDArray[np.int64]) -> NDArray[np.float64]:
        """The noised vector in its own unit, shape (length,)."""
        return released.astype(np.float64) * (self.clip_norm / _STEPS)

    def guarantee(self, releases: int = 1) -> Guarantee:
        """What holds for so many releases of one device, at the delta of one.

        Raises:
            ConfigError: `releases` is no whole number of at least 0.
        """
        return local_guarantee(self.noise_multiplier, releases, self.delta)
