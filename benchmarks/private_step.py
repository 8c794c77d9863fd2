"""Time and memory of one clipped per-user step: ours against the ways of Opacus, with the same loss.

    python benchmarks/private_step.py [--items 3416,22000] [--users 16] [--length 50] [--candidates 1024]

Every way runs in a process of its own, one thread: the clipped sum over the same users, one layer of the default size
and the item rows trained. The peers read the table once a user, through its module, as their hooks need it. Memory is
the peak above what the process held before the first step, time that of the processor (the median of 7 steps). `apart`
is the distance of a way's clipped sum from ours, relative to its length: a way that is fast and wrong would show it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from hushrec_model.features import item_features
from hushrec_model.model import Model
from hushrec_model.network import EncoderShape
from hushrec_model.sequences import Sequences
from hushrec_model.user_sequences import UserBatch, UserSequences
from hushrec_model.user_step import Candidates, UserStep
from torch import Tensor, nn
from torch.nn import functional

WAYS = ("ours", "hooks", "functorch", "ew", "ghost")
NAMES = {
    "ours": "hushrec, row by row",
    "hooks": "Opacus, hooks",
    "functorch": "Opacus, functorch expanded",
    "ew": "Opacus, ExpandedWeights",
    "ghost": "Opacus, fast (ghost) clipping",
}
CLIP, REPEATS = 0.5, 7

Step = Callable[[], dict[str, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", default="3416,22000")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--candidates", type=int, default=1024)
    parser.add_argument("--way", choices=WAYS, help="one way alone, as JSON")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, int(options.items), options)))
        return
    machine.main()
    print(f"\n{options.users} users of {options.length} events, {options.candidates} candidates\n")
    print("| items | way | ms a step | MB above rest | apart |\n| --- | --- | --- | --- | --- |")
    for items in options.items.split(","):
        for way in WAYS:
            found = alone(way, items, sys.argv[1:])
            cells = (f"{found['ms']:.0f}", f"{found['mb']:.0f}", f"{found['apart']:.1e}") if "ms" in found else ()
            print(f"| {int(items):,} | {NAMES[way]} | {' | '.join(cells or (found['error'], '', ''))} |", flush=True)


def alone(way: str, items: str, arguments: list[str]) -> dict[str, Any]:
    """Measure one way in a fresh process."""
    command = [sys.executable, str(Path(__file__)), *arguments, "--items", items, "--way", way]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return {"error": f"fails: {lines[-1][:120]}"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(way: str, items: int, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds and megabytes of a step, and how far its sum is from ours."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    step_of(way, *planted(20, argparse.Namespace(users=2, length=3, candidates=5)))()  # loads what is loaded lazily
    model, users, candidates = planted(items, options)
    step = step_of(way, model, users, candidates)
    before = peak()
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        sums = step()
        times.append(time.process_time() - began)
    held = peak() - before
    reference = step_of("ours", *planted(items, options))()
    gap = sum(float((sums[name] - total).square().sum()) for name, total in reference.items())
    size = sum(float(total.square().sum()) for total in reference.values())
    return {"ms": statistics.median(times) * 1e3, "mb": held, "apart": (gap / size) ** 0.5}


def step_of(way: str, model: Model, users: UserSequences, candidates: Candidates) -> Step:
    """One way's step over some users, as a call without arguments."""
    return by_us(model, users, candidates) if way == "ours" else by_opacus(way, model, users, candidates)


def peak() -> float:
    """Largest memory that the process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def planted(items: int, options: argparse.Namespace) -> tuple[Model, UserSequences, Candidates]:
    """A model of random weights and users with random histories."""
    torch.manual_seed(0)
    features = item_features([None] * items, np.full(items, np.nan), {})
    shape = EncoderShape((2,), (176,), options.length)
    model = Model(shape, features, np.ones(items, int), dropout=0.0, attention_dropout=0.0)
    events = options.users * (options.length + 1)
    drawn = np.random.default_rng(0).integers(1, items + 1, events, np.int32)
    offsets = np.arange(options.users + 1) * (options.length + 1)
    users = UserSequences(Sequences(offsets, drawn, np.zeros(events, np.int8), None, None), options.length)
    candidates = Candidates.draw(options.candidates, torch.zeros(items + 1), torch.Generator().manual_seed(0))
    return model, users, candidates


def by_us(model: Model, users: UserSequences, candidates: Candidates) -> Step:
    """Our step."""
    step = UserStep(model, ("encoder", "rows"), CLIP)
    return lambda: step.clipped_sum(np.arange(len(users)), users, candidates)


class Peer(nn.Module):
    """The loss of each user as hooks can follow it: the table is read once a user, history and candidates at once."""

    def __init__(self, model: Model, candidates: Candidates) -> None:
        super().__init__()
        self.id, self.encoder, self.candidates = model.items.id, model.encoder, candidates
        self.encoder.hooked = True
        for block in self.encoder.layers:  # ghost clipping wants indexes that lie in one piece
            block.distance.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
        self.extra = float(np.log(max(1.0, (len(candidates.offset) - 2) / len(candidates.items))))

    def forward(self, items: Tensor, behaviors: Tensor) -> Tensor:
        """Losses in nats, shape (B,)."""
        users, slots = items.shape
        wanted = (
            torch.cat([items, self.candidates.items.expand(users, -1)], 1) - 1
        ).contiguous()  # ghost clipping views it
        vectors = functional.normalize(self.id(wanted), dim=2, eps=1e-6)
        own, shared = vectors[:, :slots], vectors[:, slots:]
        user = self.encoder(own[:, :-1], behaviors)
        target = (user * own[:, 1:]).sum(2)
        others = user @ shared.transpose(1, 2) + self.extra
        others = others.masked_fill(self.candidates.items == items[:, 1:, None], float("-inf"))
        losses: Tensor = (torch.logaddexp(target, torch.logsumexp(others, 2)) - target).mean(1)
        return losses


def by_opacus(way: str, model: Model, users: UserSequences, candidates: Candidates) -> Step:
    """A step of Opacus without noise: its module, its clipping."""
    from opacus.grad_sample.utils import prepare_module
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping

    peer, batch = Peer(model, candidates).train(), users.batch(np.arange(len(users)))
    extra: dict[str, Any] = {"max_grad_norm": CLIP, "use_ghost_clipping": True} if way == "ghost" else {}
    module = prepare_module(peer, way, loss_reduction="sum", **extra)
    kind = DPOptimizerFastGradientClipping if way == "ghost" else DPOptimizer
    names = {weight: name for name, weight in peer.named_parameters() if weight.requires_grad}
    optimizer = kind(
        torch.optim.SGD(list(names), lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=CLIP,
        expected_batch_size=1,
        loss_reduction="sum",
    )

    def step() -> dict[str, Tensor]:
        optimizer.zero_grad(set_to_none=True)
        losses_backward(way, module, optimizer, batch)
        optimizer.step()
        return {ours(name): weight.grad for weight, name in names.items() if weight.grad is not None}

    return step


def losses_backward(way: str, module: Any, optimizer: Any, batch: UserBatch) -> None:
    """The backward pass, or the two of ghost clipping."""
    if way == "ghost":
        from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

        losses = module(batch.items, batch.behaviors)
        DPTensorFastGradientClipping(module, optimizer, losses, "sum").backward()
    else:
        module(batch.items, batch.behaviors).sum().backward()


def ours(name: str) -> str:
    """The name that a parameter of the peer has in our model."""
    return "items.id.weight" if name == "id.weight" else name


if __name__ == "__main__":
    main()
