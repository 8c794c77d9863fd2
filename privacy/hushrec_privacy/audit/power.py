"""What the audit of one training run can see at best, and how often it catches a false claim.

For canaries whose scores are Gaussian and shifted by mu (the best case of a Gaussian mechanism: each canary seen alone,
in every step). A real audit sees less. The statistics are those of `one_run.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hushrec_privacy import checks
from hushrec_privacy.audit.one_run import epsilon_lower_bound, guess_p_value
from hushrec_privacy.audit.tails import binomial_masses

__all__ = ["PowerRow", "best_guesses", "detection_power", "expected_epsilon", "power_table"]

_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # of the canaries guessed, tried for a power table


@dataclass(frozen=True)
class PowerRow:
    """What an audit of a Gaussian mechanism could show at best.

    Attributes:
        canaries: m.
        mu: Shift of a canary's score by its presence, in deviations of the noise.
        guesses: Number of guesses, of those tried, that shows most.
        accuracy: Share of these guesses that is expected to be right.
        epsilon_revealed: The lower bound that the expected number of right guesses gives.
        epsilon_ceiling: The lower bound if every coin were guessed right: no run with m canaries shows more.
    """

    canaries: int
    mu: float
    guesses: int
    accuracy: float
    epsilon_revealed: float
    epsilon_ceiling: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def detection_power(
    canaries: int, guesses: int, *, mu: float, epsilon: float, delta: float, confidence: float = 0.95
) -> float:
    """Chance that an audit refutes (`epsilon`, `delta`) of a mechanism that is really Gaussian of `mu`.

    Args:
        canaries: m.
        guesses: r, at least 2 and at most m.
        mu: True shift of a canary's score, in deviations of the noise; above 0.
        epsilon: The claim, at least 0.
        delta: The claim, at least 0 and below 1.
        confidence: Above 0 and below 1.

    Returns:
        A share; guesses are taken as independent at their expected accuracy, which is close from 100 guesses on.

    Raises:
        ConfigError: An argument is outside its range.

    >>> detection_power(1000, 100, mu=4.0, epsilon=1.0, delta=1e-5) > 0.99
    True
    """
    checks.positive(mu=mu, confidence=confidence)
    checks.share(confidence=confidence)
    low, high = 0, guesses + 1  # the fewest correct guesses that refute the claim
    while low < high:
        middle = (low + high) // 2
        if guess_p_value(canaries, guesses, middle, epsilon=epsilon, delta=delta) < 1 - confidence:
            high = middle
        else:
            low = middle + 1
        if low > guesses:
            return 0.0
    return float(binomial_masses(guesses, _accuracy(guesses / canaries, mu))[low:].sum())


def best_guesses(canaries: int, *, mu: float, epsilon: float, delta: float, confidence: float = 0.95) -> int:
    """The number of guesses, of those tried, with the largest chance to refute (`epsilon`, `delta`) at a true `mu`.

    Depends on nothing that is drawn, so an audit may use it. All canaries if there is no chance at all.

    Args:
        canaries: m, at least 2.
        mu: As in `detection_power`, and so the rest.

    Raises:
        ConfigError: An argument is outside its range.

    >>> best_guesses(1000, mu=1.2, epsilon=2.0, delta=1e-5)
    100
    """
    checks.at_least(2, canaries=canaries)

    def chance(guesses: int) -> float:
        return detection_power(canaries, guesses, mu=mu, epsilon=epsilon, delta=delta, confidence=confidence)

    return max(_tried(canaries), key=lambda guesses: (chance(guesses), guesses))


def expected_epsilon(canaries: int, guesses: int, *, mu: float, delta: float, confidence: float = 0.95) -> float:
    """The lower bound that the expected number of right guesses gives, if the mechanism is Gaussian of `mu`.

    Args:
        canaries: m.
        guesses: r, at most m.
        mu: As in `detection_power`, and so the rest.

    Raises:
        ConfigError: An argument is outside its range.

    >>> 3 < expected_epsilon(1000, 100, mu=4.0, delta=1e-5) < 4
    True
    """
    checks.positive(mu=mu)
    right = int(guesses * _accuracy(guesses / canaries, mu))
    return epsilon_lower_bound(canaries, guesses, right, delta=delta, confidence=confidence)


def power_table(
    canaries: Sequence[int], mus: Sequence[float], *, delta: float, confidence: float = 0.95
) -> tuple[PowerRow, ...]:
    """What audits could show at best, if the mechanism is Gaussian and each canary moves its score by `mu`.

    Args:
        canaries: Numbers m to tabulate.
        mus: True shifts to tabulate, each above 0.
        delta: At least 0 and below 1.
        confidence: Above 0 and below 1.

    Returns:
        A row for each pair, `canaries` first.

    Raises:
        ConfigError: An argument is outside its range.

    >>> row, = power_table([1000], [2.0], delta=1e-5)
    >>> row.epsilon_revealed < row.epsilon_ceiling
    True
    """
    return tuple(_power(m, mu, delta, confidence) for m in canaries for mu in mus)


def _power(m: int, mu: float, delta: float, confidence: float) -> PowerRow:
    checks.at_least(2, canaries=m)
    checks.positive(mu=mu)
    best = (-1.0, 0, 0.0)
    for guesses in _tried(m):
        shown = expected_epsilon(m, guesses, mu=mu, delta=delta, confidence=confidence)
        best = max(best, (shown, guesses, _accuracy(guesses / m, mu)))
    ceiling = max(
        epsilon_lower_bound(m, guesses, guesses, delta=delta, confidence=confidence) for guesses in (m // 2, m)
    )
    return PowerRow(m, mu, best[1], best[2], best[0], ceiling)


def _tried(m: int) -> list[int]:
    """Even, rising."""
    return sorted({max(2, int(m * share) // 2 * 2) for share in _SHARES})


def _accuracy(share: float, mu: float) -> float:
    """Share of right guesses among the `share` of most extreme scores: N(mu, 1) in, N(0, 1) out, half each.

    Both ends are alike by symmetry; at the upper one the threshold leaves share / 2 of all scores above it.
    """
    low, high = mu / 2, mu + 40.0
    for _ in range(200):
        middle = (low + high) / 2
        above = (_normal_upper(middle) + _normal_upper(middle - mu)) / 2
        low, high = (middle, high) if above > share / 2 else (low, middle)
    inside, outside = _normal_upper(low - mu), _normal_upper(low)
    return min(inside / (inside + outside), 1 - 2.0**-50)


def _normal_upper(x: float) -> float:
    return math.erfc(x / math.sqrt(2)) / 2
