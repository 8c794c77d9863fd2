"""A lower bound of epsilon from the canaries of one training run.

Steinke, Nasr and Jagielski 2023, arXiv:2305.08846, Theorem 5.2 in the form of Appendix D: each of m canaries is put in
or left out by a fair coin; the auditor guesses some of the coins and abstains from the rest. Under (epsilon, delta)-DP
the correct guesses are hardly more than a binomial of chance 1 / (1 + exp(-epsilon)). Does no training (the canaries
live in the model package). A low bound is no evidence of privacy: see `power.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks
from hushrec_privacy.audit.tails import binomial_masses
from hushrec_privacy.errors import ConfigError

__all__ = [
    "OneRunAudit",
    "audit_one_run",
    "epsilon_lower_bound",
    "guess_p_value",
]

_TOLERANCE = 1e-6  # of a bound on epsilon; it is rounded down


@dataclass(frozen=True)
class OneRunAudit:
    """What the canaries of one run show.

    Attributes:
        epsilon_lower: The run is not (epsilon, delta)-DP for any smaller epsilon, with `confidence`.
        delta: The delta of that statement.
        confidence: Chance that the statement is true of a run that it is made of.
        canaries: m.
        guesses: Coins guessed, of the best of the numbers that were tried.
        correct: Guesses that were right.
        tried: How many numbers of guesses were tried; the confidence is shared among them.
    """

    epsilon_lower: float
    delta: float
    confidence: float
    canaries: int
    guesses: int
    correct: int
    tried: int

    def refutes(self, epsilon: float) -> bool:
        """Whether a claim of (`epsilon`, `delta`) is refuted."""
        return self.epsilon_lower > epsilon

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def guess_p_value(canaries: int, guesses: int, correct: int, *, epsilon: float, delta: float) -> float:
    """Bound of the chance of so many correct guesses, if the run is (`epsilon`, `delta`)-DP.

    Theorem 5.2: P(B >= v) + 2 m delta max over i of P(v > B >= v - i) / i, B binomial of r and 1 / (1 + exp(-epsilon)).

    Args:
        canaries: m, at least 1.
        guesses: r, at most m.
        correct: v, at most r.
        epsilon: At least 0.
        delta: At least 0 and below 1.

    Raises:
        ConfigError: An argument is outside its range.

    >>> guess_p_value(10, 10, 10, epsilon=0.0, delta=0.0) == 2.0**-10
    True
    """
    checks.at_least(1, canaries=canaries)
    checks.at_least(0, guesses=guesses, correct=correct)
    checks.share(delta=delta)
    if not correct <= guesses <= canaries:
        raise ConfigError(
            f"{correct} correct of {guesses} guesses of {canaries} canaries: each must be at most the next"
        )
    if not 0 <= epsilon < 700:
        raise ConfigError(f"epsilon is {epsilon!r}; it must be at least 0 and below 700")
    if correct == 0:
        return 1.0
    success = 1 / (1 + math.exp(-epsilon))
    if success == 1.0:
        return 1.0  # an epsilon beyond 36 allows every guess to be right
    masses = binomial_masses(guesses, success)
    below = np.cumsum(masses[:correct][::-1]) / np.arange(1, correct + 1)
    return min(1.0, float(masses[correct:].sum()) + 2 * canaries * delta * float(below.max()))


def epsilon_lower_bound(canaries: int, guesses: int, correct: int, *, delta: float, confidence: float = 0.95) -> float:
    """The largest epsilon that so many correct guesses refute, rounded down; 0 if none.

    Args:
        canaries: m, at least 1.
        guesses: r, at most m; fixed before the coins are known.
        correct: v, at most r.
        delta: At least 0 and below 1.
        confidence: Above 0 and below 1.

    Raises:
        ConfigError: An argument is outside its range.

    >>> epsilon_lower_bound(1000, 1000, 500, delta=0.0)
    0.0
    >>> round(epsilon_lower_bound(100, 100, 100, delta=0.0), 4)  # 0.05^(1/100) = 1 / (1 + exp(-epsilon))
    3.493
    """
    checks.share(confidence=confidence)
    checks.positive(confidence=confidence)

    def refuted(epsilon: float) -> bool:
        return guess_p_value(canaries, guesses, correct, epsilon=epsilon, delta=delta) < 1 - confidence

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 40.0
    while high - low > _TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def audit_one_run(
    scores: NDArray[np.floating],
    included: NDArray[np.bool_],
    *,
    guesses: int | Sequence[int],
    delta: float,
    confidence: float = 0.95,
) -> OneRunAudit:
    """Guess from its canaries' scores which ones a run was trained on, and bound its epsilon.

    The highest r/2 scores are guessed in, the lowest r/2 out, the rest is not guessed.

    Args:
        scores: Shape (m,): higher means more likely in. Made without knowledge of `included`.
        included: Shape (m,): the fair coins, one a canary, independent.
        guesses: r, even, at least 2 and at most m, fixed before the coins are known. Of several the best counts, and
            1 - `confidence` is divided among them (Bonferroni).
        delta: At least 0 and below 1.
        confidence: Above 0 and below 1.

    Returns:
        The bound and what it rests on.

    Raises:
        ConfigError: An argument is outside its range, or a score is not a number.

    >>> audit_one_run(np.arange(8.0), np.arange(8) >= 4, guesses=8, delta=0.0).correct
    8
    """
    scores, included = np.asarray(scores, np.float64), np.asarray(included)
    if scores.ndim != 1 or scores.shape != included.shape or included.dtype != np.bool_ or np.isnan(scores).any():
        raise ConfigError("scores and included must be two rows of the same length, numbers and truth values")
    choices = (guesses,) if isinstance(guesses, int) else tuple(guesses)
    if not choices or any(r % 2 or not 2 <= r <= len(scores) for r in choices):
        raise ConfigError(f"guesses is {guesses!r}; each must be even, at least 2 and at most {len(scores)} canaries")
    ordered = included[np.argsort(scores, kind="stable")]
    each = 1 - (1 - confidence) / len(choices)
    best = (-1.0, 0, 0)
    for r in choices:
        correct = int(ordered[-(r // 2) :].sum()) + r // 2 - int(ordered[: r // 2].sum())
        best = max(best, (epsilon_lower_bound(len(scores), r, correct, delta=delta, confidence=each), r, correct))
    return OneRunAudit(best[0], delta, confidence, len(scores), best[1], best[2], len(choices))
