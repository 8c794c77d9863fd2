"""Send wrong messages to the server in every state of a round, and see that it refuses them and that nothing changes.

    python benchmarks/fuzz_server.py [--messages 20000] [--json]

The whole server in this process, over SQLite and without sockets: routes, signatures, envelopes, rounds, secure
aggregation. Six devices run real rounds. In each state, before the last of them speaks, a batch of wrong messages
comes: two thirds are whole and rightly signed by an enrolled device but for one changed field, the others are rubbish.
In two rounds of three all devices are honest: the round must be published with exactly the sum of their vectors. In the
third one of them sends a wrong message of its own first, or the shop gives the round up: it must end.

Checked: no answer of 500 or more, no wrong message accepted, every sum exact, one entry of the ledger a published
round, memory does not grow. States that last only a moment are met by a call from inside them.
"""

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hushrec_privacy.enrolment import AuthorityKey
from hushrec_privacy.ledger import Spend, history, verify
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.app import server_app
from hushrec_server.config import LimitSettings
from hushrec_server.database import Database
from hushrec_server.device_requests import DeviceRequests
from hushrec_server.front import AdminToken, Front
from hushrec_server.ledger_store import DatabaseLedgerStore
from hushrec_server.metrics import Metrics
from hushrec_server.publishing import RoundResult, StoredResults, Verdict
from hushrec_server.rates import TokenBuckets
from hushrec_server.readiness import Readiness
from hushrec_server.rounds.finishing import Finishing
from hushrec_server.rounds.secagg import SecAggPlus
from hushrec_server.service import FleetService, FleetSettings
from hushrec_server.slow_clients import BodyRoom

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_messages import FIELDS, Devices, Message, Sent, wrong_messages

__all__ = ["main"]

COHORT, ROUND_S, START = 6, 1_000, 1_800_000_000
PHASES = ("advertise", "choose", "share", "mask", "agree", "reveal")
STATES = ("before", *PHASES, "summed", "noised", "erased", "published", "aborted")
MOST_GROWTH_MB = 96.0


@dataclass
class Found:
    """What was sent and what came of it."""

    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    signed: int = 0
    published: int = 0
    aborted: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, state: str, message: Message, status: int) -> None:
        """Count one answer."""
        self.sent[state] += 1
        self.statuses[status] += 1
        self.kinds[message.kind] += 1
        self.signed += message.signed
        if status >= 500 or (status < 300 and not message.harmless):
            self.faults.append(f"{state}: {message.kind} was answered {status}")


class Watched(SecAggPlus):
    """Secure aggregation that calls out when a round is summed, and keeps the sum."""

    def __init__(self, called: Callable[[str], None]) -> None:
        self._called, self.sums = called, []  # type: ignore[var-annotated]

    def finish(self, *arguments):  # type: ignore[no-untyped-def]
        """As it is, with a call before."""
        self._called("summed")
        outcome = super().finish(*arguments)
        self.sums.append((outcome.sum.copy(), outcome.survivors))
        return outcome


class Publishing(StoredResults):
    """Calls out when a round's uploads are erased."""

    def __init__(self, called: Callable[[str], None]) -> None:
        self._called = called

    def publish(self, result: RoundResult) -> Verdict:
        """As it is, with a call before."""
        self._called("erased")
        return super().publish(result)


