"""Send wrong messages to `hushrec serve` in every state of a round, and see that it refuses them and nothing changes.

    python benchmarks/fuzz_server.py [--messages 20000] [--only sqlite|postgresql] [--json]

The server is a process of its own, everything goes over sockets. Six devices run real rounds, each the first round of a
plan that is added while the server runs, and each sends a payload by itself. In each state, before the last device
speaks, a batch of wrong messages comes over eight connections at once: most are whole and rightly signed by an enrolled
device but for one changed field, the others are replays and rubbish, some of it no HTTP. States that last only a moment
are held (`fuzz_process.py`).

In two rounds of three all devices are honest: what the database holds of rounds, devices, messages, results and ledger
is the same before and after each batch, and the round must be published with exactly the sum of its vectors, which only
the holder of the seal key can tell. In the third one of them sends wrong messages of its own, or the shop gives the
round up: it must end. The last round is an honest one.

Checked as well: no answer of 500 or more and no fault in the log, no wrong message accepted, the ledger whole, memory
of the process bounded, and that it ends with 0. PostgreSQL where `HUSHREC_TEST_POSTGRES` names one.
"""

import argparse
import json
import os
import random
import secrets
import sys
import tempfile
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hushrec.messages import path_of
from hushrec_privacy.enrolment import AuthorityKey
from hushrec_privacy.ledger import Spend, history, verify
from hushrec_privacy.mechanisms.seal import RowPlace, SealKey, open_row
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.schema import DirectPayload, Segment, Vector
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.database import Database
from hushrec_server.ledger_store import DatabaseLedgerStore
from hushrec_server.schema import DEVICE, FEATURE, LEDGER, MESSAGE, NOISE_PLAN, NOISE_ROW, PLAN, RESULT, ROUND
from numpy.typing import NDArray
from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_messages import DEVICES, PAYLOAD, PAYLOAD_LENGTH, PHASES, Devices, Message, Sent, wrong_messages
from fuzz_process import PATIENCE_S, STOPS, Answer, Running, running
from server_process import memory_mb, own_database, prepare

__all__ = ["STATES", "main"]

AUTHORITY = AuthorityKey(secrets.token_bytes(32))
STATES = ("before", *PHASES, *STOPS, "published", "aborted")
VECTOR = Vector(
    "features",
    (Segment("interests", 16, "1", "what is liked"),),
    (DirectPayload(PAYLOAD, PAYLOAD_LENGTH, "1", "what is liked", "4", "0.000001", 5, 30),),
)
LONG_S, SHORT_S = 3_600, 60
"""Rounds that wait for a message as long as it takes, and such whose deadlines pass: 3 seconds for a small message."""

MOST_GROWTH_MB = 32.0
CONFIG = """
[limits]
address_per_minute = 1000000000
device_per_minute = 1000000000
body_seconds = 2
"""
WATCHED = (
    [PLAN.c.plan, PLAN.c.status],
    [getattr(ROUND.c, name) for name in ("plan", "number", "state", "closing", "admitted", "expected", "reason")],
    [DEVICE.c.plan, DEVICE.c.place, DEVICE.c.pseudonym, DEVICE.c.identity],
    [MESSAGE.c.plan, MESSAGE.c.phase, MESSAGE.c.place, MESSAGE.c.sha256],
    [RESULT.c.plan, RESULT.c.sha256],
    [FEATURE.c.plan, FEATURE.c.name, FEATURE.c.pseudonym, FEATURE.c.body],
    [LEDGER.c.n, LEDGER.c.hash],
)
"""What no wrong message may change."""


@dataclass
class Found:
    """What was sent and what came of it; status 0 is a connection that was closed."""

    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    signed: int = 0
    published: int = 0
    aborted: int = 0
    memory: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def note(self, state: str, message: Message, status: int) -> None:
        """Count one answer."""
        self.sent[state] += 1
        self.statuses[status] += 1
        self.kinds[message.kind] += 1
        self.signed += message.signed
        accepted = 200 <= status < 300 and not message.harmless
        if status >= 500 or accepted or (status == 0 and message.signed):
            self.faults.append(f"{state}: {message.kind} was answered {status}")


