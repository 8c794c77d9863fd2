"""Parts of benchmarks/engine.py, smaller: the enlarged shop, the network of the peers, the goals, the processes."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.benchmark_scripts import BENCHMARKS, benchmark
from tests.encoder_reference import random_encoder, random_items, reference_user

ITEMS = 30


@pytest.fixture
def script(request: pytest.FixtureRequest) -> Any:
    """The benchmark's script that a test names, with its neighbours importable."""
    with benchmark(request.param) as module:
        yield module


@pytest.mark.parametrize("script", ["engine_shop"], indirect=True)
def test_an_enlarged_catalogue_begins_with_the_catalogue_and_its_copies_are_unit_vectors_nearby(
    script: ModuleType,
) -> None:
    own = random_items(400)
    rows, cosine = script.enlarged_rows(own, 2_000, np.random.default_rng(0))
    assert rows.shape == (2_001, 64)
    np.testing.assert_array_equal(rows[:401], own)
    np.testing.assert_allclose(np.linalg.norm(rows[1:], axis=1), 1, atol=1e-6)
    copies = rows[401:].reshape(4, 400, 64)
    assert not np.array_equal(copies[0], copies[1])
    np.testing.assert_allclose((copies * own[1:]).sum(axis=2).mean(), cosine, atol=0.02)


@pytest.mark.parametrize("script", ["engine_shop"], indirect=True)
def test_neighbours_of_a_copy_lie_in_the_same_copy_and_none_outside_the_catalogue(script: ModuleType) -> None:
    own = np.array([[0, 0], [2, 3], [3, 0], [1, 2]], np.uint32)
    found = script.enlarged_table(own, "item_knn.items", 5)
    np.testing.assert_array_equal(found, [[0, 0], [2, 3], [3, 0], [1, 2], [5, 0], [0, 0]])  # 6 is outside


@pytest.mark.parametrize("script", ["engine_shop"], indirect=True)
def test_weights_and_popularity_of_a_copy_are_those_of_its_item(script: ModuleType) -> None:
    own = np.array([0, 7, 8], np.float32)
    np.testing.assert_array_equal(script.enlarged_table(own, "popularity", 5), [0, 7, 8, 7, 8, 7])


@pytest.mark.parametrize("script", ["torch_network"], indirect=True)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("length", [1, 7, 12])
def test_the_peers_network_scores_as_the_written_out_encoder_does(
    script: ModuleType, fused: bool, padded: bool, length: int
) -> None:
    weights, rows = random_encoder(max_history=12), random_items(ITEMS)
    history = np.random.default_rng(length).integers(1, ITEMS + 1, length)
    items = np.concatenate([np.zeros(12 - length, np.int64), history]) if padded else history
    network = script.Network(weights.arrays(), rows, fused=fused, padded=padded).eval()
    with torch.inference_mode():
        scores = network(torch.from_numpy(items)[None]).numpy()
    expected = rows @ reference_user(weights, rows, history.tolist())
    np.testing.assert_allclose(scores[0], expected, atol=2e-4)


def _row(goals: ModuleType, name: str, p50_us: float, **facts: Any) -> Any:
    memory = goals.Peak(0.0, 0.0, facts.pop("peak_mb", 100.0), 0.0)
    given = {"items": 1_000_000, "role": "exact", "family": "", "setting": "", "cpu_over_wall": 1.0, **facts}
    rest = dict.fromkeys(("p99_us", "cold_p50_us", "cold_p99_us", "cpu_us", "open_ms", "disk_mb", "overlap"), 0.0)
    return goals.Row(name=name, p50_us=p50_us, memory=memory, **given, **rest)


@pytest.mark.parametrize("script", ["engine_goals"], indirect=True)
def test_goals_compare_with_the_fastest_the_smallest_and_the_floor(script: ModuleType) -> None:
    rows = [
        _row(script, "hushrec, blend off", 190, role="ours", peak_mb=30.0),
        _row(script, "hushrec, blend on", 210, role="ours", peak_mb=50.0, cpu_over_wall=1.2),
        _row(script, "torch eager", 600, family="torch", peak_mb=300.0),
        _row(script, "something small", 200, role="rounded"),
        _row(script, "floor: a", 100, role="floor"),
        _row(script, "floor: b", 120, role="floor"),
    ]
    found = {goal.text: (goal.found, goal.met) for goal in script.check_goals(rows)}
    assert found == {
        "1,000,000: fastest of all: of the time of something small at most 1": ((190 / 200, 210 / 200), (True, False)),
        "1,000,000: torch takes at least 3.0 x": ((600 / 190, 600 / 210), (True, False)),
        "1,000,000: x memory floor at most 1.9": ((1.9, 2.1), (True, False)),
        "1,000,000: peak memory, of that of something small (rounded) at most 0.4": ((0.3, 0.5), (True, False)),
        "1,000,000: peak memory, of that of torch eager (exact) at most 0.4": ((30 / 300, 50 / 300), (True, True)),
        "1,000,000: processor time over time at most 1.1": ((1.0, 1.2), (True, False)),
    }


