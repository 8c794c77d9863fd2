"""A fleet of processes over loopback: one server, one authority, many devices, a fifth of them killed in every round.

    python benchmarks/fleet.py [BUNDLE] [--devices 50] [--cohort 44] [--rounds 5] [--round-seconds 200] [--json]

BUNDLE is one that devices can train on, as `hushrec quantize` makes it; without one, that of `make demo`. The server
is what `hushrec serve` runs, with SQLite and releases; the authority is `hushrec authority serve`; each device is a
`FleetClient` in a process of its own, with a profile, that fetches the releases and trains. The plan is a DEMO: 50
devices protect nobody. A round with fewer than four fifths of its cohort at the end of a phase is aborted, as it must
be: the cohort leaves room for the dead.

In every round a quarter of the devices is to be killed by SIGKILL just before or after it sends one of the messages,
all of them in turn, and started again. Nothing of the product is changed but two notes for the check: the server writes
down each round's sum before its noise, a device what it made and at which place in the round.

Afterwards: each sum is exactly that of the vectors of its survivors; no device handed in two masked vectors in a round;
every device's own record has each round that it is in; the server's ledger has each round once; and each published
round made one release.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hushrec_privacy.ledger import LedgerStore

__all__ = ["Facts", "Kill", "main", "plan_kills", "run_fleet"]

PHASES = ("advertise", "choose", "share", "mask", "agree", "reveal")
SERVER = "demo"
LEAD_S, LEAD_A_DEVICE_S = 10, 3.0  # for the processes to start before the first round
PAUSE_S = 2.0
EVENTS = 24
VAULT_KEY = bytes(31) + b"k"


@dataclass(frozen=True)
class Kill:
    """One device is to die.

    Attributes:
        device: Its number.
        round_number: In which round.
        phase: At which message.
        after: Just after the message was answered; else just before it is sent.
    """

    device: int
    round_number: int
    phase: str
    after: bool


@dataclass
class Facts:
    """What was found.

    Attributes:
        devices: How many.
        rounds: Of the plan.
        seconds: From the first round's time to the last outcome.
        summed: Survivors of each round that came to a sum.
        kills: How often a device died, by message and side.
        published: Releases that rounds made.
        spent: Rounds in the server's ledger.
        exact: Rounds whose sum was exactly that of its survivors' vectors.
        masked_twice: Devices that handed in two masked vectors in a round.
        not_on_record: Survivors whose own record lacks the round.
    """

    devices: int
    rounds: int
    seconds: float = 0.0
    summed: dict[int, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    published: int = 0
    spent: int = 0
    exact: int = 0
    masked_twice: int = 0
    not_on_record: int = 0


def plan_kills(devices: int, rounds: int, seed: int = 0) -> list[Kill]:
    """A quarter of the devices in each round, each message and side in turn.

    Those that have no place in the round never get to their point: about a fifth dies.
    """
    rng, kills = random.Random(seed), list[Kill]()
    for round_number in range(1, rounds + 1):
        for device in rng.sample(range(devices), devices // 4):
            place = len(kills) % (2 * len(PHASES))
            kills.append(Kill(device, round_number, PHASES[place // 2], bool(place % 2)))
    return kills


def run_fleet(
    folder: Path, bundle: Path, *, devices: int, cohort: int, rounds: int, round_seconds: int, kills: list[Kill]
) -> Facts:
    """Run all of it and check it.

    Args:
        folder: For everything; must not exist.
        bundle: The first release.
        devices: How many.
        cohort: Of a round.
        rounds: Of the plan.
        round_seconds: From one round to the next.
        kills: Who dies, and when.
    """
    (folder / "notes").mkdir(parents=True)
    shop = _Shop(folder, bundle, (devices, cohort), rounds, round_seconds)
    facts = Facts(devices, rounds)
    running = _Processes(folder)
    try:
        login = running.start(
            "authority", [sys.executable, "-c", _HUSHREC, "authority", "serve", shop.authority, "--port", 0]
        )
        shop.write_trust(login)
        url = running.start("server", [sys.executable, __file__, "--server", shop.server_config()])
        crowd = {n: _Device(n, folder, url, [kill for kill in kills if kill.device == n]) for n in range(devices)}
        for device in crowd.values():
            device.start()
            time.sleep(PAUSE_S)  # all at once, starting interpreters would be all that the machine does
        try:
            _watch(shop, crowd, facts)
        finally:
            for device in crowd.values():
                device.stop()
    finally:
        running.stop()
    _check(shop, facts)
    return facts


_HUSHREC = "from hushrec_cli.main import run; run()"


class _Shop:
    """Keys, plan, releases and folders of a shop."""

    def __init__(self, folder: Path, bundle: Path, crowd: tuple[int, int], rounds: int, round_seconds: int) -> None:
        from hushrec.bundle import Bundle
        from hushrec.federated.layout import ParameterLayout
        from hushrec_privacy.plans.planner import Request, make_plan
        from hushrec_privacy.plans.signing import PlanKey
        from hushrec_server.authority import create_authority
        from hushrec_server.releases import ReleaseKeys, ReleaseRepository

        self.folder, self.data, self.authority = folder, folder / "server", folder / "authority"
        self.key = PlanKey.create(folder / "plan.key")
        parameters = ParameterLayout.of(Bundle.open(bundle).manifest, "adapter").size
        plan = make_plan(
            Request(
                population=crowd[0],
                cohort=crowd[1],
                rounds=rounds,
                delta=1e-6,
                noise_multiplier=2.0,
                parameters=parameters,
                round_seconds=round_seconds,
                first_round_at=int(time.time() + LEAD_S + LEAD_A_DEVICE_S * crowd[0]),
                authority=create_authority(self.authority).hex(),
            )
        )
        assert plan is not None
        self.plan = plan
        (folder / "plan.json").write_bytes(plan.encode())
        (folder / "plan.json.sig").write_bytes(self.key.sign(plan))
        self._write_keys()
        keys = ReleaseKeys.create(folder / "offline", self.data / "online")
        self.repository = ReleaseRepository.create(self.data / "releases", keys, clock=time.time)
        self.repository.publish(bundle, ledger_head=None, demo=True)
        shutil.copy2(folder / "offline" / "targets.key", self.data / "online")  # the server of a fleet publishes

    def _write_keys(self) -> None:
        from hushrec_privacy.envelope import PUBLIC_KEY_BYTES
        from hushrec_server.data_folder import prepare_folder, read_public_key
        from hushrec_server.key_sets import next_key_set, signed_key_set

        prepare_folder(self.data, _quiet)
        public = read_public_key(self.data / "envelope-1.pub", "envelope key", PUBLIC_KEY_BYTES)
        key_set = next_key_set(public, server=SERVER, at_s=int(time.time()), lifetime_s=86_400)
        (self.data / "keys.json").write_bytes(signed_key_set(self.key, key_set))
        (self.data / "plan.pub").write_text(self.key.public().hex() + "\n")

    def write_trust(self, login: str) -> None:
        from hushrec.fleet import FleetFile

        root = (self.data / "releases" / "metadata" / "1.root.json").read_text()
        (self.folder / "fleet.json").write_bytes(FleetFile(SERVER, self.key.public().hex(), login, root).encode())

    def server_config(self) -> Path:
        path = self.folder / "hushrec.toml"
        path.write_text(
            f'[server]\nname = "{SERVER}"\nport = 0\ndata = "server"\nplans = ["plan.json"]\n'
            "[limits]\naddress_per_minute = 1000000\ndevice_per_minute = 100000\n"
        )
        return path


class _Processes:
    """Servers that say `ready URL` when they answer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[subprocess.Popen[str], IO[str]]] = []

    def start(self, name: str, command: list[object]) -> str:
        log = (self._folder / f"{name}.log").open("w")
        process = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=log, text=True, env=_environment()
        )
        self._running.append((process, log))
        assert process.stdout is not None
        line = process.stdout.readline().split()
        if line[:1] != ["ready"]:
            raise RuntimeError(f"{name} did not start: {(self._folder / f'{name}.log').read_text()[-2_000:]}")
        return line[1]

    def stop(self) -> None:
        for process, log in self._running:
            _end(process)
            log.close()


