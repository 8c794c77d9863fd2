"""A whole fleet in one process: the real server and authority behind the real HTTP application, without a socket.

Devices are real `FleetClient`s over a connection that calls the application. Time stands still until a test moves it.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from hushrec.bundle import Bundle
from hushrec.fleet import http
from hushrec.fleet.client import FleetClient
from hushrec.fleet.conditions import Conditions
from hushrec.fleet.contribution import Contribution, Contributor
from hushrec.fleet.fleet_file import FleetFile
from hushrec.fleet.http import Reply
from hushrec.fleet.joining import Accepted
from hushrec.fleet.settings import FleetSettings
from hushrec.fleet.worker import LONGEST_SLEEP_S
from hushrec.messages import CertificateAnswer, CertificateBody, problem_of, read_json, status_of
from hushrec.profile import Profile
from hushrec.recommender import Recommender
from hushrec_privacy.envelope import EnvelopeKey, KeySet, ServerKey
from hushrec_privacy.errors import HushrecError
from hushrec_privacy.mechanisms.seal import SealKey
from hushrec_privacy.plans.limits import DeviceLimits, UnsafeDemoLimits
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.plans.planner import Request, make_plan
from hushrec_privacy.plans.signing import PlanKey
from hushrec_server.app import server_app
from hushrec_server.authority import Authority, create_authority
from hushrec_server.config import LimitSettings
from hushrec_server.database import Database
from hushrec_server.device_requests import DeviceRequests
from hushrec_server.front import AdminToken, Front
from hushrec_server.metrics import Metrics
from hushrec_server.publishing import Newest, RoundResult, StoredResults, Verdict
from hushrec_server.rates import TokenBuckets
from hushrec_server.readiness import Readiness
from hushrec_server.rounds.aggregation import Outcome
from hushrec_server.rounds.secagg import SecAggPlus
from hushrec_server.service import FleetService
from hushrec_server.service import FleetSettings as ServerSettings
from hushrec_server.slow_clients import BodyRoom
from numpy.typing import NDArray

from tests.asgi import ask
from tests.tiny_bundle import tiny_bundle

__all__ = ["GOOD", "ROUND_S", "START", "Clock", "Given", "TestClient", "WholeFleet", "devices_of", "made", "nothing"]

START = 1_800_000_000
ROUND_S = 600
GOOD = Conditions(idle=True, charging=True, unmetered=True)
URL, LOGIN = "https://learn.shop.example", "https://login.shop.example"


@dataclass
class Clock:
    """Stands still until it is told otherwise."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class KeptResults(StoredResults):
    """A publisher of one release that never changes; keeps all results."""

    bundle: Bundle | None
    results: list[RoundResult] = field(default_factory=list)

    def newest(self) -> Newest:
        return Newest() if self.bundle is None else Newest(self.bundle.manifest.model_version, self.bundle.sha256)

    def publish(self, result: RoundResult) -> Verdict:
        if all(kept.number != result.number for kept in self.results):
            self.results.append(result)
        return Verdict(keep=True)


class RememberedSums(SecAggPlus):
    """Secure aggregation that keeps, for a test, what only the noise should ever see."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def finish(
        self, session: bytes, state: bytes, total: NDArray[np.uint64], reveals: Iterable[tuple[int, bytes]]
    ) -> Outcome:
        found = super().finish(session, state, total, reveals)
        self.outcomes.append(found._replace(sum=found.sum.copy()))  # the server overwrites its own
        return found


class Given:
    """A contributor whose vectors a test gives; remembers what it made."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.made: dict[int, NDArray[np.int64]] = {}
        self.fitting, self.batches = True, 3

    def fits(self, plan: Plan, bundle: Bundle | None) -> bool:
        del plan, bundle
        return self.fitting

    def wanted(self, plan: Plan) -> bool:
        del plan
        return True

    def vector(
        self,
        accepted: Accepted,
        round_number: int,
        bundle: Bundle | None,
        candidate: Bundle | None,
        stop: Callable[[], bool],
    ) -> NDArray[np.int64] | None:
        del bundle, candidate
        if any(stop() for _ in range(self.batches)):
            return None
        plan = accepted.plan
        self.made[round_number] = self._rng.integers(
            -plan.coordinate_limit, plan.coordinate_limit + 1, plan.coordinates, dtype=np.int64
        )
        return self.made[round_number]

    def sent(self, plan: Plan) -> None:
        del plan


