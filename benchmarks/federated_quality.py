"""What a fleet adds to a model that was trained on a tenth of the users, and what noise takes from it.

    python benchmarks/federated_quality.py [--work DIR] [--rounds N] [--noise]

MovieLens-1M, leave-one-out, every user tested, the Transformer alone. "start" is trained on a tenth of the users, as
`hushrec train` does; "central" has the same architecture and all users' training events; in between, each of the other
users is one device that never shows its events. Everything is trained (part `full`). Devices run the product's
`LocalTrainer`, from item rows in int8, and the mean of their clipped changes goes through `FedAdam` into the `Master`;
masking and rounding, which change next to nothing of a sum, are left out. The server's optimizer and schedule are those
of `hushrec serve` with its defaults; rates and rounds were chosen by validation.

With --noise, the same with the noise of a plan from `hushrec_privacy.plans.planner`, correlated over rounds, for a
fleet as large as this one and, simulated, for 100,000 and 1,000,000 devices: the mean is taken over fewer updates than
such a plan's cohort has, and the noise is the plan's. That is the worse mean, of devices that are thought to be like
these. What was found is kept in DIR and not run again.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from federated_models import Shop, score, shop, trained
from hushrec.bundle import Bundle
from hushrec.federated.content import Content
from hushrec.federated.fedadam import AdamSettings, FedAdam
from hushrec.federated.layout import ParameterLayout
from hushrec.federated.master import Master
from hushrec.federated.schedule import share_of_rate
from hushrec.federated.train_step import Sample, TrainStep
from hushrec.federated.trainer import LocalTrainer, TrainSettings
from hushrec_model.counting import count_tables
from hushrec_model.items import Items
from hushrec_model.model import Model
from hushrec_model.network import HEAD_WIDTH
from hushrec_model.splits import Queries
from hushrec_privacy.mechanisms.clipping import clip_update
from hushrec_privacy.mechanisms.toeplitz import FRACTION_BITS, fixed_point_coefficients
from hushrec_privacy.plans.planner import Reachable, Request, reach
from hushrec_quantize.convert import encoder_weights
from hushrec_quantize.graphs import build_graphs
from hushrec_quantize.pack import BundleFacts, write_model_bundle
from hushrec_quantize.pack import Content as Packed
from numpy.typing import NDArray

DELTA, EPSILONS = 1e-7, (8.0, 2.0)
# devices (0: as many as there are), cohort, part: where noise drowns all parameters, a few may still be heard
FLEETS = ((1_000_000, 10_000, "full"), (100_000, 5_000, "full"), (0, 1_000, "full"), (0, 300, "adapter"))
SETTINGS = TrainSettings(local_steps=1, local_rate=0.1, candidates=1024, windows=4)
ADAM = AdamSettings()
NOISED_ROUNDS = 200
CLIPS = {"adapter": 0.05, "full": 0.5}
VALIDATED = 5  # every fifth device's validation query is asked on the way

Doubles = NDArray[np.float64]
Noise = Callable[[], Doubles]


@dataclass(frozen=True)
class Run:
    """How one fleet learns.

    Attributes:
        part: What is trained.
        rounds: T.
        cohort: Devices of a round whose updates are computed.
        settings: Of local training.
        adam: Of the server.
        clip: L2 bound of an update.
    """

    part: str = "full"
    rounds: int = 600
    cohort: int = 50
    settings: TrainSettings = SETTINGS
    adam: AdamSettings = ADAM
    clip: float = CLIPS["full"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/federated_quality"))
    parser.add_argument("--rounds", type=int, default=Run.rounds)
    parser.add_argument("--noise", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    fleet, run = Fleet(shop(options.work), options.work), replace(Run(), rounds=options.rounds)
    ends = {name: score(fleet.data, trained(fleet.data, name, options.work)) for name in ("start", "central")}
    found = kept(options.work / f"fleet-{run.rounds}.json", lambda: fleet.learn(run))
    print("| model | test NDCG@10 | of the way from start to central |\n| --- | --- | --- |")
    for name, ndcg in (("start", ends["start"]), ("fleet", found["test"]), ("central", ends["central"])):
        print(f"| {name} | {ndcg:.4f} | {way(ndcg, ends):.2f} |", flush=True)
    if options.noise:
        noisy(fleet, run, ends, options.work)


def way(ndcg: float, ends: dict[str, float]) -> float:
    """Where a score lies between start (0) and central (1)."""
    return (ndcg - ends["start"]) / (ends["central"] - ends["start"])


def noisy(fleet: "Fleet", run: Run, ends: dict[str, float], work: Path) -> None:
    """Print the curve over fleets and epsilons."""
    heads = "devices | part | cohort | ε | noise multiplier | k | b | noise / clip | test NDCG@10 | of the way"
    print(f"\n| {heads} |\n{'| --- ' * 10}|")
    run = replace(run, rounds=NOISED_ROUNDS)
    found = kept(work / f"fleet-{run.rounds}.json", lambda: fleet.learn(run))
    print(f"| no noise | full | | | | | | | {found['test']:.4f} | {way(found['test'], ends):.2f} |", flush=True)
    for epsilon in EPSILONS:
        for devices, cohort, part in FLEETS:
            population, size = devices or len(fleet.samples), fleet.layout(part).size
            plan = reach(Request(population, cohort, run.rounds, DELTA, epsilon, parameters=size, parts=part))
            noised = replace(run, part=part, clip=CLIPS[part])
            path = work / f"noise-{run.rounds}-{population}-{part}-{epsilon:g}.json"
            found = kept(path, partial(fleet.learn, noised, plan))
            name = f"{population:,}{' (simulated)' if devices else ''} | {part}"
            facts = f"{epsilon:g} | {plan.noise_multiplier:.2f} | {plan.participations} | {plan.min_separation}"
            facts += f" | {plan.noise_to_clip:.2f}"
            reached = f"{found['test']:.4f} | {way(found['test'], ends):.2f}"
            print(f"| {name} | {cohort:,} | {facts} | {reached} |", flush=True)


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is in `path`, or what is made now and put there."""
    if not path.exists():
        path.write_text(json.dumps(make()))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