@pytest.mark.parametrize("script", ["engine_goals"], indirect=True)
def test_at_ten_thousand_items_each_export_for_onnx_runtime_is_a_goal(script: ModuleType) -> None:
    rows = [
        _row(script, "hushrec, blend off", 60, role="ours", items=10_000),
        _row(script, "ONNX Runtime fp32, by hand", 100, family="ONNX Runtime", items=10_000),
        _row(script, "ONNX Runtime fp32, torch.onnx", 90, family="ONNX Runtime", items=10_000),
    ]
    lines = [goal.line() for goal in script.check_goals(rows)]
    assert "10,000: of ONNX Runtime fp32, by hand at most 0.65: blend off 0.60 met" in lines
    assert "10,000: of ONNX Runtime fp32, torch.onnx at most 0.65: blend off 0.67 missed" in lines


@pytest.mark.parametrize("script", ["engine_goals"], indirect=True)
def test_a_table_names_the_fastest_way_to_the_floor_and_the_others_below(script: ModuleType) -> None:
    rows = [
        _row(script, "hushrec, blend off", 300, role="ours"),
        _row(script, "floor: sum", 200, role="floor", setting="sum"),
        _row(script, "floor: or", 100, role="floor", setting="or"),
    ]
    lines = script.table(rows).splitlines()
    assert lines[2].startswith("| hushrec, blend off | 300.0, 0.0 |")
    assert " | 3.00 | 1.00 | " in lines[2]
    assert lines[3].startswith("| floor: or | 100.0")
    assert lines[-1] == "Other ways to read the table once, p50 µs: sum 200.0"


@pytest.mark.parametrize("script", ["memory_floor"], indirect=True)
def test_every_way_to_the_floor_reads_the_last_block_too(script: ModuleType) -> None:
    codes = np.ones(1_000_008, np.uint8)
    codes[-8:] = 2
    words = codes.view(np.uint64)
    assert script.reader(codes, "uint64 sum")() == words.sum()
    assert script.reader(codes, "uint64 max")() == words[-1]
    assert script.reader(codes, "uint64 or")() == words[0] | words[-1]
    assert script.reader(codes, "search for a byte")() == -1
    assert script.reader(codes, "copy into a small buffer")()[-1] == 2


SERVED = """
import sys
sys.path.insert(0, {benchmarks!r})
import numpy as np
from engine_process import Kind, serve

class Backwards:
    imports = ("json",)
    def write(self, root):
        print("not an answer")
        (root / "written").write_text("12345")
    def open(self, root, variant):
        if variant == "broken":
            raise OSError("the disk is on fire")
        return [root / "written"]
    def answer(self, history):
        return history[::-1]

serve({{"backwards": Kind(Backwards, "exact")}})
"""


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A script whose one candidate gives histories back, and three histories beside it."""
    np.savez(tmp_path / "histories.npz", item=np.array([1, 2, 3, 4, 5, 6]), stop=np.array([1, 3, 6]))
    path = tmp_path / "served.py"
    path.write_text(SERVED.format(benchmarks=str(BENCHMARKS)), encoding="utf-8")
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("script", ["engine_process"], indirect=True)
def test_a_candidate_is_asked_in_a_process_of_its_own(script: ModuleType, served: Path) -> None:
    root = served.parent
    script.Process(served, "backwards", root, None).end()
    process = script.Process(served, "backwards", root, "")
    opened, peak = process.watch("open")
    assert opened["bytes"] == 5
    assert peak.total >= peak.anon > 0
    assert process.ask("lists 3") == {"lists": [[1], [3, 2], [6, 5, 4]]}
    timed = process.ask("calls 1 5 1")
    assert len(timed["s"]) == 5
    assert timed["cpu_s"] > 0
    process.end()


@pytest.mark.parametrize("script", ["engine_process"], indirect=True)
def test_what_a_candidate_died_of_is_told(script: ModuleType, served: Path) -> None:
    process = script.Process(served, "backwards", served.parent, "broken")
    with pytest.raises(RuntimeError, match="backwards ended with 1: OSError: the disk is on fire"):
        process.ask("open")
    process.end()
