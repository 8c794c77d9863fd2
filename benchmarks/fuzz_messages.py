"""The messages of `fuzz_server.py`: six devices that speak the real protocol, and wrong ones made from what they said.

A wrong message that is "signed" is whole: sealed and signed by an enrolled device after one field was changed. The
others are requests that no device sends, and bytes that are no request at all.
"""

import random
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from hushrec.messages import (
    DEVICE_HEADER,
    ROUTES,
    SIGNATURE_HEADER,
    CheckInAnswer,
    CheckInBody,
    FeatureBody,
    packed,
    padded_bytes,
    path_of,
    read_packed,
    reply_route,
    upload_route,
)
from hushrec_privacy.enrolment import AuthorityKey, Identity
from hushrec_privacy.envelope import Context, EnvelopeKey, seal, sign_request
from hushrec_privacy.errors import SecAggError
from hushrec_privacy.plans.plan import Plan
from hushrec_privacy.secagg import Phase, SecAggDevice, Session, message_size
from numpy.typing import NDArray
from server_process import SERVER

__all__ = ["DEVICES", "PAYLOAD", "PAYLOAD_LENGTH", "PHASES", "ROUND", "Devices", "Message", "Sent", "wrong_messages"]

PHASES = ("advertise", "choose", "share", "mask", "agree", "reveal")
DEVICES, ROUND = 6, 1
PAYLOAD, PAYLOAD_LENGTH = "user-vector", 8
VALUES_BYTES = 4 * PAYLOAD_LENGTH


@dataclass(frozen=True)
class Sent:
    """A request; without a method, `body` is all that is sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def is_cut(self) -> bool:
        """Whether what is sent ends before, or elsewhere than, it says."""
        return not self.method or "content-length" in self.headers


@dataclass(frozen=True)
class Message:
    """A request and what is wrong with it.

    Attributes:
        kind: What is wrong, in words.
        sent: The request.
        signed: Whole and rightly signed but for one field.
        harmless: It may be accepted.
        device: Who sends it, if it is right.
    """

    kind: str
    sent: Sent
    signed: bool = False
    harmless: bool = False
    device: int = -1


@dataclass(frozen=True)
class Intent:
    """Everything that goes into a device's request, each field to be changed by itself."""

    device: int
    route: str
    path: str
    plan: str
    round: int
    name: str
    payload: bytes
    size: int
    at_s: int
    server: str = SERVER
    signed_route: str = ""
    key: bytes = b""


