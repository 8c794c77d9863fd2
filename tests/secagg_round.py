"""One round of secure aggregation in memory: real devices, the real server, and a place to lie at every message."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.secagg import Outcome, Phase, SecAggDevice, Session, accept, close, finish
from numpy.typing import NDArray

PLAN_ID = "ab" * 32
AUTHORITY = AuthorityKey(bytes(range(32)))

Lie = Callable[[Phase, int, bytes], bytes]


def session(min_devices: int = 3, *, coordinates: int = 8, ring_bits: int = 16, setting: str = "active") -> Session:
    """A session of the test's plan; `attempt` is fixed, since the keys are fresh anyway."""
    return Session(
        PLAN_ID,
        7,
        b"attempt of tests",
        AUTHORITY.public(),
        coordinates,
        ring_bits,
        min_devices,
        setting,  # type: ignore[arg-type]
    )


def enrolled(number: int, plan_id: str = PLAN_ID) -> tuple[Identity, bytes]:
    """The identity of a test's device, and its certificate."""
    identity = Identity.from_bytes(number.to_bytes(32, "big"))
    return identity, AUTHORITY.certify(plan_id, f"{number:032x}", identity.public())


def device(of: Session, number: int, *, cohort_floor: int = 2) -> SecAggDevice:
    """A device before its first message."""
    identity, certificate = enrolled(number)
    return SecAggDevice(of, identity, certificate, cohort_floor=cohort_floor)


class Round:
    """Devices and server of one round, a phase at a time.

    Attributes:
        messages: What was accepted, by phase and index.
        replies: What the server answered, by phase and index.
        states: What each close left; that of ADVERTISE needs none.
    """

    def __init__(self, of: Session, vectors: NDArray[np.int64]) -> None:
        self.session, self.vectors = of, vectors
        self.devices = {index: device(of, index + 1) for index in range(len(vectors))}
        self.messages: dict[Phase, dict[int, bytes]] = {}
        self.replies: dict[Phase, dict[int, bytes]] = {}
        self.states = {Phase.ADVERTISE: b""}
        self.total: NDArray[np.uint64] | None = None

    def message(self, phase: Phase, index: int, answer: bytes = b"") -> bytes:
        """What a device says in a phase, to an answer."""
        one = self.devices[index]
        if phase is Phase.ADVERTISE:
            return one.advertise()
        if phase is Phase.MASK:
            return one.mask(answer, self.vectors[index])
        step = {Phase.CHOOSE: one.choose, Phase.SHARE: one.share, Phase.AGREE: one.agree, Phase.REVEAL: one.reveal}
        return step[phase](answer)

    def collect(self, phase: Phase, gone: Iterable[int] = ()) -> None:
        """Let every device speak that was answered before, but those that drop out now; each is accepted."""
        answers = self.replies.get(Phase(max(1, phase - 1)), dict.fromkeys(self.devices, b""))
        left = [index for index in answers if index not in set(gone)]
        self.messages[phase] = {index: self.message(phase, index, answers[index]) for index in left}
        for index, message in self.messages[phase].items():
            accept(self.session, phase, self.states[phase], index, message)

    def close(self, phase: Phase) -> None:
        """End a phase."""
        closed = close(self.session, phase, self.states[phase], self.messages[phase].items())
        self.replies[phase], self.states[Phase(phase + 1)] = closed.replies, closed.state
        self.total = closed.total if closed.total is not None else self.total

    def until(self, last: Phase, gone: Mapping[Phase, Iterable[int]] | None = None) -> "Round":
        """Run and close every phase before `last`."""
        for phase in Phase:
            if phase < last:
                self.collect(phase, (gone or {}).get(phase, ()))
                self.close(phase)
        return self

    def finish(self) -> Outcome:
        """The outcome, from what was revealed."""
        assert self.total is not None
        return finish(self.session, self.states[Phase.REVEAL], self.total, self.messages[Phase.REVEAL].items())

    def run(self, gone: Mapping[Phase, Iterable[int]] | None = None) -> Outcome:
        """The whole round."""
        self.until(Phase.REVEAL, gone).collect(Phase.REVEAL, (gone or {}).get(Phase.REVEAL, ()))
        return self.finish()


def small_vectors(devices: int, coordinates: int = 8, *, limit: int = 100) -> NDArray[np.int64]:
    """Vectors whose sum does not wrap, the same every time, shape (`devices`, `coordinates`)."""
    return np.random.default_rng(devices).integers(-limit, limit, (devices, coordinates), dtype=np.int64)
