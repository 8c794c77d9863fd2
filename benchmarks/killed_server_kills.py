"""Who starts, aims at and kills the processes of `killed_server.py`."""

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import killed_server_process
from hushrec_server.config import DATABASE_VARIABLE
from hushrec_server.rounds.states import PHASES, State
from killed_server_process import OFFERS, STEPS
from killed_server_shop import COHORT, LEASE_S, Shop

__all__ = ["WAITING", "Servers"]

WAITING = "waiting"
"""A round of training rests in `erased` until devices have compared its model."""


_LONGEST_WAIT_S = 0.2  # that others have beside a process that stands still with a lease that is over
_MOST_LENGTH_S = 0.3  # of a state, for a kill at any time of it
_PASSING_S = 0.004  # about one durable commit
_GOLDEN = (5**0.5 - 1) / 2
_STOPS = 0.7  # share of the moments at which a process stands still; else it goes on and is killed a little later


@dataclass
class _Aim:
    """Whom to kill next.

    Attributes:
        target: A state or a step.
        event: What must happen in the devices' process before; empty: nothing.
        nth: The how manieth time.
        mark: Within which mark of a process; empty: at any time.
    """

    target: str
    event: str = ""
    nth: int = 0
    mark: str = ""


@dataclass
class _Death:
    """How a process died: stopped at a moment, soon after it passed one, or at any time; in which marks and states."""

    how: str
    target: str = ""
    marks: tuple[str, ...] = ()
    states: frozenset[str] = frozenset()


