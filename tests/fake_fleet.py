"""A fleet's inside that keeps everything in memory and computes nothing, and an application around it."""

# ruff: noqa: ARG002  a fake takes what the real one takes

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hushrec.messages import (
    DEVICE_HEADER,
    ROUTES,
    SIGNATURE_HEADER,
    CheckInBody,
    packed,
    padded_bytes,
    path_of,
    phase_number,
    reply_route,
    upload_route,
)
from hushrec_privacy.enrolment import AuthorityKey, Identity, verified_certificate
from hushrec_privacy.envelope import Context, EnvelopeKey, seal, sign_request
from hushrec_privacy.errors import FleetError, HushrecError
from hushrec_server.app import server_app
from hushrec_server.config import LimitSettings
from hushrec_server.device_requests import DeviceRequests
from hushrec_server.front import AdminToken, Front
from hushrec_server.metrics import Metrics
from hushrec_server.rates import TokenBuckets
from hushrec_server.readiness import Readiness
from hushrec_server.slow_clients import BodyRoom

from tests.asgi import Answer, ask
from tests.fleet_plans import a_fleet_plan

__all__ = ["PLAN", "TOKEN", "Device", "FakeFleet", "Seat", "Sending", "World"]

AUTHORITY_KEY = AuthorityKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
"""The secret of `fleet_plans.AUTHORITY`: RFC 8032, section 7.1, test 1."""

PLAN_DOCUMENT = a_fleet_plan()
PLAN = PLAN_DOCUMENT.plan_id
TOKEN = "open-sesame"
MESSAGE_BYTES = 200

Sending = tuple[str, dict[str, str], bytes]
"""Path, headers and body."""


@dataclass(frozen=True)
class Info:
    """Of a fleet."""

    server: str
    plans: tuple[tuple[bytes, bytes], ...]
    key_set: tuple[bytes, bytes]
    authorities: tuple[bytes, ...]
    release: int
    now: int


@dataclass(frozen=True)
class Seat:
    """A place in a round."""

    round_number: int
    index: int
    session: bytes
    release: str
    deadline_at: int


@dataclass
class FakeFleet:
    """One plan, one round that never ends."""

    authority: bytes
    clock: Callable[[], float]
    devices: dict[str, bytes] = field(default_factory=dict)
    nonces: set[tuple[str, str, bytes]] = field(default_factory=set)
    uploads: dict[tuple[int, str], bytes] = field(default_factory=dict)
    replies: dict[tuple[int, str], bytes] = field(default_factory=dict)
    direct: dict[tuple[str, str], bytes] = field(default_factory=dict)
    plans: list[tuple[bytes, bytes]] = field(default_factory=list)
    turned_away: dict[str, FleetError] = field(default_factory=dict)
    groups: list[int] = field(default_factory=list)
    ticks: int = 0
    tick_s: float = 0.0
    halted: bool = False
    waits: bool = True

    def info(self) -> Info:
        """What anyone may know."""
        plans = ((PLAN_DOCUMENT.encode(), b"s" * 64),)
        return Info("shop", plans, (b"keys", b"t" * 64), (self.authority,), 3, int(self.clock()))

    def add_plan(self, data: bytes, signature: bytes) -> None:
        """Any plan."""
        self.plans.append((data, signature))

    def refused(self, plan_id: str, pseudonyms: Collection[str]) -> Mapping[str, FleetError]:
        """Whom a test wants."""
        self._check_plan(plan_id)
        return {pseudonym: self.turned_away[pseudonym] for pseudonym in pseudonyms if pseudonym in self.turned_away}

    def check_ins(self, plan_id: str, asked: Sequence[tuple[str, bytes]]) -> Sequence[Seat | HushrecError]:
        """All are welcome."""
        self._check_plan(plan_id)
        self.groups.append(len(asked))
        return [self._seat(plan_id, *each) for each in asked]

    def _seat(self, plan_id: str, pseudonym: str, certificate: bytes) -> Seat:
        known = verified_certificate(certificate, self.authority, plan_id=plan_id)
        self.devices.setdefault(pseudonym, known.identity)
        index = list(self.devices).index(pseudonym)
        return Seat(1, index, b"session", "cd" * 32, int(self.clock()) + 60)

    def identity(self, plan_id: str, round_number: int, pseudonym: str) -> bytes | None:
        """Of those that checked in."""
        self.message_bytes(plan_id, round_number, 1)
        return self.devices.get(pseudonym)

    def remember_nonces(self, plan_id: str, requests: Sequence[tuple[str, bytes, int]]) -> Sequence[bool]:
        """For ever."""
        answers = []
        for pseudonym, nonce, _ in requests:
            answers.append((plan_id, pseudonym, nonce) not in self.nonces)
            self.nonces.add((plan_id, pseudonym, nonce))
        return answers

    def message_bytes(self, plan_id: str, round_number: int, phase: int) -> int:
        """The same for all phases."""
        self._check_plan(plan_id)
        if round_number != 1:
            raise FleetError("the round is over", reason="round-over")
        return MESSAGE_BYTES

    def upload(self, plan_id: str, round_number: int, phase: int, pseudonym: str, message: bytes) -> None:
        """Once."""
        if self.uploads.setdefault((phase, pseudonym), message) != message:
            raise FleetError("another message is kept", reason="already-counted")

    def reply(self, plan_id: str, round_number: int, phase: int, pseudonym: str) -> bytes | None:
        """What a test put there."""
        return self.replies.get((phase, pseudonym))

    def add_features(self, plan_id: str, name: str, pseudonym: str, values: bytes) -> None:
        """Any."""
        self.direct[name, pseudonym] = values

    def features(self, plan_id: str, name: str) -> Sequence[bytes]:
        """All of a name."""
        return [values for (kept, _), values in self.direct.items() if kept == name]

    def tick(self) -> float:
        """Take as long as a test wants."""
        self.ticks += 1
        time.sleep(self.tick_s)
        return 0.05

    def status(self) -> Mapping[str, object]:
        """Something to show."""
        rounds = {"rounds": {"mask": 1, "published": 2}, "rounds_without_result": 4}
        candidate = {"model_version": 4, "bundle": "cd" * 32, "waits_for": f"a round of {PLAN}"}
        plans = [{"plan": PLAN, "epsilon_spent": 1.25, **rounds}]
        return {"plans": plans, "release": 3, "candidate": candidate if self.waits else None}

    def rounds(self, plan_id: str) -> Sequence[Mapping[str, object]]:
        """One."""
        self._check_plan(plan_id)
        return [{"round": 1, "state": "mask"}]

    def abort(self, plan_id: str, round_number: int) -> None:
        """Only the one that runs."""
        self.message_bytes(plan_id, round_number, 1)

    def halt(self, plan_id: str, reason: str = "") -> None:
        """The one plan."""
        self._check_plan(plan_id)
        self.halted = True

    def resume(self, plan_id: str) -> None:
        """The one plan."""
        self._check_plan(plan_id)
        self.halted = False

    def counts(self, plan_id: str) -> Mapping[str, object]:
        """None."""
        return {}

    def _check_plan(self, plan_id: str) -> None:
        if plan_id != PLAN:
            raise FleetError("this server has no such plan", reason="unknown-plan")


