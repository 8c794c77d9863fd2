"""Time of the device's train step, in ONNX Runtime, beside the same gradients in torch.

    python benchmarks/train_step.py [--layers 1,2] [--items 10000] [--candidates 1024] [--histories 8] [--length 50]

A batch of histories on one thread, candidates drawn, all weights and item rows trained. Three ways take turns, so that
their ratios count more than their milliseconds: the graph over all histories as those of one shopper, which is what a
device computes; the graph over each alone, as a simulation of several shoppers computes; and torch's clipped sum of the
same shoppers. Time is that of the processor, the median of the turns; `apart` is the largest difference of the summed
gradients of all weights between the second and the third.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np
import torch
from hushrec.federated.train_step import Gradients, Sample, TrainBatch, TrainStep, Vectors
from hushrec_model.features import item_features
from hushrec_model.model import Model
from hushrec_model.network import EncoderShape
from hushrec_model.sequences import Sequences
from hushrec_model.user_sequences import UserSequences
from hushrec_model.user_step import GROUPS, Candidates, UserStep
from hushrec_quantize.convert import encoder_weights
from hushrec_quantize.train_graph import build_train_step

NO_BOUND, TURNS = 1e9, 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="1,2")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=1024)
    parser.add_argument("--histories", type=int, default=8)
    parser.add_argument("--length", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine.main()
    print(f"\n{options.histories} histories of {options.length} events, {options.candidates} candidates\n")
    print(
        "| layers | graph, one shopper, ms | graph, each alone, ms | torch, ms | torch over graph | apart | graph, KB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for layers in options.layers.split(","):
        print(f"| {layers} | {' | '.join(measure(int(layers), options))} |", flush=True)


def measure(layers: int, options: argparse.Namespace) -> list[str]:
    """The cells of one row."""
    model, users, candidates = planted(layers, options)
    weights = encoder_weights(model)
    graph = build_train_step(weights)
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "train_step.onnx").write_bytes(graph)
        step = TrainStep(path)
    vectors, samples = vectors_of(model, users, candidates), samples_of(users)
    each = [TrainBatch.of([sample], len(sample.items) - 1) for sample in samples]
    together = TrainBatch.of(samples, sum(len(sample.items) - 1 for sample in samples))
    clipped = UserStep(model, GROUPS, NO_BOUND)
    arrays = weights.arrays()
    ways: dict[str, Callable[[], object]] = {
        "one": lambda: [step.gradients(arrays, vectors, together)],
        "each": lambda: [step.gradients(arrays, vectors, batch) for batch in each],
        "torch": lambda: clipped.clipped_sum(np.arange(len(samples)), users, candidates),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            began = time.process_time()
            way()
            times[name].append(1e3 * (time.process_time() - began))
    one, alone, by_torch = (statistics.median(times[name]) for name in ("one", "each", "torch"))
    found = [step.gradients(arrays, vectors, batch) for batch in each]
    gap = apart(model, found, clipped.clipped_sum(np.arange(len(samples)), users, candidates))
    figures = [f"{one:.1f}", f"{alone:.1f}", f"{by_torch:.1f}", f"{by_torch / one:.1f}", f"{gap:.1e}"]
    return [*figures, f"{len(graph) / 1e3:.0f}"]


def planted(layers: int, options: argparse.Namespace) -> tuple[Model, UserSequences, Candidates]:
    """A model of the default size with random weights, and shoppers with random histories."""
    torch.manual_seed(0)
    features = item_features([None] * options.items, np.full(options.items, np.nan), {})
    shape = EncoderShape((2,) * layers, (176,) * layers, options.length)
    model = Model(shape, features, np.ones(options.items, int), dropout=0.0, attention_dropout=0.0)
    with torch.no_grad():
        model.items.id.weight.div_(model.items.id.weight.norm(dim=1, keepdim=True))  # as the device has them
    events = options.histories * (options.length + 1)
    drawn = np.random.default_rng(0).integers(1, options.items + 1, events, np.int32)
    offsets = np.arange(options.histories + 1) * (options.length + 1)
    users = UserSequences(Sequences(offsets, drawn, np.zeros(events, np.int8), None, None), options.length)
    generator = torch.Generator().manual_seed(0)
    return model, users, Candidates.draw(options.candidates, torch.zeros(options.items + 1), generator)


def samples_of(users: UserSequences) -> list[Sample]:
    """The same histories for the graph."""
    batch = users.batch(np.arange(len(users)))
    return [Sample(items, np.zeros(len(items), np.int64)) for items in batch.items.numpy()]


def vectors_of(model: Model, users: UserSequences, candidates: Candidates) -> Vectors:
    """The vectors of all items that occur, candidates first."""
    drawn = candidates.items.numpy()
    own = np.unique(users.batch(np.arange(len(users))).items.numpy())
    order = np.concatenate([drawn, np.setdiff1d(own, drawn)])
    rows = model.items.raw().detach().numpy()[order]
    correction = float(np.log((model.items.items - 1) / len(drawn)))
    return Vectors(order, rows, np.zeros(len(order), np.float32), len(drawn), correction)


def apart(model: Model, found: list[Gradients], sums: dict[str, torch.Tensor]) -> float:
    """Largest difference between the summed gradients of the encoder's weights."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(sums[name])
    expected = encoder_weights(model).arrays()
    ours = {name: np.sum([part.encoder[name] for part in found], axis=0) for name in expected}
    return max(float(np.abs(ours[name] - array).max()) for name, array in expected.items())


if __name__ == "__main__":
    main()