class Devices:
    """Devices of one round, and what they have said in it.

    Args:
        public: The server's envelope key.
        authority: Certifies them.
        gathering: The plan that a payload is for which a device sends by itself.

    Attributes:
        silent: One that has not spoken in this phase: of its own message only what must be refused is sent; -1: none.
    """

    silent = -1

    def __init__(self, public: bytes, authority: AuthorityKey, gathering: Plan) -> None:
        self._public, self._authority, self._gathering = public, authority, gathering
        self.other_key = EnvelopeKey(secrets.token_bytes(32))
        self.requests: list[Sent] = []

    def begin(self, plan: Plan, rng: random.Random) -> NDArray[np.int64]:
        """New devices for the first round of a plan; their vectors, shape (6, d)."""
        self.plan, self.said = plan, dict[tuple[int, int], bytes]()
        self.session: Session | None = None
        self.now = list(range(DEVICES))
        self.outsider, *self.names = [(Identity.create(), secrets.token_hex(16)) for _ in range(DEVICES + 1)]
        self.machines: dict[int, SecAggDevice] = {}
        self.heard: dict[int, bytes] = dict.fromkeys(self.now, b"")
        values = [[rng.randint(-2, 2) for _ in range(self.plan.coordinates)] for _ in self.now]
        self.vectors = np.array(values, np.int64)
        return self.vectors

    def check_in(self, device: int) -> Message:
        """A right check-in."""
        return Message("check-in", self._request(self.intent_check_in(device)), device=device)

    def take_place(self, message: Message, body: bytes) -> None:
        """Start the device's machine on what it was told."""
        place = read_packed(body, CheckInAnswer)
        identity, certificate = self.names[message.device][0], self.certificate(message.device, self.plan.plan_id)
        self.session = Session.decode(place.session)
        self.machines[message.device] = SecAggDevice(self.session, identity, certificate, cohort_floor=2)

    def upload(self, device: int, phase: int) -> Message | None:
        """The right message of a phase, the same when asked again; None: the device has found a lie, and left."""
        if (device, phase) not in self.said:
            try:
                self.said[device, phase] = self._say(device, phase)
            except SecAggError:
                self.now = [other for other in self.now if other != device]
                return None
        return Message(
            "upload", self._request(self.intent_upload(device, phase, self.said[device, phase])), device=device
        )

    def feature(self, device: int) -> Message:
        """A right payload that a device sends by itself."""
        return Message("feature", self._request(self.intent_feature(device)), device=device)

    def was_accepted(self, message: Message) -> None:
        """Keep a request that counted, to be sent again."""
        self.requests = [*self.requests[-20:], message.sent]

    def question(self, device: int, phase: int) -> Message:
        """The right question for the answer of a closed phase."""
        return Message("reply", self._request(self.intent_question(device, phase)), device=device)

    def wrong_own(self, device: int, phase: int, rng: random.Random) -> Message | None:
        """A changed message of a device that has not spoken yet."""
        if self.upload(device, phase) is None:
            return None
        changed = _changed(self.said[device, phase], rng)
        return Message("insider", self._request(self.intent_upload(device, phase, changed)), signed=True)

    def intent_check_in(self, device: int) -> Intent:
        """What a check-in is made of."""
        plan, size = self.plan.plan_id, ROUTES["check-in"].payload_bytes
        name, certificate = self._of(device)[1], self.certificate(device, plan)
        path = path_of("check-in", plan=plan)
        body = packed(CheckInBody(certificate))
        return Intent(device, "check-in", path, plan, 0, name, body, size, int(time.time()))

    def intent_upload(self, device: int, phase: int, payload: bytes) -> Intent:
        """What an upload is made of."""
        name, plan = self._of(device)[1], self.plan.plan_id
        path = path_of("upload", plan=plan, round=ROUND, phase=PHASES[phase - 1])
        size = 64 if self.session is None else padded_bytes(message_size(self.session, Phase(phase)))
        payload = payload[: size - 4]
        return Intent(device, upload_route(phase), path, plan, ROUND, name, payload, size, int(time.time()))

    def intent_feature(self, device: int) -> Intent:
        """What a payload is made of that a device sends by itself."""
        plan, size = self._gathering.plan_id, ROUTES["feature"].payload_bytes
        name, certificate = self._of(device)[1], self.certificate(device, plan)
        path = path_of("feature", plan=plan, name=PAYLOAD)
        body = packed(FeatureBody(certificate, bytes(VALUES_BYTES)))
        return Intent(device, f"feature/{PAYLOAD}", path, plan, 0, name, body, size, int(time.time()))

    def intent_question(self, device: int, phase: int) -> Intent:
        """What a question for a reply is made of."""
        intent = self.intent_upload(device, phase, b"")
        return replace(intent, route=reply_route(phase), size=0)

    def _request(self, intent: Intent) -> Sent:
        """Seal and sign."""
        identity = self._of(intent.device)[0]
        route = intent.signed_route or intent.route
        context = Context(intent.server, route, intent.plan, intent.round, intent.name)
        body = b""
        if intent.size:
            body = seal(intent.key or self._public, context, intent.payload, intent.size)
        signed = sign_request(identity, context, body, at_s=intent.at_s)
        method = "POST" if intent.size else "GET"
        return Sent(method, intent.path, {DEVICE_HEADER: intent.name, SIGNATURE_HEADER: signed}, body)

    def certificate(self, device: int, plan: str) -> bytes:
        """Of a device, for a plan."""
        identity, name = self._of(device)
        return self._authority.certify(plan, name, identity.public())

    def _of(self, device: int) -> tuple[Identity, str]:
        return self.outsider if device < 0 else self.names[device]

    def _say(self, device: int, phase: int) -> bytes:
        machine, heard = self.machines[device], self.heard[device]
        if phase == 1:
            return machine.advertise()
        if phase == 4:
            return machine.mask(heard, self.vectors[device])
        steps = {2: machine.choose, 3: machine.share, 5: machine.agree, 6: machine.reveal}
        return steps[phase](heard)


Change = Callable[[Devices, Intent, random.Random], Intent]


def _changed(data: bytes, rng: random.Random) -> bytes:
    """Other bytes of the same kind: a bit, a cut, a tail, zeros."""
    what = rng.randrange(5)
    if what == 0 or not data:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 60)))
    if what == 1:
        return data[: rng.randrange(len(data))]
    if what == 2:
        return data[:-1] + bytes([data[-1] ^ (1 << rng.randrange(8))])
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]