class _Device:
    """One device's process, started again when it was killed."""

    def __init__(self, number: int, folder: Path, url: str, kills: list[Kill]) -> None:
        self.number, self._folder, self._url, self._kills = number, folder, url, kills
        self._process: subprocess.Popen[bytes] | None = None
        (folder / f"device-{number}").mkdir()

    def start(self) -> None:
        config = self._folder / f"device-{self.number}" / "config.json"
        kills = [asdict(kill) for kill in self._kills]
        config.write_text(json.dumps({"number": self.number, "url": self._url, "kills": kills}))
        with (self._folder / f"device-{self.number}" / "log").open("ab") as log:
            command = [sys.executable, __file__, "--device", str(config)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment())

    def look(self) -> str | None:
        """If it died as it should, start it again, and say where it died.

        Raises:
            RuntimeError: It ended in another way.
        """
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return None
        died = self._folder / f"device-{self.number}" / "died"
        if code != -signal.SIGKILL or not died.exists():
            raise RuntimeError((self._folder / f"device-{self.number}" / "log").read_text()[-3_000:])
        told = Kill(**json.loads(died.read_text()))
        died.unlink()
        self._kills.remove(told)
        self.start()
        return f"{'after' if told.after else 'before'} {told.phase}"

    def stop(self) -> None:
        if self._process is not None:
            _end(self._process)


