"""How far the server goes in each round of a run, as a share of its learning rate.

A run's rounds are fixed beforehand, so its schedule is as well: it depends on public numbers alone, and needs no state.
The optimizer's moments know little at first, so the rate rises; what is left of the noise at the end is as large as the
last steps, so from half of the rounds on it falls to 0. docs/design.md has what that is worth.
"""

import math

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError

__all__ = ["share_of_rate"]

_RISING = 50  # rounds, but no more than a quarter of all
_QUIET = 0.5  # noise up to this share of the clip norm is what the rate was chosen for


def share_of_rate(number: int, rounds: int, noise_to_clip: float = 0.0) -> float:
    """Share of the server's rate for one round.

    Args:
        number: Of the round, from 1.
        rounds: T of the run.
        noise_to_clip: Norm of a round's noise over the clip norm, as `Plan.noise_to_clip` has it: beyond .5 the rate is
            as much smaller.

    Returns:
        Above 0 and at most 1.

    Raises:
        ConfigError: There is no such round, or the noise is negative.

    >>> [share_of_rate(number, 8) for number in range(1, 9)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    >>> share_of_rate(300, 600, noise_to_clip=2.0)
    0.25
    """
    checks.at_least(1, number=number, rounds=rounds + 1 - number)
    if not 0 <= noise_to_clip < math.inf:
        raise ConfigError(f"noise_to_clip is {noise_to_clip!r}; it must be a finite number of at least 0")
    rising = max(1, min(_RISING, rounds // 4))
    shape = min(1.0, number / rising, 2 * (rounds + 1 - number) / rounds)
    return shape / max(1.0, noise_to_clip / _QUIET)