def _inside(devices: Devices, intent: Intent, rng: random.Random) -> Intent:
    """A check-in or a feature whose one field inside has another type, value or name."""
    certificate = devices.certificate(intent.device, intent.plan)
    body: dict[str, object] = {"certificate": certificate}
    if intent.route.startswith("feature"):
        body["values"] = bytes(VALUES_BYTES)
    changed = rng.choice(list(body))
    right = body.pop(changed)
    assert isinstance(right, bytes)
    wrong = [b"", right[:-1], right + b"\0", "text", 7, None, [right], {}]
    wrong.append(_changed(right, rng) if changed == "certificate" else b"\xff" * len(right))  # no numbers
    if rng.random() < 0.8:
        body[changed] = rng.choice(wrong)
    else:
        body[changed + "s"] = right
    return replace(intent, payload=msgspec.msgpack.encode(body))


def _other_payload(devices: Devices, intent: Intent, rng: random.Random) -> bytes:
    """A changed message; cut if it is the first of its device, for another change may make one that counts."""
    if intent.device == devices.silent:
        return intent.payload[: rng.randrange(len(intent.payload))]
    return _changed(intent.payload, rng)[: max(0, intent.size - 4)]


FIELDS: dict[str, Change] = {
    "message": lambda devices, intent, rng: replace(intent, payload=_other_payload(devices, intent, rng)),
    "round": lambda _, intent, rng: replace(intent, round=rng.choice([0, intent.round + 1, 2**31 - 1, 2**62])),
    "plan": lambda _, intent, rng: replace(intent, plan=rng.choice(["cd" * 32, "", "x", intent.plan.upper()])),
    "device": lambda devices, intent, rng: replace(
        intent, name=rng.choice(["cd" * 16, "", intent.name.upper(), devices.outsider[1] + "0"])
    ),
    "server": lambda _, intent, rng: replace(intent, server=rng.choice([SERVER.title(), SERVER + "2", "s"])),
    "route": lambda _, intent, rng: replace(
        intent,
        signed_route=rng.choice([r for r in ("check-in", "upload/mask", "reply/mask", "x") if r != intent.route]),
    ),
    "time": lambda _, intent, rng: replace(
        intent, at_s=max(0, rng.choice([intent.at_s - 301, intent.at_s + 600, 0, 2**62]))
    ),
    "key": lambda devices, intent, _: replace(intent, key=devices.other_key.public()),
    "size": lambda _, intent, rng: replace(
        intent, size=max(len(intent.payload) + 4, intent.size + rng.choice([-1, 1]))
    ),
    "inside": _inside,
}
"""Fields of a request by name, and how each is changed before it is sealed and signed."""


def wrong_messages(devices: Devices, state: str, count: int, rng: random.Random) -> Iterator[Message]:
    """Wrong messages for a state of a round.

    Args:
        devices: Of the round; those that have spoken in its phase are used.
        state: Of the round.
        count: How many.
        rng: Decides what.
    """
    for _ in range(count):
        drawn = rng.random()
        if drawn < 0.68:
            yield _signed(devices, state, rng)
        else:
            yield _rubbish(devices, rng) if drawn < 0.95 else _no_request(devices, rng)


def _signed(devices: Devices, state: str, rng: random.Random) -> Message:
    phase = PHASES.index(state) + 1 if state in PHASES else rng.randint(1, 6)
    spoken = [device for device, said in devices.said if said == phase]
    device = rng.choice(spoken) if spoken and rng.random() < 0.9 else -1
    said = devices.said.get((device, phase), b"\0" * 32)
    which = rng.random()
    if which < 0.15:
        return _replayed(devices, rng)
    if which < 0.3:
        return _other_place(devices, device, phase, said, rng)
    if which < 0.6:
        intent = devices.intent_check_in(device) if which < 0.5 else devices.intent_feature(device)
        name = rng.choice(["plan", "device", "server", "route", "time", "key", "size", "inside", "inside", "inside"])
    elif which < 0.75:
        intent = devices.intent_question(device, phase)
        name = rng.choice(["round", "plan", "device", "server", "route", "time"])
    else:
        intent, name = devices.intent_upload(device, phase, said), rng.choice([n for n in FIELDS if n != "inside"])
    changed = FIELDS[name](devices, intent, rng)
    if changed == intent:
        return _rubbish(devices, rng)
    try:
        return Message(f"field {name}", devices._request(changed), signed=True)
    except Exception:  # noqa: BLE001  what cannot even be made, no device could send
        return _rubbish(devices, rng)


