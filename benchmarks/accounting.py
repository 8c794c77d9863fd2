"""The numbers of the accounting beside independent ones, and what the commands take as whole processes.

python benchmarks/accounting.py
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import mpmath
from dp_accounting.pld import privacy_loss_distribution as pld
from hushrec_privacy.accounting import (
    PrivacyLoss,
    SampledSteps,
    gaussian_rho_epsilon,
    poisson_epsilon,
    prefix_error,
    sensitivity_squared,
    zcdp_epsilon,
)
from hushrec_privacy.accounting.gaussian import gaussian_epsilon, mu_of_participations
from hushrec_privacy.ledger import Ledger, SqliteLedgerStore
from hushrec_privacy.ledger.openings import counts_opening, plan_opening, run_id, training_opening
from hushrec_privacy.plans.planner import Request, make_plan
from machine import main as say_machine
from opacus.accountants.prv import PRVAccountant

HUSHREC = Path(sys.executable).with_name("hushrec")
RUNS = 7
ENTRIES = 10_000
RUNS_TOGETHER = ((0.01, 1.0, 1000), (0.05, 2.0, 300))


def main() -> None:
    """Print two tables."""
    say_machine()
    print("\nvalue\tours\tindependent\tsource")
    for name, ours, other, source in values():
        print(f"{name}\t{ours:.10g}\t{other:.10g}\t{source}")
    print("\ncommand\tmedian s\tof whole processes")
    for name, arguments in commands():
        times = [run_s(arguments) for _ in range(RUNS)]
        print(f"{name}\t{median(times):.2f}\t{RUNS}", flush=True)


def values() -> list[tuple[str, float, float, str]]:
    """Name, our value, another one, where that is from."""
    z835 = mu_of_participations(8.35, 2)
    accountant = PRVAccountant()
    accountant.history = [(1.0, 0.01, 1000)]
    squared = sensitivity_squared(2000, 200, 200, 10)
    return [
        ("Gaussian, z 8.35, k 2, delta 1e-10", gaussian_epsilon(z835, 1e-10), exact(z835, 1e-10), "mpmath, 60 digits"),
        ("rho .15068403, Gaussian", gaussian_rho_epsilon(0.15068403, 1e-10), 3.4240073, "published"),
        ("rho .014342572, any zCDP", zcdp_epsilon(0.014342572, 1e-10), 1.0423, "published"),
        ("rho .15068403, any zCDP", zcdp_epsilon(0.15068403, 1e-10), 3.5824, "published"),
        ("squared sensitivity, T 2000, h = b = 200, k 10", squared, 27.5238497, "published"),
        ("its epsilon at z 10, delta 1e-6", gaussian_epsilon(squared**0.5 / 10, 1e-6), 2.3765, "published"),
        ("prefix RMSE, banded", prefix_error(2000, 200) * squared**0.5, 12.853, "published"),
        ("prefix RMSE, independent", prefix_error(2000, 1) * 10**0.5, 100.025, "published"),
        (
            "Poisson, q .01, T 1000, z 1, delta 1e-6",
            poisson_epsilon(0.01, 1000, 1.0, 1e-6),
            accountant.get_epsilon(1e-6, eps_error=0.001),
            "Opacus PRV",
        ),
        ("tables and two runs together, delta 3e-6", *together(), "dp-accounting PLD"),
    ]


def together() -> tuple[float, float]:
    """Epsilon of tables at z 4 and of the runs in `RUNS_TOGETHER`, ours and another."""
    ours = PrivacyLoss(0.25, tuple(SampledSteps(*run) for run in RUNS_TOGETHER)).epsilon(3e-6)
    other = pld.from_gaussian_mechanism(4.0, use_connect_dots=True)
    for q, z, steps in RUNS_TOGETHER:
        one = pld.from_gaussian_mechanism(z, sampling_prob=q, use_connect_dots=True)
        other = other.compose(one.self_compose(steps))
    return ours, other.get_epsilon_for_delta(3e-6)


def exact(mu: float, delta: float) -> float:
    """Epsilon by root finding on the curve as it is written, in 60 digits."""
    with mpmath.workdps(60):
        m = mpmath.mpf(mu)

        def log_ratio(epsilon: mpmath.mpf) -> mpmath.mpf:
            tails = [mpmath.erfc((epsilon / m + sign * m / 2) / mpmath.sqrt(2)) / 2 for sign in (-1, 1)]
            return mpmath.log(tails[0] - mpmath.e**epsilon * tails[1]) - mpmath.log(mpmath.mpf(delta))

        return float(mpmath.findroot(log_ratio, (0.9, 1.1)))


def commands() -> list[tuple[str, list[str]]]:
    """Name and arguments; the ledger is made once."""
    ledger = Path(tempfile.mkdtemp()) / "ledger.db"
    plan = make_plan(Request(population=20_000, cohort=1000, rounds=ENTRIES, delta=1e-6, epsilon=4.0))
    assert plan is not None
    with SqliteLedgerStore.create(ledger) as store:
        book = Ledger.begin(store)
        book.open_plan(plan_opening(plan))
        for number in range(1, ENTRIES + 1):
            book.spend(plan.plan_id, number)
    several = ledger.with_name("several.db")
    with SqliteLedgerStore.create(several) as store:
        book = Ledger.begin(store)
        tables = counts_opening(run_id(kind="tables"), noise_multiplier=4.0, releases=1, delta=1e-6)
        runs = [
            training_opening(run_id(steps=steps), sampling_rate=q, noise_multiplier=z, steps=steps, delta=1e-6)
            for q, z, steps in RUNS_TOGETHER
        ]
        for opened in (tables, *runs):
            book.open_plan(opened)
            book.spend(opened.plan, 1, opened.limits.max_rounds)
    epsilon = ["privacy", "epsilon", "--json", "--delta", "1e-6", "--mechanism"]
    return [
        ("epsilon, gaussian", [*epsilon, "gaussian", "--noise-multiplier", "8.35", "--participations", "2"]),
        (
            "epsilon, poisson-gaussian, 1,000 steps",
            [*epsilon, "poisson-gaussian", "--noise-multiplier", "1", "--sampling-rate", ".01", "--steps", "1000"],
        ),
        (
            "epsilon, poisson-gaussian, 1,000,000 steps",
            [*epsilon, "poisson-gaussian", "--noise-multiplier", ".7", "--sampling-rate", "1e-4", "--steps", "1000000"],
        ),
        (f"report of {ENTRIES:,} spends", ["privacy", "report", "--json", str(ledger)]),
        ("report of tables and two runs together", ["privacy", "report", "--json", str(several)]),
    ]


def run_s(arguments: list[str]) -> float:
    """Seconds of one whole process."""
    began = time.perf_counter()
    done = subprocess.run([HUSHREC, *arguments], capture_output=True, check=True)
    json.loads(done.stdout)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
