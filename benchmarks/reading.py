"""Read 10 million events and say how long it took and how much memory it needed at its peak.

    python benchmarks/reading.py [EVENTS]

Makes a CSV file of a million users, 200,000 items of very unequal popularity, and times, in a temporary folder, and
reads it in a process of its own, so that the peak is that of the reading alone (anonymous and file pages together).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

__all__ = ["main"]

USERS, ITEMS, SEED = 1_000_000, 200_000, 0
LIMIT_BYTES = 4 * 2**30
_READ = """
import json, pathlib, resource, sys, time
from hushrec_model.reading import read_log
from hushrec_model.splits import split_log
start = time.perf_counter()
log, _, warnings = read_log(pathlib.Path(sys.argv[1]), key=b"key of the benchmark")
read_s = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
start = time.perf_counter()
split_log(log, "leave-one-out")
print(json.dumps({
    "events": len(log), "users": len(log.users), "items": len(log.items),
    "read_s": round(read_s, 1), "read_peak_bytes": peak,
    "split_s": round(time.perf_counter() - start, 1),
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""


def main() -> None:
    """Make the file, read it in another process, print one JSON object."""
    parser = argparse.ArgumentParser(description="Time and memory of reading events.")
    parser.add_argument("events", type=int, nargs="?", default=10_000_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.csv"
        _made_up(events).write_csv(path)
        done = subprocess.run([sys.executable, "-c", _READ, str(path)], check=True, capture_output=True, text=True)
        measured = {"file_bytes": path.stat().st_size, **json.loads(done.stdout)}
    print(json.dumps(measured))
    if measured["peak_bytes"] > LIMIT_BYTES:
        raise SystemExit("more than 4 GiB")


def _made_up(events: int) -> pl.DataFrame:
    draw = np.random.default_rng(SEED)
    numbers = pl.DataFrame(
        {
            "user": draw.integers(0, USERS, events),
            "item": draw.zipf(1.3, events) % ITEMS,
            "time": draw.integers(1_600_000_000, 1_700_000_000, events),
        }
    )
    return numbers.select(
        customer_id=pl.format("customer-{}", "user"),
        product_id=pl.format("sku-{}", "item"),
        event_time=pl.from_epoch("time").dt.to_string("%Y-%m-%dT%H:%M:%S"),
    )


if __name__ == "__main__":
    main()
