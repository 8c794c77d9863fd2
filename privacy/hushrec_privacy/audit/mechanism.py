"""Audit a mechanism by what it draws: does its noise, clipping, counting and sampling do what is claimed?

The auditor calls the product's own code and believes only what comes back. Noise is whitened by the claimed matrix C
(see `mechanisms/banded.py`) and projected onto the direction of the largest possible shift, the sum of the columns of
one participant; there the likelihood ratio of neighbours lives (Gaussian mechanism, Dong, Roth and Su 2019,
arXiv:1905.02383, section 2.3), so its deviation over the shift is the privacy. A pass is no proof: it finds the faults
that it looks for.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hushrec_privacy import checks
from hushrec_privacy.accounting.toeplitz import square_root_coefficients
from hushrec_privacy.audit.draws import noise_reuse, noise_scale, noise_shape
from hushrec_privacy.audit.findings import Finding, MechanismAudit
from hushrec_privacy.audit.tails import chi_square_quantile, two_sided
from hushrec_privacy.errors import ConfigError, HushrecError

__all__ = ["AuditedMechanism", "MechanismClaim", "audit_mechanism"]

MIN_DRAWS = 100_000  # the interval of the deviation is then half a per cent wide to either side
_MIN_BATCH_VARIANCE = 25.0  # below it a batch size is too far from Gaussian for the dispersion test
_SLACK = 1e-6  # float32 rounding of a clipped norm, relative

_Floats: TypeAlias = NDArray[np.float64]


def _nothing() -> None:
    """A mechanism that is never restarted."""


@dataclass(frozen=True)
class MechanismClaim:
    """What is claimed of a mechanism.

    Attributes:
        sigma: Deviation of the independent noise z, in the units that are drawn; above 0.
        rounds: Rounds to audit, T.
        bands: h of the square-root Toeplitz matrix; 1 for independent noise.
        participations: k, of one participant within the rounds.
        separation: b, rounds from one participation to the next at least.
        clip_norm: L2 norm that an update is clipped to, in its own units; None if nothing is clipped.
        norm_bound: L2 norm of one contribution, in the units that are drawn; None: `clip_norm`.
        batches: Batch sizes to draw for Poisson sampling; 0 if no sampling is claimed.
        population: N of Poisson sampling.
        sampling_rate: q of Poisson sampling.
    """

    sigma: float
    rounds: int = 1
    bands: int = 1
    participations: int = 1
    separation: int = 1
    clip_norm: float | None = None
    norm_bound: float | None = None
    batches: int = 0
    population: int = 0
    sampling_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse claims that contradict themselves."""
        checks.positive(sigma=self.sigma)
        checks.at_least(1, rounds=self.rounds, bands=self.bands, participations=self.participations)
        checks.at_least(1, separation=self.separation)
        if self.participations > math.ceil(self.rounds / self.separation) or self.bands > self.rounds:
            raise ConfigError(
                f"{self.participations} participations {self.separation} rounds apart, or {self.bands} bands, do not "
                f"fit into {self.rounds} rounds"
            )
        if self.batches:
            checks.at_least(2, batches=self.batches)
            variance = self.population * self.sampling_rate * (1 - self.sampling_rate)
            if not variance >= _MIN_BATCH_VARIANCE:
                raise ConfigError(
                    f"population {self.population} at sampling_rate {self.sampling_rate!r}: the variance of a batch "
                    f"size must be at least {_MIN_BATCH_VARIANCE:.0f} to be tested"
                )


@dataclass(frozen=True)
class AuditedMechanism:
    """The product's code, as the auditor calls it.

    Attributes:
        draw: Noise of a round (1, 2, ...) on top of a sum of zeros, shape (n,), n at least 100,000 and the same in
            every round: each coordinate is one draw of the mechanism.
        restart: Throw away every object in memory and open the stored state anew; called between rounds.
        contribute: What one update adds to a sum, after clipping and encoding, before noise; None: not audited.
        admit: Whether a participant may take part in a round, recorded if so; None: not audited.
        batch_size: Size of one more batch of Poisson sampling; None: not audited.
    """

    draw: Callable[[int], NDArray[Any]]
    restart: Callable[[], None] = _nothing
    contribute: Callable[[NDArray[np.float32]], NDArray[Any]] | None = None
    admit: Callable[[int], bool] | None = None
    batch_size: Callable[[], int] | None = None


