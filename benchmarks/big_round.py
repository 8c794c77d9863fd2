"""One round of many devices with long vectors: a server process, a real database, every device over HTTP.

    python benchmarks/big_round.py [--devices 200] [--numbers 500000] [--processes 2] [--round-seconds S] [--json]

The server is `hushrec serve` with its default limits on loopback, as behind a reverse proxy: each device has an address
of its own in X-Forwarded-For. Its database is SQLite, and PostgreSQL where `HUSHREC_TEST_POSTGRES` names one. A device
is a thread of one of the client processes and a connection of its own; it goes through the round by the SDK's own
`RoundRun`: sealed and signed requests, polls, retries, secure aggregation. What is left out of a device: enrolment over
HTTP (its certificate comes from the authority's key), its record on disk, and the making of its vector.

A tenth of the devices leaves the round before the masked vector, so the server waits for the end of that phase, a
fifth of `--round-seconds`. All others hold their masked vector back until all of their process are ready, and then send
at once: a server meets nothing worse. A time of an upload is that from the first try to the acknowledgement.

The plan counts; its noise is a sixteenth of a ring step, which protects nobody, so that rounding what the server
stores gives the exact sum: it must be that of the vectors that were acknowledged. No two devices have the same vector.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hushrec.fleet.backoff import uniform
from hushrec.fleet.clocks import elapsed_s
from hushrec.fleet.conditions import Conditions, Require
from hushrec.fleet.fleet_file import FleetFile
from hushrec.fleet.gate import Gate
from hushrec.fleet.http import HttpConnection, Reply
from hushrec.fleet.pacing import Pace
from hushrec.fleet.participant import SPREAD
from hushrec.fleet.round_run import RoundRun
from hushrec.fleet.server import FleetServer, Member, RoundLink
from hushrec.messages import PHASES, padded_bytes
from hushrec_privacy.encoding import encode_update
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.errors import FleetError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request
from hushrec_privacy.plans.ring import smallest_ring
from hushrec_privacy.plans.schema import Segment, Vector
from hushrec_privacy.randomness import OsRandom
from hushrec_privacy.secagg import Phase, SecAggDevice, Session, message_size
from hushrec_server.database import Database
from hushrec_server.schema import MESSAGE, RESULT, ROUND
from numpy.typing import NDArray
from server_process import SERVER, cpu_s, memory_mb, own_database, prepare, served
from sqlalchemy import func, select, text

__all__ = ["Facts", "main", "run_round"]

DROPPED = 10  # per cent
NOISE = 1 / 16  # ring steps: eight deviations to the next whole step
CONFIG = 'proxies = ["127.0.0.1"]\n'
LOOK_S = 0.05
REPLY_BYTES = 1 << 18


@dataclass
class Facts:
    """What a round came to.

    Attributes:
        acknowledged: Devices whose masked vector the server took.
        survivors: Devices in the sum, by the server.
        exact: Whether the sum is that of the vectors of the acknowledged.
        phases: By state of the round: seconds, and the server's processor seconds.
        round_s: From the first request to the published result.
        masked_s: From the first masked vector sent to the last one acknowledged.
        server_s: Processor seconds of the server, and of PostgreSQL's processes.
        peak_mib: Of the server's memory.
        device_s: Processor seconds of a device, everything in its process shared out.
        up_mb: The most that a device sent in bodies; with what it had to send again.
        milliseconds: By phase: p50, p99 and the longest time of an upload.
        refused: Requests that were not taken, by status or reason.
        database_mb: Of the database: at its largest, and after the erasure.
    """

    acknowledged: int = 0
    survivors: int = 0
    exact: bool = False
    phases: dict[str, tuple[float, float]] = field(default_factory=dict)
    round_s: float = 0.0
    masked_s: float = 0.0
    server_s: tuple[float, float] = (0.0, 0.0)
    peak_mib: float = 0.0
    device_s: float = 0.0
    up_mb: float = 0.0
    milliseconds: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    database_mb: tuple[float, float] = (0.0, 0.0)


def run_round(folder: Path, url: str, *, devices: int, numbers: int, processes: int, round_seconds: int) -> Facts:
    """Run one round and check it.

    Args:
        folder: Empty.
        url: Of an empty PostgreSQL database; empty: SQLite.
        devices: The cohort.
        numbers: P, of the vector.
        processes: Of the devices.
        round_seconds: Of the plan.
    """
    authority = AuthorityKey.create(folder / "authority.key").public().hex()
    plan, _, plan_key = prepare(folder, _request(devices, numbers, round_seconds, authority), CONFIG)
    values = np.random.default_rng(0).normal(size=numbers).astype(np.float32)
    vector = encode_update(plan, values, OsRandom())
    np.save(folder / "vectors.npy", np.concatenate((vector, vector[:devices])))
    facts = Facts()
    with served(folder, url) as (server, address):
        told = {"url": address, "plan_key": plan_key.hex(), "devices": devices, "processes": processes}
        (folder / "told.json").write_text(json.dumps(told))
        database = Database.open(url or f"sqlite:///{(folder / 'data' / 'hushrec.sqlite').resolve()}")
        watch = _Watch(database, server.pid, folder / "data")
        command = [sys.executable, __file__, "--clients", str(folder)]
        clients = [
            subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True, env=_one_thread())
            for number in range(processes)
        ]
        try:
            watch.until_ended(facts, 3 * round_seconds)
            said = [json.loads(client.communicate()[0]) for client in clients]
        finally:
            for client in clients:
                client.kill()
                client.wait()
        _tell(facts, [device for each in said for device in each["devices"]], [each["cpu_s"] for each in said])
        _check(facts, database, plan, folder, [d["number"] for each in said for d in each["devices"] if d["masked"]])
        database.close()
    return facts


def _request(devices: int, numbers: int, round_seconds: int, authority: str) -> Request:
    ring = smallest_ring(devices, 1 << (numbers - 1).bit_length())
    return Request(
        population=devices,
        cohort=devices,
        rounds=1,
        delta=1e-6,
        noise_multiplier=NOISE / ring.clip_steps,
        vector=Vector("counts", (Segment("numbers", numbers, "1", "a benchmark"),)),
        authority=authority,
        first_round_at=int(time.time()) - 1,
        round_seconds=round_seconds,
    )


class _Watch:
    """Looks at a round from outside: its states, what the server takes, how large the database is."""

    def __init__(self, database: Database, server: int, data: Path) -> None:
        self._database, self._server, self._data = database, server, data
        self._backends: dict[int, float] = {}

    def until_ended(self, facts: Facts, most_s: float) -> None:
        """Follow the round until its result is published and its uploads are erased."""
        began, state, since, spent = time.perf_counter(), "", 0.0, cpu_s(self._server)
        first, largest = spent, 0.0
        while time.perf_counter() < began + most_s:
            found, ended = self._look()
            now, used = time.perf_counter() - began, cpu_s(self._server)
            if found != state:
                if state:
                    facts.phases[state] = (now - since, used - spent)
                state, since, spent = found, now, used
            largest = max(largest, self._megabytes())
            if ended:
                break
            time.sleep(LOOK_S)
        facts.round_s, facts.server_s = now, (used - first, sum(self._backends.values()))
        facts.peak_mib = memory_mb(self._server, peak=True)
        facts.database_mb = (largest, self._megabytes())

    def _look(self) -> tuple[str, bool]:
        with self._database.reading() as connection:
            row = connection.execute(select(ROUND.c.state, ROUND.c.ended_at)).first()
            if self._database.shared:
                ours = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                for pid in connection.execute(text(ours)).scalars():
                    with suppress(OSError):  # it has ended, or is on another machine
                        self._backends[pid] = cpu_s(pid)
        return (row.state, row.ended_at is not None) if row else ("", False)

    def _megabytes(self) -> float:
        if self._database.shared:
            with self._database.reading() as connection:
                return float(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()) / 1e6
        return sum(path.stat().st_size for path in self._data.glob("hushrec.sqlite*") if path.exists()) / 1e6


def _tell(facts: Facts, devices: list[dict[str, Any]], client_s: list[float]) -> None:
    """Bring together what the devices saw."""
    facts.device_s = sum(client_s) / len(devices)
    facts.up_mb = max(device["up"] for device in devices) / 1e6
    facts.refused = dict(sum((Counter(device["refused"]) for device in devices), Counter()))
    for phase in ("check-in", *PHASES):
        took = np.array([device["took"][phase] for device in devices if phase in device["took"]]) * 1e3
        if took.size:
            middle, late, longest = map(float, np.percentile(took, (50, 99, 100)))
            facts.milliseconds[phase] = middle, late, longest
    sent = [device["masked"] for device in devices if device["masked"]]
    facts.acknowledged = len(sent)
    if sent:
        facts.masked_s = max(last for _, last in sent) - min(first for first, _ in sent)


def _check(facts: Facts, database: Database, plan: Plan, folder: Path, acknowledged: list[int]) -> None:
    """Hold what the server stored against the vectors that it acknowledged."""
    with database.reading() as connection:
        found = connection.execute(select(RESULT.c.noised, RESULT.c.survivors)).first()
        left = connection.execute(select(func.count()).select_from(MESSAGE)).scalar_one()
    if found is None:
        return
    facts.survivors = found.survivors
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    expected = np.zeros(plan.coordinates, np.int64)
    for number in acknowledged:
        expected += vectors[number : number + plan.coordinates]
    steps = np.rint(np.frombuffer(found.noised, "<i8") / 2.0**plan.lattice_bits).astype(np.int64)
    facts.exact = bool((steps == expected).all()) and not left


class _Counted(HttpConnection):
    """The SDK's connection, behind a proxy: counts, and holds masked vectors back until all are ready."""

    def __init__(self, url: str, number: int, hold: threading.Barrier) -> None:
        super().__init__(url)
        self._hold, self._from = hold, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        self._began: dict[str, float] = {}
        self.up, self.took, self.refused = 0, dict[str, float](), Counter[str]()
        self.masked: tuple[float, float] | None = None

    def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, largest: int) -> Reply:
        """See `HttpConnection`."""
        phase = path.rpartition("/")[2]
        if method == "POST" and phase == "mask" and phase not in self._began:
            with suppress(threading.BrokenBarrierError):
                self._hold.wait()
        began = self._began.setdefault(phase, time.time()) if method == "POST" else 0.0
        self.up += len(body)
        try:
            reply = super().request(method, path, body, {**headers, "X-Forwarded-For": self._from}, largest=largest)
        except FleetError as error:
            self.refused[f"{phase} {error.reason}: {type(error.__cause__).__name__}"] += 1
            raise
        if reply.status >= 300:
            self.refused[f"{phase} {reply.status}"] += 1
        elif method == "POST":
            self.took[phase] = time.time() - began
            if phase == "mask":
                self.masked = began, time.time()
        return reply


