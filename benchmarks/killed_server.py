"""Kill processes of the aggregation server, again and again, while simulated devices run whole rounds through them.

    python benchmarks/killed_server.py [--kills 130] [--each 10] [--only sqlite-1|postgresql-1|postgresql-3] [--json]

Each server process is a `FleetService` over one database, told what to do through a pipe in place of HTTP, with a
thread that ticks. The devices live in this process: they run the real protocol, repeat what was not acknowledged, and
some drop out. The clock is a file that all share; a round takes as long as its messages take.

Before each kill a state of the round or one of the four durable steps is chosen, the one with the fewest kills. A state
counts if the database says so right before and right after the SIGKILL; a step if the killed process said last that it
had entered it. Nothing of the product is changed; statements inside a step wait up to 2 ms, so that a kill can meet
what else takes microseconds.

Checked after every kill and round: every acknowledged upload is in the database; the raw sum, which only the holder of
the seal key can recompute, holds the vector of each device whose upload was acknowledged once, and no vector twice;
every noised round is in the ledger; nothing was published with two values, or with others than the database has. At the
end: the chain is valid, every round has ended, nothing of any device is left. PostgreSQL: `HUSHREC_TEST_POSTGRES`.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.errors import FleetError
from hushrec_privacy.ledger import Spend, history, verify
from hushrec_privacy.mechanisms.seal import RowPlace, SealKey, open_row
from hushrec_privacy.secagg import SecAggDevice, Session
from hushrec_server.database import Database
from hushrec_server.ledger_store import DatabaseLedgerStore
from hushrec_server.rounds import State
from hushrec_server.schema import (
    DEVICE,
    FEATURE,
    MESSAGE,
    NOISE_PLAN,
    NOISE_ROW,
    PHASE,
    REPLY,
    REPLY_BODY,
    RESULT,
    ROUND,
)
from sqlalchemy import func, select

sys.path.insert(0, str(Path(__file__).parent))

from killed_server_process import COHORT, STEPS, Servers, SharedClock, begin, published, serve

__all__ = ["STATES", "Facts", "Fleet", "kill_server", "main"]

STATES = tuple(str(state) for state in State if state not in (State.PUBLISHED, State.ABORTED))
SETTINGS = ("sqlite-1", "postgresql-1", "postgresql-3")
AUTHORITY = AuthorityKey(b"a" * 32)
TRIES = 30  # aimed kills for each one wanted, before a target counts as too short


@dataclass
class Facts:
    """What was found; every field from `lost` on is a fault unless it is 0.

    Attributes:
        moments: How many processes were killed.
        kills: How many of them in each state, and how many in each step; a step lies inside a state.
        rounds: How many rounds began.
        published: How many were published, each with its exact sum.
        aborted: How many were given up.
        spent: Rounds in the ledger.
        acknowledged: Uploads whose call returned.
        lost: Acknowledged uploads that were not in the database, or masked vectors not in their sum.
        doubled: Vectors that were in a sum twice, or that nobody sent.
        unpaid: Rounds noised or published that the ledger does not hold.
        changed: Rounds published with two values, or with another than the stored one.
        left: Rounds that never ended, and rows of devices that were not erased.
    """

    kills: dict[str, int]
    moments: int = 0
    rounds: int = 0
    published: int = 0
    aborted: int = 0
    spent: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    unpaid: int = 0
    changed: int = 0
    left: int = 0

    @property
    def faults(self) -> dict[str, int]:
        """The faults by name."""
        return {name: getattr(self, name) for name in ("lost", "doubled", "unpaid", "changed", "left")}


def main() -> None:
    """Kill, check and print."""
    parser = argparse.ArgumentParser(description="Kill server processes while devices run rounds through them.")
    parser.add_argument("--kills", type=int, default=130)
    parser.add_argument("--each", type=int, default=10, help="in each state and step at least")
    parser.add_argument("--only", choices=SETTINGS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", nargs=2, metavar=("FOLDER", "URL"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(Path(given.serve[0]), given.serve[1])
        return
    postgres, found = os.environ.get("HUSHREC_TEST_POSTGRES", ""), {}
    for setting in (given.only,) if given.only else SETTINGS:
        if setting.startswith("postgresql") and not postgres:
            print(f"{setting}: left out, HUSHREC_TEST_POSTGRES names no server")
            continue
        with tempfile.TemporaryDirectory() as folder:
            found[setting] = kill_server(setting, Path(folder), given.kills, each=given.each, postgres=postgres)
        if not given.json:
            _print(setting, found[setting])
    if given.json:
        print(json.dumps({setting: asdict(facts) for setting, facts in found.items()}))
    sys.exit(any(any(facts.faults.values()) for facts in found.values()))


def kill_server(setting: str, folder: Path, kills: int, *, each: int, postgres: str = "", seed: int = 0) -> Facts:
    """Kill server processes until each state and step has had its share, and check everything.

    Args:
        setting: One of `SETTINGS`: the kind of database, and how many processes.
        folder: Empty.
        kills: How many at least.
        each: How many in each state and step at least.
        postgres: Address of a PostgreSQL server.
        seed: Of the moments and drop-outs.

    Raises:
        RuntimeError: A state or step is too short to be met, or a server died by itself.
    """
    kind, _, count = setting.partition("-")
    with (
        begin(folder, kind, postgres, AUTHORITY.public()) as url,
        Servers(__file__, folder, url, int(count)) as servers,
    ):
        fleet = Fleet(folder, url, servers, random.Random(seed))
        aimed: dict[str, int] = dict.fromkeys((*STATES, *STEPS), 0)
        while servers.moments < kills or min(servers.kills[name] for name in aimed) < each:
            target = min(aimed, key=lambda name: (servers.kills[name], aimed[name], name))
            aimed[target] += 1
            if aimed[target] > TRIES + TRIES * servers.kills[target]:
                raise RuntimeError(f"{target} is over before a kill can meet it")
            fleet.one_round(target)
        fleet.one_round(None)
        return fleet.facts()


@dataclass
class Fleet:
    """Devices of one plan, what they were told, and what is checked."""

    folder: Path
    url: str
    servers: Servers
    rng: random.Random
    acknowledged: dict[tuple[int, int, int], bool] = field(default_factory=dict)
    found: Facts = field(default_factory=lambda: Facts({}))

    def __post_init__(self) -> None:
        self.database = Database.open(self.url)
        self.servers.watch(self.database)
        self.plan, self.clock = self.servers.plan, SharedClock(self.folder)
        self.number = 0

    def one_round(self, target: str | None) -> None:
        """Run one round, killing a server at the target, and check what came of it."""
        self.number += 1
        self.found.rounds += 1
        self.clock.set(self.plan.first_round_at + (self.number - 1) * self.plan.round_seconds)
        self.servers.aim(target, self.number)
        leaving = {
            self.rng.randrange(COHORT): self.rng.randint(2, 6) for _ in range(self.rng.choice((0, 0, 0, 1, 1, 2)))
        }
        with suppress(FleetError):  # the round was given up
            self._phases(leaving)
        self._wait_until_ended()
        self.servers.aim(None, self.number)
        self._check_result()

    def _phases(self, leaving: dict[int, int]) -> None:
        devices = {place: self._device(place) for place in range(COHORT)}
        answers: dict[int, bytes] = {}
        for phase in range(1, 7):
            self.servers.entered(STATES[phase - 1])
            devices = {place: device for place, device in devices.items() if leaving.get(place) != phase}
            for place, device in devices.items():
                self._upload(
                    phase, place, _message(device, phase, place, answers.get(place, b""), self.plan.coordinates)
                )
            if phase > 1 and set(leaving.values()) & set(range(2, phase + 1)):
                self._pass_deadline(phase)
            answers = {place: self._reply(phase, place) for place in devices}

    def _device(self, place: int) -> SecAggDevice:
        identity, name = Identity.create(), f"{self.number:016x}{place:016x}"
        certificate = AUTHORITY.certify(self.plan.plan_id, name, identity.public())
        told = self.servers.ask("check_in", self.plan.plan_id, name, certificate)
        if told.index != place:
            raise RuntimeError("a place was given twice, or forgotten")
        return SecAggDevice(Session.decode(told.session), identity, certificate, cohort_floor=2)

    def _upload(self, phase: int, place: int, message: bytes) -> None:
        """Send it until it is acknowledged; the round may go on without it only if nobody acknowledged."""
        name = f"{self.number:016x}{place:016x}"
        self.servers.ask("upload", self.plan.plan_id, self.number, phase, name, message)
        self.acknowledged[self.number, phase, place] = True
        self.found.acknowledged += 1

    def _reply(self, phase: int, place: int) -> bytes:
        name = f"{self.number:016x}{place:016x}"
        while True:
            self._check_uploads()
            try:
                found = self.servers.ask("reply", self.plan.plan_id, self.number, phase, name)
            except FleetError as error:
                if error.reason == "round-over":  # the uploads are erased: this was the last phase
                    return b""
                raise
            if found is not None:
                return bytes(found)
            self._after_a_kill()

    def _pass_deadline(self, phase: int) -> None:
        while self._state() == STATES[phase - 1]:
            self._turn_to_deadline((STATES[phase - 1],))
            self._after_a_kill()

    def _turn_to_deadline(self, states: tuple[str, ...]) -> None:
        """Let the time of a phase be over, if it is still that phase."""
        with self.database.reading() as connection:
            where = ROUND.c.number == self.number, ROUND.c.state.in_(states)
            found = connection.execute(select(ROUND.c.deadline_at).where(*where)).scalar()
        self.clock.set(max(self.clock(), found or 0))

    def _wait_until_ended(self) -> None:
        while self._state() not in ("published", "aborted") or self._column(ROUND.c.ended_at) is None:
            self._check_uploads()
            self._after_a_kill()
            self._turn_to_deadline(STATES[:6])  # devices that heard nothing more have left

    def _after_a_kill(self) -> None:
        """Let the leases of dead processes run out."""
        self.servers.breathe()
        if self.servers.take_new_kills():
            self.clock.set(self.clock() + self.plan.round_seconds // 50 + 1)

    def _state(self) -> str:
        return str(self._column(ROUND.c.state))

    def _column(self, column: object) -> object:
        with self.database.reading() as connection:
            return connection.execute(
                select(column).where(ROUND.c.plan == self.plan.plan_id, ROUND.c.number == self.number)
            ).scalar()

    def _check_uploads(self) -> None:
        with self.database.reading() as connection:
            kept = {(row.phase, row.place) for row in connection.execute(select(MESSAGE.c.phase, MESSAGE.c.place))}
            state = connection.execute(select(ROUND.c.state).where(ROUND.c.number == self.number)).scalar()
        if state in STATES[:7]:
            mine = {(phase, place) for number, phase, place in self.acknowledged if number == self.number}
            again = self._state()
            self.found.lost += len(mine - kept) if again == state else 0

    def _check_result(self) -> None:
        """The sum that was published against the devices that were told that theirs counts."""
        files = published(self.folder, self.number)
        with self.database.reading() as connection:
            result = connection.execute(select(RESULT).where(RESULT.c.number == self.number)).first()
            row = connection.execute(select(NOISE_ROW).where(NOISE_ROW.c.round == self.number)).first()
            dimension = connection.execute(select(NOISE_PLAN.c.dimension)).scalar_one()
        noised = None if result is None else files.get(bytes(result.sha256))
        self.found.changed += len(files) > 1 or (bool(files) and noised is None)
        if noised is None:
            return
        assert row is not None
        where = RowPlace(self.plan.plan_id, self.number, row.previous, dimension)
        lattice = np.frombuffer(noised, "<i8") - open_row(SealKey(b"s" * 32), bytes(row.sealed), where)
        total = lattice >> self.plan.lattice_bits
        exact = not np.any(lattice - (total << self.plan.lattice_bits))
        sent = {place for number, phase, place in self.acknowledged if (number, phase) == (self.number, 4)}
        counted = {place for place in range(COHORT) if total[place]}
        self.found.lost += len(sent - counted)
        right = exact and set(total[:COHORT].tolist()) <= {0, 1} and total[-1] == -len(counted)
        self.found.doubled += len(counted - sent) + (not right)

    def facts(self) -> Facts:
        """Everything that is checked at the end."""
        found = self.found
        store = DatabaseLedgerStore(self.database)
        verify(store)
        spent = {entry.first for _, entry in history(store) if isinstance(entry, Spend)}
        with self.database.reading() as connection:
            results = set(connection.execute(select(RESULT.c.number)).scalars())
            states = connection.execute(select(ROUND.c.state, ROUND.c.ended_at)).all()
            left = [
                connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (DEVICE, MESSAGE, PHASE, REPLY, REPLY_BODY, FEATURE)
            ]
        there = {number for number in range(1, self.number + 1) if published(self.folder, number)}
        found.kills, found.moments, found.spent = dict(self.servers.kills), self.servers.moments, len(spent)
        found.unpaid = len((results | there) - spent)
        found.published = sum(state == "published" for state, _ in states)
        found.aborted = sum(state == "aborted" for state, _ in states)
        found.left = sum(left) + sum(ended is None for _, ended in states)
        self.database.close()
        return found


def _message(device: SecAggDevice, phase: int, place: int, answer: bytes, coordinates: int) -> bytes:
    if phase == 4:
        vector = np.zeros(coordinates, np.int64)
        vector[place], vector[-1] = 1, -1
        return device.mask(answer, vector)
    if phase == 1:
        return device.advertise()
    steps = {2: device.choose, 3: device.share, 5: device.agree, 6: device.reveal}
    return steps[phase](answer)


def _print(setting: str, facts: Facts) -> None:
    print(f"\n{setting}\n\n| killed in | times |\n| --- | --- |")
    print("\n".join(f"| {name} | {facts.kills.get(name, 0)} |" for name in (*STATES, *STEPS)))
    print("\n".join(f"{name}: {value}" for name, value in asdict(facts).items() if name != "kills"))


if __name__ == "__main__":
    main()