class DirectConnection:
    """Calls an application; counts what is sent, and can be cut."""

    def __init__(self, fleet: "WholeFleet", address: str, sent: list[tuple[str, str, int]]) -> None:
        self._fleet, self._address, self._sent = fleet, address, sent
        self.before: Callable[[str, str], None] = lambda _method, _path: None

    def request(self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, largest: int) -> Reply:
        self.before(method, path)
        self._sent.append((method, path, len(body)))
        if self._address == LOGIN:
            return self._fleet.certify(body)
        found = ask(self._fleet.app, method, path, body=body, headers=dict(headers), client=self._address)
        assert len(found.body) <= largest
        after = found.headers.get("retry-after")
        return Reply(found.status, found.body, None if after is None else float(after))

    def close(self) -> None:
        """Nothing to close."""


class TestClient(FleetClient):
    """A device of a `WholeFleet`."""

    __test__ = False

    def __init__(self, fleet: "WholeFleet", number: int, shopper: Recommender | Profile, **named: Any) -> None:
        self.fleet, self.number = fleet, number
        self.given = Given(number)
        self.connections: dict[str, DirectConnection] = {}
        self.sent: list[tuple[str, str, int]] = []  # method, path and length of the body, to anyone
        self.now = GOOD
        super().__init__(
            URL,
            shopper,
            named.pop("settings"),
            conditions=named.pop("conditions", lambda: self.now),
            token=named.pop("token", lambda plan_id: fleet.authority.token(f"account {number}", plan_id, valid_s=300)),
            consent=named.pop("consent", True),
        )

    def _connection(self, url: str) -> http.Connection:
        address = LOGIN if url == LOGIN else f"10.0.{self.number // 250}.{self.number % 250 + 1}"
        self.connections[url] = DirectConnection(self.fleet, address, self.sent)
        return self.connections[url]

    def _timer(self) -> float:
        return self.fleet.clock()

    def _contributor(self) -> Contributor:
        return self._real() if self.fleet.real else self.given

    def _real(self) -> Contributor:
        """The product's own, but for a note of what it made."""
        real = Contribution(self._profile, self._features, self._settings.clock)
        vector = real.vector

        def noted(accepted: Accepted, round_number: int, *more: Any) -> NDArray[np.int64] | None:
            found = vector(accepted, round_number, *more)
            if found is not None:
                self.given.made[round_number] = found
            return found

        real.vector = noted  # type: ignore[method-assign,assignment]
        return real


