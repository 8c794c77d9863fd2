"""Who sent a request, and what is inside it: signatures, nonces and envelopes of devices.

Everything that is wrong with them has one answer, whatever it is: an attacker learns nothing from it. Blocking code;
run it in a thread. A question for a reply changes nothing and is answered the same again, so its nonce is not kept.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hushrec.messages import CheckInBody, FeatureBody, read_packed
from hushrec_privacy.envelope import Context, EnvelopeKey, RequestId, open_sealed, verify_request
from hushrec_privacy.errors import EnrolmentError, EnvelopeError, FleetError
from hushrec_privacy.plans.plan import Plan

from hushrec_server.certificates import checked_certificate
from hushrec_server.fleet import Fleet
from hushrec_server.rates import TokenBuckets

__all__ = ["OPAQUE", "DeviceRequest", "DeviceRequests"]

OPAQUE = "the request cannot be accepted; fetch the fleet's keys again, and enrol again if this goes on"

# The public key of no device: checking against it takes as long as for a device that is known.
_NOBODY = hashlib.sha256(b"hushrec nobody").digest()
_PLAN, _PSEUDONYM = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{32}")
_Body = TypeVar("_Body", CheckInBody, FeatureBody)


@dataclass(frozen=True)
class DeviceRequest:
    """What a device sent. Untrusted.

    Attributes:
        route: As `hushrec.messages` names it for envelopes and signatures.
        plan_id: Of the path.
        round_number: Of the path; 0: none.
        device: The pseudonym that the header claims.
        signature: The signature header.
        body: The sealed body; empty for a question.
    """

    route: str
    plan_id: str
    round_number: int
    device: str
    signature: str
    body: bytes = b""


class DeviceRequests:
    """Opens and authenticates requests.

    Args:
        fleet: Knows devices and nonces.
        server: Name of this server, bound into every envelope.
        keys: Gives the envelope keys that are accepted now.
        rates: How often one device may ask.
        clock: Seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        server: str,
        keys: Callable[[], tuple[EnvelopeKey, ...]],
        rates: TokenBuckets,
        clock: Callable[[], float],
    ) -> None:
        self._fleet, self._server, self._keys, self._rates, self._clock = fleet, server, keys, rates, clock
        self._authorities: dict[str, bytes] = {}

    def first(self, asked: DeviceRequest, size: int, kind: type[_Body]) -> _Body:
        """Open a request that brings its certificate, and authenticate it by that.

        Args:
            asked: The request.
            size: What its payload is padded to, bytes.
            kind: What is inside.

        Raises:
            EnvelopeError: It cannot be accepted.
            FleetError: There is no such plan, or the device asks too often.
        """
        body, seen = self._opened(asked, size, kind, self._authority(asked.plan_id))
        if not self._are_new(asked.plan_id, [(asked, seen)])[0]:
            raise EnvelopeError(OPAQUE)
        return body

    def check_ins(self, plan_id: str, asked: Sequence[DeviceRequest], size: int) -> list[CheckInBody | Exception]:
        """Open and authenticate check-ins to one plan: for each what is inside, or its error.

        Who would get no place is refused unread: that no place is given, anyone with a certificate can see, and
        who has one in a round, all of its devices know.

        Args:
            plan_id: Untrusted.
            asked: The requests, to this plan.
            size: What their payloads are padded to, bytes.

        Raises:
            FleetError: There is no such plan.
        """
        authority = self._authority(plan_id)
        refused = self._fleet.refused(plan_id, {each.device for each in asked if _PSEUDONYM.fullmatch(each.device)})
        found: list[CheckInBody | Exception] = []
        seen: dict[int, RequestId] = {}
        for at, each in enumerate(asked):
            try:
                if each.device in refused:
                    raise refused[each.device]
                body, seen[at] = self._opened(each, size, CheckInBody, authority)
                found.append(body)
            except Exception as error:  # noqa: BLE001  whatever one device sent, the others have nothing to do with it
                found.append(error)
        are_new = self._are_new(plan_id, [(asked[at], request) for at, request in seen.items()])
        for at, is_new in zip(seen, are_new, strict=True):
            if not is_new:
                found[at] = EnvelopeError(OPAQUE)
        return found

    def knows(self, plan_id: str) -> bool:
        """Whether a plan was found before; asks nobody, so it may be called on the event loop."""
        return plan_id in self._authorities

    def learn(self, plan_id: str) -> None:
        """Look for a plan.

        Raises:
            FleetError: There is no such plan.
        """
        self._authority(plan_id)

    def expect(self, asked: DeviceRequest) -> None:
        """Refuse a message of whoever has no place in the round, before room is kept for it and its body is read.

        Tells who sends nothing: all devices of a round know its pseudonyms.

        Raises:
            EnvelopeError: It cannot be accepted.
        """
        self._context(asked)
        if self._fleet.identity(asked.plan_id, asked.round_number, asked.device) is None:
            raise EnvelopeError(OPAQUE)

    def message(self, asked: DeviceRequest, size: int) -> bytes:
        """Authenticate and open a request of a device that has checked in.

        Raises:
            EnvelopeError: It cannot be accepted.
            FleetError: The device asks too often.
        """
        try:
            context = self._context(asked)
            seen = self._authenticated(asked, self._known(asked))
            if not self._are_new(asked.plan_id, [(asked, seen)])[0]:
                raise EnvelopeError(OPAQUE)
            return open_sealed(self._keys(), context, asked.body, size)
        except EnvelopeError as error:
            raise EnvelopeError(OPAQUE) from error

    def question(self, asked: DeviceRequest) -> None:
        """Authenticate a request without a body.

        Raises:
            EnvelopeError: It cannot be accepted.
            FleetError: The device asks too often.
        """
        try:
            self._context(asked)
            self._authenticated(asked, self._known(asked))
        except EnvelopeError as error:
            raise EnvelopeError(OPAQUE) from error

    def _context(self, asked: DeviceRequest) -> Context:
        if not (_PLAN.fullmatch(asked.plan_id) and _PSEUDONYM.fullmatch(asked.device)):
            raise EnvelopeError(OPAQUE)
        return Context(self._server, asked.route, asked.plan_id, asked.round_number, asked.device)

    def _known(self, asked: DeviceRequest) -> bytes:
        found = self._fleet.identity(asked.plan_id, asked.round_number, asked.device)
        return _NOBODY if found is None else found

    def _opened(self, asked: DeviceRequest, size: int, kind: type[_Body], authority: bytes) -> tuple[_Body, RequestId]:
        try:
            body = read_packed(open_sealed(self._keys(), self._context(asked), asked.body, size), kind)
            certificate = checked_certificate(body.certificate, authority, asked.plan_id)
            if certificate.pseudonym != asked.device:
                raise EnvelopeError(OPAQUE)
            return body, self._authenticated(asked, certificate.identity)
        except (EnvelopeError, EnrolmentError) as error:
            raise EnvelopeError(OPAQUE) from error
        except FleetError as error:
            if error.reason == "malformed":  # what is inside an envelope is nobody's business until it is signed
                raise EnvelopeError(OPAQUE) from error
            raise

    def _authenticated(self, asked: DeviceRequest, identity: bytes) -> RequestId:
        now = int(self._clock())
        seen = verify_request(identity, self._context(asked), asked.body, asked.signature, at_s=now)
        wait = self._rates.take(asked.device)
        if wait:
            raise FleetError("this device asks too often", reason="rate-limited", retry_after_s=wait)
        return seen

    def _are_new(self, plan_id: str, requests: Sequence[tuple[DeviceRequest, RequestId]]) -> Sequence[bool]:
        """Whether each was never seen before; from now on it was."""
        nonces = [(asked.device, seen.nonce, seen.at_s) for asked, seen in requests]
        return self._fleet.remember_nonces(plan_id, nonces) if nonces else []

    def _authority(self, plan_id: str) -> bytes:
        """The public key that certifies devices of a plan: the plan names it, and never changes."""
        if plan_id not in self._authorities:
            plans = [Plan.decode(data) for data, _ in self._fleet.info().plans]
            self._authorities = {plan.plan_id: bytes.fromhex(plan.authority) for plan in plans if plan.authority}
        found = self._authorities.get(plan_id)
        if found is None:
            raise FleetError("this server has no such plan; fetch the list of plans again", reason="unknown-plan")
        return found
