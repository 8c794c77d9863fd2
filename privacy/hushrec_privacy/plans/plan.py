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
from hushrec_privacy.accounting.claims import DEVICE, ROUNDS_TRUST
from hushrec_privacy.accounting.discrete import ROUNDING_VARIANCE, equivalent_gaussian_deviation
from hushrec_privacy.accounting.gaussian import check_delta
from hushrec_privacy.accounting.guarantee import Guarantee
from hushrec_privacy.accounting.privacy_loss import PrivacyLoss
from hushrec_privacy.accounting.toeplitz import most_participations, sensitivity_squared
from hushrec_privacy.errors import ConfigError, PlanError

__all__ = ["FORMAT", "MAX_PLAN_BYTES", "PARTS", "Plan"]

FORMAT = 1
MAX_PLAN_BYTES = 1 << 16
PARTS = ("adapter", "encoder", "encoder+features", "full")
"""What a run may train, each containing the one before."""

_HEX = re.compile(r"[0-9a-f]{64}")
_UP = 1 + 2.0**-45
_EPSILON_AGREES = 1e-6  # relative; above it device and plan do not mean the same mechanism
_LARGEST = {"rounds": 10**6, "cohort": 10**7, "coordinates": 2**31, "clip_steps": 2**24, "lattice_bits": 40}


@dataclass(frozen=True)
class Plan:
    """All that is public and fixed about a run before its first round.

    Attributes:
        demo: Made for a demonstration with fewer devices than privacy needs; devices with normal limits refuse it.
        parts: What is trained, one of `PARTS`.
        parameters: P, numbers of an update.
        coordinates: d, numbers of a rotated and padded update; at least P.
        rotation_seed: Of the one rotation, 64 hexadecimal digits. Public.
        clip_norm: L2 bound of an update in the unit of the weights, a decimal string.
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

    parts: str
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
        except ConfigError as error:
            raise PlanError(f"the plan cannot be used: {error.message}") from error

    def _check_ranges(self) -> None:
        whole = {f.name: getattr(self, f.name) for f in fields(self) if f.type is int}
        checks.at_least(1, **{name: value for name, value in whole.items() if name not in ("lattice_bits",)})
        checks.at_least(0, lattice_bits=self.lattice_bits)
        checks.one_of(PARTS, parts=self.parts)
        for name, most in _LARGEST.items():
            if whole[name] > most:
                raise ConfigError(f"{name} is {whole[name]}; it must be at most {most}")
        if not isinstance(self.demo, bool):
            raise ConfigError("demo must be true or false")
        if not (isinstance(self.rotation_seed, str) and _HEX.fullmatch(self.rotation_seed)):
            raise ConfigError("rotation_seed must be 64 hexadecimal digits")
        checks.positive(clip_norm=float(canonical.decimal(self.clip_norm, name="clip_norm")))
        canonical.decimal(self.epsilon, name="epsilon")
        check_delta(float(canonical.decimal(self.delta, name="delta")))

    def _check_fit(self) -> None:
        if self.coordinates < self.parameters:
            raise ConfigError(f"coordinates is {self.coordinates}, below the {self.parameters} parameters")
        if not 2 <= self.ring_bits <= 32 or self.cohort * self.coordinate_limit > 2 ** (self.ring_bits - 1) - 1:
            raise ConfigError(f"the sum of {self.cohort} devices can wrap around in {self.ring_bits} bits")
        if self.rounded_norm_squared < self.clip_steps**2:
            raise ConfigError("rounded_norm_squared is below the square of clip_steps")
        if self.min_cohort > self.cohort:
            raise ConfigError(f"min_cohort is {self.min_cohort}, above the cohort of {self.cohort}")
        if self.bands > self.rounds:
            raise ConfigError(f"bands is {self.bands}, above the {self.rounds} rounds")
        most = most_participations(self.rounds, self.min_separation)
        if self.participations > most:
            raise ConfigError(f"participations is {self.participations}; {most} fit, {self.min_separation} apart")

    @property
    def noise_multiplier(self) -> float:
        """z: standard deviation of the uncorrelated noise over the clip norm."""
        return self.noise_deviation / (self.clip_steps << self.lattice_bits)

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
            trust=ROUNDS_TRUST,
            assumptions=(
                f"a device takes part at most {self.participations} times, at least {self.min_separation} rounds "
                "apart; the device itself refuses more",
                f"the run has at most {self.rounds} rounds, fixed beforehand",
                "each update is clipped, cut to the ring and rounded as the plan says, on the device",
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
        return {f.name: getattr(self, f.name) for f in fields(self)}

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
        wrong = [f.name for f in fields(cls) if type(value[f.name]) is not f.type]
        if wrong:
            raise PlanError(f"the plan's {wrong[0]} has the wrong type")
        return cls(**value)