class World:
    """An application, and what its devices and its administrator need."""

    def __init__(self, folder: Path, *, limits: LimitSettings | None = None, now: float = 1_000_000.0) -> None:
        self.now = now
        self.key = EnvelopeKey.create(folder / "envelope.key")
        self.authority = AUTHORITY_KEY
        self.fleet = FakeFleet(self.authority.public(), self.clock)
        self.front = Front(
            fleet=self.fleet,
            requests=DeviceRequests(
                self.fleet,
                server="shop",
                keys=lambda: (self.key,),
                rates=TokenBuckets(per_minute=60, burst=20, clock=self.clock),
                clock=self.clock,
            ),
            metrics=Metrics(),
            ready=Readiness(),
            room=BodyRoom(1 << 20),
            admin=AdminToken(TOKEN.encode()),
            releases=folder / "releases",
            expires_at=lambda: {"root": 2_000_000},
        )
        self.app = server_app(self.front, limits or LimitSettings(address_per_minute=10**6))

    def clock(self) -> float:
        """The test's own time."""
        return self.now

    def ask(self, method: str, path: str, **more: Any) -> Answer:
        """One request without a device."""
        return ask(self.app, method, path, **more)

    def admin(self, method: str, path: str, **more: Any) -> Answer:
        """One request of the administrator."""
        return ask(self.app, method, path, headers={"authorization": f"Bearer {TOKEN}"}, **more)


class Device:
    """Signs and seals like a device."""

    def __init__(self, world: World, *, authority: AuthorityKey | None = None) -> None:
        self.world, self.identity, self.name = world, Identity.create(), os.urandom(16).hex()
        self.certificate = (authority or world.authority).certify(PLAN, self.name, self.identity.public())

    def context(self, route: str, round_number: int = 0, plan: str = PLAN) -> Context:
        """Of this device."""
        return Context("shop", route, plan, round_number, self.name)

    def headers(self, context: Context, body: bytes) -> dict[str, str]:
        """Signed now."""
        signed = sign_request(self.identity, context, body, at_s=int(self.world.now))
        return {DEVICE_HEADER: self.name, SIGNATURE_HEADER: signed}

    def check_in_request(self, body: CheckInBody | None = None) -> Sending:
        """Path, headers and sealed body."""
        context = self.context("check-in")
        inside = packed(body if body is not None else CheckInBody(self.certificate))
        sealed = seal(self.world.key.public(), context, inside, ROUTES["check-in"].payload_bytes)
        return path_of("check-in", plan=PLAN), self.headers(context, sealed), sealed

    def check_in(self) -> Answer:
        """Ask for a place."""
        path, headers, body = self.check_in_request()
        return self.world.ask("POST", path, headers=headers, body=body)

    def upload_request(
        self, message: bytes, phase: str = "mask", in_round: int = 1
    ) -> tuple[str, dict[str, str], bytes]:
        """Path, headers and sealed body."""
        context = self.context(upload_route(phase_number(phase)), in_round)
        sealed = seal(self.world.key.public(), context, message, padded_bytes(MESSAGE_BYTES))
        return path_of("upload", plan=PLAN, round=in_round, phase=phase), self.headers(context, sealed), sealed

    def upload(self, message: bytes, phase: str = "mask", in_round: int = 1) -> Answer:
        """Hand in a message."""
        path, headers, body = self.upload_request(message, phase, in_round)
        return self.world.ask("POST", path, headers=headers, body=body)

    def reply(self, phase: str = "mask", in_round: int = 1) -> Answer:
        """Ask for a reply."""
        headers = self.headers(self.context(reply_route(phase_number(phase)), in_round), b"")
        return self.world.ask("GET", path_of("reply", plan=PLAN, round=in_round, phase=phase), headers=headers)