def _watch(shop: _Shop, crowd: Mapping[int, _Device], facts: Facts) -> None:
    """Until every round came to a sum, or its time is over."""
    last = shop.plan.first_round_at + (shop.plan.rounds + 1) * shop.plan.round_seconds
    while time.time() < last and len(list((shop.folder / "notes").glob("sum-*.npz"))) < shop.plan.rounds:
        for device in crowd.values():
            where = device.look()
            if where is not None:
                facts.kills[where] = facts.kills.get(where, 0) + 1
        time.sleep(0.1)
    facts.seconds = time.time() - shop.plan.first_round_at
    newest, until = 0, time.time() + 20
    while time.time() < until and newest <= len(list((shop.folder / "notes").glob("sum-*.npz"))):
        newest = shop.repository.list()[-1].model_version
        time.sleep(0.2)


def _check(shop: _Shop, facts: Facts) -> None:
    from hushrec.vault import Vault
    from hushrec.vault_ledger import VaultLedgerStore
    from hushrec_privacy.ledger import verify
    from hushrec_server.database import Database
    from hushrec_server.ledger_store import DatabaseLedgerStore

    notes = shop.folder / "notes"
    records = {}
    for number in range(facts.devices):
        with Vault.open(shop.folder / f"device-{number}" / "fleet" / "vault.db", VAULT_KEY) as vault:
            records[number] = _spent(VaultLedgerStore(vault))
    for path in sorted(notes.glob("sum-*.npz")):
        with np.load(path) as outcome:
            number, total, places = int(path.stem.split("-")[1]), outcome["sum"], outcome["survivors"].tolist()
        facts.summed[number] = len(places)
        made = [np.load(notes / f"vector-{number}-{place}.npy") for place in places]
        facts.exact += bool(np.array_equal(total, np.sum(made, axis=0)))
        who = [int((notes / f"place-{number}-{place}").read_text()) for place in places]
        facts.not_on_record += sum(number not in records[device] for device in who)
    masked = Counter(path.name.rsplit("-", 1)[0] for path in notes.glob("masked-*"))
    facts.masked_twice = sum(count > 1 for count in masked.values())
    database = Database.open(f"sqlite:///{shop.data / 'hushrec.sqlite'}")
    facts.spent = verify(DatabaseLedgerStore(database)).plans[shop.plan.plan_id].rounds
    database.close()
    facts.published = shop.repository.list()[-1].model_version - shop.repository.list()[0].model_version


def _spent(record: "LedgerStore") -> set[int]:
    """The rounds on a device's record."""
    from hushrec_privacy.ledger import Spend, history

    return {entry.first for _, entry in history(record) if isinstance(entry, Spend)}


def _serve(config: Path) -> None:
    """The server's process: `hushrec serve`, and a note of each sum before its noise."""
    from hushrec_cli.serve import serve
    from hushrec_server.rounds.secagg import SecAggPlus

    notes, finish = config.parent / "notes", SecAggPlus.finish

    def noted(self: SecAggPlus, session: bytes, *rest: Any) -> Any:
        found = finish(self, session, *rest)
        number = int.from_bytes(session[33:41], "big")
        _write(notes / f"sum-{number}.npz", lambda file: np.savez(file, sum=found.sum, survivors=found.survivors))
        return found

    setattr(SecAggPlus, "finish", noted)  # noqa: B010 - a note for the check, and no option of the product
    serve(config)


