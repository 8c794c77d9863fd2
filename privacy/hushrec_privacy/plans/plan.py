"""The plan of a federated run: one public document that server and device read with the same code.

Canonical JSON, so that it has one byte string; its sha256 is the plan's id. Whatever the guarantee depends on stands in
it and nowhere else, as whole numbers and decimal strings; `Plan.guarantee` computes epsilon from those alone.
"""

import hashlib
import math
import re
from dataclasses import dataclass, fields
from typing import Any, Self

from hushrec_privacy import canonical, checks
from hushrec_privacy.accounting.claims import CURIOUS_TRUST, DEVICE, ROUNDS_TRUST
from hushrec_privacy.accounting.discrete import ROUNDING_VARIANCE, equivalent_gaussian_deviation
from hushrec_privacy.accounting.gaussian import check_delta
from hushrec_privacy.accounting.guarantee import Guarantee
from hushrec_privacy.accounting.privacy_loss import PrivacyLoss
from hushrec_privacy.accounting.toeplitz import MOST_STEPS, most_participations, round_error, sensitivity_squared
from hushrec_privacy.errors import ConfigError, PlanError
from hushrec_privacy.mechanisms.norm_bound import rounded_norm_bound
from hushrec_privacy.plans.schema import GAIN, UPDATE, DirectPayload, Segment, check_schema

__all__ = ["FORMAT", "MAX_PARAMETERS", "MAX_PLAN_BYTES", "NO_PARTS", "PARTS", "SECAGG", "Plan", "noise_to_clip"]

FORMAT = 1
MAX_PLAN_BYTES = 1 << 16
PARTS = ("adapter", "encoder", "encoder+features", "full")
"""What a run may train, each containing the one before."""

NO_PARTS = "none"
"""What a plan trains that is for counts or features."""

SECAGG = ("active", "curious")
"""The server that secure aggregation withstands: one that lies, or one that only looks."""

MAX_PARAMETERS = 500_000
"""Numbers of a vector: what a device can mask and send, and a server add up, in a round."""

_HEX = re.compile(r"[0-9a-f]{64}")
_UP = 1 + 2.0**-45
_EPSILON_AGREES = 1e-6  # relative; above it device and plan do not mean the same mechanism
_LARGEST = {
    "rounds": 10**6,
    "cohort": 10**7,
    "parameters": MAX_PARAMETERS,
    "coordinates": 2**19,
    "clip_steps": 2**24,
    "lattice_bits": 40,
    "local_steps": 10_000,
    "candidates": 2**20,
}
_ROWS: dict[str, type[Segment] | type[DirectPayload]] = {"schema": Segment, "direct": DirectPayload}
_FROM_ZERO = ("lattice_bits", "local_steps", "candidates")
_ROUNDING_AGREES = 1 - 1e-9  # logarithms of another machine may differ in the last bits


