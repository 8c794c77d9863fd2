"""How often devices let a new model out, by what it is worth and by how many of them compare it.

    python benchmarks/candidate_guard.py [--work DIR]

MovieLens-1M. The release in use was trained on a tenth of the users; every other user is a device, whose last event is
held out. Better candidates come of the fleet's own training without noise, worse ones are the release with normal noise
on all that is trained. Each device asks both bundles, as apps use them, with the product's `evaluation`; cohorts are
drawn at random, those larger than the fleet with replacement. Clipping, noise and rule are those of a plan that
compares, from `hushrec_privacy.plans.planner`, and of the server; rounding and masking, which change next to nothing
of a sum, are left out.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from federated_models import shop
from federated_quality import Fleet, Run
from hushrec.bundle import Bundle
from hushrec.engine import Engine
from hushrec.federated.fedadam import FedAdam
from hushrec.federated.master import Master
from hushrec.federated.release import CHANGED_FILES, write_release
from hushrec.federated.schedule import share_of_rate
from hushrec.federated_counts import evaluation
from hushrec.own_events import Events
from hushrec.ranking import bundle_ranking
from hushrec_privacy.encoding.readings import Reading
from hushrec_privacy.encoding.sums import noise_deviation
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.schema import EVALUATION, GAIN, Segment, Vector
from hushrec_server.candidates import worse
from numpy.typing import NDArray

LEARNT = (1, 30, 100)  # rounds of 50 devices
SPOILT = (0.002, 0.005, 0.01, 0.02)  # deviation of the noise on each number, whose own are about .1
COHORTS = (200, 1_000, 5_000, 20_000, 100_000)
EPSILON, DELTA, ROUNDS = 2.0, 1e-7, 10
VECTOR = Vector(
    "counts",
    (
        Segment(EVALUATION, 3, "1.75", "how well the app guesses what you take next"),
        Segment(GAIN, 2, "0.5", "whether a new model guesses it better"),
    ),
)
DRAWS, MOST_LOSS = 2_000, 0.02

Doubles = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/federated_quality"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    fleet = Fleet(shop(options.work), options.work)
    plans = [planned(cohort, len(fleet.samples)) for cohort in COHORTS]
    asked = histories(fleet)
    before = outcomes(fleet.bundle, asked)
    names = [f"{cohort:,}{' (simulated)' if cohort > len(asked) else ''}" for cohort in COHORTS]
    print(f"{len(asked):,} devices; release in use: NDCG@10 {before[:, 1].mean():.4f}; clips as in the script;")
    print(f"epsilon {EPSILON:g} at delta {DELTA:g} for {ROUNDS} rounds, of which a device is in one")
    told = " | ".join(f"{noise_deviation(plan)[GAIN]:.2g}" for plan in plans)
    print(f"\n| candidate | change of NDCG@10 | {' | '.join(names)} |\n{'| --- ' * (2 + len(names))}|")
    print(f"| deviation of the noise in the change, of NDCG@10 | | {told} |")
    for name, bundle in candidates(fleet, options.work):
        after = outcomes(bundle, asked)
        change = after[:, 1].mean() / before[:, 1].mean() - 1
        shares = [let_out(plan, before, after[:, :2] - before[:, :2]) for plan in plans]
        print(f"| {name} | {change:+.1%} | {' | '.join(f'{share:.0%}' for share in shares)} |", flush=True)


def planned(cohort: int, fleet: int) -> Plan:
    """A plan that compares, in which a device takes part once."""
    population = max(ROUNDS * cohort, fleet)
    plan = make_plan(Request(population, cohort, ROUNDS, DELTA, EPSILON, vector=VECTOR, authority="0" * 64))
    assert plan is not None, "it has noise"
    return plan


def histories(fleet: Fleet) -> list[Events]:
    """All events of each device, the last one being the test's."""
    test, others = fleet.data.split.test, np.flatnonzero(~fleet.data.starters)
    found = []
    for user in others.tolist():
        events = slice(int(test.start[user]), int(test.stop[user]))
        items = np.append(test.events.item[events], test.target[user]).astype(np.int64)
        behaviors = np.append(test.events.behavior[events], 0).astype(np.int64)
        found.append(Events(items, behaviors, np.arange(len(items)), np.arange(len(items))))
    return found


def outcomes(bundle: Bundle, asked: list[Events]) -> Doubles:
    """Hit, NDCG and 1 for each device, shape (devices, 3)."""
    ranking, filter_seen = bundle_ranking(bundle, Engine(bundle)), bundle.manifest.model.filter_seen
    return np.array([evaluation(events, ranking, filter_seen=filter_seen) for events in asked], np.float64)


def candidates(fleet: Fleet, work: Path) -> "list[tuple[str, Bundle]]":
    """Better and worse models, best last."""
    layout, rng = fleet.layout("full"), np.random.default_rng(3)
    found = []
    for scale in reversed(SPOILT):
        master = Master.of(fleet.bundle)
        master.apply(layout, scale * rng.standard_normal(layout.size), fleet.content)
        found.append((f"noise of {scale:g} on every number", written(fleet, master, work / f"spoilt-{scale:g}.hush")))
    run, master = replace(Run(), rounds=max(LEARNT) * 2), Master.of(fleet.bundle)
    adam, turns = FedAdam(layout.size, run.adam), fleet.turns(run.cohort)
    for number in range(1, max(LEARNT) + 1):
        mean = fleet.mean(master, run, next(turns), f"round {number}")
        master.apply(layout, share_of_rate(number, run.rounds) * adam.step(mean), fleet.content)
        if number in LEARNT:
            name = f"{number} round{'s' if number > 1 else ''} of training"
            found.append((name, written(fleet, master, work / f"learnt-{number}.hush")))
    return found


def written(fleet: Fleet, master: Master, out: Path) -> Bundle:
    """A master as a bundle."""
    if out.exists():
        return Bundle.open(out)
    origins = {name: "private" for name in CHANGED_FILES if name in fleet.bundle.manifest.files}
    return write_release(fleet.bundle, out, master, card={"headline": "", "name": out.stem}, origins=origins)


def let_out(plan: Plan, before: Doubles, gain: Doubles) -> float:
    """Share of the draws of a cohort in which the candidate goes out."""
    rng, deviation = np.random.default_rng(4), noise_deviation(plan)
    parts = {EVALUATION: before, GAIN: gain}
    clipped = {segment.name: clip(parts[segment.name], float(segment.clip)) for segment in plan.schema}
    out = 0
    for _ in range(DRAWS):
        cohort = rng.choice(len(gain), plan.cohort, replace=plan.cohort > len(gain))
        readings = {}
        for name, values in clipped.items():
            noise = deviation[name] * plan.cohort
            total = values[cohort].sum(axis=0)
            readings[name] = Reading(total + noise * rng.standard_normal(total.shape), noise)
        out += not worse(readings, MOST_LOSS)
    return out / DRAWS


def clip(values: Doubles, most: float) -> Doubles:
    """Rows of at most this L2 norm."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    cut: Doubles = values * np.minimum(1.0, most / np.maximum(norms, 1e-12))
    return cut


if __name__ == "__main__":
    main()