def _take_part(config: Path) -> None:
    """A device's process: a shopper with a few events, and a client that runs until it is killed or told to end."""
    from hushrec.profile import Profile

    told, folder = json.loads(config.read_text()), config.parent
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    with Profile(folder / "profile") as profile:
        if not profile.counts():
            rng = random.Random(told["number"])
            for at in range(EVENTS):
                profile.append(f"item-{rng.randrange(1, 60)}", "view", at_us=(1_600_000_000 + at) * 10**6)
        client = _watched(told, folder, profile)
        with client:
            while True:
                time.sleep(min(client.step(), 0.5))


def _watched(told: dict[str, Any], folder: Path, profile: Any) -> Any:
    """A client that dies when it should, and notes what it made."""
    from hushrec.fleet import Conditions, FleetClient, FleetFile, FleetSettings
    from hushrec.fleet.http import Connection, HttpConnection, Reply
    from hushrec.fleet.participant import Parts
    from hushrec_privacy.enrolment import login_token
    from hushrec_privacy.plans.limits import UnsafeDemoLimits

    number, notes = int(told["number"]), folder.parent / "notes"
    kills = [Kill(**kill) for kill in told["kills"]]

    def die(path: str, *, after: bool) -> None:
        for kill in kills:
            if kill.after is after and path.endswith(f"/rounds/{kill.round_number}/{kill.phase}"):
                (folder / "died").write_text(json.dumps(asdict(kill)))
                os.kill(os.getpid(), signal.SIGKILL)

    class Deadly(HttpConnection):
        def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, largest: int) -> Reply:
            if method == "POST":
                die(path, after=False)
            reply = super().request(method, path, body, headers, largest=largest)
            if method == "POST" and reply.status < 300:
                if path.endswith("/mask"):
                    (notes / f"masked-{path.split('/')[-2]}-{number}-{os.getpid()}").touch()
                die(path, after=True)
            return reply

    class Watched(FleetClient):
        def _connection(self, url: str) -> Connection:
            return Deadly(url)

        def _parts(self, server: Connection) -> Parts:
            parts = super()._parts(server)
            _note(parts, notes, number)
            return parts

    login = (folder.parent / "authority" / "login.key").read_bytes()
    return Watched(
        told["url"],
        profile,
        FleetSettings(
            trust=FleetFile.read(folder.parent / "fleet.json"),
            folder=folder / "fleet",
            vault_key=VAULT_KEY,
            limits=UnsafeDemoLimits(lifetime_rho=1e6),
        ),
        conditions=lambda: Conditions(idle=True, charging=True, unmetered=True),
        token=lambda plan_id: login_token(login, f"account {number}", plan_id, int(time.time()) + 600),
        consent=True,
    )


def _note(parts: Any, notes: Path, number: int) -> None:
    """Note each vector under its round and its place there."""
    check_in, vector, places = parts.server.check_in, parts.contributor.vector, dict[int, int]()

    def noted_check_in(member: Any) -> Any:
        answer = check_in(member)
        places[answer.round] = answer.index
        return answer

    def noted_vector(accepted: Any, round_number: int, *rest: Any) -> NDArray[np.int64] | None:
        found: NDArray[np.int64] | None = vector(accepted, round_number, *rest)
        if found is not None:
            made = found
            _write(notes / f"vector-{round_number}-{places[round_number]}.npy", lambda file: np.save(file, made))
            (notes / f"place-{round_number}-{places[round_number]}").write_text(str(number))
        return found

    parts.server.check_in, parts.contributor.vector = noted_check_in, noted_vector


def _write(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a note whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("wb") as file:
        write(file)
    part.replace(path)


def _end(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _quiet(_text: str) -> None:
    """For who wants to talk."""


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path, nargs="?", default=Path("hushrec-demo/online_retail.hush"))
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--cohort", type=int, default=44)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-seconds", type=int, default=200)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--server", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.server or given.device:
        _serve(given.server) if given.server else _take_part(given.device)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "fleet"
        kills = plan_kills(given.devices, given.rounds)
        facts = run_fleet(
            folder,
            given.bundle,
            devices=given.devices,
            cohort=given.cohort,
            rounds=given.rounds,
            round_seconds=given.round_seconds,
            kills=kills,
        )
    found = asdict(facts)
    print(json.dumps(found) if given.json else "\n".join(f"{name}\t{value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