class Fuzzed:
    """The server, its devices, and what is found."""

    def __init__(self, folder: Path, messages: int, rng: random.Random) -> None:
        self.rng, self.found, self.now = rng, Found(), START - ROUND_S
        self.wanted = messages
        self.rounds = max(6, min(30, messages // 300))
        self.batch = max(1, -(-messages // (self.rounds * (len(STATES) - 1))))
        self.aggregation = Watched(self._batch)
        key, authority = PlanKey(b"p" * 32), AuthorityKey(b"a" * 32)
        request = Request(
            population=COHORT * 50,
            cohort=COHORT,
            rounds=1_000,
            delta=1e-6,
            noise_multiplier=2.0,
            parameters=16,
            round_seconds=ROUND_S,
            first_round_at=START,
            authority=authority.public().hex(),
        )
        plan = make_plan(request)
        assert plan is not None
        self.plan, self.number, self.begun = plan, 0, 0
        self.database = Database.open(f"sqlite:///{folder / 'fleet.sqlite'}")
        settings = FleetSettings("shop", key.public(), SealKey(b"s" * 32))
        self.service = FleetService(
            self.database,
            settings,
            clock=self.clock,
            publisher=Publishing(self._batch),
            aggregation=self.aggregation,
        )
        self.service.add_plan(plan.encode(), key.sign(plan))
        self.devices = Devices(folder, plan, authority, self.clock)
        self.app = server_app(self._front(), LimitSettings(address_per_minute=10**9))
        self._erase = Finishing.erase

    def clock(self) -> int:
        """The time of all."""
        return self.now

    def run(self) -> Found:
        """Rounds until enough was sent."""
        Finishing.erase = self._noised()  # type: ignore[method-assign]
        try:
            for _ in range(10):
                self._batch("before")
            while sum(self.found.sent.values()) < self.wanted or self.begun < 6:
                self.number = max(self.number + 1, (self.now - START) // ROUND_S + 2)  # the next that has not begun
                self.now = START + (self.number - 1) * ROUND_S
                self.begun += 1
                self._round(insider=self.begun % 3 == 0)
        finally:
            Finishing.erase = self._erase  # type: ignore[method-assign]
        self._check_ledger()
        self.database.close()
        return self.found

    def _front(self) -> Front:
        devices = DeviceRequests(
            self.service,
            server="shop",
            keys=lambda: (self.devices.key,),
            rates=TokenBuckets(per_minute=10**9, burst=10**9, clock=lambda: 0.0),
            clock=self.clock,
        )
        return Front(
            fleet=self.service,
            requests=devices,
            metrics=Metrics(),
            ready=Readiness(),
            room=BodyRoom(1 << 24),
            admin=AdminToken(b"token of the administrator"),
        )

    def _noised(self) -> Callable[..., None]:
        erase, batch = self._erase, self._batch

        def noised(self: Finishing, *arguments: object) -> None:
            batch("noised")
            erase(self, *arguments)  # type: ignore[arg-type]

        return noised

    def _round(self, *, insider: bool) -> None:
        vectors = self.devices.begin(self.number, self.rng)
        for device in self.devices.now:
            self._right(self.devices.check_in(device))
        aborted = False
        for phase, state in enumerate(PHASES, start=1):
            if not self.devices.now:
                break
            *first, last = self.devices.now
            for device in first:
                self._right(self.devices.upload(device, phase), allowed=insider)
            self._batch(state)
            if insider and self.begun % 2 == 0 and phase == self.begun // 2 % 6 + 1:
                self.service.abort(self.plan.plan_id, self.number)
                aborted = True
                break
            if insider and self.rng.random() < 0.3:
                self._insider(last, phase)
            self._right(self.devices.upload(last, phase), allowed=insider)
            self.service.tick()
            if insider:
                self._pass_deadlines(state)
            aborted = self._state() == "aborted"
            if aborted:
                break
            for device in self.devices.now:
                self.devices.take_reply(device, phase, lambda message: self._ask(message))
        self._end(vectors, aborted=aborted, insider=insider)

    def _end(self, vectors: np.ndarray, *, aborted: bool, insider: bool) -> None:
        for _ in range(20):
            if self._state() in ("published", "aborted"):
                break
            self.now += ROUND_S // 10
            self.service.tick()
        state = self._state()
        self._batch(state if state in STATES else "aborted")
        self.found.published += state == "published"
        self.found.aborted += state == "aborted"
        if insider:
            if state not in ("published", "aborted"):
                self.found.faults.append(f"round {self.number} never ended: {state}")
            return
        total, survivors = self.aggregation.sums[-1] if self.aggregation.sums else (None, ())
        if (
            aborted
            or state != "published"
            or len(survivors) != COHORT
            or not np.array_equal(total, vectors.sum(axis=0))
        ):
            self.found.faults.append(f"round {self.number} is {state}, and its sum is not that of its devices")

    def _insider(self, device: int, phase: int) -> None:
        """A device with a place sends something wrong of its own: it may count, for nobody else could know."""
        message = self.devices.wrong_own(device, phase, self.rng)
        if message is None:
            return
        status = self._ask(message).status
        message = Message(message.kind, message.sent, signed=True, harmless=True)
        self.found.note(PHASES[phase - 1], message, status)

    def _pass_deadlines(self, state: str) -> None:
        for _ in range(5):
            if self._state() != state:
                return
            self.now += ROUND_S // 4
            self.service.tick()

    def _right(self, message: Message | None, *, allowed: bool = False) -> None:
        if message is None:
            if not allowed:
                self.found.faults.append(f"a device found a lie in round {self.number}, where nobody lied")
            return
        answer = self._ask(message)
        if message.kind == "check-in":
            self.devices.take_place(message, answer.body)
        if answer.status < 300:
            self.devices.was_accepted(message)
        if answer.status >= (500 if allowed else 300):
            self.found.faults.append(f"a right {message.kind} was answered {answer.status}: {answer.body[:200]!r}")

    def _batch(self, state: str) -> None:
        for message in wrong_messages(self.devices, state, self.number, self.batch, self.rng):
            self.found.note(state, message, self._ask(message).status)

    def _ask(self, message: Message) -> "Answer":
        return asyncio.run(_call(self.app, message.sent))

    def _state(self) -> str:
        rounds = self.service.rounds(self.plan.plan_id)
        return str(next((found["state"] for found in rounds if found["round"] == self.number), "before"))

    def _check_ledger(self) -> None:
        store = DatabaseLedgerStore(self.database)
        verify(store)
        spent = [entry.first for _, entry in history(store) if isinstance(entry, Spend)]
        if len(spent) != len(set(spent)) or len(spent) < self.found.published:
            self.found.faults.append("the ledger does not hold every published round once")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


async def _call(app: object, sent: Sent) -> Answer:
    """One request through the application, as a server would hand it over."""
    path, _, query = sent.path.partition("?")
    headers = {"host": "x", "content-length": str(len(sent.body)), **{k.lower(): v for k, v in sent.headers.items()}}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": sent.method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "scheme": "http",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("x", 80),
        "state": {},
    }
    found = {"status": 0, "body": b""}

    async def receive() -> dict[str, object]:  # once: no route streams its answer here
        return {"type": "http.request", "body": sent.body, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        found["status"] = message.get("status", found["status"])
        found["body"] += message.get("body", b"")  # type: ignore[operator]

    await app(scope, receive, send)  # type: ignore[operator]
    return Answer(int(found["status"]), found["body"])  # type: ignore[arg-type, call-overload]


def main() -> None:
    """Send, check and print; ends with an error if anything was wrong."""
    parser = argparse.ArgumentParser(description="Wrong messages in every state of a round.")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="Of the messages; keys are always new.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fuzzed = Fuzzed(Path(folder), options.messages, random.Random(options.seed))
        fuzzed._batch("before")
        before = _memory_mb()
        found = fuzzed.run()
        grown = _memory_mb() - before
    _print(found, grown, as_json=options.json)
    if found.faults or grown > MOST_GROWTH_MB:
        raise SystemExit("\n".join(found.faults[:20]) or f"memory grew by {grown:.0f} MB")


def _print(found: Found, grown_mb: float, *, as_json: bool) -> None:
    total = sum(found.sent.values())
    facts: dict[str, object] = {
        "messages": total,
        "signed but for one field": found.signed,
        "published": found.published,
        "aborted": found.aborted,
        "faults": len(found.faults),
        "memory grown, MB": round(grown_mb, 1),
        "by state": dict(found.sent),
        "by status": {str(status): count for status, count in sorted(found.statuses.items())},
        "by kind": dict(sorted(found.kinds.items())),
    }
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        for line in _lines(name, value):
            print(line)


def _lines(name: str, value: object) -> Iterable[str]:
    if isinstance(value, dict):
        return (f"{name}: {key:<28}{count:8,}" for key, count in value.items())
    return (f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}",)


def _memory_mb() -> float:
    """The most that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    assert FIELDS
    main()
