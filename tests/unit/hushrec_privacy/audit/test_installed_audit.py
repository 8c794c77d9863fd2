"""The audit of the installed code: sound as it is, and caught when the product's code is patched under it.

Randomness is fresh. A planted fault that is caught in all of 20 runs is caught in at least 86 of 100, with 95 %
confidence.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hushrec_model.poisson import PoissonSampler
from hushrec_privacy.audit.findings import MechanismAudit
from hushrec_privacy.audit.installed import audit_installed
from hushrec_privacy.ledger import ParticipationRecord
from hushrec_privacy.mechanisms import banded, clipping
from hushrec_privacy.mechanisms.discrete_gaussian import sample_discrete_gaussian
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray
from scipy import stats

Patch = pytest.MonkeyPatch
Fault = Callable[[pytest.MonkeyPatch], None]
RUNS = 20


def audit() -> MechanismAudit:
    """As the command does it."""
    sampler = PoissonSampler(5000, 0.1, OsRandom())
    return audit_installed(batch_size=lambda: len(sampler.draw()), sampling=(400, 5000, 0.1))


def noise_halved(patch: Patch) -> None:
    def half(source: OsRandom, count: int, p: int, q: int = 1) -> NDArray[np.int64]:
        return sample_discrete_gaussian(source, count, p, 2 * q)

    patch.setattr(banded, "sample_discrete_gaussian", half)


def noise_reused_after_a_restart(patch: Patch) -> None:
    kept: dict[str, Any] = {}

    def same(source: OsRandom, count: int, p: int, q: int = 1) -> NDArray[np.int64]:
        kept.setdefault("z", sample_discrete_gaussian(source, count, p, q))
        found: NDArray[np.int64] = kept["z"].copy()
        return found

    patch.setattr(banded, "sample_discrete_gaussian", same)


def clipping_skipped(patch: Patch) -> None:
    def whole(update: NDArray[np.float32], *, clip_norm: float) -> NDArray[np.float32]:
        del clip_norm
        return update

    patch.setattr(clipping, "clip_update", whole)
    patch.setattr("hushrec_privacy.mechanisms.rounding.round_conditionally", lambda _s, v, **_: np.rint(v))


def participation_uncounted(patch: Patch) -> None:
    patch.setattr(ParticipationRecord, "participate", lambda *_a, **_k: None)


def batches_of_a_fixed_size(patch: Patch) -> None:
    patch.setattr(PoissonSampler, "draw", lambda _self: np.arange(500))


NAMED: dict[Fault, str] = {
    noise_halved: "noise-scale",
    noise_reused_after_a_restart: "noise-reuse",
    clipping_skipped: "clipping",
    participation_uncounted: "participation",
    batches_of_a_fixed_size: "sampling",
}
FAULTS: list[Fault] = [*NAMED]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_by_name(fault: Fault, monkeypatch: Patch) -> None:
    fault(monkeypatch)
    assert NAMED[fault] in [finding.name for finding in audit().findings if not finding.passed]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_every_time(fault: Fault, monkeypatch: Patch) -> None:
    fault(monkeypatch)
    caught = sum(not audit().passed for _ in range(RUNS))
    print(f"{fault.__name__}: caught in {caught} of {RUNS} runs")
    assert caught == RUNS


@pytest.mark.slow
def test_sound_code_raises_false_alarms_as_often_as_the_level_says() -> None:
    alarms = sum(not audit().passed for _ in range(200))
    print(f"{alarms} false alarms in 200 sound runs")
    assert stats.binomtest(alarms, 200, 0.05).pvalue > 1e-6


def test_a_plan_s_own_noise_is_drawn() -> None:
    plan = make_plan(Request(population=20_000, cohort=1000, rounds=100, delta=1e-6, epsilon=2.0))
    found = audit_installed(plan)
    assert plan is not None
    assert found.findings[0].claimed == plan.noise_deviation
    assert [finding.name for finding in found.findings] == [
        *("noise-scale", "noise-shape", "noise-reuse"),
        *("clipping", "participation"),
    ]
