"""Poisson sampling of users by the secure keystream: each is in a step with probability q, independently of all others.

What amplification by sampling is proved for (Abadi et al. 2016, arXiv:1607.00133, section 3.1; Mironov et al. 2019,
arXiv:1908.10530, definition 3). Batches of a fixed size, or a shuffled pass over the data, are not this.
"""

import numpy as np
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

__all__ = ["PoissonSampler"]

_WORDS = 2**64


class PoissonSampler:
    """Draws the users of each step. An empty draw is a step like any other: it is noised and it is spent.

    Args:
        population: How many users there are to draw from, N.
        sampling_rate: q, above 0 and at most 1.
        random: Secure source; there is no seeded variant.

    Raises:
        ConfigError: A number is out of range.

    >>> PoissonSampler(5, 1.0, OsRandom()).draw().tolist()
    [0, 1, 2, 3, 4]
    """

    def __init__(self, population: int, sampling_rate: float, random: OsRandom) -> None:
        if not 0 < sampling_rate <= 1:
            raise ConfigError(f"sampling_rate is {sampling_rate!r}; it must be above 0 and at most 1")
        if population < 1:
            raise ConfigError(f"population is {population!r}; there must be at least one user")
        self._population, self._random = population, random
        self._bound = int(sampling_rate * _WORDS)  # exact: a float times a power of two; rounded down, never up

    def draw(self) -> NDArray[np.int64]:
        """The users of one step, rising, shape (B,); B differs from step to step and is as secret as the users are."""
        if self._bound >= _WORDS:
            return np.arange(self._population)
        return np.flatnonzero(self._random.words(self._population) < np.uint64(self._bound))