class WholeFleet:
    """Shop, server, authority and any number of devices.

    Args:
        folder: Where all of it lies.
        plan: What the shop signed; None: a DEMO of 6 devices.
        real: Devices train and count for real; else they send made-up vectors.
        wanted: Of the DEMO plan.
    """

    def __init__(self, folder: Path, *, plan: Plan | None = None, real: bool = False, **wanted: Any) -> None:
        self.folder, self.clock, self.real = folder, Clock(), real
        folder.mkdir(exist_ok=True)
        self.bundle = Bundle.open(tiny_bundle(folder))
        self.plan_key, self.seal_key = PlanKey(b"p" * 32), SealKey(b"s" * 32)
        create_authority(folder / "authority")
        self.authority = Authority(folder / "authority", clock=self.clock)
        self.envelope_key = EnvelopeKey(b"e" * 32)
        self.plan = plan or demo_plan(self.authority.public().hex(), **wanted)
        self.publisher, self.sums = KeptResults(self.bundle), RememberedSums()
        self.key_set = KeySet(3, "shop", (ServerKey(self.envelope_key.public(), START - 10**6, START + 10**7),))
        self.trust = FleetFile("shop", self.plan_key.public().hex(), LOGIN, '{"signed":{}}')
        self.limits = UnsafeDemoLimits(lifetime_rho=1e9) if self.plan.demo else DeviceLimits(lifetime_rho=1e9)
        self.open()

    def open(self) -> None:
        """Start the server, or start it again over the same database."""
        signed = self.key_set.encode(), self.plan_key.sign_key_set(self.key_set)
        self.service = FleetService(
            Database.open(f"sqlite:///{self.folder / 'fleet.sqlite'}"),
            ServerSettings("shop", self.plan_key.public(), self.seal_key, signed),
            clock=lambda: int(self.clock()),
            publisher=self.publisher,
            aggregation=self.sums,
        )
        self.service.add_plan(self.plan.encode(), self.plan_key.sign(self.plan))
        requests = DeviceRequests(
            self.service,
            server="shop",
            keys=lambda: (self.envelope_key,),
            rates=TokenBuckets(per_minute=10**6, burst=10**6, clock=self.clock),
            clock=self.clock,
        )
        front = Front(self.service, requests, Metrics(), Readiness(), BodyRoom(1 << 28), AdminToken(b"token"))
        self.app = server_app(front, LimitSettings(address_per_minute=10**6), clock=self.clock)

    def certify(self, body: bytes) -> Reply:
        """What the authority's process answers."""
        try:
            signed = self.authority.certify(read_json(body, CertificateBody))
        except HushrecError as error:
            return Reply(status_of(error), msgspec.json.encode(problem_of(error)), None)
        return Reply(200, msgspec.json.encode(CertificateAnswer(signed)), None)

    def device(self, number: int, shopper: Recommender | Profile | None = None, **named: Any) -> TestClient:
        """A device with a folder of its own, the same one when it is asked for again."""
        settings = FleetSettings(
            trust=named.pop("trust", self.trust),
            folder=self.folder / f"device-{number}",
            vault_key=hashlib.sha256(b"%d" % number).digest(),
            limits=named.pop("limits", self.limits),
            clock=named.pop("clock", self.clock),
        )
        shopper = shopper if shopper is not None else Recommender.open(self.bundle.root)
        return TestClient(self, number, shopper, settings=settings, **named)

    def play(self, *devices: TestClient, seconds: float = ROUND_S, until: Callable[[], bool] | None = None) -> None:
        """Let devices and server do what is due, for so long or until something holds."""
        end, due = self.clock.now + seconds, dict.fromkeys(devices, self.clock.now)
        while self.clock.now < end and not (until and until()):
            for device, at in due.items():
                if at <= self.clock.now or device._gate._wake.is_set():
                    device._gate._wake.clear()
                    due[device] = self.clock.now + min(device.step(), LONGEST_SLEEP_S)
            tick = self.service.tick()
            now = min([*due.values(), self.clock.now + max(tick, 0.0), end])
            self.clock.now = max(now, self.clock.now)


@cache
def demo_plan(authority: str, **changes: Any) -> Plan:
    """A DEMO plan of few numbers whose devices may take part in each of its rounds."""
    wanted: dict[str, Any] = {"population": 6, "cohort": 6, "rounds": 40, "parameters": 32, **changes}
    plan = make_plan(
        Request(
            delta=1e-6,
            noise_multiplier=2.0,
            round_seconds=ROUND_S,
            first_round_at=START,
            authority=authority,
            **wanted,
        )
    )
    assert plan is not None
    return plan


def nothing(_method: str, _path: str) -> None:
    """Before a request: nothing."""


def devices_of(fleet: WholeFleet, count: int = 6) -> list[TestClient]:
    return [fleet.device(number) for number in range(count)]


def made(devices: list[TestClient], round_number: int) -> NDArray[np.int64]:
    return np.asarray(np.array([device.given.made[round_number] for device in devices]).sum(axis=0))
