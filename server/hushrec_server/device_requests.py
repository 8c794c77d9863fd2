"""Who sent a request, and what is inside it: signatures, nonces and envelopes of devices.

Everything that is wrong with them has one answer, whatever it is: an attacker learns nothing from it. Blocking code;
run it in a thread. A question for a reply changes nothing and is answered the same again, so its nonce is not kept.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from hushrec.messages import CheckInBody, FeatureBody, read_packed
from hushrec_privacy.enrolment import verified_certificate
from hushrec_privacy.envelope import Context, EnvelopeKey, open_sealed, verify_request
from hushrec_privacy.errors import EnrolmentError, EnvelopeError, FleetError
from hushrec_privacy.plans.plan import Plan

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
        authority = self._authority(asked.plan_id)
        try:
            body = read_packed(open_sealed(self._keys(), self._context(asked), asked.body, size), kind)
            certificate = verified_certificate(body.certificate, authority, plan_id=asked.plan_id)
            if certificate.pseudonym != asked.device:
                raise EnvelopeError(OPAQUE)
            self._admit(asked, certificate.identity, once=True)
        except (EnvelopeError, EnrolmentError) as error:
            raise EnvelopeError(OPAQUE) from error
        except FleetError as error:
            if error.reason == "malformed":  # what is inside an envelope is nobody's business until it is signed
                raise EnvelopeError(OPAQUE) from error
            raise
        return body

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
            self._admit(asked, self._known(asked), once=True)
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
            self._admit(asked, self._known(asked), once=False)
        except EnvelopeError as error:
            raise EnvelopeError(OPAQUE) from error

    def _context(self, asked: DeviceRequest) -> Context:
        if not (_PLAN.fullmatch(asked.plan_id) and _PSEUDONYM.fullmatch(asked.device)):
            raise EnvelopeError(OPAQUE)
        return Context(self._server, asked.route, asked.plan_id, asked.round_number, asked.device)

    def _known(self, asked: DeviceRequest) -> bytes:
        found = self._fleet.identity(asked.plan_id, asked.round_number, asked.device)
        return _NOBODY if found is None else found

    def _admit(self, asked: DeviceRequest, identity: bytes, *, once: bool) -> None:
        now = int(self._clock())
        seen = verify_request(identity, self._context(asked), asked.body, asked.signature, at_s=now)
        wait = self._rates.take(asked.device)
        if wait:
            raise FleetError("this device asks too often", reason="rate-limited", retry_after_s=wait)
        if once and not self._fleet.remember_nonce(asked.plan_id, asked.device, seen.nonce, seen.at_s):
            raise EnvelopeError(OPAQUE)

    def _authority(self, plan_id: str) -> bytes:
        """The public key that certifies devices of a plan: the plan names it, and never changes."""
        if plan_id not in self._authorities:
            plans = [Plan.decode(data) for data, _ in self._fleet.info().plans]
            self._authorities = {plan.plan_id: bytes.fromhex(plan.authority) for plan in plans if plan.authority}
        found = self._authorities.get(plan_id)
        if found is None:
            raise FleetError("this server has no such plan; fetch the list of plans again", reason="unknown-plan")
        return found
