"""Cost of one round of secure aggregation: processor time of server and device, bytes, memory; Flower's beside it.

    python benchmarks/secure_aggregation.py [--devices 100,500,1000] [--numbers 500000] [--repeat 3] [--flower [PYTHON]]

All devices and the server of a round in one process, one thread, no network; each round in a process of its own, so
that its peak of memory is its own. Every device does all of its work in every phase, with fresh keys and its own masks:
it turns its numbers into a vector (clipped, rotated, rounded), and masks that. Two vectors of numbers are shared among
all. 10 % drop out after they shared their secrets, which costs the server most: it has to recover and take away every
mask that they have in common with others. Masked vectors go from a device straight into the sum. The outcome is held
against the survivors' vectors.

With `--flower` the same rounds by Flower's SecAgg+ (`flower_aggregation.py`) come in turn with ours, in one run: as
many numbers and devices, the same k, t and drop-outs. PYTHON is an interpreter that has flwr; without a name one is
made in `.venv-flower`, by pip.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import machine
import numpy as np
from hushrec_privacy.encoding import encode_update
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.randomness import OsRandom
from hushrec_privacy.secagg import Phase, SecAggDevice, Session, accept, close, finish, neighbourhood
from hushrec_privacy.secagg.session import Setting

__all__ = ["main"]

T = TypeVar("T")

COLUMNS = (
    "devices",
    "",
    "k, t",
    "server, CPU s (accepting, closing, unmasking)",
    "a device, CPU s, median (largest)",
    "MB up",
    "MB down",
    "peak MiB",
    "wall s",
)
COMPARED = ("server_s", "device_s", "up_mb", "down_mb", "peak_mib", "wall_s")

RING_BITS, DROPPED = 16, 10  # per cent
FLOWER = "1.42.0"
HERE = Path(__file__).parent


class Measured:
    """One round; what it cost is added up while it runs."""

    def __init__(self, plan: Plan, session: Session, authority: AuthorityKey) -> None:
        devices = plan.cohort
        self.plan, self.session, self.source = plan, session, OsRandom()
        self.numbers = np.random.default_rng(0).normal(size=(2, plan.parameters)).astype(np.float32)
        self.expected = np.zeros(plan.coordinates, np.int64)
        self.up, self.down, self.device_s = ([0] * devices, [0] * devices, [0.0] * devices)
        self.server_s = dict.fromkeys(("accepting", "closing", "unmasking"), 0.0)
        self.devices: list[SecAggDevice] = []
        self._apart_s = 0.0  # of the check
        for index in range(devices):
            identity = Identity.create()
            certificate = authority.certify(plan.plan_id, f"{index:032x}", identity.public())
            self.devices.append(
                self._by_device(
                    index,
                    lambda identity=identity, certificate=certificate: SecAggDevice(  # type: ignore[misc]
                        session, identity, certificate, cohort_floor=2
                    ),
                )
            )

    def run(self) -> None:
        """All six phases, and the check of the sum."""
        state, answers, total = b"", dict.fromkeys(range(len(self.devices)), b""), None
        for phase in Phase:
            gone = {i for i in answers if i % DROPPED == 0} if phase is Phase.MASK else set()
            spoken = self._messages(phase, state, {i: a for i, a in answers.items() if i not in gone})
            if phase is Phase.REVEAL:
                break
            before = self._elsewhere_s()
            start = time.process_time()
            closed = close(self.session, phase, state, spoken)
            within = self._elsewhere_s() - before  # messages are made as they are read
            self.server_s["closing"] += time.process_time() - start - within
            state, answers, total = closed.state, closed.replies, closed.total if closed.total is not None else total
            for index, answer in answers.items():
                self.down[index] += len(answer)
        assert total is not None
        reveals = list(spoken)
        start = time.process_time()
        outcome = finish(self.session, state, total, reveals)
        self.server_s["unmasking"] += time.process_time() - start
        left = len(self.devices) - len(self.devices) // DROPPED
        if (outcome.sum != self.expected).any() or len(outcome.survivors) != left:
            raise SystemExit("the sum is wrong")

    def _elsewhere_s(self) -> float:
        return sum(self.device_s) + self.server_s["accepting"] + self._apart_s

    def _messages(self, phase: Phase, state: bytes, answers: dict[int, bytes]) -> Iterator[tuple[int, bytes]]:
        for index, answer in answers.items():
            message = self._by_device(index, lambda index=index, answer=answer: self._say(phase, index, answer))  # type: ignore[misc]
            self.up[index] += len(message)
            start = time.process_time()
            accept(self.session, phase, state, index, message)
            self.server_s["accepting"] += time.process_time() - start
            yield index, message

    def _say(self, phase: Phase, index: int, answer: bytes) -> bytes:
        device = self.devices[index]
        if phase is Phase.ADVERTISE:
            return device.advertise()
        if phase is Phase.MASK:
            return device.mask(answer, self._vector(index))
        steps = {
            Phase.CHOOSE: device.choose,
            Phase.SHARE: device.share,
            Phase.AGREE: device.agree,
            Phase.REVEAL: device.reveal,
        }
        return steps[phase](answer)

    def _vector(self, index: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        vector = encode_update(self.plan, self.numbers[index % 2], self.source)
        start = time.process_time()
        self.expected += vector
        spent = time.process_time() - start
        self._apart_s += spent
        self.device_s[index] -= spent
        return vector

    def _by_device(self, index: int, work: Callable[[], T]) -> T:
        start = time.process_time()
        done = work()
        self.device_s[index] += time.process_time() - start
        return done


def main() -> None:
    """Print one row for each kind of round, or the figures of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="100,500,1000")
    parser.add_argument("--numbers", type=int, default=500_000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--flower", nargs="?", const="", metavar="PYTHON")
    parser.add_argument("--one", choices=("active", "curious"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(int(options.devices), options.one, options.numbers)))
        return
    flower = None if options.flower is None else options.flower or str(_second_environment())
    machine.main()
    print(f"\n{options.numbers} numbers, {DROPPED} % dropped out; the median of {options.repeat}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for devices in map(int, options.devices.split(",")):
        _compare(devices, options.numbers, options.repeat, flower)


def measure(devices: int, setting: Setting, numbers: int) -> dict[str, Any]:
    """One round of ours, in this process."""
    authority = AuthorityKey(bytes(32))
    plan = make_plan(
        Request(
            population=devices,
            cohort=devices,
            rounds=1,
            delta=1e-6,
            noise_multiplier=1.0,
            parameters=numbers,
            secagg=setting,
            authority=authority.public().hex(),
        )
    )
    assert plan is not None
    least = devices - devices // DROPPED
    session = Session(plan.plan_id, 1, bytes(16), authority.public(), plan.coordinates, RING_BITS, least, setting)
    start = time.perf_counter()
    one = Measured(plan, session, authority)
    one.run()
    stayed = [s for index, s in enumerate(one.device_s) if index % DROPPED]
    return {
        "server_s": sum(one.server_s.values()),
        "parts_s": list(one.server_s.values()),
        "device_s": statistics.median(stayed),
        "most_s": max(stayed),
        "up_mb": max(one.up) / 1e6,
        "down_mb": max(one.down) / 1e6,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "wall_s": time.perf_counter() - start,
    }


def _compare(devices: int, numbers: int, repeat: int, flower: str | None) -> None:
    """Rounds of one size by each in turn, and their rows."""
    k, t = _agreed(devices, "curious")
    ours, theirs = (sys.executable, str(HERE / "secure_aggregation.py")), str(HERE / "flower_aggregation.py")
    commands = {f"hushrec, {setting} server": [*ours, "--one", setting] for setting in ("active", "curious")}
    if flower is not None:
        commands[f"Flower {FLOWER}, curious server"] = [flower, theirs, "--neighbours", str(k), "--threshold", str(t)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    for _ in range(repeat):
        for name, command in commands.items():
            size = ["--devices", str(devices), "--numbers", str(numbers)]
            told = subprocess.run([*command, *size], stdout=subprocess.PIPE, check=True, text=True)
            found[name].append(json.loads(told.stdout))
    middle = {name: _median(rounds) for name, rounds in found.items()}
    for name, values in middle.items():
        parts = ", ".join(f"{s:.2f}" for s in values["parts_s"])
        agreed = "{}, {}".format(*_agreed(devices, "active" if "active" in name else "curious"))
        cells = [
            f"{values['server_s']:.2f}" + (f" ({parts})" if parts else ""),
            f"{values['device_s']:.3f} ({values['most_s']:.3f})",
            f"{values['up_mb']:.3f}",
            f"{values['down_mb']:.3f}",
            f"{values['peak_mib']:.0f}",
            f"{values['wall_s']:.0f}",
        ]
        print(f"| {' | '.join((f'{devices:,}', name, agreed, *cells))} |", flush=True)
    if flower is not None:
        *mine, other = middle.items()
        for name, values in mine:
            ratios = [f"{values[key] / other[1][key]:.2f}" for key in COMPARED]
            print(f"| {' | '.join((f'{devices:,}', f'{name}, of Flower', '', *ratios))} |", flush=True)


def _agreed(devices: int, setting: Setting) -> tuple[int, int]:
    found = neighbourhood(devices, setting)
    return found.chosen, found.threshold


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure, and of each part of the server's time."""
    single = {key: statistics.median(each[key] for each in rounds) for key in rounds[0] if key != "parts_s"}
    parts = zip(*(each["parts_s"] for each in rounds), strict=True)
    return {**single, "parts_s": [statistics.median(part) for part in parts]}


def _second_environment() -> Path:
    """The interpreter of an environment with Flower, which pins what it needs; made if it is missing."""
    folder = HERE.parent / ".venv-flower"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"flwr=={FLOWER}"], check=True)
    return python


if __name__ == "__main__":
    main()
