"""The server processes of `killed_server.py`: how they are started, told what to do, listened to and killed."""

import hashlib
import mmap
import os
import pickle
import random
import secrets
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hushrec_privacy.errors import HushrecError
from hushrec_privacy.ledger import Anchor, Ledger
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.database import Database
from hushrec_server.noise_rows import DatabaseNoiseStore
from hushrec_server.publishing import Newest, RoundResult, Verdict
from hushrec_server.rounds import store
from hushrec_server.schema import ROUND
from hushrec_server.service import FleetService, FleetSettings
from sqlalchemy import event, make_url, select

__all__ = ["COHORT", "PLAN_KEY", "STEPS", "Servers", "SharedClock", "begin", "published", "serve"]

COHORT, ROUNDS, ROUND_S, START = 6, 5_000, 1_000, 1_800_000_000
STEPS = ("1 ledger", "2 noise", "3 erase", "4 publish")
PLAN_KEY = PlanKey(b"p" * 32)


class SharedClock:
    """Whole seconds in a file that all processes have mapped; only the fleet turns it."""

    def __init__(self, folder: Path) -> None:
        path = folder / "clock"
        if not path.exists():
            path.write_bytes(START.to_bytes(8, "little"))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    def __call__(self) -> int:
        return int.from_bytes(self._map[:], "little")

    def set(self, now: int) -> None:
        """Turn it."""
        self._map[:] = now.to_bytes(8, "little")


class Files:
    """Publishes into a folder, each value under its hash: two values of one round would be two files."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder / "published", say

    def newest(self) -> Newest:
        """None; the rounds start from nothing."""
        return Newest()

    def candidate(self) -> Newest:
        """None; no round compares anything."""
        return Newest()

    def anchor(self) -> Anchor | None:
        """The ledger's head after the newest published round."""
        newest = max(self._folder.glob("*.anchor"), default=None)
        return None if newest is None else Anchor.parse(newest.read_text())

    def last_published(self, plan_id: str) -> int:
        """By the files."""
        del plan_id
        return max((int(path.name[:8]) for path in self._folder.glob("*.sum")), default=0)

    def publish(self, result: RoundResult) -> Verdict:
        """Write value and anchor, synced, under their final names at once."""
        self._say(STEPS[3])
        noised = result.noised.tobytes()
        self._write(f"{result.number:08}-{hashlib.sha256(noised).hexdigest()}.sum", noised)
        self._write(f"{result.number:08}.anchor", str(result.anchor).encode())
        self._say("between")
        return Verdict()

    def _write(self, name: str, data: bytes) -> None:
        part = self._folder / f"{name}.{os.getpid()}.part"
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._folder / name)


def published(folder: Path, number: int) -> dict[bytes, bytes]:
    """The values that were published of a round, by their hash."""
    return {
        bytes.fromhex(path.stem[9:]): path.read_bytes() for path in (folder / "published").glob(f"{number:08}-*.sum")
    }


