"""Kill processes of the aggregation server, again and again, while devices run whole rounds through them.

    python benchmarks/killed_server.py [--kills 130] [--each 10] [--only SETTING] [--json]

Each server is what `hushrec serve` runs, one process over SQLite or PostgreSQL or three over one PostgreSQL, and
publishes releases into one TUF repository. The devices live in this process: the product's own part of a round over
HTTP on loopback, signed, sealed, with real secure aggregation; their vectors are made up, and some drop out. Rounds of
training take turns with rounds that compare their models, which then go out or are refused. The model is the small one
of the tests. All share a clock that this process turns. One more device fetches every release and candidate.

Before each kill a state of the round or one of the four durable steps is chosen, the one with the fewest kills. Most
kills meet a process that stands still at one moment of it, before an SQL statement, a commit or a change to the
releases' files, another one each time; the others come at any time, or shortly after such a moment. A state counts if
the database says so right before and right after the SIGKILL; a step if the killed process was in it.

Checked after every kill: every acknowledged upload is in the database, no lease is longer than documented, the device
reads the repository. After every round: the raw sum, which only the holder of the seal key can recompute, is exactly
that of the vectors of the devices whose masked vector was acknowledged; nobody computed another sum or another set of
survivors; one model came of it, bit for bit the one that an undisturbed publisher makes, and the same of them went out.
At the end: the ledger is valid and has the noised rounds, each noise row is of a noised round, every round has ended,
nothing of any device is left, no server met a fault that it does not foresee. PostgreSQL: `HUSHREC_TEST_POSTGRES`.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hushrec_privacy.enrolment import AuthorityKey
from hushrec_server.database import Database
from hushrec_server.rounds.states import PHASES, State
from hushrec_server.schema import ROUND
from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from killed_server_checks import Checks, Facts
from killed_server_devices import Device
from killed_server_kills import WAITING, Servers
from killed_server_process import OFFERS, STEPS
from killed_server_shop import COHORT, LEASE_S, ROUND_S, START, Shop, Watcher, empty_database

from tests.tiny_bundle import write_tiny_bundle

__all__ = ["TARGETS", "Facts", "Fleet", "fleet_of", "kill_servers", "main"]

SETTINGS = ("sqlite-1", "postgresql-1", "postgresql-3")
AUTHORITY = AuthorityKey(b"a" * 32)
TRIES = 30  # aimed kills for each one wanted, before a target counts as too short
PATIENCE_S = 120.0  # of real time, for a state to end once neither a lease nor its time holds it up
PAUSE_S, IDLE_S = 0.02, 0.5
STATES = tuple(map(str, State))
TARGETS = (*STATES[:7], *STEPS[:2], "noised", STEPS[2], "erased", *OFFERS, STEPS[3], WAITING, "published", "aborted")
"""All states and steps, as a round comes to them."""

COMPARING, TRAINING = (OFFERS[1], "published"), (OFFERS[0], WAITING)
"""Those that only rounds of one of the two plans come to."""

GAINS = (0.4, 0.4, -0.4)
"""Devices find two models of three better. More refusals in a row would halt the plan."""


def main() -> None:
    """Kill, check and print."""
    parser = argparse.ArgumentParser(description="Kill server processes while devices run rounds through them.")
    parser.add_argument("--kills", type=int, default=130)
    parser.add_argument("--each", type=int, default=10, help="in each state and step at least")
    parser.add_argument("--only", choices=SETTINGS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    postgres, found = os.environ.get("HUSHREC_TEST_POSTGRES", ""), dict[str, Facts]()
    for setting in (given.only,) if given.only else SETTINGS:
        if setting.startswith("postgresql") and not postgres:
            print(f"{setting}: left out, HUSHREC_TEST_POSTGRES names no server", file=sys.stderr)
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, fleet_of(setting, Path(folder), postgres) as fleet:
            found[setting] = kill_servers(fleet, given.kills, each=given.each)
        if not given.json:
            _print(setting, found[setting], time.monotonic() - began)
    if given.json:
        print(json.dumps({setting: asdict(facts) for setting, facts in found.items()}))
    sys.exit(any(any(facts.faults.values()) for facts in found.values()))


@contextmanager
def fleet_of(setting: str, folder: Path, postgres: str = "", *, seed: int = 0) -> "Iterator[Fleet]":
    """A shop, its servers and its devices.

    Args:
        setting: One of `SETTINGS`: the kind of database, and how many processes.
        folder: Empty.
        postgres: Address of a PostgreSQL server.
        seed: Of moments, vectors and drop-outs.
    """
    kind, _, count = setting.partition("-")
    shop = Shop(folder, write_tiny_bundle(folder / "first.hush"), AUTHORITY.public())
    with empty_database(folder, kind, postgres) as url, Watcher(shop) as watcher, ThreadPoolExecutor(COHORT) as pool:
        database = Database.open(url)
        fleet = Fleet(shop, Checks(shop, database, watcher), database, pool, random.Random(seed))
        told = {"states": fleet.states, "after_kill": fleet.after_kill, "rng": random.Random(seed + 1)}
        try:
            with Servers(shop, url, int(count), **told) as fleet.servers:  # type: ignore[arg-type]
                yield fleet
        finally:
            for device in fleet.devices:
                device.close()
            database.close()


def kill_servers(fleet: "Fleet", kills: int, *, each: int) -> Facts:
    """Kill server processes until each state and step has had its share, and check everything.

    Args:
        fleet: New.
        kills: How many at least.
        each: How many in each state and step at least.

    Raises:
        RuntimeError: A state or step is too short to be met, a server died by itself, or a round did not go on.
    """
    aimed, counts, rng = dict.fromkeys(TARGETS, 0), fleet.servers.kills, random.Random(each)
    while fleet.servers.ways.total() < kills or min(counts[name] for name in TARGETS) < each:
        left_out = TRAINING if fleet.waits else COMPARING
        possible = [name for name in TARGETS if name not in left_out]
        first, *others = sorted(possible, key=lambda name: (counts[name], aimed[name], rng.random()))
        aimed[first] += 1
        if aimed[first] > TRIES + TRIES * counts[first]:
            raise RuntimeError(f"{first} is over before a kill can meet it")
        others = [name for name in others if State.ABORTED not in (first, name)]  # where it is one, little else is met
        fleet.one_round([first, *others[: rng.randint(1, 3)]])
    fleet.one_round(())
    while fleet.waits:
        fleet.one_round(())
    return fleet.facts()


class Fleet:
    """The devices, which run a round of training, then rounds that compare its model until one decides, and so on.

    Attributes:
        servers: Set before the first round.
        checks: What is checked, and what was found.
        plan: Of the newest round.
        number: Of the newest round; the rounds of both plans are counted together.
        waits: Whether a model waits, so that the next round compares.
        devices: All of them.
    """

    servers: Servers

    def __init__(
        self, shop: Shop, checks: Checks, database: Database, pool: ThreadPoolExecutor, rng: random.Random
    ) -> None:
        self.checks, self.plan, self.number, self.waits = checks, shop.training, 0, False
        self._shop, self._clock, self._database, self._pool, self._rng = shop, shop.clock, database, pool, rng
        self._rounds = self._compared = self._training = 0
        self._lock, self._begun = threading.Lock(), Counter[str]()
        self._reasons = Counter[str]()
        told: dict[str, Any] = {"begins": self._begins, "acknowledged": checks.acknowledge, "rng": rng}
        self.devices = [
            Device(number, shop, AUTHORITY, addresses=lambda: self.servers.addresses(), **told)
            for number in range(COHORT)
        ]

    def one_round(self, targets: Sequence[str]) -> None:
        """Run one round, killing a server at each target that it comes to, and check what came of it.

        Raises:
            RuntimeError: It does not go on, or a server died by itself.
        """
        since, self.plan = self._clock() - START, self._shop.comparing if self.waits else self._shop.training
        self.number, self._rounds = max(self.number, -(-since // ROUND_S)) + 1, self._rounds + 1
        self._clock.set(START + (self.number - 1) * ROUND_S)
        self._compared += self.waits
        self._begun.clear()
        self.servers.aim(sorted(targets, key=TARGETS.index))
        list(self._pool.map(self._check_in, self.devices))
        self.checks.found.doubled += COHORT - len({device.place for device in self.devices})
        self.checks.found.split += len({device.session for device in self.devices}) - 1
        self._play(self._leaving(too_many="aborted" in targets))
        self._wait(self.number)
        if self.waits and self.state() == State.PUBLISHED:
            self._wait(self._training)
        self.servers.happens(WAITING if self.state() == State.ERASED else self.state())
        self._wait_for_kill()
        self.servers.aim(())
        self._training, self.waits = self._training if self.waits else self.number, WAITING in self.states()
        self.checks.result(self.plan, self.number, {device.place: device.vector for device in self.devices})

    def states(self) -> frozenset[str]:
        """The state of the newest round, if it has begun, and WAITING if a model waits."""
        with self._database.reading() as connection:
            rows = connection.execute(select(ROUND).where(ROUND.c.ended_at.is_(None) | (ROUND.c.number == self.number)))
            found = {row.number: row for row in rows}
        rests = any(row.state == State.ERASED and row.reason for row in found.values())
        mine = {found[self.number].state} if self.number in found else set()
        return frozenset(mine | ({WAITING} if rests else set()))

    def state(self) -> str:
        """Of the newest round; empty: it has not begun."""
        return str(self._of_round(ROUND.c.state, self.number) or "")

    def after_kill(self) -> None:
        """Check what must hold at every moment, and let the leases of the dead process run out."""
        now = self._clock()
        self.checks.after_kill(self.number)
        self._clock.set(now + LEASE_S)

    def facts(self) -> Facts:
        """What was found, with all that is checked at the end."""
        found = self.checks.found
        found.kills, found.ways = dict(self.servers.kills), dict(self.servers.ways)
        found.reasons = dict(self._reasons)
        return self.checks.end(self._rounds)

    def _check_in(self, device: Device) -> None:
        self._happens("admit")
        device.check_in(self.plan, self.number, GAINS[self._compared % len(GAINS)])

    def _begins(self, phase: int) -> None:
        self._happens(STATES[phase - 1])

    def _happens(self, event: str) -> None:
        with self._lock:
            nth = self._begun[event]
            self._begun[event] += 1
        self.servers.happens(event, nth)

    def _leaving(self, *, too_many: bool) -> dict[Device, int]:
        """Who goes before which phase."""
        if too_many:
            return dict.fromkeys(self._rng.sample(self.devices, 3), self._rng.randint(2, 6))
        gone = self._rng.sample(self.devices, self._rng.choice((0, 0, 0, 1, 1, 2)))
        return {device: self._rng.randint(2, 6) for device in gone}

    def _play(self, leaving: dict[Device, int]) -> None:
        """All devices at once, one thing after the other, until each has left the round."""
        playing, patience = list(self.devices), _Patience()
        while playing:
            playing = [device for device in playing if not device.is_at(leaving.get(device, 0), waits=False)]
            list(self._pool.map(Device.step, playing))
            self._reasons.update(device.outcome for device in playing if device.outcome)
            playing = [device for device in playing if not device.outcome]
            state = self.state()
            phase = PHASES.index(State(state)) + 1 if state in PHASES else 0
            if len(playing) < COHORT and all(device.is_at(phase, waits=True) for device in playing):
                self._pass_deadline(state)
            self._go_on(patience, state)

    def _wait(self, number: int) -> None:
        """Until a round has ended, or waits for one that compares; asked again with each lease if it waited before."""
        patience = _Patience()
        while self._of_round(ROUND.c.ended_at, number) is None and (self.waits or WAITING not in self.states()):
            self.checks.uploads(self.number)
            self._pass_deadline(self.state())  # devices that heard nothing more have left
            if number != self.number:
                self._clock.set(self._of_round(ROUND.c.lease_until, number))
            self._go_on(patience, self.state())

    def _go_on(self, patience: "_Patience", state: str) -> None:
        self.servers.addresses()
        patience.check(f"round {self.number}", state)
        time.sleep(PAUSE_S)

    def _pass_deadline(self, state: str) -> None:
        """Let the time of a phase be over, if it is still that phase."""
        if state in PHASES:
            with self._database.reading() as connection:
                where = ROUND.c.number == self.number, ROUND.c.state == state
                self._clock.set(connection.execute(select(ROUND.c.deadline_at).where(*where)).scalar() or 0)

    def _wait_for_kill(self) -> None:
        """Leave the servers time for what they should have done before the round ended, and to be killed when idle."""
        until = time.monotonic() + IDLE_S
        while self.servers.aiming and (time.monotonic() < until or not self.servers.addresses()):
            time.sleep(PAUSE_S)

    def _of_round(self, column: Any, number: int) -> Any:
        with self._database.reading() as connection:
            return connection.execute(select(column).where(ROUND.c.number == number)).scalar()


class _Patience:
    """How long a state may last, in real time."""

    def __init__(self) -> None:
        self._state, self._until = "", 0.0

    def check(self, what: str, state: str) -> None:
        now = time.monotonic()
        if state != self._state:
            self._state, self._until = state, now + PATIENCE_S
        if now > self._until:
            raise RuntimeError(f"{what} has been {state} for {PATIENCE_S:.0f} s, and nothing documented holds it up")


def _print(setting: str, facts: Facts, seconds: float) -> None:
    print(f"\n{setting}, {seconds:.0f} s\n\n| killed in | times |\n| --- | --- |")
    print("\n".join(f"| {name} | {facts.kills.get(name, 0)} |" for name in TARGETS))
    print("\n".join(f"{name}: {value}" for name, value in asdict(facts).items() if name != "kills"), flush=True)


if __name__ == "__main__":
    main()
