"""Exact discrete Gaussian noise, vectorised: P(Y = y) proportional to exp(-y^2 / (2 sigma^2)) over the whole numbers.

Canonne, Kamath and Steinke 2020, arXiv:2004.00010 (v3), Algorithms 1 to 3. Every choice is made by uniform whole
numbers below a whole bound; no float decides anything, so the distribution has no error to account for. The time that
a draw takes depends on what is drawn: do not let an opponent time single draws.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.randomness import OsRandom

__all__ = ["MAX_TERM", "sample_discrete_gaussian", "sample_tail"]

MAX_TERM = 2**40  # of sigma = p/q in lowest terms; then p * (1 + V) < 2^63 up to V = 2^22, whose chance is exp(-2^22)
_CHUNK = 2**15  # candidates at once: the arrays of a chunk stay in the second-level cache

_Ints: TypeAlias = NDArray[np.int64]
_Bools: TypeAlias = NDArray[np.bool_]


def sample_discrete_gaussian(source: OsRandom, count: int, numerator: int, denominator: int = 1) -> _Ints:
    """Draw independent noise from the discrete Gaussian with sigma = `numerator` / `denominator`.

    Guarantee:
        The distribution is exactly N_Z(0, sigma^2), if the words of `source` are uniform and independent.
        Its standard deviation is at most sigma (section 2), and within 1e-6 of it from sigma = 1 on.

    Args:
        source: Where the randomness comes from.
        count: How many, 0 or more.
        numerator: p of sigma = p/q, at least 1.
        denominator: q, at least 1. In lowest terms p and q are at most 2^40.

    Returns:
        Shape (count,), int64.

    Raises:
        ConfigError: An argument is no whole number, or outside its range.

    >>> sample_discrete_gaussian(OsRandom(), 3, 1000).shape
    (3,)
    """
    checks.at_least(0, count=count)
    checks.at_least(1, numerator=numerator, denominator=denominator)
    p, q = (term // math.gcd(numerator, denominator) for term in (numerator, denominator))
    if max(p, q) > MAX_TERM:
        raise ConfigError(f"sigma is {numerator}/{denominator}; both terms must be at most 2^40 after cancelling")
    out, filled = np.empty(count, np.int64), 0
    while filled < count:
        drawn = _candidates(source, min(_CHUNK, 3 * (count - filled) + 64), p, q)
        drawn = drawn[_accepted(source, drawn, p, q)][: count - filled]
        out[filled : filled + len(drawn)] = drawn
        filled += len(drawn)
    return out


def sample_tail(source: OsRandom, count: int, deviation: int, least: int) -> _Ints:
    """Draw independent noise from the discrete Gaussian, given that it is at least `least`.

    With y = least + g, exp(-y^2 / (2 s^2)) is exp(-g least / s^2) exp(-g^2 / (2 s^2)) times a constant: g is drawn from
    the first, a geometric law, by Algorithm 2 with t = s^2 and s = least, and kept with the chance of the second.

    Args:
        source: Where the randomness comes from.
        count: How many, 0 or more.
        deviation: s, 1 to 2^20.
        least: At least s, so that not few are kept, and at most 2^20 s.

    Returns:
        Shape (count,), int64, exactly so distributed.

    Raises:
        ConfigError: An argument is no whole number, or outside its range.

    >>> int(sample_tail(OsRandom(), 3, 10, 25).min()) >= 25
    True
    """
    checks.at_least(0, count=count)
    checks.at_least(1, deviation=deviation)
    checks.at_least(deviation, least=least)
    if deviation > 2**20 or least > deviation << 20:
        raise ConfigError(f"deviation is {deviation} and least {least}; they must be at most 2^20 and 2^20 deviations")
    out, filled = np.empty(count, np.int64), 0
    while filled < count:
        u = source.below(deviation**2, min(_CHUNK, 3 * (count - filled) + 64))
        u = u[_bernoulli_exp(source, u, deviation**2)]
        beyond = (u + deviation**2 * _successes_of_exp_minus_one(source, len(u))) // least
        beyond = beyond[_bernoulli_exp_square(source, beyond, deviation)][: count - filled]
        out[filled : filled + len(beyond)] = least + beyond
        filled += len(beyond)
    return out


def _candidates(source: OsRandom, count: int, p: int, q: int) -> _Ints:
    """Some draws of the discrete Laplace of scale p/q, about half as many as asked for: Algorithm 2 with t = p, s = q.

    Algorithm 3 takes a scale near sigma and corrects; with exactly sigma = p/q the correction has small terms (below).
    """
    u = source.below(p, count)
    u = u[_bernoulli_exp(source, u, p)]
    drawn = (u + p * _successes_of_exp_minus_one(source, len(u))) // q
    negative = source.below(2, len(u)) == 1
    kept: _Bools = ~(negative & (drawn == 0))  # zero would count twice
    drawn[negative] *= -1
    return drawn[kept]


def _accepted(source: OsRandom, y: _Ints, p: int, q: int) -> _Bools:
    """Which Laplace draws stay, each with chance exp(-(q|y| - p)^2 / (2 p^2)): Algorithm 3 with t = sigma."""
    return _bernoulli_exp_square(source, np.abs(q * np.abs(y) - p), p)


def _bernoulli_exp_square(source: OsRandom, x: _Ints, p: int) -> _Bools:
    """Bernoulli(exp(-x^2 / (2 p^2))) for x >= 0, shape (n,).

    With x = a p + r, 0 <= r < p, the exponent is a^2/2 + a r/p + r^2/(2 p^2): every factor needs only numbers below p.
    """
    a, r = np.divmod(x, p)
    alive = np.arange(len(x))
    alive = alive[_bernoulli_exp_half_square(source, r, p)]
    far = alive[a[alive] > 0]
    lost = np.zeros(len(x), np.bool_)
    level = 1
    while len(far):
        passed = _bernoulli_exp(source, r[far], p)  # one of the a factors exp(-r/p)
        for _ in range(2 * level - 1):  # a^2 = 1 + 3 + ... + (2a - 1) factors exp(-1/2)
            passed &= _bernoulli_exp(source, np.ones(len(far), np.int64), 2)
        lost[far[~passed]] = True
        level += 1
        far = far[passed & (a[far] >= level)]
    kept = np.zeros(len(x), np.bool_)
    kept[alive] = ~lost[alive]
    return kept


def _successes_of_exp_minus_one(source: OsRandom, count: int) -> _Ints:
    """How often Bernoulli(exp(-1)) succeeds before it first fails, shape (count,)."""
    successes = np.zeros(count, np.int64)
    alive = np.arange(count)
    while len(alive):
        alive = alive[_bernoulli_exp(source, np.ones(len(alive), np.int64), 1)]
        successes[alive] += 1
    return successes


def _bernoulli_exp(source: OsRandom, x: _Ints, p: int) -> _Bools:
    """Bernoulli(exp(-x/p)) for 0 <= x <= p: Algorithm 1, where Bernoulli(x/(k p)) is Bernoulli(x/p) and Bernoulli(1/k).

    Args:
        source: Where the randomness comes from.
        x: Shape (n,).
        p: The common denominator.

    Returns:
        Shape (n,).
    """
    odd = np.ones(len(x), np.bool_)  # whether the first k that fails is odd
    alive, k = np.arange(len(x)), 1
    while len(alive):
        if k > 1:
            alive = alive[source.below(k, len(alive)) == 0]
        alive = alive[source.below(p, len(alive)) < x[alive]]
        k += 1
        odd[alive] = k % 2 == 1
    return odd


def _bernoulli_exp_half_square(source: OsRandom, r: _Ints, p: int) -> _Bools:
    """Bernoulli(exp(-r^2 / (2 p^2))) for 0 <= r < p, as `_bernoulli_exp`."""
    odd = np.ones(len(r), np.bool_)
    alive, k = np.arange(len(r)), 1
    while len(alive):
        alive = alive[source.below(2 * k, len(alive)) == 0]
        alive = alive[source.below(p, len(alive)) < r[alive]]
        alive = alive[source.below(p, len(alive)) < r[alive]]
        k += 1
        odd[alive] = k % 2 == 1
    return odd
