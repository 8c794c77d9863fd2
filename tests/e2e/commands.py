"""Run the installed command in a process of its own, as a person or a script does."""

import csv
import os
import random
import subprocess
import sys
from pathlib import Path

HUSHREC = Path(sys.executable).with_name("hushrec")


def hushrec(*arguments: object, cwd: Path | None = None, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run `hushrec` to its end, without a terminal."""
    return subprocess.run(
        [HUSHREC, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=timeout_s,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"},
    )


def write_shop(folder: Path, users: int = 60, items: int = 30, seed: int = 0) -> tuple[Path, Path]:
    """Write events.csv and items.csv of a made-up shop whose shoppers walk from an item to the next one or two."""
    rng = random.Random(seed)
    events, known = folder / "events.csv", folder / "items.csv"
    with events.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "item", "time"])
        time = 1_600_000_000
        for user in range(users):
            item = rng.randrange(items)
            for _ in range(8):
                item, time = (item + rng.choice([1, 1, 1, 2])) % items, time + 60
                rows.writerow([f"user-{user}", f"sku-{item}", time])
    with known.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "title", "price", "category"])
        rows.writerows([f"sku-{item}", f"Thing {item}", f"{item}.50", "abc"[item % 3]] for item in range(items))
    return events, known
