"""Gaussian noise in floating point, for central training whose sums are floats: Box-Muller over the secure keystream.

Box and Muller 1958, equation 1, on uniforms of 53 bits. Each value is the sum of four draws over two, so that the gaps
between floats cannot be read back from one output (Holohan and Braghin 2021, arXiv:2107.10138, section 5.1; Opacus'
secure mode does the same). What this does not do: make the noise exact. Its values lie on a finite set and end at about
17 standard deviations, and the sum that it is added to was rounded; where that must not matter, as in rounds, the
discrete Gaussian on integers is used instead.
"""

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy.errors import ConfigError
from hushrec_privacy.randomness import OsRandom

__all__ = ["float_gaussian"]

_DRAWS = 4  # of variance 1 each; over 2 the sum has variance 1 again
_AT_ONCE = 2**17  # values made at once, so that the temporary arrays stay in cache


def float_gaussian(random: OsRandom, count: int, scale: float) -> NDArray[np.float64]:
    """Independent draws from a normal distribution around 0.

    Args:
        random: Secure source; there is no seeded variant.
        count: How many.
        scale: Standard deviation, at least 0 and finite; 0 gives zeros.

    Returns:
        Shape (count,), float64.

    Raises:
        ConfigError: `scale` is negative, infinite or not a number.

    >>> float_gaussian(OsRandom(), 3, 2.0).shape
    (3,)
    """
    if not 0 <= scale < np.inf:  # also refuses NaN
        raise ConfigError(f"scale is {scale!r}; it must be a finite number of at least 0")
    out = np.zeros(count)
    if scale:
        for first in range(0, count, _AT_ONCE):
            part = out[first : first + _AT_ONCE]
            for _ in range(_DRAWS):
                part += _box_muller(random, len(part))
        out *= scale / np.sqrt(_DRAWS)
    return out


def _box_muller(random: OsRandom, count: int) -> NDArray[np.float64]:
    pairs = (count + 1) // 2
    uniform = random.uniform(2 * pairs)
    length = np.sqrt(-2.0 * np.log1p(-uniform[:pairs]))  # of 1 - u, which is never 0
    angle = 2.0 * np.pi * uniform[pairs:]
    return np.concatenate([length * np.cos(angle), length * np.sin(angle)])[:count]