def audit_mechanism(mechanism: AuditedMechanism, claim: MechanismClaim, *, level: float = 0.05) -> MechanismAudit:
    """Draw from a mechanism and compare it with its claim.

    The tests that depend on chance share `level`: each of m has 1 - (1 - level)^(1/m), so that a sound mechanism
    fails with chance `level` in all. Deviations are two-sided: too much noise is no leak, but not what was claimed.

    Args:
        mechanism: The product's code.
        claim: What is said of it.
        level: Chance of a false alarm, above 0 and below 1.

    Returns:
        Pass or fail, with each finding. It holds no draws.

    Raises:
        ConfigError: `level` is out of range, fewer than 100,000 draws came back, or a batch was to be sampled and
            the claim names no population.

    >>> noise = np.random.default_rng(0)
    >>> fair = AuditedMechanism(draw=lambda round_number: noise.normal(0, 2, 100_000))
    >>> audit_mechanism(fair, MechanismClaim(sigma=2.0)).passed
    True
    """
    checks.positive(level=level)
    checks.share(level=level)
    if mechanism.batch_size is not None and not claim.batches:
        raise ConfigError("batch_size was given, but the claim names no batches, population and sampling_rate")
    whitened = _whitened(mechanism, claim)
    tests = 2 + (claim.rounds > 1) + (mechanism.batch_size is not None)
    each = -math.expm1(math.log1p(-level) / tests)
    projected = _projected(whitened, claim)
    findings = [noise_scale(projected, claim.sigma, each), noise_shape(projected, each)]
    if claim.rounds > 1:
        findings.append(noise_reuse(whitened, each))
    if mechanism.batch_size is not None:
        findings.append(_sampling(mechanism.batch_size, claim, each))
    if mechanism.contribute is not None and claim.clip_norm is not None:
        findings.append(_clipping(mechanism.contribute, claim.clip_norm, claim.norm_bound or claim.clip_norm))
    if mechanism.admit is not None:
        findings.append(_participation(mechanism.admit, mechanism.restart, claim))
    return MechanismAudit(tuple(findings), level, whitened.shape[1])


def _whitened(mechanism: AuditedMechanism, claim: MechanismClaim) -> _Floats:
    """C times the noise of all rounds, shape (T, n): independent rows of deviation sigma, if the claim is true."""
    rows: list[_Floats] = []
    for number in range(1, claim.rounds + 1):
        drawn = np.asarray(mechanism.draw(number), np.float64)
        if drawn.ndim != 1 or len(drawn) < MIN_DRAWS or (rows and drawn.shape != rows[0].shape):
            raise ConfigError(f"draw must return one row of at least {MIN_DRAWS:,} numbers, as many in every round")
        rows.append(drawn)
        mechanism.restart()
    noise = np.array(rows)
    whitened = np.zeros_like(noise)
    for lag, coefficient in enumerate(square_root_coefficients(claim.bands)):
        whitened[lag:] += coefficient * noise[: len(noise) - lag]
    return whitened


def _projected(whitened: _Floats, claim: MechanismClaim) -> _Floats:
    """Onto the sum of the columns of C that are b apart, the largest shift of non-negative non-increasing columns."""
    direction = np.zeros(claim.rounds + claim.bands)
    coefficients = np.array(square_root_coefficients(claim.bands))
    for first in range(0, claim.participations * claim.separation, claim.separation):
        direction[first : first + claim.bands] += coefficients
    direction = direction[: claim.rounds] / np.linalg.norm(direction[: claim.rounds])
    projected: _Floats = direction @ whitened
    return projected


def _sampling(batch_size: Callable[[], int], claim: MechanismClaim, level: float) -> Finding:
    """Batch sizes of Poisson sampling are binomial: their variance is N q (1 - q), that of fixed batches 0."""
    mean = claim.population * claim.sampling_rate
    variance = mean * (1 - claim.sampling_rate)
    total = sum((batch_size() - mean) ** 2 for _ in range(claim.batches))
    p_value = two_sided(total / variance, claim.batches)
    quantiles = (chi_square_quantile(chance, claim.batches) for chance in (1 - level / 2, level / 2))
    low, high = (total / quantile for quantile in quantiles)
    return Finding("sampling", p_value >= level, variance, total / claim.batches, (low, high), p_value)


def _clipping(contribute: Callable[[NDArray[np.float32]], NDArray[Any]], clip_norm: float, bound: float) -> Finding:
    """Updates ten times too long, and far longer, in three directions: the longest contribution. A refusal adds 0."""
    longest = 0.0
    for direction in (np.eye(1, 1000), np.ones(1000), np.linspace(-1, 1, 1000)):
        unit = direction.ravel() / np.linalg.norm(direction)
        for factor in (10.0, 1e9):
            try:
                added = np.asarray(contribute((unit * factor * clip_norm).astype(np.float32)), np.float64)
            except HushrecError:
                continue
            norm = float(np.linalg.norm(added))
            longest = max(longest, norm if math.isfinite(norm) else math.inf)
    return Finding("clipping", longest <= bound * (1 + _SLACK), bound, longest, (longest, longest), None)


def _participation(admit: Callable[[int], bool], restart: Callable[[], None], claim: MechanismClaim) -> Finding:
    """One participant asks in every round: how often it is let in, and never sooner than b rounds after."""
    taken = []
    for number in range(1, claim.rounds + 1):
        if admit(number):
            taken.append(number)
            restart()
    apart = all(later - earlier >= claim.separation for earlier, later in itertools.pairwise(taken))
    found = float(len(taken))
    passed = apart and len(taken) <= claim.participations
    return Finding("participation", passed, float(claim.participations), found, (found, found), None)