@contextmanager
def begin(folder: Path, kind: str, postgres: str, authority: bytes) -> Iterator[str]:
    """Make database and plan; gives the database's address."""
    (folder / "published").mkdir()
    request = Request(
        population=COHORT * 50,
        cohort=COHORT,
        rounds=ROUNDS,
        delta=1e-6,
        noise_multiplier=2.0,
        parameters=16,
        round_seconds=ROUND_S,
        first_round_at=START,
        authority=authority.hex(),
    )
    plan = make_plan(request)
    assert plan is not None
    (folder / "plan.json").write_bytes(plan.encode())
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'fleet.sqlite'}"
        return
    import psycopg

    server, name = make_url(postgres), f"hushrec_killed_{secrets.token_hex(6)}"
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield server.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def serve(folder: Path, url: str) -> None:
    """One server process: calls come in on stdin, answers and steps go out on stdout, a thread ticks."""
    writing, rng = threading.Lock(), random.Random()

    def put(*frame: object) -> None:
        data = pickle.dumps(frame)
        with writing:
            _write_all(len(data).to_bytes(4, "big") + data)

    def say(step: str) -> None:
        put("step", step)

    _follow_steps(say)
    database = Database.open(url)

    @event.listens_for(database._engine, "before_cursor_execute")
    def _wait(*_: object) -> None:
        if threading.current_thread().name == "tick":
            time.sleep(rng.uniform(0, 0.002))

    settings = FleetSettings("killed", PLAN_KEY.public(), SealKey(b"s" * 32))
    service = FleetService(database, settings, publisher=Files(folder, say), clock=SharedClock(folder))
    plan = Plan.decode((folder / "plan.json").read_bytes())
    service.add_plan(plan.encode(), PLAN_KEY.sign(plan))
    put("ready")

    def tick() -> None:
        while True:
            service.tick()
            time.sleep(0.01)

    threading.Thread(target=tick, name="tick", daemon=True).start()
    while True:
        size = int.from_bytes(_read_all(4), "big")
        method, args = pickle.loads(_read_all(size))  # noqa: S301  from our own parent
        try:
            put("done", getattr(service, method)(*args))
        except HushrecError as error:
            put("refused", error)


def _follow_steps(say: Callable[[str], None]) -> None:
    """Say when one of the durable steps is entered and left."""
    spend, transaction, erase = Ledger.spend, DatabaseNoiseStore.transaction, store.erase

    def followed_spend(self: Ledger, *args: Any, **named: Any) -> Anchor:
        say(STEPS[0])
        try:
            return spend(self, *args, **named)
        finally:
            say("between")

    @contextmanager
    def followed_transaction(self: DatabaseNoiseStore, plan_id: str) -> Iterator[Any]:
        say(STEPS[1])
        try:
            with transaction(self, plan_id) as rows:
                yield rows
        finally:
            say("between")

    def followed_erase(*args: Any) -> None:
        say(STEPS[2])
        try:
            erase(*args)
        finally:
            say("between")

    Ledger.spend = followed_spend  # type: ignore[method-assign, assignment]
    DatabaseNoiseStore.transaction = followed_transaction  # type: ignore[method-assign, assignment]
    store.erase = followed_erase


class Servers:
    """The processes. `ask` asks any of them, and another one if it dies; a thread of each listens to what it says."""

    def __init__(self, script: str, folder: Path, url: str, count: int) -> None:
        self._command = [sys.executable, script, "--serve", str(folder), url]
        self.plan = Plan.decode((folder / "plan.json").read_bytes())
        self.kills: Counter[str] = Counter()
        self.moments = 0
        self.lengths: defaultdict[str, list[float]] = defaultdict(list)
        self._rng, self._target, self._number, self._new_kills = random.Random(), None, 0, 0
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._entered_at = time.monotonic()
        self._all = [Server(self._command, self) for _ in range(count)]

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._all:
            server.kill()

    def watch(self, database: Database) -> None:
        """Where states are read."""
        self._database = database

    def ask(self, method: str, *args: object) -> Any:
        """Call a method of a service, until some process has answered.

        Raises:
            HushrecError: The answer is a refusal.
        """
        while True:
            place = self._rng.randrange(len(self._all))
            try:
                return self._all[place].call(method, args)
            except EOFError:
                self._restart(place)

    def breathe(self) -> None:
        """Give the ticking threads time, and start who died meanwhile."""
        time.sleep(0.005)
        for place, server in enumerate(self._all):
            if not server.alive:
                self._restart(place)

    def aim(self, target: str | None, number: int) -> None:
        """Kill once at the next occasion: in a state, or in a durable step."""
        with self._lock:
            self._target, self._number = target, number

    def entered(self, state: str) -> None:
        """A phase begins, as the devices see it: kill in the middle of it, if it is the target."""
        now = time.monotonic()
        self.lengths["phase"].append(now - self._entered_at)
        self._entered_at = now
        if self._target == state:
            wait = self._rng.uniform(0, statistics.median(self.lengths["phase"][-50:]))
            threading.Timer(wait, self._kill_in, (self._rng.choice(self._all), state)).start()

    def heard(self, server: "Server", step: str, before: str, seconds: float) -> None:
        """A process entered a step: kill it there, if it is the target."""
        if before in STEPS:
            self.lengths[before].append(seconds)
        target = self._target
        states = {STEPS[0]: "summed", STEPS[1]: "summed", STEPS[2]: "noised", STEPS[3]: "erased"}
        if step in STEPS and target in (step, states[step]):
            lengths = self.lengths[step][-50:]
            wait = self._rng.uniform(0, statistics.median(lengths) if lengths else 0.005)
            threading.Timer(wait, self._kill_in, (server, target)).start()

    def take_new_kills(self) -> int:
        """How many died since this was asked last."""
        with self._lock:
            found, self._new_kills = self._new_kills, 0
        return found

    def _kill_in(self, server: "Server", target: str) -> None:
        with self._lock:
            if self._target != target or not server.alive:
                return
            self._target = None
            before = self._state()
            last = server.kill()
            after = self._state()
            self._new_kills += 1
            self.moments += 1
            if before == after:
                self.kills[before] += 1
            if last in STEPS:
                self.kills[last] += 1

    def _state(self) -> str:
        assert self._database is not None
        with self._database.reading() as connection:
            return str(connection.execute(select(ROUND.c.state).where(ROUND.c.number == self._number)).scalar())

    def _restart(self, place: int) -> None:
        self._all[place].join()
        self._all[place] = Server(self._command, self)