class Fleet:
    """The users that the first model was not made from, one device each.

    Args:
        data: The log.
        work: Where the first model's bundle is put.
    """

    def __init__(self, data: Shop, work: Path) -> None:
        self.data, self._model = data, trained(data, "start", work)
        self.bundle = packed(data, self._model, work / "start.hush")
        self._step = TrainStep(self.bundle.path("train_step.onnx"))
        self._others = np.flatnonzero(~data.starters)
        train = data.split.train
        self.samples = [
            Sample(train.item[start:stop].astype(np.int64), train.behavior[start:stop].astype(np.int64))
            for start, stop in zip(train.offsets[self._others], train.offsets[self._others + 1], strict=True)
        ]

    def layout(self, part: str) -> ParameterLayout:
        """Of one part."""
        return ParameterLayout.of(self.bundle.manifest, part)

    def learn(self, run: Run, plan: Reachable | None = None) -> dict[str, Any]:
        """Run all rounds; validation on the way, and the test at the end."""
        began, curve = time.monotonic(), []
        layout, master = self.layout(run.part), Master.of(self.bundle)
        adam = FedAdam(layout.size, run.adam)
        turns = self.turns(run.cohort)
        noise = None if plan is None else correlated(plan, run.clip, layout.size)
        for number in range(1, run.rounds + 1):
            mean = self.mean(master, run, next(turns), f"round {number}")
            if noise is not None:
                mean += noise()
            share = share_of_rate(number, run.rounds, 0.0 if plan is None else plan.noise_to_clip)
            master.apply(layout, share * adam.step(mean), self.content)
            if number % 100 == 0:
                curve.append(self._score(master, self._validation()))
                spent = time.monotonic() - began
                print(f"round {number}: {curve[-1]:.4f}, {spent:.0f} s", file=sys.stderr, flush=True)
        return {"run": asdict(run), "validation": curve, "test": self._score(master, self.data.split.test)}

    def turns(self, cohort: int) -> Iterator[list[Sample]]:
        """Cohorts in which everybody has had a turn before anybody has the next."""
        rng, left = np.random.default_rng(1), list[int]()
        while True:
            if len(left) < cohort:
                left = rng.permutation(len(self.samples)).tolist()
            chosen, left = left[:cohort], left[cohort:]
            yield [self.samples[device] for device in chosen]

    def mean(self, master: Master, run: Run, cohort: Sequence[Sample], seed: str) -> Doubles:
        start = master.start(np.zeros(len(master.lengths), np.float32))
        layout, longest = self.layout(run.part), self.bundle.manifest.model.max_history
        trainer = LocalTrainer(start, layout, self._step, run.settings, content=self._some_content, max_history=longest)
        total = np.zeros(layout.size)
        for number, sample in enumerate(cohort):
            update = trainer.update([sample], f"{seed} {number}")
            assert update is not None, "a device ran out of time"
            total += clip_update(update, clip_norm=run.clip)
        return total / len(cohort)

    def _some_content(self, items: NDArray[np.int64]) -> Content:
        return Content(self.bundle, items)

    def content(self) -> Content:
        return Content.whole(self.bundle)

    def _validation(self) -> Queries:
        asked, valid = self._others[::VALIDATED], self.data.split.valid
        offsets = np.arange(len(asked) + 1)
        return Queries(valid.events, valid.start[asked], valid.stop[asked], offsets, valid.target[asked])

    def _score(self, master: Master, queries: Queries) -> float:
        load(self._model, master)
        return score(self.data, self._model, queries, torch.from_numpy(master.turned @ master.rotation.T))


