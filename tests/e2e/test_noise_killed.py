"""A process that draws noise is killed at any moment: no round is lost, doubled, or drawn from reused noise."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hushrec_privacy.errors import NoiseStateError
from hushrec_privacy.mechanisms.banded import BandedNoise, NoisePlan
from hushrec_privacy.mechanisms.noise_store import SqliteNoiseStore
from hushrec_privacy.mechanisms.seal import RowPlace, SealKey, open_row
from hushrec_privacy.mechanisms.toeplitz import fixed_point_coefficients
from hushrec_privacy.randomness import OsRandom

ID, KEY, BANDS, DIMENSION, SIGMA = "0c" * 32, bytes(range(32)), 6, 20_000, 1000
PLAN = NoisePlan(ID, DIMENSION, BANDS, 10**6, SIGMA)

# The noise stands for the noised sum of a round without uploads. Each durable step is announced before it begins.
_WORKER = """
import sys
from pathlib import Path
from hushrec_privacy.mechanisms.banded import BandedNoise, NoisePlan
from hushrec_privacy.mechanisms.noise_store import SqliteNoiseStore
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.randomness import OsRandom
plan = NoisePlan(sys.argv[2], *map(int, sys.argv[3:]))
store, noise = SqliteNoiseStore(Path(sys.argv[1])), BandedNoise(plan, SealKey(bytes(range(32))), OsRandom())
while True:
    print("draw", flush=True)
    with store.transaction(plan.plan_id) as rows:
        number = rows.state().last_round + 1
        drawn = noise.draw(rows, number)
        print("store", flush=True)
        rows.connection.execute("INSERT INTO noised VALUES (?, ?)", (number, drawn.tobytes()))
        print("commit", flush=True)
    print(f"done {number}", flush=True)  # one write: a kill between two would cut the number off
"""


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_no_kill_loses_or_reuses_noise(tmp_path: Path, kills: int) -> None:
    path = tmp_path / "noise.db"
    store, key = SqliteNoiseStore(path), SealKey(KEY)
    BandedNoise(PLAN, key, OsRandom()).begin(store)
    with store.transaction(ID) as rows:
        rows.connection.execute("CREATE TABLE noised (round INTEGER PRIMARY KEY, total BLOB)")
    moments = np.random.default_rng(kills).uniform(0.0, 1.0, kills)  # every second one near a commit
    last_lines = [
        _killed(path, "commit", share * 0.004) if at % 2 else _killed(path, "draw", share * 0.06)
        for at, share in enumerate(moments)
    ]
    phases = {name: sum(line.startswith(name) for line in last_lines) for name in ("draw", "store", "commit", "done")}
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        noised = connection.execute("SELECT round, total FROM noised ORDER BY round").fetchall()
        held = connection.execute("SELECT round, previous, sealed FROM noise_row ORDER BY round").fetchall()
    connection.close()
    count = len(noised)
    print(f"{kills} kills, last step begun {phases}, {count} rounds")
    assert sum(phases.values()) == kills
    assert phases["commit"] >= kills / 10  # inside the one durable step
    acknowledged = [int(line.split()[1]) for line in last_lines if line.startswith("done")]
    assert max(acknowledged, default=0) <= count  # what was acknowledged is there
    assert [number for number, _ in noised] == list(range(1, count + 1))
    w = np.array([np.frombuffer(total, np.int64) for _, total in noised])
    for number, previous, sealed in held:  # the state is that of the stored sums
        row = open_row(key, sealed, RowPlace(ID, number, previous, DIMENSION))
        np.testing.assert_array_equal(row, w[number - 1])
    assert [row[0] for row in held] == list(range(count + 1 - min(count, BANDS - 1), count + 1))
    _assert_fresh(w)


def _killed(path: Path, step: str, after_s: float) -> str:
    """Start a worker, kill it some time after a step of its first round began; the last line that it printed."""
    arguments = [str(path), ID, *map(str, (DIMENSION, BANDS, 10**6, SIGMA))]
    with subprocess.Popen([sys.executable, "-c", _WORKER, *arguments], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        while line and line != f"{step}\n":
            line = worker.stdout.readline()
        time.sleep(after_s)
        worker.kill()
        return (line + worker.stdout.read()).splitlines()[-1]


def _assert_fresh(w: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> None:
    """C w is independent noise of the right size: rows that shared noise would correlate."""
    c, z = fixed_point_coefficients(BANDS) / 2**24, np.zeros(w.shape)
    for lag in range(min(BANDS, len(w))):
        z[lag:] += c[lag] * w[: len(w) - lag]
    table = z @ z.T / (DIMENSION * SIGMA**2)
    far = np.abs(table - np.eye(len(w))) * np.sqrt(DIMENSION)
    assert far.max() < 8  # z-scores: a false alarm below 1e-9 for any number of rounds that fits in the time


def test_a_state_that_was_reused_would_be_seen() -> None:
    noise = np.random.default_rng(0).normal(0, SIGMA, (4, DIMENSION))
    noise[3] = noise[1]
    with pytest.raises(AssertionError):
        _assert_fresh(np.rint(noise).astype(np.int64))


def test_after_a_kill_another_process_goes_on(tmp_path: Path) -> None:
    store = SqliteNoiseStore(tmp_path / "noise.db")
    noise = BandedNoise(PLAN, SealKey(KEY), OsRandom())
    noise.begin(store)
    with store.transaction(ID) as rows:
        rows.connection.execute("CREATE TABLE noised (round INTEGER PRIMARY KEY, total BLOB)")
    _killed(tmp_path / "noise.db", "draw", 0.05)
    with store.transaction(ID) as rows:
        number = rows.state().last_round
        noise.draw(rows, number + 1)
    with pytest.raises(NoiseStateError, match="spent"), store.transaction(ID) as rows:
        noise.draw(rows, number + 1)
