"""What learning together costs one device, piece by piece.

    python benchmarks/one_device.py [--items 3416] [--json]

A bundle of MovieLens-1M's size with random weights, on which time does not depend, and made-up shoppers of 165 events,
that log's mean, and of 6,400, more than a round trains on. A local step is what a round asks for, the train step opened
anew. Times are of the processor, medians of several turns, but for those of `recommend`, which is timed by the clock
while a thread trains. Memory is that of processes of their own at their peak.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from hushrec.bundle import Bundle, write_bundle
from hushrec.federated.train_step import Sample
from hushrec.federated.trainer import LocalTrainer, TrainSettings
from hushrec.recommender import Recommender
from hushrec.vault import Vault
from hushrec_privacy.encoding import encode_update
from hushrec_privacy.encoding.rotation import Rotation
from hushrec_privacy.enrolment import Identity
from hushrec_privacy.envelope import Context, EnvelopeKey, seal, sign_request, verify_request
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.randomness import OsRandom
from server_process import memory_mb

__all__ = ["main"]

NUMBERS, VALUES = 500_000, 10_000
EVENTS = (165, 6_400)
MAX_HISTORY = 50
TRAINED = ("train_step.onnx", "params.bin")


def main() -> None:
    """Measure and print, one line a figure."""
    parser = argparse.ArgumentParser(description="What learning together costs one device.")
    parser.add_argument("--items", type=int, default=3_416)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("BUNDLE", "EVENTS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(Path(options.child[0]), int(options.child[1]))
        return
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        bundle = _bundle(Path(name) / "shop.hush", options.items)
        for measured in (
            _encoding(),
            _envelopes(),
            _vault(Path(name)),
            _training(bundle),
            _unused(bundle),
            _beside(bundle),
        ):
            for what, value in measured:
                found[what] = value
                if not options.json:
                    print(f"{what:<64}{value:12,.3f}", flush=True)
    if options.json:
        print(json.dumps(found))


def _encoding() -> Iterator[tuple[str, float]]:
    plan = make_plan(
        Request(population=100_000, cohort=1_000, rounds=100, delta=1e-6, noise_multiplier=4.0, parameters=NUMBERS)
    )
    assert plan is not None
    update = np.random.default_rng(0).normal(size=NUMBERS).astype(np.float32)
    source = OsRandom()
    yield "encoding 500,000 numbers, ms", _ms(lambda: encode_update(plan, update, source))
    rotation = Rotation(plan.rotation_seed, plan.parameters, plan.coordinates)
    yield "of it, turning them, ms", _ms(lambda: rotation.turn(update))


def _envelopes() -> Iterator[tuple[str, float]]:
    context = Context("shop", "upload/mask", "ab" * 32, 1, "cd" * 16)
    public, identity = EnvelopeKey(b"e" * 32).public(), Identity.create()
    size, message, body, now = 1_000_004, os.urandom(1_000_000), os.urandom(1_024), int(time.time())
    yield "sealing 1 MB, ms", _ms(lambda: seal(public, context, message, size))
    yield "signing a request of 1 KiB, ms", _ms(lambda: sign_request(identity, context, body, at_s=now), 200)
    signed, key = sign_request(identity, context, body, at_s=now), identity.public()
    yield "checking it, ms", _ms(lambda: verify_request(key, context, body, signed, at_s=now), 200)


def _vault(folder: Path) -> Iterator[tuple[str, float]]:
    path, key = folder / "device.vault", os.urandom(32)
    with Vault.open(path, key) as vault:
        vault.put_many({f"value-{number}": os.urandom(64) for number in range(VALUES)})

    def read() -> None:
        with Vault.open(path, key) as opened:
            assert len(opened.values()) == VALUES

    yield "opening a vault and reading its 10,000 values, ms", _ms(read)


def _training(bundle: Bundle) -> Iterator[tuple[str, float]]:
    for events in EVENTS:
        yield f"a local step, part full, {events:,} events, ms", _ms(_local_step(bundle, events))
    yield "of it, opening the train step, ms", _ms(lambda: LocalTrainer.open(bundle, "full", TrainSettings()))
    at_rest = _peak_mb(bundle, 0)
    yield "memory of a process that recommends, at peak, MB", at_rest
    for events in EVENTS:
        yield f"and above that with a local step of {events:,} events, MB", _peak_mb(bundle, events) - at_rest


def _unused(bundle: Bundle) -> Iterator[tuple[str, float]]:
    """What the training part of a bundle costs a device that never trains: opened first, opened again, fetched."""
    files: dict[str, bytes | Path] = {name: bundle.path(name) for name in bundle.manifest.files if name not in TRAINED}
    arrays = {name: array for name, array in bundle.manifest.arrays.items() if array.file not in TRAINED}
    origins = {name: bundle.manifest.files[name].origin for name in files}
    manifest = bundle.manifest
    without = write_bundle(
        bundle.root.with_name("without.hush"),
        type(manifest)(card=manifest.card, model=manifest.model, arrays=arrays),
        files,
        origins,
    )
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(51):
        for one in (bundle, without):
            times[one is bundle].append(_ms(lambda one=one: Bundle.open(one.root, verify=True), 1))  # type: ignore[misc]
    yield "a first open, every file hashed, ms", statistics.median(times[True])
    yield "of it, for what only training needs, ms", statistics.median(times[True]) - statistics.median(times[False])
    yield "the bundle, KB", bundle.size / 1e3
    yield "of it, what only training needs, KB", (bundle.size - without.size) / 1e3


def _beside(bundle: Bundle) -> Iterator[tuple[str, float]]:
    stop, rounds, train = threading.Event(), [0], _local_step(bundle, EVENTS[1], stop=lambda: stop.is_set())

    def work() -> None:
        while not stop.is_set():
            train()
            rounds[0] += 1

    with Recommender.open(bundle.root) as shop:
        alone = _recommend_ms(shop)
        thread = threading.Thread(target=work)
        thread.start()
        beside = _recommend_ms(shop)
        stop.set()
        thread.join()
    for name, times in (("alone", alone), ("while a thread trains", beside)):
        for quantile in (50, 99):
            yield f"recommend {name}, p{quantile}, ms", float(np.percentile(times, quantile))
    yield "local steps begun meanwhile", rounds[0]


def _recommend_ms(shop: Recommender, calls: int = 2_000) -> list[float]:
    times, at = [], datetime.now(UTC)
    for call in range(calls + 100):
        shop.observe(f"item-{call % 1_000 + 1}", at=at + timedelta(seconds=call))
        began = time.perf_counter()
        shop.recommend(10, at=at + timedelta(seconds=call))
        times.append((time.perf_counter() - began) * 1e3)
    return times[100:]


def _local_step(bundle: Bundle, events: int, stop: Callable[[], bool] = lambda: False) -> Callable[[], object]:
    """A local step as a round asks for it, everything opened anew."""
    drawn = np.random.default_rng(0).integers(1, bundle.manifest.model.items + 1, events)
    history = Sample(drawn, np.zeros(events, np.int64))

    def train() -> object:
        return LocalTrainer.open(bundle, "full", TrainSettings()).update([history], "a seed", stop=stop)

    return train


def _peak_mb(bundle: Bundle, events: int) -> float:
    command = [sys.executable, __file__, "--child", str(bundle.root), str(events)]
    return statistics.median(float(subprocess.check_output(command)) for _ in range(3))


def _child(path: Path, events: int) -> None:
    """Recommend, train if there are events, and say what it took of memory."""
    with Recommender.open(path) as shop:
        _recommend_ms(shop, 100)
        if events:
            assert _local_step(Bundle.open(path), events)() is not None
    print(memory_mb(os.getpid(), peak=True))


def _ms(work: Callable[[], object], times: int = 11) -> float:
    """Processor time of all threads, the median."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        work()
        taken.append((time.process_time() - began) * 1e3)
    return statistics.median(taken)


