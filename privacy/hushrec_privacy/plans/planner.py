"""What a shop can reach with its devices: from population, cohort, rounds and a target to a complete plan.

Noise comes from a target epsilon or is given; separation from how long it takes until a device's turn comes again; ring
and lattice are the coarsest whose rounding costs next to nothing. What amplification by sampling would have promised is
computed beside it, to be refused: devices choose themselves when to check in, so nobody samples them.
"""

import math
import re
import secrets
from dataclasses import dataclass, field, replace
from typing import Any

from hushrec_privacy import canonical, checks
from hushrec_privacy.accounting.claims import DEVICE, ROUNDS_TRUST
from hushrec_privacy.accounting.discrete import ROUNDING_VARIANCE
from hushrec_privacy.accounting.gaussian import check_delta, check_epsilon, check_noise, gaussian_mu
from hushrec_privacy.accounting.guarantee import WEAK_EPSILON, Guarantee, number
from hushrec_privacy.accounting.sampled import poisson_epsilon
from hushrec_privacy.accounting.toeplitz import most_participations, prefix_error, sensitivity_squared
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.plans.limits import COHORT_FLOOR
from hushrec_privacy.plans.plan import MAX_PARAMETERS, NO_PARTS, PARTS, SECAGG, Plan, noise_to_clip
from hushrec_privacy.plans.ring import smallest_ring
from hushrec_privacy.plans.schema import UPDATE, Segment, Vector

__all__ = ["ADAPTER_PARAMETERS", "Reachable", "Request", "make_plan", "reach"]

ADAPTER_PARAMETERS = 2048
"""Numbers of the low-rank adapter: 64 x 16 x 2."""

_UPDATE_PURPOSE = "by how much each number of the model should change"
_LATTICE_LOSS = 1e-4  # share of the sensitivity that rounding the correlated noise may add
_MOST_DEVIATION = 2**28  # lattice steps, so that 64-bit sums over the bands have room
_OTHER_MACHINES = 1 + 1e-9  # whose logarithms may differ in the last bits: what is stated must hold there too
_LEAST_NOISE = 2.0**-30
_MOST_BANDS = 200  # 800 MB of noise state at 500,000 numbers


