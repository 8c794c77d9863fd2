"""Time the noise of a round: the sampler alone at several deviations, and a whole banded step with its sealed state.

    python benchmarks/noise.py [COORDINATES] [BANDS]

OpenDP's sampler is timed beside ours, on a tenth of the coordinates. The state of 500,000 coordinates and 200 bands is
800 MB, in a temporary folder.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hushrec_privacy.mechanisms import banded
from hushrec_privacy.mechanisms.banded import BandedNoise, NoisePlan
from hushrec_privacy.mechanisms.discrete_gaussian import sample_discrete_gaussian
from hushrec_privacy.mechanisms.noise_store import SqliteNoiseRows, SqliteNoiseStore
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.randomness import OsRandom

__all__ = ["main"]

SIGMAS = [(1, 2), (1, 1), (37, 10), (1000, 1), (2**16 + 1, 1), (2**24 + 1, 1), (2**40, 1)]
PLAN_ID, SIGMA, STEPS = "00" * 32, 2**24 + 1, 5


def main() -> None:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description="Time of drawing noise.")
    parser.add_argument("coordinates", type=int, nargs="?", default=500_000)
    parser.add_argument("bands", type=int, nargs="?", default=200)
    given = parser.parse_args()
    for p, q in SIGMAS:
        ours = _best(lambda p=p, q=q: sample_discrete_gaussian(OsRandom(), given.coordinates, p, q))  # type: ignore[misc]
        theirs = 10 * _opendp_s(given.coordinates // 10, p / q)
        print(f"{given.coordinates} draws, sigma {p}/{q}: {ours:.3f} s; OpenDP {theirs:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        _banded_step(Path(folder), given.coordinates, given.bands)


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _opendp_s(count: int, scale: float) -> float:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    measure = dp.m.make_gaussian(
        dp.vector_domain(dp.atom_domain(T=int), size=count), dp.l2_distance(T=float), scale=scale
    )
    start = time.perf_counter()
    measure([0] * count)
    return time.perf_counter() - start


def _banded_step(folder: Path, coordinates: int, bands: int) -> None:
    """Fill the band, then take some steps, the time of each part by itself."""
    plan = NoisePlan(PLAN_ID, coordinates, bands, bands + STEPS, SIGMA)
    store, noise = SqliteNoiseStore(folder / "noise.db"), BandedNoise(plan, SealKey(bytes(32)), OsRandom())
    noise.begin(store)
    parts: dict[str, float] = {}
    for owner, name, part in [
        (banded, "sample_discrete_gaussian", "sampling"),
        (SqliteNoiseRows, "row", "reading"),
        (banded, "open_row", "unsealing"),
        (banded, "seal_row", "sealing"),
        (SqliteNoiseRows, "append", "writing"),
    ]:
        setattr(owner, name, _timed(getattr(owner, name), parts, part))
    steps = [_step(store, noise, number, parts) for number in range(1, bands + STEPS + 1)][-STEPS:]
    for part in steps[0]:
        print(f"banded step, {bands} bands, {part}: {statistics.median(step[part] for step in steps):.3f} s")
    stored = sum(path.stat().st_size for path in folder.iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"state: {stored / 1e6:.0f} MB; memory at peak: {peak:.0f} MiB")


def _step(store: SqliteNoiseStore, noise: BandedNoise, number: int, parts: dict[str, float]) -> dict[str, float]:
    parts.update(dict.fromkeys(("sampling", "reading", "unsealing", "sealing", "writing"), 0.0))
    start = time.perf_counter()
    with store.transaction(PLAN_ID) as rows:
        noise.draw(rows, number)
        drawn = time.perf_counter()
    end = time.perf_counter()
    combining = drawn - start - sum(parts.values())
    return {"whole": end - start, **parts, "combining": combining, "committing": end - drawn}


def _timed(work: Callable[..., Any], parts: dict[str, float], part: str) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return work(*given, **named)
        finally:
            parts[part] += time.perf_counter() - start

    return timed


if __name__ == "__main__":
    main()
