"""Audit the code that is installed here, at a plan's noise: clipping, rounding, noise, its state, a device's record.

A plan of thousands of rounds is audited over a few rounds that are as close together: the same code, noise and number
of bands at work, so that it takes seconds.
"""

import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from hushrec_privacy.audit.findings import MechanismAudit
from hushrec_privacy.audit.mechanism import MIN_DRAWS, MechanismClaim, audit_mechanism
from hushrec_privacy.audit.rounds import AuditedRounds
from hushrec_privacy.errors import BudgetError
from hushrec_privacy.ledger import Limits, Open, ParticipationRecord
from hushrec_privacy.mechanisms.banded import NoisePlan
from hushrec_privacy.mechanisms.rounding import rounded_norm_bound
from hushrec_privacy.plans.plan import Plan

__all__ = ["audit_installed"]

ROUNDS, SEPARATION = 8, 4
_NOISE, _CLIP_STEPS = 1000, 256  # without a plan
_MOST_COORDINATES = 1000  # of the updates that clipping is tried with


def audit_installed(
    plan: Plan | None = None,
    *,
    batch_size: Callable[[], int] | None = None,
    sampling: tuple[int, int, float] | None = None,
) -> MechanismAudit:
    """Audit the installed code.

    Args:
        plan: Whose noise to draw; None: an example's.
        batch_size: Size of one more batch of Poisson sampling; None: sampling is not audited.
        sampling: Batches to draw, population and sampling rate; goes with `batch_size`.

    Returns:
        Pass or fail, with each finding.
    """
    noise, steps = (_NOISE, _CLIP_STEPS) if plan is None else (plan.noise_deviation, plan.clip_steps)
    bands = SEPARATION if plan is None else min(plan.bands, SEPARATION)
    batches, population, rate = sampling or (0, 0, 0.0)
    participations = ROUNDS // SEPARATION
    claim = MechanismClaim(
        sigma=float(noise),
        rounds=ROUNDS,
        bands=bands,
        participations=participations,
        separation=SEPARATION,
        clip_norm=1.0,
        norm_bound=rounded_norm_bound(steps * (1 + 1e-6), _MOST_COORDINATES),
        batches=batches,
        population=population,
        sampling_rate=rate,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise_plan = NoisePlan(secrets.token_hex(32), MIN_DRAWS, bands, ROUNDS, noise)
        rounds = AuditedRounds(folder, noise_plan, clip_norm=1.0, scale=float(steps))
        device = _Device(folder / "participation.db", noise_plan.plan_id, claim)
        return audit_mechanism(rounds.mechanism(admit=device.admit, batch_size=batch_size), claim)


class _Device:
    """A device's own record, opened anew for every question, as after a restart."""

    def __init__(self, path: Path, plan_id: str, claim: MechanismClaim) -> None:
        self._path, self._plan = path, plan_id
        limits = Limits(max_rounds=claim.rounds, cap=claim.participations, separation=claim.separation)
        self._opened = Open(
            plan_id, "banded-toeplitz", {}, "one enrolled device", "zero-out", "0.000001", "audit", limits, demo=True
        )

    def admit(self, number: int) -> bool:
        record = ParticipationRecord.at(self._path, lifetime_rho="1000000")
        try:
            record.join(self._opened)
            record.participate(self._plan, number, rho="1")
        except BudgetError:
            return False
        finally:
            record.close()
        return True
