"""The shop's server and its authority as a device sees them: sealed, signed requests, and refusals as errors.

The gate is passed before every single request, and nothing is sealed to a key that the shop's plan key did not sign.
Routes and bodies are those of `hushrec.messages`; nothing that a server says is trusted beyond its form here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from hushrec_privacy.enrolment import Identity
from hushrec_privacy.envelope import Context, KeySet, seal, sign_request, verified_key_set
from hushrec_privacy.errors import EnrolmentError, EnvelopeError, FleetError, HushrecError

from hushrec import messages
from hushrec.fleet.fleet_file import FleetFile
from hushrec.fleet.gate import Gate
from hushrec.fleet.http import Connection, Reply
from hushrec.fleet.joining import refuse
from hushrec.fleet.round_run import MASK, NotYet
from hushrec.messages import DEVICE_HEADER, PHASES, ROUTES, SIGNATURE_HEADER, path_of

__all__ = ["Authority", "FleetServer", "Member", "RoundLink"]

LARGEST_INFO_BYTES = 1 << 22
LARGEST_ANSWER_BYTES = 1 << 14
_WAITING = (408, 425, 429, 500, 502, 503, 504)
_REASON_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_Structure = TypeVar("_Structure", bound=msgspec.Struct)


@dataclass(frozen=True)
class Member:
    """This device in one plan: what it signs with, and how it is called there.

    Attributes:
        plan_id: The plan.
        identity: Its secret for this plan; `repr` hides it.
        pseudonym: 32 hexadecimal digits.
        certificate: As the authority signed it.
    """

    plan_id: str
    identity: Identity
    pseudonym: str
    certificate: bytes


class FleetServer:
    """Requests of one device to the server. Not for several threads at once."""

    def __init__(
        self,
        connection: Connection,
        trust: FleetFile,
        gate: Gate,
        clock: Callable[[], float],
        timer: Callable[[], float],
    ) -> None:
        """Take the way to the server; sends nothing yet.

        Args:
            connection: To the server's address.
            trust: Whose keys are believed.
            gate: Passed before every request.
            clock: Seconds since 1970-01-01 UTC; read with each `info`, and by `timer` from then on.
            timer: Seconds that only rise: a clock that is put right in a round does not end it.
        """
        self._connection, self._trust, self._gate, self._clock, self._timer = connection, trust, gate, clock, timer
        self._keys: KeySet | None = None
        self._own_s = self._server_s = 0.0  # what must be added to the timer for this device's and the server's time

    def info(self, *, least_serial: int) -> tuple[messages.FleetAnswer, int]:
        """Ask what the fleet is doing, and take its keys.

        Args:
            least_serial: The highest serial of a key set that this device has seen; 1 for none.

        Returns:
            The answer, and the serial of its keys, to be kept before anything is sealed to them.

        Raises:
            FleetError: Nothing may be sent, no good answer came, it is of a version that this app does not speak
                ("wire"), or the keys are refused ("keys").
        """
        reply = self._ask("GET", path_of("fleet"), largest=LARGEST_INFO_BYTES)
        if _read(reply, messages.read_json, messages.WireAnswer).wire != messages.WIRE_VERSION:
            self._keys = None
            refuse("wire")
        found = _read(reply, messages.read_json, messages.FleetAnswer)
        now = self._clock()
        self._own_s = now - self._timer()
        try:
            self._keys = verified_key_set(
                found.keys.data,
                found.keys.signature,
                self._trust.plan_public,
                server=self._trust.server,
                least_serial=least_serial,
                at_s=int(now),
            )
        except EnvelopeError as error:
            self._keys = None
            raise FleetError(error.message, reason="keys") from error
        self._server_s = (
            found.now - self._timer()
        )  # only requests are dated by the server's clock; no decision hangs on it
        return found, self._keys.serial

    def check_in(self, member: Member) -> messages.CheckInAnswer:
        """Ask for a place in a round.

        Raises:
            FleetError: There is none, or nothing may be sent.
        """
        body = messages.packed(messages.CheckInBody(member.certificate))
        size = ROUTES["check-in"].payload_bytes
        reply = self._send_sealed(member, "check-in", path_of("check-in", plan=member.plan_id), body, size=size)
        return _read(reply, messages.read_packed, messages.CheckInAnswer)

    def send_feature(self, member: Member, name: str, values: bytes) -> None:
        """Send a vector that was noised on this device.

        Raises:
            FleetError: It was not taken, or may not be sent.
        """
        body = messages.packed(messages.FeatureBody(member.certificate, values))
        size = ROUTES["feature"].payload_bytes
        path = path_of("feature", plan=member.plan_id, name=name)
        self._send_sealed(member, f"feature/{name}", path, body, size=size)

    def upload(self, member: Member, round_number: int, phase: int, message: bytes, *, size: int) -> None:
        """Send one message of secure aggregation.

        Args:
            member: This device.
            round_number: The round.
            phase: 1 to 6.
            message: At most `size` - 4 bytes.
            size: What it is padded to.

        Raises:
            FleetError: It was not taken, or may not be sent.
        """
        path = path_of("upload", plan=member.plan_id, round=round_number, phase=PHASES[phase - 1])
        route = messages.upload_route(phase)
        self._send_sealed(member, route, path, message, size=size, round_number=round_number, masked=phase > MASK)

    def reply(self, member: Member, round_number: int, phase: int, *, largest: int) -> bytes | NotYet:
        """Ask for what a closed phase has for this device.

        Args:
            member: This device.
            round_number: The round.
            phase: 1 to 6.
            largest: Bytes that it may have.

        Raises:
            FleetError: The round is over, or nothing may be sent.
        """
        path = path_of("reply", plan=member.plan_id, round=round_number, phase=PHASES[phase - 1])
        headers = self._signed(member, messages.reply_route(phase), b"", round_number)
        found = self._ask("GET", path, headers=headers, largest=largest, masked=phase >= MASK)
        return found.body if found.status == 200 else NotYet(found.retry_after_s)

    def _send_sealed(
        self,
        member: Member,
        route: str,
        path: str,
        payload: bytes,
        *,
        size: int,
        round_number: int = 0,
        masked: bool = False,
    ) -> Reply:
        if self._keys is None:
            refuse("keys")
        context = Context(self._trust.server, route, member.plan_id, round_number, member.pseudonym)
        try:
            sealed = seal(self._keys.newest(int(self._timer() + self._own_s)), context, payload, size)
        except EnvelopeError as error:
            self._keys = None
            raise FleetError(error.message, reason="keys") from error
        headers = self._signed(member, route, sealed, round_number)
        return self._ask("POST", path, sealed, headers, masked=masked)

    def _signed(self, member: Member, route: str, body: bytes, round_number: int) -> dict[str, str]:
        context = Context(self._trust.server, route, member.plan_id, round_number, member.pseudonym)
        at_s = max(0, int(self._timer() + self._server_s))
        return {
            DEVICE_HEADER: member.pseudonym,
            SIGNATURE_HEADER: sign_request(member.identity, context, body, at_s=at_s),
        }

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        largest: int = LARGEST_ANSWER_BYTES,
        masked: bool = False,
    ) -> Reply:
        self._gate.check(masked=masked)
        reply = self._connection.request(method, path, body, headers or {}, largest=largest)
        _raise_refusal(reply)
        return reply


class RoundLink:
    """One round of one device on a `FleetServer`: what `RoundRun` speaks to."""

    def __init__(
        self, server: FleetServer, member: Member, round_number: int, *, sizes: dict[int, int], largest_reply: int
    ) -> None:
        """Take the round.

        Args:
            server: The way to it.
            member: This device.
            round_number: The round.
            sizes: What the message of each phase is padded to.
            largest_reply: Bytes of a reply at most.
        """
        self._server, self._member, self._round = server, member, round_number
        self._sizes, self._largest = sizes, largest_reply

    def upload(self, phase: int, message: bytes) -> None:
        """See `RoundWire`."""
        self._server.upload(self._member, self._round, phase, message, size=self._sizes[phase])

    def reply(self, phase: int) -> bytes | NotYet:
        """See `RoundWire`."""
        return self._server.reply(self._member, self._round, phase, largest=self._largest)


class Authority:
    """Whoever gives certificates, apart from the server."""

    def __init__(self, connection: Connection, gate: Gate) -> None:
        """Take the way to it; sends nothing yet.

        Args:
            connection: To the authority's address.
            gate: Passed before every request.
        """
        self._connection, self._gate = connection, gate

    def certify(self, plan_id: str, identity: Identity, token: str) -> bytes:
        """Ask for this device's certificate in a plan.

        Args:
            plan_id: The plan.
            identity: Of this device in it.
            token: What the shop's own login gave for this account and plan.

        Returns:
            The signed certificate. Untrusted: whose it is, the caller checks.

        Raises:
            EnrolmentError: The authority gives none.
            FleetError: Nothing may be sent, or no answer came.
        """
        proof = identity.sign(messages.ENROLMENT_DOMAIN, messages.enrolment_bytes(plan_id, token))
        body = messages.CertificateBody(plan_id, token, identity.public(), proof)
        self._gate.check()
        path, data = path_of("certificate"), msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"}
        reply = self._connection.request("POST", path, data, headers, largest=LARGEST_ANSWER_BYTES)
        _raise_refusal(reply)
        return _read(reply, messages.read_json, messages.CertificateAnswer).certificate


def _read(reply: Reply, read: Callable[[bytes, type[_Structure]], _Structure], kind: type[_Structure]) -> _Structure:
    try:
        return read(reply.body, kind)
    except FleetError as error:
        raise FleetError(error.message, reason="bad-answer") from error


def _raise_refusal(reply: Reply) -> None:
    """Turn problem+json into the error that it stands for; a good answer passes."""
    if 200 <= reply.status < 300:
        return
    try:
        told = messages.error_of(messages.read_json(reply.body, messages.Problem))
    except FleetError:
        told = FleetError(f"the server answered {reply.status}", reason=f"http-{reply.status}")
    if isinstance(told, EnrolmentError):
        raise told
    raise _fleet_error(told, reply)


def _fleet_error(told: HushrecError, reply: Reply) -> FleetError:
    reason, after = (told.reason, told.retry_after_s) if isinstance(told, FleetError) else (told.code, None)
    if not (0 < len(reason) <= 40 and set(reason) <= _REASON_LETTERS):
        reason = "refused"
    if after is None:
        after = reply.retry_after_s
    if after is None and reply.status in _WAITING:
        after = 0.0
    return FleetError(told.message, reason=reason, retry_after_s=after)