class Server:
    """One process."""

    def __init__(self, command: list[str], servers: Servers) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._answers: list[tuple[object, ...]] = []
        self._changed = threading.Condition()
        self._servers, self._step, self._since, self._killed, self._over = servers, "", time.monotonic(), False, False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        if self._answer() != ("ready",):
            raise RuntimeError("a server did not start")

    @property
    def alive(self) -> bool:
        """Whether it still speaks."""
        return not self._over

    def call(self, method: str, args: tuple[object, ...]) -> Any:
        """Call a method of its service; EOFError: it died before it answered."""
        data = pickle.dumps((method, args))
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(len(data).to_bytes(4, "big") + data)
            self._process.stdin.flush()
        except (OSError, ValueError) as error:  # the pipe is broken, or closed after the kill
            raise EOFError from error
        kind, value = self._answer()
        if kind == "refused":
            assert isinstance(value, HushrecError)
            raise value
        return value

    def kill(self) -> str:
        """End it at once; the step that it said last that it was in."""
        self._killed = True
        self._process.send_signal(signal.SIGKILL)
        self.join()
        return self._step

    def join(self) -> None:
        """Wait until all that it said is heard."""
        self._listener.join()
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:
                continue  # what it did not read any more
        if not self._killed:
            raise RuntimeError(f"a server died by itself ({code})")

    def _answer(self) -> tuple[object, ...]:
        with self._changed:
            while not self._answers and not self._over:
                self._changed.wait()
            if not self._answers:
                raise EOFError
            return self._answers.pop(0)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while (head := self._process.stdout.read(4)) and len(head) == 4:
            size = int.from_bytes(head, "big")
            data = self._process.stdout.read(size)
            if len(data) < size:
                break
            frame = pickle.loads(data)  # noqa: S301  from our own child
            if frame[0] == "step":
                now, before = time.monotonic(), self._step
                self._step, since, self._since = frame[1], self._since, now
                self._servers.heard(self, frame[1], before, now - since)
            else:
                with self._changed:
                    self._answers.append(frame)
                    self._changed.notify()
        with self._changed:
            self._over = True
            self._changed.notify()


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _read_all(size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = os.read(0, size - len(parts))
        if not part:
            os._exit(0)  # the fleet has ended
        parts += part
    return parts
