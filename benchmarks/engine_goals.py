"""What the engine's benchmark has to show, checked on its rows: pure functions from rows to lines.

A row is what `engine.py` measured of one candidate at one size of the catalogue.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine_process import Peak

__all__ = ["Goal", "Row", "check_goals", "table"]

OURS = ("hushrec, blend off", "hushrec, blend on")
FAMILIES = ("torch", "NumPy", "faiss", "usearch")
MOST_CPU, MOST_MEMORY, MOST_FLOORS = 1.1, 0.4, 1.9
SHARE_OF_RUNTIME = 0.65
LEAST_RATIO = {100_000: 2.5, 1_000_000: 3.0}
SMALL, LARGE = 10_000, 1_000_000


class Row(NamedTuple):
    """One candidate at one size.

    Attributes:
        items: V.
        name: Of the candidate.
        role: "ours", "exact", "rounded" or "floor".
        family: What goals call it.
        setting: The fastest of its settings.
        p50_us: Median of a call, warm.
        p99_us: 99 % quantile, warm.
        cold_p50_us: Median, one call of each candidate in turn.
        cold_p99_us: Its 99 % quantile.
        cpu_us: Processor time of a call, mean, warm.
        cpu_over_wall: The same over the time by the clock.
        open_ms: From nothing to the first answer, in a new process after its imports.
        memory: Resident memory at its peak.
        disk_mb: Files that are needed.
        overlap: Share of the ten best of float32 that are kept.
    """

    items: int
    name: str
    role: str
    family: str
    setting: str
    p50_us: float
    p99_us: float
    cold_p50_us: float
    cold_p99_us: float
    cpu_us: float
    cpu_over_wall: float
    open_ms: float
    memory: Peak
    disk_mb: float
    overlap: float


class Goal(NamedTuple):
    """A figure to reach, and what was found.

    Attributes:
        text: What it says, with its bound.
        found: Without the blend and with it.
        met: Whether each reaches it.
    """

    text: str
    found: tuple[float, ...]
    met: tuple[bool, ...]

    def line(self) -> str:
        """One line of text."""
        told = [
            f"{name.partition(', ')[2]} {value:.2f} {'met' if met else 'missed'}"
            for name, value, met in zip(OURS, self.found, self.met, strict=False)
        ]
        return f"{self.text}: {'; '.join(told)}"


def check_goals(rows: Sequence[Row]) -> list[Goal]:
    """Check every goal whose size of the catalogue, and whose peers, were measured."""
    sizes = sorted({row.items for row in rows})
    return [goal for items in sizes for goal in _goals(items, [row for row in rows if row.items == items])]


def _goals(items: int, rows: Sequence[Row]) -> Iterator[Goal]:
    ours = [row for name in OURS for row in rows if row.name == name]
    peers = [row for row in rows if row.role in ("exact", "rounded")]
    if not ours or not peers:
        return
    times = [row.p50_us for row in ours]
    fastest = min(peers, key=lambda row: row.p50_us)
    yield _at_most(f"{items:,}: fastest of all: of the time of {fastest.name} at most", 1, times, fastest.p50_us)
    for family in FAMILIES if items in LEAST_RATIO else ():
        found = [row.p50_us for row in peers if row.family == family and row.role == "exact"]
        if found:
            bound = LEAST_RATIO[items]
            ratios = tuple(min(found) / own for own in times)
            yield Goal(f"{items:,}: {family} takes at least {bound} x", ratios, tuple(r >= bound for r in ratios))
    if items == SMALL:
        for row in peers:
            if row.family == "ONNX Runtime":
                yield _at_most(f"{items:,}: of {row.name} at most", SHARE_OF_RUNTIME, times, row.p50_us)
    if items == LARGE:
        if floors := [row.p50_us for row in rows if row.role == "floor"]:
            yield _at_most(f"{items:,}: x memory floor at most", MOST_FLOORS, times, min(floors))
        peaks = [row.memory.total for row in ours]
        least = min(peers, key=lambda row: row.memory.total)
        exact = min((row for row in peers if row.role == "exact"), key=lambda row: row.memory.total, default=least)
        for row in dict.fromkeys((least, exact)):
            text = f"{items:,}: peak memory, of that of {row.name} ({row.role}) at most"
            yield _at_most(text, MOST_MEMORY, peaks, row.memory.total)
    cpu = [row.cpu_over_wall for row in ours]
    yield _at_most(f"{items:,}: processor time over time at most", MOST_CPU, cpu, 1)


def _at_most(text: str, bound: float, found: Sequence[float], of: float) -> Goal:
    shares = tuple(value / of for value in found)
    return Goal(f"{text} {bound}", shares, tuple(share <= bound for share in shares))


def table(rows: Sequence[Row]) -> str:
    """The rows of one size as a Markdown table, the fastest way to the floor as its last line."""
    floors = sorted((row for row in rows if row.role == "floor"), key=lambda row: row.p50_us)
    floor = floors[0].p50_us if floors else float("nan")
    own = next((row.p50_us for row in rows if row.name == OURS[0]), float("nan"))
    head = (
        "candidate (setting) | p50, p99 µs | cold p50, p99 µs | CPU µs (over time) | x floor | x hushrec | open ms | "
        "peak MB (anonymous, file) | above imports | disk MB | overlap"
    )
    lines = [f"| {head} |", "| --- " * (head.count("|") + 1) + "|"]
    for row in [*(row for row in rows if row.role != "floor"), *floors[:1]]:
        cells = [
            f"{row.name} ({row.setting})" if row.setting and row.role != "floor" else row.name,
            f"{row.p50_us:,.1f}, {row.p99_us:,.1f}",
            f"{row.cold_p50_us:,.1f}, {row.cold_p99_us:,.1f}",
            f"{row.cpu_us:,.1f} ({row.cpu_over_wall:.2f})",
            f"{row.p50_us / floor:.2f}",
            f"{row.p50_us / own:.2f}",
        ]
        if row.role != "floor":
            peak = row.memory
            cells += [f"{row.open_ms:.1f}", f"{peak.total:.0f} ({peak.anon:.0f}, {peak.file:.0f})"]
            cells += [f"{peak.above_imports:.0f}", f"{row.disk_mb:.1f}", f"{row.overlap:.3f}"]
        lines.append(f"| {' | '.join(cells)} |" if row.role != "floor" else f"| {' | '.join(cells)} | | | | | |")
    others = ", ".join(f"{row.setting} {row.p50_us:,.1f}" for row in floors[1:])
    return "\n".join(lines) + (f"\n\nOther ways to read the table once, p50 µs: {others}" if others else "")
