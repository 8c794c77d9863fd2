"""Kill two processes, again and again, that run private rounds over one ledger and one noise store.

    python benchmarks/killed_rounds.py [--kills 200] [--each 20] [--folder F] [--json]

A round goes as a server must do it, each step durable before the next: it is spent in the ledger; its banded noise is
drawn, and state and noised sum are stored in one transaction; the result is published as a file. The sum has no
uploads, so it is the noise. A process that starts publishes what a killed one stored and draws what it only spent.

Both processes are killed by SIGKILL and started again. A worker says which step it enters, in a single write; the
killer aims at the step with the fewest kills, at a random part of its length, and counts the kill where the worker
said last that it was. Nothing of the product is changed. SQLite's trace callback waits up to 2 ms before a statement,
so that a kill can meet what else takes microseconds, such as the writing of a row into an open transaction; commits,
closing and publishing are met at their own speed.

Afterwards a fresh process checks: the chain is valid; every round that was acknowledged, noised or published is in the
ledger; none was spent, noised or published with two values; what is there can be neither spent nor drawn again; the
sealed state is that of the stored sums; and the sums, taken through C, are independent noise of the right size. The
last is a statistic: two rounds of which a quarter of the noise was the same would be seen. It stands for killed
processes, not for lost power: what the system holds in its cache is not lost here.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from hushrec_privacy.errors import BudgetError, NoiseStateError
from hushrec_privacy.ledger import Ledger, Limits, Open, Spend, SqliteLedgerStore, history, verify
from hushrec_privacy.mechanisms.banded import BandedNoise, NoisePlan
from hushrec_privacy.mechanisms.noise_store import SqliteNoiseStore
from hushrec_privacy.mechanisms.seal import RowPlace, SealKey, open_row
from hushrec_privacy.mechanisms.toeplitz import fixed_point_coefficients
from hushrec_privacy.randomness import OsRandom

__all__ = ["STEPS", "Rounds", "Told", "begin", "check", "kill_rounds", "largest_score", "main"]

STEPS = {
    "open": "both files are opened and what a killed process left is read",
    "between": "nothing is written",
    "ledger-lock": "the ledger's lock is asked for",
    "ledger-write": "it is held, the entry is written into the transaction",
    "ledger-commit": "journal, file and folder are written and synced",
    "noise-lock": "the noise store's lock is asked for",
    "noise-draw": "it is held, rows are unsealed and noise is drawn",
    "noise-write": "old row, new row, round and sum are written into the transaction",
    "noise-commit": "the log is written and synced",
    "noise-close": "the log is brought into the file, unless the other process uses it",
    "publish": "a file is written, synced and renamed, its folder synced",
}
ID, DIMENSION, BANDS, SIGMA, MOST_ROUNDS = "ab" * 32, 4_000, 6, 1000, 10**6
OPENING = Open(ID, "gaussian", {}, "device", "zero-out", "0.000001", "central", Limits(MOST_ROUNDS))
NOISE = NoisePlan(ID, DIMENSION, BANDS, MOST_ROUNDS, SIGMA)
LEDGER, STORE, KEY, PUBLISHED = "ledger.sqlite", "noise.sqlite", "seal.key", "published"
RHO = "0.001"
SCORES = 8.0  # standard deviations; a false alarm below 1e-7 for 3,000 rounds
TRIES = 20  # aimed kills for each one wanted, before a step counts as too short


@dataclass
class Told:
    """What the workers said before they died.

    Attributes:
        kills: How many died in each step.
        lengths: Seconds that each step took.
        spent: How many spends of each round returned.
        noised: Rounds whose transaction was committed.
        published: The values published of each round.
    """

    kills: Counter[str] = field(default_factory=Counter)
    lengths: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    spent: Counter[int] = field(default_factory=Counter)
    noised: set[int] = field(default_factory=set)
    published: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))


@dataclass
class Facts:
    """What is in the files afterwards; every field from `lost` on is a fault unless it is 0.

    Attributes:
        entries: Entries of the ledger's chain, which is valid.
        spent: Rounds in the ledger.
        noised: Rounds with a stored sum.
        published: Rounds with a published file.
        unacknowledged: Rounds in the ledger whose process died before its spend returned: counted, which is wanted.
        largest_score: Largest z-score of the size of a round's noise and of the correlation of two rounds' noise.
        lost: Rounds that were acknowledged as spent, noised or published, and are not there.
        unpaid: Rounds noised or published that the ledger does not hold.
        doubled: Rounds spent, acknowledged as spent, or noised twice.
        changed: Rounds published with two values, or with another than the stored sum.
        repeatable: Published rounds that ledger or noise store would let be spent or drawn once more.
        misstated: Rows of the sealed state that are not what was stored as the round's sum.
        reused: 1 if `largest_score` is above 8.
        stuck: 1 if no further round could be run.
    """

    entries: int
    spent: int
    noised: int
    published: int
    unacknowledged: int
    largest_score: float
    lost: int
    unpaid: int
    doubled: int
    changed: int
    repeatable: int
    misstated: int
    reused: int
    stuck: int

    @property
    def faults(self) -> dict[str, int]:
        """The faults by name."""
        names = list(asdict(self))
        return {name: getattr(self, name) for name in names[names.index("lost") :]}


def main() -> None:
    """Kill, check and print."""
    parser = argparse.ArgumentParser(description="Kill processes that run rounds over one ledger and one noise store.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--each", type=int, default=20, help="in each step at least")
    parser.add_argument("--folder", type=Path, help="on which disk; nothing is left there")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--check", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work_for_ever(given.work)
    if given.check:
        print(json.dumps(asdict(check(given.check, _told_from(json.load(sys.stdin))))))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        told, facts = kill_rounds(Path(folder), given.kills, each=given.each)
    rows = [(step, told.kills[step], 1000 * statistics.median(told.lengths[step]), STEPS[step]) for step in STEPS]
    if given.json:
        print(json.dumps({"kills": told.kills, "acknowledged spends": len(told.spent), **asdict(facts)}))
    else:
        print("| step | kills | its length, median ms | what happens in it |\n| --- | --- | --- | --- |")
        print("\n".join(f"| {step} | {kills} | {length:.2f} | {what} |" for step, kills, length, what in rows))
        print(f"| all | {sum(told.kills.values())} | | |\n\nacknowledged spends: {len(told.spent)}")
        print("\n".join(f"{name}: {value}" for name, value in asdict(facts).items()))
    sys.exit(any(facts.faults.values()))


def kill_rounds(folder: Path, kills: int, *, each: int, seed: int = 0) -> tuple[Told, Facts]:
    """Kill two processes that run rounds again and again, about as often in one step as in another, then check.

    Args:
        folder: Empty, on a disk that syncs.
        kills: How many processes to kill at least.
        each: How many in each step at least.
        seed: Of the moments.

    Raises:
        RuntimeError: A step is too short to be met, or a worker died by itself.
    """
    begin(folder)
    told, lock, aimed = Told(), threading.Lock(), Counter[str]()

    def next_target(rng: random.Random) -> str | None:
        with lock:
            if sum(told.kills.values()) >= kills and min(told.kills[step] for step in STEPS) >= each:
                return None
            target = min(STEPS, key=lambda step: (told.kills[step], rng.random()))
            aimed[target] += 1
        if aimed[target] > TRIES * (told.kills[target] + 1):
            raise RuntimeError(f"{target} is over before a kill can meet it; name a --folder on a disk that syncs")
        return target

    def slot(rng: random.Random) -> None:
        while (target := next_target(rng)) is not None:
            worker = Worker(folder)
            worker.kill_in(target, rng, told.lengths[target])
            with lock:
                worker.tell(told)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(slot, random.Random(2 * seed + number)) for number in (0, 1)]:
            done.result()
    told_text = {"spent": told.spent, "noised": sorted(told.noised)}
    told_text["published"] = {number: sorted(values) for number, values in told.published.items()}
    command = [sys.executable, __file__, "--check", str(folder)]
    found = subprocess.run(command, input=json.dumps(told_text), stdout=subprocess.PIPE, text=True, check=True)
    return told, Facts(**json.loads(found.stdout))


class Worker:
    """A process that runs rounds, and what it said."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen([sys.executable, __file__, "--work", str(folder)], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._said: IO[bytes] = self._process.stdout
        self._step, self._since = "", 0.0
        self._told = Told()

    def kill_in(self, target: str, rng: random.Random, lengths: list[float]) -> None:
        """Let it work, kill it some time after it entered the step, and read what it said last."""
        passes = 0 if target == "open" else rng.randrange(6)
        while self._hear():
            passes -= self._step == target
            if passes < 0:
                break
        time.sleep(rng.uniform(0, statistics.median(lengths[-50:]) if lengths else 0.002))
        self._process.send_signal(signal.SIGKILL)
        while self._hear():
            pass
        self._said.close()
        if self._process.wait() != -signal.SIGKILL:
            raise RuntimeError("a worker died by itself")

    def tell(self, told: Told) -> None:
        """Add what it said to what all said."""
        told.kills[self._step] += 1
        told.spent.update(self._told.spent)
        told.noised.update(self._told.noised)
        for step, lengths in self._told.lengths.items():
            told.lengths[step] += lengths
        for number, values in self._told.published.items():
            told.published[number] |= values

    def _hear(self) -> bool:
        line = self._said.readline().decode()
        if not line.endswith("\n"):
            return False
        now, (word, *values) = time.monotonic(), line.split()
        if self._step:
            self._told.lengths[self._step].append(now - self._since)
        self._step, self._since = word if word in STEPS else "between", now
        if word == "spent":
            self._told.spent[int(values[0])] += 1
        elif word == "noised":
            self._told.noised.add(int(values[0]))
        elif word == "published":
            self._told.published[int(values[0])].add(values[1])
        return True