@dataclass(frozen=True)
class Plan:
    """All that is public and fixed about a run before its first round.

    Attributes:
        purpose: What its rounds are for, one of `PURPOSES` (see `schema`).
        schema: The segments whose concatenation is the vector of a device.
        direct: Payloads that a device may send by itself, noised there; only in a plan for features.
        parts: What is trained, one of `PARTS`; `NO_PARTS` if nothing is.
        local_steps: Steps that a device trains in a round; 0 if it does not.
        local_rate: Size of such a step, a decimal string.
        candidates: Items that a step scores against.
        secagg: Which server secure aggregation withstands, one of `SECAGG`.
        authority: Ed25519 public key, 64 hexadecimal digits, of whoever says which devices are real; a device accepts
            no certificate of another. Empty: not chosen yet; such a plan is neither signed nor joined.
        demo: Made for a demonstration with fewer devices than privacy needs; devices with normal limits refuse it.
        parameters: P, numbers of the vector.
        coordinates: d, numbers of the rotated and padded vector: the next power of two.
        rotation_seed: Of the one rotation, 64 hexadecimal digits. Public.
        clip_norm: L2 bound of the vector, a decimal string; of an update in the unit of the weights.
        clip_steps: The same in ring steps.
        rounded_norm_squared: Bound of the squared norm after conditional rounding, in ring steps squared.
        ring_bits: Of one coordinate in the masked sum.
        coordinate_limit: Largest magnitude of one device's coordinate, in ring steps.
        lattice_bits: s: noise is drawn in steps of 2^-s ring steps.
        noise_deviation: sigma of the uncorrelated discrete Gaussian noise, in lattice steps.
        bands: h, bands of the Toeplitz matrix; 1 is independent noise.
        rounds: T; rounds are numbered 1 to T.
        participations: k, rounds that one device joins at most.
        min_separation: b, rounds from one participation of a device to its next.
        cohort: M, the number that the noised sum is divided by, whoever drops out.
        min_cohort: Devices without which a round is abandoned.
        first_round_at: Start of round 1, seconds since 1970-01-01 UTC; no round starts before its time.
        round_seconds: Seconds from one start to the next.
        delta: Of the guarantee, a decimal string.
        epsilon: Of the guarantee, a decimal string; what `guarantee` computes, rounded up.

    Raises:
        PlanError: A field is outside its range, or the fields do not fit each other.
    """

    purpose: str
    schema: tuple[Segment, ...]
    direct: tuple[DirectPayload, ...]
    parts: str
    local_steps: int
    local_rate: str
    candidates: int
    secagg: str
    authority: str
    parameters: int
    coordinates: int
    rotation_seed: str
    clip_norm: str
    clip_steps: int
    rounded_norm_squared: int
    ring_bits: int
    coordinate_limit: int
    lattice_bits: int
    noise_deviation: int
    bands: int
    rounds: int
    participations: int
    min_separation: int
    cohort: int
    min_cohort: int
    first_round_at: int
    round_seconds: int
    delta: str
    epsilon: str
    demo: bool = False

    def __post_init__(self) -> None:
        """Refuse what no server or device could carry out."""
        try:
            self._check_ranges()
            self._check_fit()
            self._check_purpose()
        except ConfigError as error:
            raise PlanError(f"the plan cannot be used: {error.message}") from error

    def _check_ranges(self) -> None:
        whole = {f.name: getattr(self, f.name) for f in fields(self) if f.type is int}
        checks.at_least(1, **{name: value for name, value in whole.items() if name not in _FROM_ZERO})
        checks.at_least(0, **{name: whole[name] for name in _FROM_ZERO})
        checks.one_of(SECAGG, secagg=self.secagg)
        for name, most in _LARGEST.items():
            if whole[name] > most:
                raise ConfigError(f"{name} is {whole[name]}; it must be at most {most}")
        if not isinstance(self.demo, bool):
            raise ConfigError("demo must be true or false")
        if not (isinstance(self.rotation_seed, str) and _HEX.fullmatch(self.rotation_seed)):
            raise ConfigError("rotation_seed must be 64 hexadecimal digits")
        if not (isinstance(self.authority, str) and (not self.authority or _HEX.fullmatch(self.authority))):
            raise ConfigError("authority must be the 64 hexadecimal digits of a public key")
        checks.positive(clip_norm=float(canonical.decimal(self.clip_norm, name="clip_norm")))
        canonical.decimal(self.epsilon, name="epsilon")
        check_delta(float(canonical.decimal(self.delta, name="delta")))

    def _check_fit(self) -> None:
        if self.coordinates != 1 << (self.parameters - 1).bit_length():
            raise ConfigError(f"coordinates is {self.coordinates}; of {self.parameters} it is the next power of two")
        if not 2 <= self.ring_bits <= 32 or self.cohort * self.coordinate_limit > 2 ** (self.ring_bits - 1) - 1:
            raise ConfigError(f"the sum of {self.cohort} devices can wrap around in {self.ring_bits} bits")
        if self.ring_bits + self.lattice_bits > 62:
            raise ConfigError(
                f"ring_bits and lattice_bits are {self.ring_bits} and {self.lattice_bits}; 62 is the most"
            )
        rounded = rounded_norm_bound(float(self.clip_steps), self.coordinates) ** 2
        if self.rounded_norm_squared < math.floor(rounded * _ROUNDING_AGREES):
            raise ConfigError("rounded_norm_squared is below what rounding an update of clip_steps may give")
        if self.min_cohort > self.cohort:
            raise ConfigError(f"min_cohort is {self.min_cohort}, above the cohort of {self.cohort}")
        if self.bands > self.rounds:
            raise ConfigError(f"bands is {self.bands}, above the {self.rounds} rounds")
        most = most_participations(self.rounds, self.min_separation)
        if self.participations > most:
            raise ConfigError(f"participations is {self.participations}; {most} fit, {self.min_separation} apart")

    def _check_purpose(self) -> None:
        check_schema(self.purpose, self.schema, self.direct, self.clip_norm)
        length = sum(segment.length for segment in self.schema)
        if length != self.parameters:
            raise ConfigError(f"parameters is {self.parameters}, but the segments have {length} numbers")
        rate = float(canonical.decimal(self.local_rate, name="local_rate"))
        if self.purpose == UPDATE:
            checks.one_of(PARTS, parts=self.parts)
            checks.positive(local_rate=rate)
            checks.at_least(1, local_steps=self.local_steps, candidates=self.candidates)
            return
        if self.parts != NO_PARTS or self.local_steps or rate or self.candidates:
            raise ConfigError("only a plan for updates trains: parts must be 'none', steps, rate and candidates 0")
        if self.bands != 1:
            raise ConfigError(f"bands is {self.bands}; counts and features are read round by round: it must be 1")

    @property
    def noise_multiplier(self) -> float:
        """z: standard deviation of the uncorrelated noise over the clip norm."""
        return self.noise_deviation / (self.clip_steps << self.lattice_bits)

    @property
    def noise_to_clip(self) -> float:
        """Norm of the noise of a round's mean over the clip norm, of an average round."""
        return noise_to_clip(
            self.noise_multiplier,
            rounds=min(self.rounds, MOST_STEPS * 100 // self.bands),  # of more the mean is the same
            bands=self.bands,
            coordinates=self.coordinates,
            cohort=self.cohort,
        )

    @property
    def compares(self) -> bool:
        """Whether its rounds compare a candidate with the release in use: such a round names the candidate."""
        return any(segment.name == GAIN for segment in self.schema)

    def mu(self) -> float:
        """How far the whole run separates neighbours, in standard deviations, all rounding included; rounded up."""
        noise = equivalent_gaussian_deviation(float(self.noise_deviation), self.coordinates * self.rounds)
        return sum(self._shifts()) / noise * _UP

    def _shifts(self) -> tuple[float, float]:
        """Largest shift of the noise between neighbours in lattice steps: by the updates, and by rounding the noise."""
        squared = sensitivity_squared(self.rounds, self.bands, self.min_separation, self.participations)
        updates = math.sqrt(squared * self.rounded_norm_squared) * 2.0**self.lattice_bits
        rounding = math.sqrt(self.coordinates * self.rounds) if self.bands > 1 else 0.0
        return updates, rounding

    def guarantee(self) -> Guarantee:
        """What the run guarantees to one device, computed from the plan's numbers alone.

        Raises:
            ConfigError: The noise is too narrow for the bound on integer noise.
        """
        delta = float(self.delta)
        updates, rounding = self._shifts()
        loss = PrivacyLoss(self.mu())
        return Guarantee(
            epsilon=loss.epsilon(delta),
            delta=delta,
            unit=DEVICE,
            adjacency="zero-out",
            mechanism=(
                f"banded square-root Toeplitz discrete Gaussian, {self.bands} bands, {self.rounds} rounds, "
                f"noise multiplier {self.noise_multiplier:.6g}, exact Gaussian curve"
            ),
            trust=ROUNDS_TRUST if self.secagg == "active" else CURIOUS_TRUST,
            assumptions=(
                f"a device takes part at most {self.participations} times, at least {self.min_separation} rounds "
                "apart; the device itself refuses more",
                f"the run has at most {self.rounds} rounds, fixed beforehand",
                "each vector is clipped, cut to the ring and rounded as the plan says, on the device",
                "the noise state is never reused, lost or published",
                "who takes part and when is not protected, and must not depend on behaviour",
                "no amplification by sampling is claimed",
                f"the noised sum is divided by {self.cohort}, however many devices survive",
            ),
            slack=(
                ("conditional rounding of updates", math.sqrt(self.rounded_norm_squared) / self.clip_steps - 1),
                ("rounding of correlated noise", rounding / updates),
                ("integer noise", ROUNDING_VARIANCE / (2.0 * self.noise_deviation**2)),
            ),
            loss=loss,
        )

    def check_epsilon(self) -> Guarantee:
        """The guarantee, if it is the one that the plan states.

        Raises:
            PlanError: It states less, or something else.
        """
        try:
            found = self.guarantee()
        except ConfigError as error:
            raise PlanError(f"the plan has no guarantee: {error.message}") from error
        stated = float(self.epsilon)
        if not found.epsilon <= stated <= found.epsilon * (1 + _EPSILON_AGREES):
            raise PlanError(f"the plan states an epsilon of {stated:.10g}, but its noise gives {found.epsilon:.10g}")
        return found

    def encode(self) -> bytes:
        """The plan's one byte string."""
        return canonical.encode({"format": FORMAT, "kind": "hushrec-plan"} | self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """JSON values, all fields by name."""
        rows = {name: [row.to_dict() for row in getattr(self, name)] for name in _ROWS}
        return {f.name: getattr(self, f.name) for f in fields(self)} | rows

    @property
    def plan_id(self) -> str:
        """sha256 of the plan's bytes, 64 hexadecimal digits."""
        return hashlib.sha256(self.encode()).hexdigest()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a plan's bytes; who signed them is `signing`'s business.

        Args:
            data: Untrusted bytes.

        Raises:
            PlanError: Not a plan, of another format, too long, not canonical, or not consistent in itself.
        """
        if len(data) > MAX_PLAN_BYTES:
            raise PlanError(f"the plan has {len(data)} bytes; at most {MAX_PLAN_BYTES} are allowed")
        value = canonical.decode(data, name="the plan", error=PlanError)
        if not isinstance(value, dict) or value.pop("kind", None) != "hushrec-plan":
            raise PlanError("this is no plan of hushrec")
        found = value.pop("format", None)
        if found != FORMAT or isinstance(found, bool):
            raise PlanError(f"the plan has format {found!r}, this hushrec reads {FORMAT}; update hushrec")
        known = {f.name for f in fields(cls)}
        if set(value) != known:
            different = ", ".join(sorted(set(value) ^ known))
            raise PlanError(f"the plan's fields are not those of format {FORMAT}: {different}")
        wrong = [f.name for f in fields(cls) if type(value[f.name]) is not (list if f.name in _ROWS else f.type)]
        if wrong:
            raise PlanError(f"the plan's {wrong[0]} has the wrong type")
        try:
            rows = {name: tuple(row.from_dict(each) for each in value[name]) for name, row in _ROWS.items()}
        except ConfigError as error:
            raise PlanError(f"the plan cannot be used: {error.message}") from error
        return cls(**value | rows)


def noise_to_clip(noise_multiplier: float, *, rounds: int, bands: int, coordinates: int, cohort: int) -> float:
    """Norm of the noise of a round's mean over the clip norm, of an average round.

    Args:
        noise_multiplier: z.
        rounds: T.
        bands: h.
        coordinates: d.
        cohort: M.
    """
    return noise_multiplier * round_error(rounds, bands) * math.sqrt(coordinates) / cohort