@dataclass(frozen=True)
class Request:
    """What the shop knows and wants.

    Attributes:
        population: N, devices that may ever join.
        cohort: M, devices of a round.
        rounds: T.
        delta: Of the guarantee.
        epsilon: Wanted; None if the noise is given.
        noise_multiplier: z, standard deviation of the noise over the clip norm; None if epsilon is given.
        min_separation: b; None: as long as it takes until everybody had a turn, floor(N / M).
        parameters: P, numbers of an update; with a `vector` its segments say it.
        parts: What is trained.
        clip_norm: L2 bound of an update, in the unit of the weights.
        local_steps: Steps that a device trains in a round.
        local_rate: Size of such a step.
        candidates: Items that a step scores against.
        vector: What devices send instead of an update; None: they train.
        secagg: Which server secure aggregation withstands.
        authority: Public key of whoever certifies devices, 64 hexadecimal digits; empty: for figures only, since such a
            plan is not signed.
        round_seconds: From one round's start to the next.
        first_round_at: Seconds since 1970-01-01 UTC.

    Raises:
        ConfigError: A value is out of range, or they contradict each other.
    """

    population: int
    cohort: int
    rounds: int
    delta: float
    epsilon: float | None = None
    noise_multiplier: float | None = None
    min_separation: int | None = None
    parameters: int = ADAPTER_PARAMETERS
    parts: str = "adapter"
    clip_norm: float = 0.1
    local_steps: int = 1
    local_rate: float = 0.1
    candidates: int = 1024
    vector: Vector | None = None
    secagg: str = "active"
    authority: str = ""
    round_seconds: int = 3600
    first_round_at: int = 1

    def __post_init__(self) -> None:
        checks.at_least(1, population=self.population, cohort=self.cohort, rounds=self.rounds)
        checks.at_least(1, parameters=self.parameters, round_seconds=self.round_seconds)
        check_delta(self.delta)
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ConfigError("give either epsilon or noise_multiplier; the other one follows from it")
        if self.epsilon is not None:
            check_epsilon(self.epsilon)
        if self.noise_multiplier is not None:
            check_noise(self.noise_multiplier)
        checks.positive(clip_norm=self.clip_norm, local_rate=self.local_rate)
        checks.one_of(PARTS, parts=self.parts)
        checks.at_least(1, local_steps=self.local_steps, candidates=self.candidates)
        checks.one_of(SECAGG, secagg=self.secagg)
        if self.authority and not re.fullmatch("[0-9a-f]{64}", self.authority):
            raise ConfigError("authority must be the 64 lower-case hexadecimal digits of a public key")
        if self.numbers > MAX_PARAMETERS:
            raise ConfigError(
                f"a vector of {self.numbers} numbers is more than a round can carry, {MAX_PARAMETERS}; train a smaller "
                "part, or count less"
            )
        if self.cohort > self.population:
            raise ConfigError(f"cohort is {self.cohort}, above the population of {self.population}")
        if self.min_separation is not None:
            checks.at_least(1, min_separation=self.min_separation)
            if self.min_separation * self.cohort > self.population:
                raise ConfigError(
                    f"min_separation is {self.min_separation}, but {self.population} devices fill only "
                    f"{self.population // self.cohort} rounds of {self.cohort} before one must come again"
                )

    @property
    def separation(self) -> int:
        """b: as given, or until everybody had a turn, but no more than the rounds."""
        return min(self.min_separation or self.population // self.cohort, self.rounds)

    @property
    def numbers(self) -> int:
        """P: of the update, or of all segments."""
        return self.parameters if self.vector is None else sum(segment.length for segment in self.vector.schema)

    @property
    def bands(self) -> int:
        """h: noise is correlated over rounds where their sum is what counts; counts are read round by round."""
        return min(self.separation, _MOST_BANDS) if self.vector is None else 1


@dataclass(frozen=True)
class Reachable:
    """What a request comes to.

    Attributes:
        guarantee: Everything rounding adds included.
        plan: The plan, without dates of its own; None where there is no finite guarantee.
        noise_multiplier: z.
        participations: k, the most that fit.
        min_separation: b, as used.
        smallest_separation: The smallest b with no more participations than this one.
        largest_separation: floor(N / M): beyond it rounds cannot be filled.
        sensitivity_squared: Of the matrix, for updates of norm 1.
        ring_bits: The smallest ring in which no sum wraps.
        noise_to_clip: Norm of a round's noise after division by M, over the clip norm.
        prefix_rmse: Error of a prefix sum over the rounds, in clip norms a coordinate; with independent noise of the
            same epsilon.
        state_bytes: Of the sealed noise state.
        false_epsilon: What Poisson amplification at M / N would have promised with this noise, and nobody keeps.
        doubts: What makes the guarantee mean little, one sentence each.
    """

    guarantee: Guarantee
    plan: Plan | None
    noise_multiplier: float
    participations: int
    min_separation: int
    smallest_separation: int
    largest_separation: int
    sensitivity_squared: float
    ring_bits: int
    noise_to_clip: float
    prefix_rmse: tuple[float, float]
    state_bytes: int
    false_epsilon: float = field(default=math.nan)
    doubts: tuple[str, ...] = ()

    @property
    def demo(self) -> bool:
        """Whether so few devices take part that devices with normal limits refuse the plan."""
        return self.plan is not None and self.plan.demo

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            **self.guarantee.to_dict(),
            "demo": self.demo,
            "doubts": list(self.doubts),
            "noise_multiplier": number(self.noise_multiplier),
            "participations": self.participations,
            "min_separation": self.min_separation,
            "smallest_separation": self.smallest_separation,
            "largest_separation": self.largest_separation,
            "sensitivity_squared": self.sensitivity_squared,
            "ring_bits": self.ring_bits,
            "noise_norm_over_clip_norm": self.noise_to_clip,
            "prefix_rmse": {"banded": self.prefix_rmse[0], "independent": self.prefix_rmse[1]},
            "state_bytes": self.state_bytes,
            "amplification_would_falsely_promise": number(self.false_epsilon),
            "plan_id": None if self.plan is None else self.plan.plan_id,
        }