class Servers:
    """The processes, each started again when it was killed.

    Args:
        shop: Of the data folder.
        database: Address of the database.
        count: How many processes.
        states: Gives the state of the round that is played, and WAITING if a model waits.
        after_kill: Called after each kill, before that process is started again.
        rng: Of the moments.
    """

    def __init__(
        self,
        shop: Shop,
        database: str,
        count: int,
        *,
        states: Callable[[], frozenset[str]],
        after_kill: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self._states, self._after_kill, self._rng, self._clock = states, after_kill, rng, shop.clock
        self._file = shop.folder / "aim"
        self.kills: Counter[str] = Counter()
        self.ways: Counter[str] = Counter()
        self.targets: list[str] = []
        self._aim: _Aim | None = None
        self._most: dict[str, int] = {}
        self._aimed_at: Counter[str] = Counter()
        self._lengths: defaultdict[str, list[float]] = defaultdict(list)
        self._happened = ("", time.monotonic())
        self._lock, self.error = threading.RLock(), ""
        command = [sys.executable, killed_server_process.__file__, str(shop.folder)]
        environment = {**os.environ, DATABASE_VARIABLE: database, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        logs = [shop.folder / f"server-{place}.log" for place in range(count)]
        self._all = [_Server(self, command, environment, log) for log in logs]

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._all:
            server.close()

    def addresses(self) -> list[str]:
        """Of those that answer.

        Raises:
            RuntimeError: One died by itself, or a check after a kill failed.
        """
        if self.error:
            raise RuntimeError(self.error)
        return [server.url for server in self._all if server.url]

    def aim(self, targets: Sequence[str]) -> None:
        """Kill once in each of these states and steps, in this order, as occasions come."""
        with self._lock:
            self._file.unlink(missing_ok=True)
            self.targets = list(targets)
            self._next()

    def happens(self, event: str, nth: int = 0) -> None:
        """Tell what the devices begin: the occasion for some aims."""
        with self._lock:
            if nth == 0:
                before, since = self._happened
                self._happened = (event, time.monotonic())
                self._lengths[before].append(self._happened[1] - since)
            aim = self._aim
            if aim is not None and aim.event and (aim.event, aim.nth) == (event, nth):
                self._take(aim)

    @property
    def aiming(self) -> bool:
        """Whether a kill is still to come."""
        return self._aim is not None

    def heard(self, server: "_Server", how: str, mark: str, count: str, marks: str) -> None:
        """A process says that it is at the moment that was aimed at."""
        self._most[mark] = max(self._most.get(mark, 0), int(count))
        target = self._aim.target if self._aim is not None else mark
        if how == "pass":
            time.sleep(self._rng.uniform(0, _PASSING_S))
        elif len(self._all) > 1 and self._rng.random() < 0.5:
            self._clock.set(self._clock() + LEASE_S)
            time.sleep(self._rng.uniform(0, _LONGEST_WAIT_S))
        self._kill(server, _Death(how, target, tuple(marks.split(","))))

    def died(self, server: "_Server") -> None:
        """A process has died, and all that it said is heard."""
        with self._lock:
            death = server.death
            self.ways[death.how] += 1
            self.kills.update(death.states)
            for mark in death.marks:
                if mark in (*STEPS, *OFFERS) and (death.how == "stop" or (death.target == mark and not server.left)):
                    self.kills[mark] += 1
            self._next()
        self._after_kill()

    def _kill(self, server: "_Server", death: _Death) -> None:
        with self._lock:
            if not server.alive:
                return
            before = self._states()
            server.kill(death)
            death.states = before & self._states()

    def _next(self) -> None:
        self._aim = self._aimed(self.targets.pop(0)) if self.targets else None
        if self._aim is not None and not self._aim.event:
            self._take(self._aim)

    def _aimed(self, target: str) -> _Aim:
        if target in (State.PUBLISHED, WAITING):
            return _Aim(target, event=target)
        if target not in PHASES:
            return _Aim(target, mark=target)
        nth = self._rng.randrange(COHORT)
        ways = [
            _Aim(target, event=target),
            _Aim(target, target, nth, f"take {target}"),
            _Aim(target, mark=f"close {target}"),
        ]
        if target == State.ADVERTISE:
            ways.append(_Aim(target, "admit", nth, "admit"))
        return self._rng.choice(ways)

    def _take(self, aim: _Aim) -> None:
        """Say to the processes where one is to stop, or kill one a little later."""
        if not aim.mark:
            length = statistics.median(self._lengths[aim.event][-50:] or [_MOST_LENGTH_S])
            wait = self._rng.uniform(0, min(length, _MOST_LENGTH_S))
            threading.Timer(wait, self._kill_any, (aim,)).start()
            return
        self._aimed_at[aim.mark] += 1
        share = self._aimed_at[aim.mark] * _GOLDEN % 1  # spreads few kills evenly over all moments of a mark
        count = 1 + int(share * self._most.get(aim.mark, 10**6))
        how = "stop" if self._rng.random() < _STOPS else "pass"
        part = self._file.with_suffix(".part")
        part.write_text(f"{aim.mark}\t{count}\t{how}")
        part.rename(self._file)

    def _kill_any(self, aim: _Aim) -> None:
        with self._lock:
            if self._aim is aim and (alive := [server for server in self._all if server.url]):
                self._kill(self._rng.choice(alive), _Death("any time", aim.target))


class _Server:
    """One place for a process, and a thread that hears what it says, and starts the next one when it was killed."""

    def __init__(self, servers: Servers, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._servers, self._command, self._environment, self._log = servers, command, environment, log
        self._closing = False
        self._begin()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _begin(self) -> None:
        self.url, self.left, self.alive, self.death = "", False, True, _Death("")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=log, env=self._environment, text=True
            )

    def kill(self, death: _Death) -> None:
        """End it at once."""
        self.url, self.alive, self.death = "", False, death
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it for good."""
        self._closing = True
        self._process.kill()
        self._thread.join()
        self._process.wait()

    def _live(self) -> None:
        while not self._closing:
            try:
                self._hear_all()
                code = self._process.wait()
                if self._closing:
                    return
                if self.alive:
                    raise RuntimeError(f"a server ended by itself ({code}): {self._log.read_text()[-2_000:]}")
                self._servers.died(self)
            except Exception as error:  # noqa: BLE001  told to whoever plays the rounds
                self._servers.error = f"{type(error).__name__}: {error}"
                return
            self._begin()
        self._process.kill()

    def _hear_all(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                self._hear(line.rstrip("\n"))

    def _hear(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "ready":
            self.url = rest
        elif line == "left":
            self.left = True
        else:
            self._servers.heard(self, *line.split("\t"))