def _bundle(out: Path, items: int) -> Bundle:
    """An untrained model of the default shape, a quarter of its channels pruned, and nothing known of its items."""
    import torch
    from hushrec_model.counting import count_tables
    from hushrec_model.features import item_features
    from hushrec_model.items import Items
    from hushrec_model.model import Model
    from hushrec_model.network import EncoderShape
    from hushrec_model.sequences import Sequences
    from hushrec_quantize.convert import encoder_weights
    from hushrec_quantize.graphs import build_graphs
    from hushrec_quantize.pack import BundleFacts, Content, write_model_bundle

    torch.manual_seed(0)
    names, prices = [f"item-{number}" for number in range(1, items + 1)], np.full(items, np.nan)
    features = item_features([None] * items, prices, {})
    shape = EncoderShape((2, 2), (132, 132), MAX_HISTORY)
    model = Model(shape, features, np.ones(items, int), dropout=0.0, attention_dropout=0.0)
    walks = np.random.default_rng(0).integers(1, items + 1, 20_000, np.int32)
    seen = Sequences(np.arange(0, 20_001, 20), walks, np.zeros(20_000, np.int8), None, None)
    content = Content(names, Items([None] * items, prices, {}, None), features, dict(count_tables(seen, items)), model)
    graphs = build_graphs(encoder_weights(model), model.table().numpy())
    facts = BundleFacts(False, True, ("view",), True, 1, {"name": "made up"})
    return write_model_bundle(out, graphs, content, (), facts)


if __name__ == "__main__":
    main()
