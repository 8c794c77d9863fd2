"""The devices of `killed_server.py`: the product's own part of a round, over HTTP, with vectors that are made up."""

import random
import time
from collections.abc import Callable, Mapping

import numpy as np
from hushrec.fleet.conditions import Conditions, Require
from hushrec.fleet.gate import Gate
from hushrec.fleet.http import HttpConnection, Reply
from hushrec.fleet.pacing import Pace
from hushrec.fleet.round_run import RoundRun, Stage
from hushrec.fleet.server import FleetServer, Member, RoundLink
from hushrec.messages import padded_bytes
from hushrec_privacy.encoding.vectors import encode_update, join_segments
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.errors import FleetError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.schema import EVALUATION, GAIN
from hushrec_privacy.randomness import OsRandom
from hushrec_privacy.secagg import Phase, SecAggDevice, Session, message_size
from killed_server_shop import Shop
from numpy.typing import NDArray

__all__ = ["Device"]

REPLY_BYTES = 1 << 18
AGAIN_S = 0.02
CHECK_IN_S = 120.0  # of real time: a server may be dead, and the next one starting


class Device:
    """One device, in one round at a time.

    Args:
        number: Which one.
        shop: Whom it trusts.
        authority: Certifies it.
        addresses: Gives the servers that answer now.
        begins: Told of a phase before its message is sent for the first time.
        acknowledged: Told of round, phase and place when a server has answered.
        rng: Of its vectors, and of the servers that it asks.

    Attributes:
        place: In the round; -1: none.
        session: What the server said that the round is.
        vector: What it hands in, shape (d,), int64.
    """

    def __init__(
        self,
        number: int,
        shop: Shop,
        authority: AuthorityKey,
        *,
        addresses: Callable[[], list[str]],
        begins: Callable[[int], None],
        acknowledged: Callable[[int, int, int], None],
        rng: random.Random,
    ) -> None:
        self._clock, self._begins, self._acknowledged = shop.clock, begins, acknowledged
        self._rng = np.random.default_rng(rng.getrandbits(64))
        self._members = {plan.plan_id: _member(plan.plan_id, number, authority) for plan in shop.plans}
        gate = Gate(lambda: Conditions(idle=True, charging=True, unmetered=True), Require(), consent=True)
        self._connection = _AnyServer(addresses, random.Random(number))
        self._server = FleetServer(self._connection, shop.trust, gate, self._clock, self._clock)
        self._run: RoundRun | None = None
        self.place, self.session, self.vector = -1, b"", np.zeros(0, np.int64)

    def check_in(self, plan: Plan, round_number: int, gain: float) -> None:
        """Look at the fleet, get a place in a round, and prepare for it.

        Args:
            plan: Of which plan.
            round_number: The one that is due.
            gain: By how much the candidate's NDCG is better here, if that is what the plan counts.

        Raises:
            FleetError: It gets none, or nobody answers for two minutes.
        """
        until, member = time.monotonic() + CHECK_IN_S, self._members[plan.plan_id]
        while True:
            try:
                self._server.info(least_serial=1)
                answer = self._server.check_in(member)
                break
            except FleetError as error:
                if error.retry_after_s != 0 or time.monotonic() > until:
                    raise
            time.sleep(AGAIN_S)
        session = Session.decode(answer.session)
        if answer.round != round_number or session.round_number != round_number:
            raise RuntimeError(f"round {answer.round} was given, {round_number} is due")
        self.place, self.session, self.vector = answer.index, answer.session, self._made(plan, gain)
        sizes = {int(phase): padded_bytes(message_size(session, phase)) for phase in Phase}
        self._run = RoundRun(
            _Link(self, member, answer.round, sizes),
            SecAggDevice(session, member.identity, member.certificate, cohort_floor=2),
            work=lambda _: self.vector,
            spend=lambda: None,
            pace=_Pace(plan.round_seconds),
            clock=self._clock,
        )

    def step(self) -> None:
        """Do one thing, without the pauses that a device makes."""
        assert self._run is not None
        self._run.step(lambda: None)

    def close(self) -> None:
        """Let go of all sockets."""
        self._connection.close()

    @property
    def outcome(self) -> str:
        """Why it left the round; empty: it is in it."""
        return "" if self._run is None or self._run.outcome is None else self._run.outcome.reason

    def is_at(self, phase: int, *, waits: bool) -> bool:
        """Whether it waits for the answer of a phase, or has its message still to send."""
        assert self._run is not None
        return self._run.phase == phase and (self._run.stage is Stage.WAIT) == waits

    def _made(self, plan: Plan, gain: float) -> NDArray[np.int64]:
        if plan.compares:
            found = {EVALUATION: np.array([1.0, 0.5, 1.0]), GAIN: np.array([0.0, gain])}
            return encode_update(plan, join_segments(plan, found), OsRandom())
        limit = plan.coordinate_limit
        return self._rng.integers(-limit, limit + 1, plan.coordinates, dtype=np.int64)


class _Pace(Pace):
    """Time stands still here while nobody turns the clock."""

    @property
    def work_s(self) -> float:
        """Nothing to be silent for."""
        return 0.0


def _member(plan_id: str, number: int, authority: AuthorityKey) -> Member:
    identity, name = Identity.create(), f"{number:032x}"
    return Member(plan_id, identity, name, authority.certify(plan_id, name, identity.public()))


class _Link(RoundLink):
    """A round's messages, with a word before and after each."""

    def __init__(self, device: Device, member: Member, round_number: int, sizes: dict[int, int]) -> None:
        super().__init__(device._server, member, round_number, sizes=sizes, largest_reply=REPLY_BYTES)
        self._device, self._number, self._begun = device, round_number, 0

    def upload(self, phase: int, message: bytes) -> None:
        """See `RoundWire`."""
        if phase > self._begun:
            self._begun = phase
            self._device._begins(phase)
        super().upload(phase, message)
        self._device._acknowledged(self._number, phase, self._device.place)


class _AnyServer:
    """Asks any server that answers, as behind a proxy; whoever died is known by the connection that broke."""

    def __init__(self, addresses: Callable[[], list[str]], rng: random.Random) -> None:
        self._addresses, self._rng = addresses, rng
        self._kept: dict[str, HttpConnection] = {}

    def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, largest: int) -> Reply:
        """See `HttpConnection`."""
        there = self._addresses()
        for url in self._kept.keys() - there:
            self._kept.pop(url).close()
        if not there:
            time.sleep(AGAIN_S)
            raise FleetError("no server answers", reason="unreachable", retry_after_s=0)
        url = self._rng.choice(there)
        return self._kept.setdefault(url, HttpConnection(url)).request(method, path, body, headers, largest=largest)

    def close(self) -> None:
        """Let go of all sockets."""
        for connection in self._kept.values():
            connection.close()