class _InTurn:
    """A device that computes when no other of its process does: hundreds of threads at once starve each other."""

    def __init__(self, device: SecAggDevice, turn: threading.Lock) -> None:
        self._device, self._turn = device, turn

    def __getattr__(self, name: str) -> Callable[..., bytes]:
        def step(*given: Any) -> bytes:
            with self._turn:
                made: bytes = getattr(self._device, name)(*given)
                return made

        return step


def _clients(folder: Path, process: int) -> None:
    """The devices of one process."""
    import urllib3.connection  # noqa: F401  # a device has one thread that imports it; here all would at once

    told = json.loads((folder / "told.json").read_text())
    plan = Plan.decode((folder / "plan.json").read_bytes())
    authority = AuthorityKey.read(folder / "authority.key")
    numbers = range(process, told["devices"], told["processes"])
    hold = threading.Barrier(sum(not _leaves(number) for number in numbers), timeout=plan.round_seconds / 10)
    vectors, turn = np.load(folder / "vectors.npy"), threading.Lock()
    found: list[dict[str, Any]] = []

    def one(number: int) -> None:
        connection = _Counted(told["url"], number, hold)
        vector = None if _leaves(number) else vectors[number : number + plan.coordinates]
        try:
            reason = _take_part(told, plan, authority, connection, lambda: vector, turn)
        except Exception as error:  # noqa: BLE001  told to the parent
            reason = repr(error)
        connection.close()
        if reason not in ("done", "work-stopped"):
            connection.refused[reason] += 1
        values = {"up": connection.up, "took": connection.took, "refused": connection.refused}
        found.append({"number": number, "masked": connection.masked, **values})

    threads = [threading.Thread(target=one, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"devices": found, "cpu_s": time.process_time()}))