def begin(folder: Path) -> None:
    """Make ledger, key, noise store and the folder of results."""
    with SqliteLedgerStore.create(folder / LEDGER) as store:
        Ledger.begin(store, lifetime_rho="1000000").open_plan(OPENING)
    noise = SqliteNoiseStore(folder / STORE)
    BandedNoise(NOISE, SealKey.create(folder / KEY), OsRandom()).begin(noise)
    with noise.transaction(ID) as rows:  # no unique index: it is for the product to refuse a round twice
        rows.connection.execute("CREATE TABLE noised (round INTEGER, total BLOB)")
    (folder / PUBLISHED).mkdir()


class Rounds:
    """The rounds of one process; `say` hears of each step, `wait` may hold up a statement."""

    def __init__(
        self, folder: Path, say: Callable[[str], None] = lambda _: None, wait: Callable[[], None] = lambda: None
    ) -> None:
        """Open both stores, and read what a killed process left."""
        self._published, self._say, self._wait = folder / PUBLISHED, say, wait
        say("open")
        store = SqliteLedgerStore(folder / LEDGER)
        store._db.set_trace_callback(self._ledger_step)
        self.ledger = Ledger(store)
        self._noise = BandedNoise(NOISE, SealKey.read(folder / KEY), OsRandom())
        self._store = SqliteNoiseStore(folder / STORE)
        with self._store.transaction(ID) as rows:
            self._drawn = rows.state().last_round
            stored = rows.connection.execute("SELECT round, total FROM noised").fetchall()
        there = {int(path.stem) for path in self._published.glob("*.txt")}
        self.left = [(number, total) for number, total in stored if number not in there]
        self._follow_noise()

    def finish(self) -> None:
        """Publish what was stored, and draw for the last round if it was only spent."""
        for number, total in self.left:
            self._publish(number, total)
        last = self.ledger.plan(ID).last
        if last > self._drawn and not (self._published / f"{last}.txt").exists():  # a store set back forgot it
            self._result(last)
        self._say("between")

    def one(self) -> int | None:
        """Run the next round; its number, or None if the other process was faster."""
        number = self.ledger.plan(ID).last + 1
        try:
            self.ledger.spend(ID, number, rho=RHO)
        except BudgetError:
            self._say("between")
            return None
        self._say(f"spent {number}")
        return self._result(number)

    def _result(self, number: int) -> int | None:
        try:
            with self._store.transaction(ID) as rows:
                total = self._noise.draw(rows, number).tobytes()
                rows.connection.execute("INSERT INTO noised VALUES (?, ?)", (number, total))
        except NoiseStateError as error:
            if "is spent" not in error.message:
                raise
            return None  # the other process went on: the round is abandoned, or finished by it
        self._say(f"noised {number}")
        self._publish(number, total)
        return number

    def _publish(self, number: int, total: bytes) -> None:
        self._say("publish")
        digest = hashlib.sha256(total).hexdigest()
        part = self._published / f"{number}.{os.getpid()}.part"
        with part.open("w") as file:
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._published / f"{number}.txt")
        folder = os.open(self._published, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self._say(f"published {number} {digest}")

    def _ledger_step(self, statement: str) -> None:
        word = statement.partition(" ")[0]
        step = {"BEGIN": "ledger-lock", "INSERT": "ledger-write", "COMMIT": "ledger-commit"}.get(word)
        if step == "ledger-commit":
            self._wait()
            self._say(step)
        elif step:
            self._say(step)
            self._wait()

    def _follow_noise(self) -> None:
        """Say what the store's transactions do, the closing of their connection included."""
        connected, entered = self._store._connected, ""

        def trace(statement: str) -> None:
            nonlocal entered
            word = statement.partition(" ")[0]
            names = {"BEGIN": "noise-lock", "SELECT": "noise-draw", "DELETE": "noise-write", "COMMIT": "noise-commit"}
            if word in ("INSERT", "UPDATE", "COMMIT"):
                self._wait()
            step = names.get(word, entered)
            if step != entered:
                self._say(step)
            entered = step
            if word == "BEGIN":
                self._wait()

        @contextmanager
        def followed() -> Iterator[sqlite3.Connection]:
            nonlocal entered
            with connected() as connection:
                entered = "between"
                connection.set_trace_callback(trace)
                try:
                    yield connection
                except BaseException:
                    self._say("between")  # nothing was written
                    raise
                self._say("noise-close")

        self._store._connected = followed  # type: ignore[method-assign]


def work_for_ever(folder: Path) -> None:
    """Run one round after the other, telling each step on stdout."""
    rng = random.Random()
    rounds = Rounds(
        folder,
        lambda line: _write(f"{line}\n"),  # a buffer would die with the process
        lambda: time.sleep(rng.uniform(0, 0.002)),
    )
    rounds.finish()
    while True:
        rounds.one()
        time.sleep(rng.uniform(0, 0.01))  # let the other one in


def _write(line: str) -> None:
    os.write(1, line.encode())


def check(folder: Path, told: Told) -> Facts:
    """Go on for one round, then compare everything in the files with what was told and with each other.

    Raises:
        LedgerError: The chain is not valid.
        NoiseStateError: The sealed state cannot be used.
    """
    rounds = Rounds(folder)
    rounds.finish()
    own = rounds.one()
    with SqliteLedgerStore(folder / LEDGER) as store:
        head = verify(store).head
        entries = [entry for _, entry in history(store) if isinstance(entry, Spend)]
    spent = Counter(number for entry in entries for number in range(entry.first, entry.last + 1))
    with closing(sqlite3.connect(folder / STORE)) as database:
        noised = database.execute("SELECT round, total FROM noised ORDER BY round").fetchall()
        held = database.execute("SELECT round, previous, sealed FROM noise_row").fetchall()
    sums, files = dict(noised), {int(path.stem): path.read_text() for path in (folder / PUBLISHED).glob("*.txt")}
    values = {number: {digest, *told.published.get(number, ())} for number, digest in files.items()}
    key, score = SealKey.read(folder / KEY), largest_score(sums)
    return Facts(
        entries=head.index + 1,
        spent=len(spent),
        noised=len(sums),
        published=len(files),
        unacknowledged=len(spent.keys() - told.spent.keys() - {own}),
        largest_score=round(score, 2),
        lost=len((told.spent.keys() - spent) | (told.noised - sums.keys()) | (told.published.keys() - files.keys())),
        unpaid=len({*sums, *files, *told.published} - spent.keys()),
        doubled=_above_one(spent) + _above_one(told.spent) + len(noised) - len(sums),
        changed=sum(values[number] != {hashlib.sha256(sums.get(number, b"")).hexdigest()} for number in files),
        repeatable=sum(_repeatable(rounds.ledger, folder, number) for number in files),
        misstated=sum(
            open_row(key, sealed, RowPlace(ID, number, previous, DIMENSION)).tobytes() != sums.get(number)
            for number, previous, sealed in held
        ),
        reused=int(score > SCORES),
        stuck=int(own is None),
    )


def largest_score(sums: dict[int, bytes]) -> float:
    """How far C times the noise is from independent noise of deviation sigma: the largest z-score of all.

    Args:
        sums: int64 bytes of each round's noise, shape (DIMENSION,); the row and column of a missing round is not in C.
    """
    numbers = sorted(sums)
    w = np.array([np.frombuffer(sums[number], np.int64) for number in numbers])
    c, z = fixed_point_coefficients(BANDS) / 2**24, w.astype(np.float64)
    for at, number in enumerate(numbers):
        for before in range(at - 1, -1, -1):
            if number - numbers[before] >= BANDS:
                break
            z[at] += c[number - numbers[before]] * w[before]
    table = (z @ z.T / (DIMENSION * SIGMA**2) - np.eye(len(z))) * DIMENSION**0.5
    table[np.diag_indices(len(z))] /= 2**0.5  # the variance of z² is 2
    return float(np.abs(table).max())


def _repeatable(ledger: Ledger, folder: Path, number: int) -> bool:
    noise = BandedNoise(NOISE, SealKey.read(folder / KEY), OsRandom())
    try:
        ledger.spend(ID, number, rho=RHO, dry_run=True)
    except BudgetError:
        try:
            with SqliteNoiseStore(folder / STORE).transaction(ID) as rows:
                noise.draw(rows, number)
        except NoiseStateError as error:
            return "is spent" not in error.message
    return True


def _above_one(counts: Counter[int]) -> int:
    return sum(count > 1 for count in counts.values())


def _told_from(text: dict[str, Any]) -> Told:
    told = Told(noised=set(text["noised"]))
    told.spent.update({int(number): count for number, count in text["spent"].items()})
    for number, values in text["published"].items():
        told.published[int(number)].update(values)
    return told


if __name__ == "__main__":
    main()