def _replayed(devices: Devices, rng: random.Random) -> Message:
    """A request that was right once, byte for byte."""
    if not devices.requests:
        return _rubbish(devices, rng)
    return Message("replayed", rng.choice(devices.requests))


def _other_place(devices: Devices, device: int, phase: int, said: bytes, rng: random.Random) -> Message:
    """A right message where it does not belong: another phase or round, or as a feature, rightly signed for there."""
    other = rng.choice([one for one in range(1, 7) if one != phase])
    what = rng.randrange(3)
    if what == 0 and (device, other) not in devices.said:
        return Message("other phase", devices._request(devices.intent_upload(device, other, said)), signed=True)
    if what == 1:
        intent = devices.intent_upload(device, phase, said)
        round_ = rng.choice([intent.round + 1, intent.round + 1000, 2**31 - 1])
        path = intent.path.replace(f"/rounds/{intent.round}/", f"/rounds/{round_}/")
        return Message("other round", devices._request(replace(intent, path=path, round=round_)), signed=True)
    name, size = rng.choice(["interests", "x", "a" * 200, "%2e"]), ROUTES["feature"].payload_bytes
    intent = devices.intent_check_in(device)
    body = packed(FeatureBody(devices.certificate(device, devices.plan.plan_id), bytes(rng.randrange(64))))
    path = f"/v1/plans/{devices.plan.plan_id}/features/{name}"
    changed = replace(intent, route=f"feature/{name}", path=path, payload=body, size=size)
    return Message("unknown feature", devices._request(changed), signed=True)


def _rubbish(devices: Devices, rng: random.Random) -> Message:
    """What no device sends: random headers, bodies, paths and methods."""
    plan = rng.choice([devices.plan.plan_id, "cd" * 32, "x", "%00", "é"])
    number = rng.choice([ROUND, 0, -1, 2**31, 10**30, "x"])
    paths = [
        f"/v1/plans/{plan}/check-in",
        f"/v1/plans/{plan}/rounds/{number}/{rng.choice([*PHASES, 'x', ''])}",
        f"/v1/plans/{plan}/features/{rng.choice(['x', 'interests'])}",
        f"/admin/v1/plans/{plan}/rounds",
        f"/admin/v1/plans/{plan}/rounds/{number}/abort",
        "/admin/v1/plans",
        "/admin/v1/status",
        "/v1/fleet/x",
        "/releases/../x",
        "/" + "a/" * rng.randrange(50),
    ]
    length = rng.choice([0, 1, 100, 2_169, ROUTES["check-in"].payload_bytes + 1_145])
    body = rng.randbytes(length)
    headers = {
        DEVICE_HEADER: rng.choice(["", "ab" * 16, devices.outsider[1], "x" * 500]),
        SIGNATURE_HEADER: rng.choice(["", "A" * 119, "x", "\xff" * 119]),
        "authorization": rng.choice(["", "Bearer", "Bearer x", "Basic eDp4"]),
        "content-type": rng.choice(["", "application/json", "multipart/form-data; boundary=x"]),
    }
    if rng.random() < 0.1:
        headers["content-length"] = rng.choice(["-1", "x", "99999999999999999999", str(length + 1)])
    return Message(
        "rubbish", Sent(rng.choice(["POST", "POST", "GET", "PUT", "DELETE"]), rng.choice(paths), headers, body)
    )


def _no_request(devices: Devices, rng: random.Random) -> Message:
    """Bytes that are no HTTP, or a right request that breaks off."""
    whole = rng.choice(devices.requests) if devices.requests else Sent("POST", "/v1/fleet", {}, bytes(100))
    head = f"{whole.method} {whole.path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(whole.body)}\r\n"
    request = head.encode() + b"\r\n" + whole.body
    streams = [
        rng.randbytes(rng.randrange(1, 2_000)),
        b"\x16\x03\x01\x02\x00" + rng.randbytes(512),  # how TLS begins
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        request[: rng.randrange(1, len(request))],
        head.encode() + b"x-long: " + b"x" * 20_000 + b"\r\n\r\n",
        b"\r\n" * rng.randrange(1, 50) + b"\x00",
    ]
    return Message("no request", Sent("", "", {}, rng.choice(streams)))