def correlated(plan: Reachable, clip: float, size: int) -> Noise:
    """The noise of a plan on the mean of its cohort, round after round, in floating point and not secret."""
    request = plan.plan
    assert request is not None
    rng, scale = np.random.default_rng(2), plan.noise_multiplier * clip / request.cohort
    weights = fixed_point_coefficients(request.bands)[1:] / 2**FRACTION_BITS
    past = np.zeros((len(weights), size), np.float32)  # the row of round t is t modulo the rows
    rounds = itertools.count()

    def draw() -> Doubles:
        drawn = rng.standard_normal(size, np.float32)
        if len(past):
            now = next(rounds) % len(past)
            drawn -= np.roll(weights[::-1], now).astype(np.float32) @ past
            past[now] = drawn
        return scale * drawn.astype(np.float64)

    return draw


def packed(data: Shop, model: Model, out: Path) -> Bundle:
    """The first model's bundle."""
    if out.exists():
        return Bundle.open(out)
    names, tables = data.split.items, dict(count_tables(data.split.train, len(data.split.items)))
    nothing = Items([None] * len(names), np.full(len(names), np.nan), {}, None)
    facts = BundleFacts(True, True, data.log.behaviors, True, 1, {"name": "start"})
    graphs = build_graphs(encoder_weights(model), model.table().numpy())
    return write_model_bundle(out, graphs, Packed(names, nothing, data.features, tables, model), (), facts)


def load(model: Model, master: Master) -> None:
    """Put the master's encoder into the torch model, whose matrices are transposed."""
    arrays, encoder = {name: torch.from_numpy(array) for name, array in master.encoder.items()}, model.encoder
    with torch.no_grad():
        for number, block in enumerate(encoder.layers):
            for name, module in (("norm1", block.norm1), ("norm2", block.norm2)):
                module.weight.copy_(arrays[f"{number}.{name}_scale"])
                module.bias.copy_(arrays[f"{number}.{name}_bias"])
            inner = HEAD_WIDTH * block.heads
            query, key_value, gate = torch.split(arrays[f"{number}.w1"].t(), [inner, 2 * inner, encoder.shape.width])
            block.query_gate.weight.copy_(torch.cat([query, gate]))
            block.key_value.weight.copy_(key_value)
            for name, linear in {"wo": block.merge, "w2": block.expand, "w3": block.contract}.items():
                linear.weight.copy_(arrays[f"{number}.{name}"].t())
            block.distance.weight.copy_(arrays[f"{number}.bias"].t())
        encoder.norm.weight.copy_(arrays["norm_scale"])
        encoder.norm.bias.copy_(arrays["norm_bias"])
        encoder.adapter_down.weight.copy_(arrays["adapter_down"].t())
        encoder.adapter_up.weight.copy_(arrays["adapter_up"].t())
        encoder.scale.weight.copy_(arrays["scale"][0])


if __name__ == "__main__":
    main()