def reach(request: Request) -> Reachable:
    """Work out a request.

    Raises:
        ConfigError: No finite noise reaches it, or its numbers are too large for the lattice or the ring.

    >>> found = reach(Request(population=200_000, cohort=1000, rounds=2000, delta=1e-6, noise_multiplier=10.0))
    >>> found.min_separation, found.participations, found.ring_bits, round(found.guarantee.epsilon, 1)
    (200, 10, 16, 2.4)
    """
    separation = request.separation
    participations = most_participations(request.rounds, separation)
    bands = request.bands
    squared = sensitivity_squared(request.rounds, bands, separation, participations)
    plan = make_plan(request)
    noise = request.noise_multiplier or 0.0 if plan is None else plan.noise_multiplier
    coordinates = _coordinates(request.numbers)
    independent = noise * math.sqrt(participations / squared)
    return Reachable(
        guarantee=_nothing(request.delta) if plan is None else plan.guarantee(),
        plan=plan,
        noise_multiplier=noise,
        participations=participations,
        min_separation=separation,
        smallest_separation=-(-request.rounds // participations),
        largest_separation=request.population // request.cohort,
        sensitivity_squared=squared,
        ring_bits=smallest_ring(request.cohort, coordinates).bits,
        noise_to_clip=noise_to_clip(
            noise, rounds=request.rounds, bands=bands, coordinates=coordinates, cohort=request.cohort
        ),
        prefix_rmse=(
            noise * prefix_error(request.rounds, bands) / request.cohort,
            independent * math.sqrt((request.rounds + 1) / 2) / request.cohort,
        ),
        state_bytes=8 * coordinates * (bands - 1),
        false_epsilon=poisson_epsilon(request.cohort / request.population, request.rounds, noise, request.delta),
        doubts=_doubts(request, math.inf if plan is None else float(plan.epsilon)),
    )


def make_plan(request: Request) -> Plan | None:
    """The plan of a request; None if no noise is wanted, or delta is 0: such a plan would guarantee nothing.

    Raises:
        ConfigError: No finite noise reaches it, or its numbers are too large for the lattice or the ring.
    """
    if request.epsilon == math.inf or request.noise_multiplier == 0 or (request.delta == 0 and not request.epsilon):
        return None
    draft = _Draft(request)
    sigma = draft.given_deviation() if request.epsilon is None else draft.least_deviation(request.epsilon)
    return draft.plan(sigma)


class _Draft:
    """The parts of a plan that do not depend on its noise, and the noise from them."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.coordinates = _coordinates(request.numbers)
        self.ring = smallest_ring(request.cohort, self.coordinates)
        self.separation = request.separation
        self.bands = request.bands
        self.participations = most_participations(request.rounds, self.separation)
        squared = sensitivity_squared(request.rounds, self.bands, self.separation, self.participations)
        self.shift = math.sqrt(squared * self.ring.rounded_norm_squared)  # ring steps
        self.rounding = math.sqrt(self.coordinates * request.rounds) if self.bands > 1 else 0.0  # lattice steps

    def lattice_bits(self, noise: float) -> int:
        """The coarsest lattice on which rounding is cheap; `noise` in ring steps."""
        if not _LEAST_NOISE <= noise <= _MOST_DEVIATION:
            raise ConfigError(
                f"noise of {noise:.3g} ring steps cannot be drawn in 64-bit numbers; it is from {_LEAST_NOISE:g} to "
                f"{_MOST_DEVIATION:g}: ask for another epsilon, noise multiplier or cohort"
            )
        wanted = max(self.rounding / (_LATTICE_LOSS * self.shift), 64.0 / noise, 1.0)
        fine = math.ceil(math.log2(wanted))
        most = math.floor(math.log2(_MOST_DEVIATION / noise))
        return min(fine, most, 62 - self.ring.bits, 40)

    def given_deviation(self) -> tuple[int, int]:
        """Lattice bits, and the deviation of the noise that was asked for."""
        noise = (self.request.noise_multiplier or 0.0) * self.ring.clip_steps
        bits = self.lattice_bits(noise)
        return bits, math.ceil(noise * 2.0**bits)

    def least_deviation(self, epsilon: float) -> tuple[int, int]:
        """Lattice bits, and the least whole deviation within an epsilon."""
        mu = gaussian_mu(epsilon, self.request.delta)
        if mu == 0:
            raise ConfigError("no finite noise reaches epsilon or delta 0; allow a little more of both")
        bits = self.lattice_bits(self.shift / mu)
        separation = (self.shift * 2.0**bits + self.rounding) / mu
        return bits, math.ceil(math.sqrt(separation**2 + ROUNDING_VARIANCE) * (1 + 2.0**-40))

    def sent(self) -> dict[str, Any]:
        """The fields of a plan that say what devices compute and send."""
        request, clip = self.request, canonical.float_text(self.request.clip_norm)
        if request.vector is not None:
            chosen = {"purpose": request.vector.purpose, "schema": request.vector.schema}
            trained = {"parts": NO_PARTS, "local_steps": 0, "local_rate": "0", "candidates": 0}
            return {**chosen, "direct": request.vector.direct, **trained}
        return {
            "purpose": UPDATE,
            "schema": (Segment(UPDATE, request.parameters, clip, _UPDATE_PURPOSE),),
            "direct": (),
            "parts": request.parts,
            "local_steps": request.local_steps,
            "local_rate": canonical.float_text(request.local_rate),
            "candidates": request.candidates,
        }

    def plan(self, noise: tuple[int, int]) -> Plan:
        """The plan with that noise, its epsilon filled in."""
        request = self.request
        least = math.ceil(0.8 * request.cohort)
        demo = request.cohort < COHORT_FLOOR
        plan = Plan(
            **self.sent(),
            secagg=request.secagg,
            authority=request.authority,
            parameters=request.numbers,
            coordinates=self.coordinates,
            rotation_seed=secrets.token_hex(32),
            clip_norm=canonical.float_text(request.clip_norm),
            clip_steps=self.ring.clip_steps,
            rounded_norm_squared=self.ring.rounded_norm_squared,
            ring_bits=self.ring.bits,
            coordinate_limit=self.ring.coordinate_limit,
            lattice_bits=noise[0],
            noise_deviation=noise[1],
            bands=self.bands,
            rounds=request.rounds,
            participations=self.participations,
            min_separation=self.separation,
            cohort=request.cohort,
            min_cohort=least if demo else max(COHORT_FLOOR, least),
            first_round_at=request.first_round_at,
            round_seconds=request.round_seconds,
            delta=canonical.float_text(request.delta),
            epsilon="0",
            demo=demo,
        )
        return replace(plan, epsilon=canonical.float_text_up(plan.guarantee().epsilon * _OTHER_MACHINES))


def _coordinates(parameters: int) -> int:
    """Length of a rotated update: the next power of two, as the Hadamard rotation needs it."""
    return 1 << (parameters - 1).bit_length()


def _nothing(delta: float) -> Guarantee:
    return Guarantee(
        epsilon=math.inf,
        delta=delta,
        unit=DEVICE,
        adjacency="zero-out",
        mechanism="no noise, or delta 0: no guarantee",
        trust=ROUNDS_TRUST,
    )


def _doubts(request: Request, epsilon: float) -> tuple[str, ...]:
    doubts = []
    if request.delta * request.population >= 1:
        doubts.append("delta is not below one over the population; that promises next to nothing")
    if epsilon > WEAK_EPSILON:
        doubts.append(f"an epsilon above {WEAK_EPSILON} promises next to nothing")
    return tuple(doubts)
