"""Kill a process that spends a privacy budget, again and again, while another one spends from the same ledger.

    python benchmarks/killed_ledger.py [--kills 200] [--json]

SIGKILL, at moments spread over all steps of a spend. Afterwards, each time: the ledger opens and verifies; every round
whose spend had returned is in it (never under-counted); no round was acknowledged twice. A spend that died before it
returned may count: that is wanted. It stands for killed processes, not for lost power: what the system holds in its
cache is not lost here (that is what syncing is for, see hushrec_privacy/ledger/sqlite.py).

Steps: "work" between two spends; "begin" the lock is asked for; "insert" it is held and the row is about to be written;
"ready" the row is written and the commit about to begin; "commit" inside it: journal and file written and synced.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from hushrec_privacy.errors import BudgetError
from hushrec_privacy.ledger import Ledger, Limits, Open, Spend, SqliteLedgerStore, history, verify

__all__ = ["Outcome", "kill_spenders", "main"]

STEPS = ("work", "begin", "insert", "ready", "commit")
PLAN = Open("ab" * 32, "gaussian", {}, "device", "zero-out", "0.000001", "central", Limits(10**9))
RHO = "0.001"


@dataclass
class Outcome:
    """What the kills did.

    Attributes:
        kills: How many processes died in each step.
        acknowledged: Rounds whose spend had returned, in any process.
        lost: Those of them that are not in the ledger.
        doubled: Those that two spends returned for.
        unacknowledged: Rounds in the ledger whose process died before its spend returned.
        journals: How often a killed process left a journal that the next one had to roll back.
    """

    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    unacknowledged: int = 0
    journals: int = 0


def main() -> None:
    """Kill, count and print."""
    parser = argparse.ArgumentParser(description="Kill processes that spend from one ledger.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--spend", metavar="LEDGER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.spend:
        spend_for_ever(options.spend)
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_spenders(Path(folder) / "ledger.sqlite", options.kills, each=options.kills // 10)
    facts = {"kills": sum(outcome.kills.values()), **{f"in {step}": outcome.kills[step] for step in STEPS}}
    for name in ("acknowledged", "lost", "doubled", "unacknowledged", "journals"):
        facts[name] = getattr(outcome, name)
    print(json.dumps(facts) if options.json else "\n".join(f"{name}: {value}" for name, value in facts.items()))
    sys.exit(1 if outcome.lost or outcome.doubled else 0)


def kill_spenders(path: Path, kills: int, *, each: int, seed: int = 0) -> Outcome:
    """Make a ledger and kill one of two spenders again and again, about as often in one step as in another.

    Args:
        path: Where the ledger is made.
        kills: How many processes to kill at least.
        each: How many in each step at least.
        seed: Of the moments.

    Raises:
        LedgerError: The ledger did not survive.
    """
    with SqliteLedgerStore.create(path) as store:
        Ledger.begin(store, lifetime_rho="1000000").open_plan(PLAN)
    outcome, rng, told = Outcome(), random.Random(seed), Counter[int]()
    other = Spender(path)
    reader = threading.Thread(target=other.read_to_end)
    reader.start()
    while sum(outcome.kills.values()) < kills or min(outcome.kills[step] for step in STEPS) < each:
        target = min(STEPS, key=lambda step: (outcome.kills[step], rng.random()))
        victim = Spender(path)
        victim.kill_in(target, rng)
        outcome.kills[victim.step] += 1
        outcome.journals += path.with_name(f"{path.name}-journal").exists()
        told.update(victim.spent)
        _check(path, {*victim.spent, *tuple(other.spent)})
    other.process.kill()
    reader.join()
    told.update(other.spent)
    spent = _check(path, set())
    outcome.acknowledged = len(told)
    outcome.lost = len(told.keys() - spent)
    outcome.doubled = sum(count > 1 for count in told.values())
    outcome.unacknowledged = len(spent - told.keys())
    return outcome


class Spender:
    """A process that spends, and what it said."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, "--spend", str(path)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self._said: IO[bytes] = self.process.stdout
        self.step, self.spent = "work", list[int]()

    def kill_in(self, target: str, rng: random.Random) -> None:
        """Let it spend a while, then kill it once it says that it has come to a step; read what it said last."""
        wanted = rng.randrange(1, 4)
        while self._hear() and not (len(self.spent) >= wanted and self.step == target):
            pass
        time.sleep(rng.uniform(0, 0.004))
        self.process.send_signal(signal.SIGKILL)
        self.read_to_end()

    def read_to_end(self) -> None:
        """Hear all that it says until it dies."""
        while self._hear():
            pass
        self._said.close()
        self.process.wait()
        assert self.process.returncode == -signal.SIGKILL, "a spender died by itself"

    def _hear(self) -> bool:
        line = self._said.readline()
        if not line.endswith(b"\n"):
            return False
        word, _, value = line.decode().strip().partition(" ")
        self.step = "work" if word == "spent" else word
        if word == "spent":
            self.spent.append(int(value))
        return True


def spend_for_ever(path: str) -> None:
    """Spend one round after the other; tell each step when it begins and each round once its spend has returned."""
    store, rng = SqliteLedgerStore(path), random.Random()
    ledger = Ledger(store)

    def say(line: str) -> None:
        os.write(1, f"{line}\n".encode())  # at once: a buffer would die with the process

    def announce(statement: str) -> None:
        step = {"BEGIN": "begin", "INSERT": "insert", "COMMIT": "ready"}.get(statement.partition(" ")[0])
        if step:
            say(step)
            time.sleep(rng.uniform(0, 0.002))  # so that a kill can meet the step
        if step == "ready":
            say("commit")

    store._db.set_trace_callback(announce)
    while True:
        round_ = ledger.plan(PLAN.plan).last + 1
        try:
            ledger.spend(PLAN.plan, round_, rho=RHO)
        except BudgetError:
            say("work")  # the other one was faster
        else:
            say(f"spent {round_}")
            time.sleep(rng.uniform(0, 0.02))  # let the other one in


def _check(path: Path, acknowledged: set[int]) -> set[int]:
    """All rounds of a ledger that verifies; what was acknowledged must be among them."""
    with SqliteLedgerStore(path) as store:
        verify(store)
        spent = {round_ for _, e in history(store) if isinstance(e, Spend) for round_ in range(e.first, e.last + 1)}
    assert acknowledged <= spent, f"{len(acknowledged - spent)} spent rounds are not in the ledger"
    return spent


if __name__ == "__main__":
    main()
