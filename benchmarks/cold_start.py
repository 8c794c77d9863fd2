"""From the start of a process to the first list at 100,000 items, against torch loading the same weights.

    python benchmarks/cold_start.py [--items 100000] [--runs 15] [--json]

The file cache is warm, and the profile has the bundle's hashes on record, except on the line "first open, hashing".
Time runs from before the process is made until its list arrives; the interpreter's own start is a line of its own, and
so are the imports. Weights and items are random.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from hushrec.bundle import write_bundle
from hushrec.catalog import write_catalog
from hushrec.manifest import ALIGNMENT, ArrayInfo, BlendPart, Manifest, ModelInfo
from hushrec.tables import WIDTH, items_layout
from hushrec_model.network import Encoder, EncoderShape
from hushrec_quantize.graphs import build_graphs
from numpy.typing import NDArray
from random_model import random_rows, random_weights

__all__ = ["main"]

SEED, NEIGHBOURS, MAX_HISTORY = 0, 16, 50
LAYERS, HEADS, CHANNELS = 1, 2, 176
LIMIT_MS, LEAST_RATIO = 150, 8
_PYTHON = "print('[]', flush=True)"
_IMPORTS = "import numpy, msgspec, sqlite3, onnxruntime; print('[]', flush=True)"
_HUSHREC = """
import sys, hushrec
rec = hushrec.Recommender.open(sys.argv[1], profile=sys.argv[2])
rec.observe("item-17")
print([found.item for found in rec.recommend(10)], flush=True)
"""
_TORCH = f"""
import sys, torch
from hushrec_model.network import Encoder, EncoderShape
torch.set_num_threads(1)
encoder = Encoder(EncoderShape({(HEADS,) * LAYERS}, {(CHANNELS,) * LAYERS}, {MAX_HISTORY})).eval()
state = torch.load(sys.argv[1], mmap=True)
encoder.load_state_dict(state["encoder"])
with torch.inference_mode():
    items = torch.tensor([[17]])
    user = encoder(state["table"][items], torch.zeros_like(items))[0, -1]
    print(torch.topk(state["table"] @ user, 10).indices.tolist(), flush=True)
"""


def main() -> None:
    """Measure and print; ends with an error if a limit is broken."""
    parser = argparse.ArgumentParser(description="Process start to first list.")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bundle, state = _write(root, options.items)
        profile = str(root / "shopper.profile")
        found = {"first open, hashing": _run_ms(_HUSHREC, bundle, profile)}
        commands = {
            "python alone": (_PYTHON,),
            "python and imports": (_IMPORTS,),
            "hushrec": (_HUSHREC, bundle, profile),
            "torch": (_TORCH, state),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for run in range(options.runs + 1):
            for name, command in commands.items():
                taken = _run_ms(*command)
                if run:  # the first fills the file cache
                    times[name].append(taken)
    found |= {name: float(np.median(taken)) for name, taken in times.items()}
    found["ratio"] = found["torch"] / found["hushrec"]
    if options.json:
        print(json.dumps({"items": options.items, **{name: round(value, 1) for name, value in found.items()}}))
    else:
        for name, value in found.items():
            print(f"{name:<22} {value:7.1f}" + ("" if name == "ratio" else " ms"))
    if found["hushrec"] > LIMIT_MS or found["ratio"] < LEAST_RATIO:
        raise SystemExit(f"above {LIMIT_MS} ms, or less than {LEAST_RATIO} times as fast as torch")


def _run_ms(code: str, *arguments: str) -> float:
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        taken = (time.perf_counter() - began) * 1e3
    if child.returncode or not line.startswith("["):
        raise SystemExit(f"the measured process failed with {child.returncode}: {line}")
    return taken


def _write(root: Path, items: int) -> tuple[str, str]:
    """Write a bundle, and the same weights for torch; give their paths."""
    import torch

    rng = np.random.default_rng(SEED)
    shape = EncoderShape((HEADS,) * LAYERS, (CHANNELS,) * LAYERS, MAX_HISTORY)
    weights = random_weights(SEED, layers=LAYERS, heads=HEADS, channels=CHANNELS, max_history=MAX_HISTORY)
    rows = random_rows(items, SEED)
    graphs = build_graphs(weights, rows)
    popularity = np.zeros(items + 1, np.float32)
    popularity[1:] = 1 / np.arange(1, items + 1)
    near = rng.integers(1, items + 1, (items + 1, NEIGHBOURS)).astype(np.uint32)
    tables: dict[str, NDArray[np.generic]] = {
        "transitions.items": near,
        "transitions.weights": rng.integers(1, 256, near.shape).astype(np.uint8),
        "transitions.scales": np.full(items + 1, 0.01, np.float32),
        "popularity": popularity,
    }
    neighbours, arrays = bytearray(), {}
    for name, table in tables.items():
        neighbours += bytes(-len(neighbours) % ALIGNMENT)
        arrays[name] = ArrayInfo("neighbours.bin", len(neighbours), table.dtype.str, table.shape)  # type: ignore[arg-type]
        neighbours += table.tobytes()
    layout = items_layout(graphs.capacity)
    arrays["items.codes"] = ArrayInfo("items.bin", layout.codes_offset, "|u1", (graphs.capacity, WIDTH))
    arrays["items.scale"] = ArrayInfo("items.bin", layout.scale_offset, "<f4", (1,))
    catalog = root / "catalog.sqlite"
    ids = [f"item-{number}" for number in range(1, items + 1)]
    write_catalog(catalog, ids, ids, np.full(items, np.nan), {"category": [(f"c{n % 50}",) for n in range(items)]})
    model = ModelInfo(
        width=WIDTH,
        layers=LAYERS,
        max_history=MAX_HISTORY,
        items=items,
        capacity=graphs.capacity,
        filter_seen=True,
        times=True,
    )
    manifest = Manifest(
        card={"headline": "no guarantee for this bundle"},
        model=model,
        blend=(BlendPart("transitions", 0.6, 0.01, decay=0.6, window=20),),
        arrays=arrays,
    )
    files: dict[str, bytes | Path] = {**graphs.files(), "neighbours.bin": bytes(neighbours), "catalog.sqlite": catalog}
    write_bundle(root / "shop.hush", manifest, files, dict.fromkeys(files, "private"))
    state = {"encoder": Encoder(shape).state_dict(), "table": torch.from_numpy(rows)}
    torch.save(state, root / "model.pt")
    return str(root / "shop.hush"), str(root / "model.pt")


if __name__ == "__main__":
    main()