class Fuzzed:
    """A server, its devices, and what is found.

    Args:
        server: Runs over `folder`.
        folder: Of `server_process.prepare`.
        prepared: What that gave: a plan of which no round ever begins, but payloads may come; and the envelope key's
            public half.
        database: Opened beside the server.
        messages: How many wrong ones at least.
        rng: Decides what they are.
    """

    def __init__(
        self,
        server: Running,
        folder: Path,
        prepared: tuple[Plan, bytes],
        database: Database,
        messages: int,
        rng: random.Random,
    ) -> None:
        self.server, self.database, self.rng, self.found = server, database, rng, Found()
        self.key = PlanKey.read(folder / "plan.key")
        data = folder / "data"
        self.seal_key = SealKey.read(data / "seal.key")
        self.admin = {"authorization": f"Bearer {(data / 'admin.token').read_text().strip()}"}
        self.gathering, public = prepared
        self.devices = Devices(public, AUTHORITY, self.gathering)
        self.wanted, self.begun = messages, 0
        self.batch = max(1, -(-messages // (max(3, min(30, messages // 300)) * (len(STATES) - 1))))

    def run(self) -> Found:
        """Rounds until enough was sent, and one more of honest devices."""
        while sum(self.found.sent.values()) < self.wanted or self.begun < 3:
            self.begun += 1
            if self.begun % 3:
                self._honest_round()
            elif self.begun % 2:
                self._given_up_round()
            else:
                self._lying_round()
            self.found.memory.setdefault("after the first round", memory_mb(self.server.process.pid))
        self._honest_round()
        self.found.memory["at the end"] = memory_mb(self.server.process.pid)
        self.found.memory["peak"] = memory_mb(self.server.process.pid, peak=True)
        self._check_ledger()
        return self.found

    def _honest_round(self) -> None:
        """All say what they should; nothing that comes beside it may matter."""
        vectors = self._begin(LONG_S)
        self.server.hold()
        for device in self.devices.now:
            self._right(self.devices.check_in(device))
            self._right(self.devices.feature(device))
        for phase in range(1, len(PHASES) + 1):
            self._phase(phase)
        for state in STOPS:
            self._wait_until_not(*STOPS[: STOPS.index(state)])
            self._batch(state, alike=True)
            self.server.go_on(state)
        self._end(alike=True)
        if self._state() != "published" or not np.array_equal(self._sum(), vectors.sum(axis=0)):
            self.found.faults.append(f"a round is {self._state()}, and its sum is not that of its devices")

    def _given_up_round(self) -> None:
        """The shop gives it up in one phase or the other."""
        self._begin(LONG_S)
        for device in self.devices.now:
            self._right(self.devices.check_in(device))
        last = self.begun // 3 % len(PHASES) + 1
        for phase in range(1, last + 1):
            self._phase(phase, whole=phase < last)
        path = path_of("admin-abort", plan=self.devices.plan.plan_id, round=1)
        self._right(Message("abort", Sent("POST", path, self.admin)))
        self._end(alike=True)

    def _phase(self, phase: int, *, whole: bool = True) -> None:
        """One phase of honest devices, and wrong messages before the last of them speaks; `whole`: it does."""
        (*first, last), state = self.devices.now, PHASES[phase - 1]
        for device in first:
            self._right(self.devices.upload(device, phase))
        self.devices.silent = last if self.devices.upload(last, phase) else -1
        self._batch(state, alike=True)
        self.devices.silent = -1
        if not whole:
            return
        self._right(self.devices.upload(last, phase))
        self._wait_until_not(state)
        for device in self.devices.now if phase < len(PHASES) else ():
            self.devices.heard[device] = self._right(self.devices.question(device, phase)).body

    def _lying_round(self) -> None:
        """One device sends something wrong of its own, which may count: nobody else could know. Deadlines pass."""
        self._begin(SHORT_S)
        for device in list(self.devices.now):
            if self._right(self.devices.check_in(device), late=True).status >= 300:
                self.devices.now.remove(device)
        for phase, state in enumerate(PHASES, start=1):
            if not self.devices.now or self._state() != state:
                break
            *first, last = self.devices.now
            for device in first:
                self._right(self.devices.upload(device, phase), late=True)
            lie = self.devices.wrong_own(last, phase, self.rng) if self.rng.random() < 0.3 else None
            if lie is not None:
                answer = self.server.ask(lie.sent)
                self.found.note(state, Message(lie.kind, lie.sent, signed=True, harmless=True), answer.status)
            self._batch(state)
            self._right(self.devices.upload(last, phase), late=True)
            self._wait_until_not(state)
            for device in self.devices.now:
                answer = self._right(self.devices.question(device, phase), late=True)
                self.devices.heard[device] = answer.body if answer.status == 200 else b""
        self._end()

    def _begin(self, round_seconds: int) -> "NDArray[np.int64]":
        """A plan whose first round takes devices in now; their vectors."""
        plan = make_plan(_request(round_seconds, int(time.time()) - round_seconds // 6))
        assert plan is not None
        vectors = self.devices.begin(plan, self.rng)
        documents = {"data": plan.encode(), "signature": self.key.sign(plan)}
        body = {"plan": {name: b64encode(value).decode() for name, value in documents.items()}}
        self._right(Message("plan", Sent("POST", path_of("admin-add-plan"), self.admin, json.dumps(body).encode())))
        self._batch("before", alike=True)
        return vectors

    def _end(self, *, alike: bool = False) -> None:
        self._wait(lambda: self._state() in ("published", "aborted") and self._round()["ended_at"] is not None)
        state = self._state()
        self.found.published += state == "published"
        self.found.aborted += state == "aborted"
        self._batch(state, alike=alike)

    def _batch(self, state: str, *, alike: bool = False) -> None:
        """Send wrong messages; `alike`: everything is the same afterwards, for nothing is due meanwhile."""
        messages = list(wrong_messages(self.devices, state, self.batch, self.rng))
        before, rows = self._state(), self._rows()
        for message, status in zip(messages, self.server.send(messages), strict=True):
            self.found.note(state, message, status)
        if alike and (before != state or self._state() != state or self._rows() != rows):
            self.found.faults.append(
                f"wrong messages changed what the server keeps: {before}, {state}, {self._state()}"
            )

    def _right(self, message: Message | None, *, late: bool = False) -> Answer:
        """Send a right message; `late`: it may come too late, or its device may have found a lie and left."""
        if message is None:
            if not late:
                self.found.faults.append("a device found a lie where nobody lied")
            return Answer(0)
        answer = self.server.ask(message.sent)
        if message.kind == "check-in" and answer.status < 300:
            self.devices.take_place(message, answer.body)
        if answer.status < 300 and message.kind in ("check-in", "upload", "feature"):
            self.devices.was_accepted(message)
        if answer.status >= (500 if late else 300) or (answer.status == 202 and not late):
            self.found.faults.append(f"a right {message.kind} was answered {answer.status}: {answer.body[:200]!r}")
        return answer

    def _wait_until_not(self, *states: str) -> None:
        self._wait(lambda: self._state() not in states)

    def _wait(self, is_over: Callable[[], bool]) -> None:
        until = time.monotonic() + SHORT_S + PATIENCE_S
        while not is_over():
            if time.monotonic() > until:
                raise SystemExit(f"a round stays in {self._state()}: {self.found.faults[:5]}")
            time.sleep(0.05)

    def _state(self) -> str:
        return str(self._round().get("state", "before"))

    def _round(self) -> dict[str, Any]:
        """What the shop is told of the round; nothing before it begins."""
        answer = self.server.ask(Sent("GET", path_of("admin-rounds", plan=self.devices.plan.plan_id), self.admin))
        rounds: list[dict[str, Any]] = json.loads(answer.body)
        return rounds[0] if rounds else {}

    def _rows(self) -> list[list[tuple[Any, ...]]]:
        with self.database.reading() as connection:
            return [[tuple(row) for row in connection.execute(select(*kept).order_by(*kept))] for kept in WATCHED]

    def _sum(self) -> "NDArray[np.int64]":
        """The published sum without its noise, in ring steps."""
        plan = self.devices.plan
        with self.database.reading() as connection:
            result = connection.execute(select(RESULT).where(RESULT.c.plan == plan.plan_id)).one()
            row = connection.execute(select(NOISE_ROW).where(NOISE_ROW.c.plan == plan.plan_id)).one()
            of_plan = NOISE_PLAN.c.plan == plan.plan_id
            dimension = connection.execute(select(NOISE_PLAN.c.dimension).where(of_plan)).scalar_one()
        where = RowPlace(plan.plan_id, 1, row.previous, dimension)
        lattice = np.frombuffer(result.noised, "<i8") - open_row(self.seal_key, bytes(row.sealed), where)
        total: NDArray[np.int64] = lattice >> plan.lattice_bits
        return total if np.array_equal(total << plan.lattice_bits, lattice) else np.zeros(0, np.int64)

    def _check_ledger(self) -> None:
        store = DatabaseLedgerStore(self.database)
        verify(store)
        spent = [(entry.plan, entry.first) for _, entry in history(store) if isinstance(entry, Spend)]
        with self.database.reading() as connection:
            published = select(ROUND.c.plan, ROUND.c.number).where(ROUND.c.state == "published")
            rounds = {tuple(row) for row in connection.execute(published)}
        if len(spent) != len(set(spent)) or not rounds <= set(spent) or len(rounds) != self.found.published:
            self.found.faults.append("the ledger does not hold every published round once")
        if any(plan == self.gathering.plan_id for plan, _ in spent):
            self.found.faults.append("a round of a plan whose time has not come was spent")


def _request(round_seconds: int, first_round_at: int, vector: Vector | None = None) -> Request:
    return Request(
        population=DEVICES * 50,
        cohort=DEVICES,
        rounds=1_000,
        delta=1e-6,
        noise_multiplier=2.0,
        parameters=16,
        vector=vector,
        round_seconds=round_seconds,
        first_round_at=first_round_at,
        authority=AUTHORITY.public().hex(),
    )


def fuzz(folder: Path, url: str, messages: int, seed: int) -> Found:
    """Start a server, send, check and stop it.

    Args:
        folder: Empty.
        url: Of an empty database; empty: SQLite in `folder`.
        messages: How many wrong ones at least.
        seed: Of the messages; keys are always new.
    """
    plan, public, _ = prepare(folder, _request(LONG_S, int(time.time()) + 10**6, VECTOR), CONFIG)
    with running(folder, url) as server:
        database = Database.open(url or f"sqlite:///{folder / 'data' / 'hushrec.sqlite'}")
        try:
            found = Fuzzed(server, folder, (plan, public), database, messages, random.Random(seed)).run()
        finally:
            database.close()
        code = server.stop()
    if code:
        found.faults.append(f"the server ended with {code}")
    for line in (folder / "server.log").read_text().splitlines():
        if "Traceback" in line or (line.startswith("{") and json.loads(line)["level"] == "error"):
            found.faults.append(f"in the log: {line[:300]}")
    return found


def main() -> None:
    """Send, check and print; ends with an error if anything was wrong."""
    parser = argparse.ArgumentParser(description="Wrong messages in every state of a round.")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="Of the messages; keys are always new.")
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    databases = {"sqlite": "", "postgresql": os.environ.get("HUSHREC_TEST_POSTGRES", "")}
    results: dict[str, dict[str, Any]] = {}
    wrong: list[str] = []
    for name, url in databases.items():
        if options.only not in (None, name):
            continue
        if name == "postgresql" and not url:
            print("postgresql: left out, HUSHREC_TEST_POSTGRES names no server", file=sys.stderr)
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, own_database(url) as own:
            found = fuzz(Path(folder), own, options.messages, options.seed)
        results[name] = _facts(found, time.monotonic() - began)
        grown = found.memory["peak"] - found.memory["after the first round"]
        wrong += found.faults[:20] + ([f"memory grew by {grown:.0f} MB"] if grown > MOST_GROWTH_MB else [])
        if not options.json:
            print(*_lines(name, results[name]), sep="\n", flush=True)
    if options.json:
        print(json.dumps(results))
    if wrong:
        raise SystemExit("\n".join(wrong))


def _facts(found: Found, seconds: float) -> dict[str, Any]:
    return {
        "messages": sum(found.sent.values()),
        "signed but for one field": found.signed,
        "published": found.published,
        "aborted": found.aborted,
        "faults": len(found.faults),
        "memory, MB": {name: round(value, 1) for name, value in found.memory.items()},
        "seconds": round(seconds),
        "by state": dict(found.sent),
        "by status": {str(status): count for status, count in sorted(found.statuses.items())},
        "by kind": dict(sorted(found.kinds.items())),
    }


def _lines(database: str, facts: dict[str, Any]) -> Iterable[str]:
    for name, value in facts.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        yield from (f"{database:<11} {name}: {key:<28}{count:10,}" for key, count in rows)


if __name__ == "__main__":
    main()
