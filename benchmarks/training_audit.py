"""What the audit of a training run can see, and how often it sees a planted fault, beside how often it should.

    python benchmarks/training_audit.py [--runs 20] [--sound 40] [--row N]

Faults are planted by patching the product's code; the auditor stays as it is, coins, sampling and noise are fresh in
every run. `predicted` is the chance by `detection_power` with the shift that the fault gives a canary at most, `at the
found shift` with the mean shift of these runs. One row alone: --row 0, 1, ...; the power table alone: --runs 0.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from hushrec_model import private_optimizer
from hushrec_model.poisson import PoissonSampler
from hushrec_model.training_audit import TrainingAudit, audit_settings, audit_training
from hushrec_model.user_step import UserGradients
from hushrec_privacy.accounting import poisson_noise_multiplier
from hushrec_privacy.audit.one_run import epsilon_lower_bound
from hushrec_privacy.audit.power import best_guesses, detection_power, expected_epsilon
from hushrec_privacy.mechanisms.float_gaussian import float_gaussian
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

__all__ = ["FAULTS", "clipping_skipped", "everybody_in", "main", "noise_halved", "show_power"]

DELTA = 1e-5


def noise_halved() -> AbstractContextManager[Any]:
    """Half of the noise that is paid for."""

    def half(random: OsRandom, count: int, scale: float) -> NDArray[np.float64]:
        return float_gaussian(random, count, scale / 2)

    return mock.patch.object(private_optimizer, "float_gaussian", half)


def clipping_skipped() -> AbstractContextManager[Any]:
    """No gradient is found too long."""
    return mock.patch.object(UserGradients, "norms", lambda self: torch.zeros(len(self.own), dtype=torch.float64))


def everybody_in() -> AbstractContextManager[Any]:
    """Amplification by sampling claimed, and nobody sampled."""
    return mock.patch.object(PoissonSampler, "draw", lambda self: np.arange(self._population))


FAULTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "none": nullcontext,
    "noise halved": noise_halved,
    "clipping skipped": clipping_skipped,
    "everybody in every step": everybody_in,
}


@dataclass(frozen=True)
class Row:
    """One line of the table: schedule, claim, canaries, fault, and how often that of `--runs`."""

    sampling_rate: float
    steps: int
    epsilon: float
    canaries: int
    fault: str
    times: int = 1

    def most(self, mu: float) -> float | None:
        """The largest shift that the fault gives a canary where the claim gives `mu`; None: nothing bounds it."""
        return {"none": mu, "noise halved": 2 * mu, "everybody in every step": mu / self.sampling_rate}.get(self.fault)


ROWS = [
    *(Row(1.0, 2, 4.0, 40_000, fault) for fault in ("none", "noise halved", "clipping skipped")),
    Row(1.0, 2, 1.0, 40_000, "noise halved"),
    Row(1.0, 2, 4.0, 4000, "noise halved", times=5),
    *(Row(0.3, 60, 2.0, 1000, fault) for fault in FAULTS),
]


def main() -> None:
    """Print one line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--sound", type=int, default=40)
    parser.add_argument("--row", type=int)
    given = parser.parse_args()
    if given.row is None:
        show_power()
    if not given.runs:
        return
    print(
        "q | steps | claimed epsilon | canaries | fault | refuted | predicted | at the found shift | bounds | s a run"
    )
    for row in ROWS if given.row is None else [ROWS[given.row]]:
        print(_line(row, given.sound if row.fault == "none" else given.runs * row.times), flush=True)


def show_power() -> None:
    """Print what is to be expected of ideal canaries, with the number of guesses that shows halved noise best."""
    print("q | steps | claimed epsilon | noise | mu | canaries | guesses | if sound | if halved | seen | ceiling")
    for rate, steps in ((1.0, 2), (0.3, 60)):
        for epsilon in (1.0, 2.0, 4.0, 8.0):
            noise = poisson_noise_multiplier(rate, steps, epsilon, DELTA)
            mu = rate * math.sqrt(steps) / noise
            for canaries in (1000, 4000, 40_000):
                guesses = best_guesses(canaries, mu=2 * mu, epsilon=epsilon, delta=DELTA)
                sound, halved = (expected_epsilon(canaries, guesses, mu=each, delta=DELTA) for each in (mu, 2 * mu))
                seen = detection_power(canaries, guesses, mu=2 * mu, epsilon=epsilon, delta=DELTA)
                most = epsilon_lower_bound(canaries, guesses, guesses, delta=DELTA)
                cells = [rate, steps, epsilon, f"{noise:.3f}", f"{mu:.3f}", canaries, guesses]
                cells += [f"{sound:.2f}", f"{halved:.2f}", f"{seen:.3f}", f"{most:.2f}"]
                print(" | ".join(map(str, cells)))


def _line(row: Row, runs: int) -> str:
    start = time.perf_counter()
    settings = audit_settings(
        row.epsilon, DELTA, canaries=row.canaries, sampling_rate=row.sampling_rate, steps=row.steps
    )
    with FAULTS[row.fault]():
        audits = [audit_training(settings, DELTA, canaries=row.canaries) for _ in range(runs)]
    seconds = (time.perf_counter() - start) / runs
    most, found = row.most(audits[0].mu), statistics.mean(audit.shift for audit in audits)
    bounds = [audit.found.epsilon_lower for audit in audits]
    cells = [
        *(row.sampling_rate, row.steps, row.epsilon, row.canaries, row.fault),
        f"{sum(audit.refuted for audit in audits)} of {runs}",
        "" if most is None else f"{_chance(audits[0], most):.3f} (shift {most:.3f})",
        f"{_chance(audits[0], found):.3f} (shift {found:.3f})",
        f"{min(bounds):.2f} to {max(bounds):.2f}",
        f"{seconds:.1f}",
    ]
    return " | ".join(map(str, cells))


def _chance(audit: TrainingAudit, mu: float) -> float:
    found, claim = audit.found, audit.claim
    return detection_power(found.canaries, found.guesses, mu=mu, epsilon=claim.epsilon, delta=claim.delta)


if __name__ == "__main__":
    main()
