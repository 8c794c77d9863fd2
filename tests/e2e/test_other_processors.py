"""The engine on a processor without int8 dot products (VNNI), emulated: the same lists, whichever scorer is taken, and
the one whose sums would overflow there is refused."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hushrec.engine import Engine
from hushrec.scorer import ScorerName
from hushrec_quantize.graphs import build_graphs

from tests.encoder_reference import random_encoder, random_items
from tests.engine_folder import Folder

EMULATOR = shutil.which("qemu-x86_64")
ITEMS, QUERIES = 2_000, 8
HISTORY = np.arange(1, 9)
SCORERS: tuple[ScorerName, ...] = ("plain", "product", "blocks")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(EMULATOR is None, reason="qemu-x86_64 is not installed (Debian: qemu-user)"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the emulated processor is an x86_64"),
]

SCRIPT = """
import json, sys
from pathlib import Path
from tests.e2e.test_other_processors import HISTORY, ITEMS, SCORERS, all_scores
from tests.engine_folder import Folder
from hushrec.engine import Engine
from hushrec_privacy.errors import BundleError

folder = Folder(Path(sys.argv[1]), ITEMS, int(sys.argv[2]))
found = {}
for name in SCORERS:
    try:
        found[name] = all_scores(folder, name).tolist()
    except BundleError as error:
        found[name] = str(error)
engine = Engine(folder)
many = [scores[1 : ITEMS + 1].tolist() for _, scores in engine.scores_many([(HISTORY, None)])]
print(json.dumps({"scores": found, "chosen": engine.scorer, "many": many}))
"""


def all_scores(folder: Folder, scorer: ScorerName) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Scores of all items for some histories, shape (QUERIES, ITEMS)."""
    engine, rng = Engine(folder, scorer=scorer), np.random.default_rng(5)
    histories = rng.integers(1, ITEMS + 1, (QUERIES, 8))
    return np.stack([engine.scores(history)[1 : ITEMS + 1] for history in histories])


@pytest.mark.parametrize(("processor", "exact"), [("Haswell", False), ("Nehalem", True)])
def test_scores_are_those_of_this_processor(tmp_path: Path, processor: str, exact: bool) -> None:
    weights = random_encoder(max_history=8)
    for layer in weights.layers:
        layer.w2[:, ::7] *= 4  # outliers: signed codes would overflow without VNNI
    graphs = build_graphs(weights, random_items(ITEMS))
    graphs.write(tmp_path)
    command = [str(EMULATOR), "-cpu", processor, str(Path(sys.executable).resolve()), "-c", SCRIPT]
    done = subprocess.run(
        [*command, str(tmp_path), str(graphs.capacity)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=300,
    )
    found, folder = json.loads(done.stdout), Folder(tmp_path, ITEMS, graphs.capacity)
    if not exact:
        assert "this processor's int8 products overflow" in found["scores"].pop("product")
    for name, scores in found["scores"].items():
        here, there = all_scores(folder, name), np.array(scores, np.float32)
        assert np.abs(here - there).max() < 0.02 * np.abs(here).max(), name
    ours = Engine(folder).scores(HISTORY)[1 : ITEMS + 1]
    assert np.abs(ours - np.array(found["many"][0], np.float32)).max() < 0.02 * np.abs(ours).max()
    plain = np.array(found["scores"]["plain"])
    chosen = np.array(found["scores"][found["chosen"]])
    best, kept = (np.argsort(-scores, axis=1)[:, :10] for scores in (plain, chosen))
    assert np.mean([len(set(one) & set(other)) for one, other in zip(best, kept, strict=True)]) / 10 >= 0.95