def _leaves(number: int) -> bool:
    return number % (100 // DROPPED) == 0


def _take_part(
    told: dict[str, Any],
    plan: Plan,
    authority: AuthorityKey,
    connection: _Counted,
    work: Callable[[], NDArray[np.int64] | None],
    turn: threading.Lock,
) -> str:
    """One device, from its first request to its last; how the round ended for it."""
    trust = FleetFile(SERVER, told["plan_key"], told["url"], '{"signed":{}}')
    gate = Gate(lambda: Conditions(idle=True, charging=True, unmetered=True), Require(), consent=True)
    server, pace = FleetServer(connection, trust, gate, time.time, elapsed_s), Pace(plan.round_seconds)
    identity, name = Identity.create(), secrets.token_hex(16)
    member = Member(plan.plan_id, identity, name, authority.certify(plan.plan_id, name, identity.public()))
    tries = pace.retries()
    time.sleep(uniform() * SPREAD * plan.round_seconds)
    while True:
        try:
            server.info(least_serial=1)
            answer = server.check_in(member)
            break
        except FleetError as error:
            if error.retry_after_s is None:
                return error.reason
            time.sleep(tries.wait_s(error.retry_after_s))
    session = Session.decode(answer.session)
    sizes = {int(phase): padded_bytes(message_size(session, phase)) for phase in Phase}
    run = RoundRun(
        RoundLink(server, member, answer.round, sizes=sizes, largest_reply=REPLY_BYTES + 512 * plan.cohort),
        _InTurn(SecAggDevice(session, identity, member.certificate, cohort_floor=plan.min_cohort), turn),
        work=lambda _: work(),
        spend=lambda: None,
        pace=pace,
        clock=elapsed_s,
    )
    while run.outcome is None:
        time.sleep(run.step(lambda: None))
    return run.outcome.reason


def _one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def main() -> None:
    """Measure and print; ends with an error if a sum is not exact."""
    parser = argparse.ArgumentParser(description="A round of many devices with long vectors, over HTTP.")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--numbers", type=int, default=500_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--round-seconds", type=int, help="default: two a device, at least 300")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--clients", nargs=2, metavar=("FOLDER", "NUMBER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.clients:
        _clients(Path(given.clients[0]), int(given.clients[1]))
        return
    found = {}
    postgres = os.environ.get("HUSHREC_TEST_POSTGRES", "")
    for name, url in {"sqlite": "", **({"postgresql": postgres} if postgres else {})}.items():
        with tempfile.TemporaryDirectory() as folder, own_database(url) as own:
            found[name] = run_round(
                Path(folder),
                own,
                devices=given.devices,
                numbers=given.numbers,
                processes=given.processes,
                round_seconds=given.round_seconds or max(300, 2 * given.devices),
            )
        if not given.json:
            _print(name, found[name])
    if given.json:
        print(json.dumps({name: asdict(facts) for name, facts in found.items()}))
    sys.exit(not all(facts.exact for facts in found.values()))


def _print(name: str, facts: Facts) -> None:
    print(f"\n{name}\n\n| state | s | server, CPU s | p50, p99, longest upload, ms |\n| --- | --- | --- | --- |")
    for state, (seconds, used) in facts.phases.items():
        took = ", ".join(f"{ms:.0f}" for ms in facts.milliseconds.get(state, ()))
        print(f"| {state} | {seconds:.1f} | {used:.1f} | {took} |")
    for what, value in asdict(facts).items():
        if what not in ("phases", "milliseconds"):
            print(f"{what}: {value}")


if __name__ == "__main__":
    main()
