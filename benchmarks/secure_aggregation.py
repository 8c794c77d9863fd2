"""Cost of one round of secure aggregation: processor time of the server and of a device, bytes up and down.

    python benchmarks/secure_aggregation.py [--devices 100,500,1000] [--settings active,curious] [--coordinates 524288]

All devices and the server in one process, one thread, no network. Every device does all of its work in every phase,
with fresh keys and its own masks; only the vectors' content is shared, two of them among all. 10 % drop out after they
shared their secrets, which costs the server most: it has to recover and take away every mask that they have in common
with others. Masked vectors go from a device straight into the sum. The outcome is held against the survivors' vectors.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import machine
import numpy as np
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.secagg import Phase, SecAggDevice, Session, accept, close, finish, neighbourhood
from hushrec_privacy.secagg.session import Setting

__all__ = ["main"]

T = TypeVar("T")

COLUMNS = (
    "devices",
    "server",
    "k, t",
    "server CPU-s (accepting, closing, unmasking)",
    "device CPU-s, median (largest)",
    "MB up",
    "MB down",
    "wall s",
    "MiB at peak",
)

PLAN_ID, RING_BITS, DROPPED = "ab" * 32, 16, 10  # per cent


class Measured:
    """One round; what it cost is added up while it runs."""

    def __init__(self, session: Session, authority: AuthorityKey, devices: int) -> None:
        self.session = session
        limit = 2 ** (RING_BITS - 1) // devices
        self.vectors = np.random.default_rng(0).integers(-limit, limit, (2, session.coordinates), dtype=np.int64)
        self.up, self.down, self.device_s = ([0] * devices, [0] * devices, [0.0] * devices)
        self.server_s = dict.fromkeys(("accepting", "closing", "unmasking"), 0.0)
        self.devices: list[SecAggDevice] = []
        for index in range(devices):
            identity = Identity.create()
            certificate = authority.certify(PLAN_ID, f"{index:032x}", identity.public())
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
            before = sum(self.device_s) + self.server_s["accepting"]
            start = time.process_time()
            closed = close(self.session, phase, state, spoken)
            within = sum(self.device_s) + self.server_s["accepting"] - before  # messages are made as they are read
            self.server_s["closing"] += time.process_time() - start - within
            state, answers, total = closed.state, closed.replies, closed.total if closed.total is not None else total
            for index, answer in answers.items():
                self.down[index] += len(answer)
        assert total is not None
        reveals = list(spoken)
        start = time.process_time()
        outcome = finish(self.session, state, total, reveals)
        self.server_s["unmasking"] += time.process_time() - start
        survivors = np.array(outcome.survivors)
        expected = (survivors % 2 == 0).sum() * self.vectors[0] + (survivors % 2 == 1).sum() * self.vectors[1]
        if (outcome.sum != expected).any() or len(survivors) != len(self.devices) - len(self.devices) // DROPPED:
            raise SystemExit("the sum is wrong")

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
            return device.mask(answer, self.vectors[index % 2])
        steps = {
            Phase.CHOOSE: device.choose,
            Phase.SHARE: device.share,
            Phase.AGREE: device.agree,
            Phase.REVEAL: device.reveal,
        }
        return steps[phase](answer)

    def _by_device(self, index: int, work: Callable[[], T]) -> T:
        start = time.process_time()
        done = work()
        self.device_s[index] += time.process_time() - start
        return done


def main() -> None:
    """Print one row a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="100,500,1000")
    parser.add_argument("--settings", default="active,curious")
    parser.add_argument("--coordinates", type=int, default=524_288)
    options = parser.parse_args()
    machine.main()
    print(f"\n{options.coordinates} coordinates of {RING_BITS} bits, {DROPPED} % dropped out\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for devices in map(int, options.devices.split(",")):
        for setting in options.settings.split(","):
            print(measure(devices, setting, options.coordinates), flush=True)


def measure(devices: int, setting: Setting, coordinates: int) -> str:
    """One round as a row of the table."""
    authority = AuthorityKey(bytes(32))
    least = devices - devices // DROPPED
    session = Session(PLAN_ID, 1, bytes(16), authority.public(), coordinates, RING_BITS, least, setting)
    start = time.perf_counter()
    one = Measured(session, authority, devices)
    one.run()
    wall = time.perf_counter() - start
    agreed, parts = neighbourhood(devices, setting), ", ".join(f"{s:.2f}" for s in one.server_s.values())
    stayed = [s for index, s in enumerate(one.device_s) if index % DROPPED]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cells = (
        f"{devices:,}",
        setting,
        f"{agreed.chosen}, {agreed.threshold}",
        f"{sum(one.server_s.values()):.2f} ({parts})",
        f"{statistics.median(stayed):.3f} ({max(stayed):.3f})",
        f"{max(one.up) / 1e6:.3f}",
        f"{max(one.down) / 1e6:.3f}",
        f"{wall:.0f}",
        f"{peak:.0f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
