"""A device between and inside rounds: look at the fleet, update, enrol, check in, go through a round; one thing a step.

Nothing here waits or starts a thread: whoever calls `step` does. Every request passes the gate; every refusal is kept
as one line, and makes the device come back later, or with the next look at the fleet.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from hushrec_privacy.errors import (
    BudgetError,
    BundleError,
    EnrolmentError,
    FleetError,
    HushrecError,
    ReleaseError,
    SecAggError,
)
from hushrec_privacy.ledger import ParticipationRecord
from hushrec_privacy.ledger.rules import Totals
from hushrec_privacy.plans.limits import DeviceLimits
from hushrec_privacy.plans.plan import Plan

from hushrec.bundle import Bundle
from hushrec.fleet.agenda import Agenda, Offer
from hushrec.fleet.backoff import Backoff, uniform
from hushrec.fleet.clocks import Waits
from hushrec.fleet.contribution import Contributor
from hushrec.fleet.features import Features
from hushrec.fleet.gate import Gate
from hushrec.fleet.joining import Accepted, accepted_plan, check_round, earliest_round_in_s, refuse
from hushrec.fleet.membership import Membership
from hushrec.fleet.models import Compared, Models
from hushrec.fleet.pacing import Pace
from hushrec.fleet.round_run import Outcome, RoundRun
from hushrec.fleet.server import FleetServer, Member, RoundLink
from hushrec.messages import CheckInAnswer, SignedDocument, padded_bytes

__all__ = ["Participant", "Parts", "Refusal"]

LOOK_EVERY_S = 3600.0
SPREAD = 0.1
"""Share of a round over which the devices that wait for its start ask, so that a fleet does not come all at once."""

GATE_S = 30.0
"""How soon conditions are looked at again while they do not hold."""

_LOOKS = (5.0, 3600.0)
_REPLY_BYTES = 1 << 18
_STALE = ("keys", "envelope", "unknown-plan", "plan-ended")
"""Refusals after which the fleet is looked at anew."""

_FOR_GOOD = ("unknown-plan", "plan-ended", "unknown-feature", "bad-message")
"""Refusals that no later try of the same payload changes; what it cost is spent. After any other it is kept."""


class Refusal(NamedTuple):
    """Why something was not done.

    Attributes:
        reason: Stable name.
        text: One line for people.
    """

    reason: str
    text: str


@dataclass(frozen=True)
class Parts:
    """What a participant works with.

    Attributes:
        server: The way to the server.
        membership: Identities and certificates.
        record: Gives the record of what this device spent, opened.
        models: The bundle in use.
        contributor: Makes vectors.
        features: What the app gave.
        gate: Consent and conditions.
        limits: Of this device.
        plan_key: Public half of the shop's plan key, 32 bytes.
        clock: Seconds since 1970-01-01 UTC.
        timer: Seconds that only rise, whatever is done to that clock.
    """

    server: FleetServer
    membership: Membership
    record: Callable[[], ParticipationRecord]
    models: Models
    contributor: Contributor
    features: Features
    gate: Gate
    limits: DeviceLimits
    plan_key: bytes
    clock: Callable[[], float]
    timer: Callable[[], float]


class Participant:
    """One device's part. Not for several threads at once.

    Attributes:
        run: The round that it is in; None: none.
        refusal: The last one; None: none since the last round that was done.
        rounds: Rounds that were done since it was made.
        plans: Plans that it may join, by id.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._waits = Waits(parts.clock)
        self._agenda = Agenda()
        self._looks = Backoff(least_s=_LOOKS[0], most_s=_LOOKS[1])
        self._look_at = -math.inf
        self._release = 0
        self._update_at = -math.inf
        self._updates = Backoff(least_s=_LOOKS[0], most_s=_LOOKS[1])
        self._direct_at = -math.inf
        self._directs = Backoff(least_s=_LOOKS[0], most_s=_LOOKS[1])
        self._offer: Offer | None = None
        self.run: RoundRun | None = None
        self.refusal: Refusal | None = None
        self.rounds = 0
        self.plans: dict[str, Accepted] = {}

    def step(self) -> float:
        """Do one thing.

        Returns:
            Seconds until the next step makes sense.

        Raises:
            LedgerError: The record of participations cannot be used; nothing is sent without it.
            VaultError: The vault cannot be used.
        """
        if self.run is not None:
            return self._go_on(self.run)
        try:
            self._parts.gate.check()
        except FleetError as error:
            self._refused(error)
            return GATE_S
        now = self._waits()
        if now >= self._look_at:
            return self._look(now)
        version = self._parts.models.version()
        if self._release > version:
            if now >= self._update_at:
                return self._update(now)
            if not version:
                return min(self._update_at, self._look_at) - now  # there is nothing to take part with
        direct = self._parts.features.next_plan()
        if direct is not None and now >= self._direct_at:
            return self._send_direct(direct, now)
        wanted = self._parts.contributor.wanted
        offer = self._agenda.due(now, wanted)
        if offer is None:
            direct_s = math.inf if direct is None else self._direct_at - now
            return max(0.0, min(self._agenda.wait_s(now, wanted), self._look_at - now, direct_s))
        return self._try(offer, now)

    def leave_round(self, reason: str, text: str) -> None:
        """Leave the round that the device is in, if any; what was spent stays spent."""
        if self.run is not None:
            self.run.leave(reason, text)
            self._ended(Outcome(reason, self.run.spent, text))

    def _look(self, now: float) -> float:
        membership = self._parts.membership
        self._parts.record()  # first of all: without it nothing is sent
        try:
            answer, serial = self._parts.server.info(least_serial=membership.least_serial())
            membership.saw_serial(serial)
        except FleetError as error:
            self._refused(error)
            wait = self._looks.wait_s(error.retry_after_s)
            self._look_at = now + wait
            return wait
        self._looks.succeeded()
        self._look_at, self._release = now + LOOK_EVERY_S, answer.release
        self._take_plans(answer.plans, now)
        return 0.0

    def _take_plans(self, plans: tuple[SignedDocument, ...], now: float) -> None:
        self.plans, offered = {}, []
        totals = self._parts.record().totals()
        for document in {document.data: document for document in plans}.values():  # to check one takes long: each once
            try:
                accepted = self._accepted(document)
            except FleetError as error:
                self._refused(error)
                continue
            self.plans[accepted.plan_id] = accepted
            wait = _wait_s(accepted, totals, self._parts.clock())
            if math.isfinite(wait):
                offered.append((accepted, now + wait))
        self._agenda.renew(offered)

    def _accepted(self, document: SignedDocument) -> Accepted:
        parts = self._parts
        return accepted_plan(
            document.data, document.signature, parts.plan_key, limits=parts.limits, totals=parts.record().totals()
        )

    def _update(self, now: float) -> float:
        gate = self._parts.gate
        try:
            gate.check()
            self._parts.models.fetch(lambda: gate.closed() is not None)
        except HushrecError as error:
            self._refused(error)
            retry_after_s = error.retry_after_s if isinstance(error, FleetError) else None
            self._update_at = now + self._updates.wait_s(retry_after_s)
            return 0.0  # rounds of plans that need no newer model go on
        self._updates.succeeded()
        self._update_at = now + LOOK_EVERY_S
        return 0.0

    def _try(self, offer: Offer, now: float) -> float:
        """Enrol in a plan or check in; a failure sets the time of the next try."""
        contributor, bundle = self._parts.contributor, self._parts.models.newest()
        try:
            if not contributor.fits(offer.accepted.plan, bundle):
                refuse("parts")
            member = self._parts.membership.find(offer.accepted)
            if member is None:
                self._parts.membership.enrol(offer.accepted)
            else:
                self._check_in(offer, member)
        except FleetError as error:
            self._refused(error)
            self._postpone(offer, error.retry_after_s)
            if error.reason in _STALE:
                self._look_at = min(self._look_at, now + self._looks.wait_s())
        except (BudgetError, BundleError, EnrolmentError, ReleaseError, SecAggError) as error:
            self._refused(error)
            self._postpone(offer, None)
        return 0.0

    def _send_direct(self, accepted: Accepted, now: float) -> float:
        """Enrol, or send what goes by itself: the same bytes until the server has them or refuses for good."""
        features, membership = self._parts.features, self._parts.membership
        try:
            member = membership.find(accepted)
            if member is None:
                membership.enrol(accepted)
                return 0.0
            self._parts.gate.check()
            noised = features.next_noised()
            if noised is not None:
                self._parts.server.send_feature(member, noised.name, noised.values)
            features.sent()
            self._directs.succeeded()
        except FleetError as error:
            self._refused(error)
            if error.reason in _FOR_GOOD:
                features.sent()
            if error.reason in _STALE:
                self._look_at = min(self._look_at, now + self._looks.wait_s())
            self._direct_at = now + self._directs.wait_s(error.retry_after_s)
        except (BudgetError, EnrolmentError) as error:
            self._refused(error)
            self._direct_at = now + self._directs.wait_s()
        return 0.0

    def _check_in(self, offer: Offer, member: Member) -> None:
        from hushrec_privacy.secagg import Phase, SecAggDevice, Session, message_size

        parts, accepted = self._parts, offer.accepted
        compared = self._candidate() if accepted.plan.compares else None
        answer = parts.server.check_in(member)
        try:
            session = Session.decode(answer.session)
        except SecAggError:
            refuse("session")
        parts.record().join(accepted.opened)
        rho = check_round(accepted, session, record=parts.record(), at_s=parts.clock(), round_number=answer.round)
        bundle = self._start_of(answer, accepted.plan, compared)
        candidate = compared.bundle if compared else None
        sizes = {int(phase): padded_bytes(message_size(session, phase)) for phase in Phase}
        link = RoundLink(
            parts.server, member, answer.round, sizes=sizes, largest_reply=_REPLY_BYTES + 512 * accepted.plan.cohort
        )
        self._offer = offer
        self.run = RoundRun(
            link,
            SecAggDevice(session, member.identity, member.certificate, cohort_floor=parts.limits.cohort_floor),
            work=lambda stop: parts.contributor.vector(accepted, answer.round, bundle, candidate, stop),
            spend=lambda: self._spend(accepted, answer.round, rho),
            pace=Pace(accepted.plan.round_seconds),
            clock=parts.timer,
        )

    def _candidate(self) -> Compared:
        """What a round of a plan that compares is about; nothing of it is ever in use."""
        gate = self._parts.gate
        gate.check()
        try:
            found = self._parts.models.candidate(lambda: gate.closed() is not None)
        except FleetError as error:
            if error.reason == "release":
                self._look_at = self._update_at = -math.inf
            raise
        gate.check()  # or it was stopped
        if found is None:
            refuse("candidate")
        return found

    def _start_of(self, answer: CheckInAnswer, plan: Plan, compared: Compared | None) -> Bundle | None:
        """The bundle that the round starts from; counts of a shop without releases start from whatever is here.

        A round that compares names the candidate instead, and the device has just seen that its bundle is the newest.
        """
        bundle = self._parts.models.newest()
        if compared is not None:
            if answer.release != compared.sha256:
                refuse("release", retry_after_s=0)  # there is another candidate since; the next look finds it
            return bundle
        if answer.release and (bundle is None or bundle.sha256 != answer.release):
            self._look_at, self._update_at = -math.inf, -math.inf
            refuse("release", retry_after_s=0)
        if not answer.release and plan.purpose == "update":
            refuse("release")
        return bundle

    def _spend(self, accepted: Accepted, round_number: int, rho: str) -> None:
        self._parts.record().participate(accepted.plan_id, round_number, rho=rho)
        self._parts.contributor.sent(accepted.plan)

    def _go_on(self, run: RoundRun) -> float:
        try:
            wait = run.step(self._parts.gate.closed)
        finally:
            if run.outcome is not None:
                self._ended(run.outcome)
        return wait

    def _ended(self, outcome: Outcome) -> None:
        self.run, offer = None, self._offer
        if outcome.reason == "done":
            self.rounds += 1
            self.refusal = None
        else:
            self.refusal = Refusal(outcome.reason, outcome.text)
        if offer is None:
            return
        if outcome.spent:
            offer.backoff.succeeded()
            wait = _wait_s(offer.accepted, self._parts.record().totals(), self._parts.clock())
            offer.not_before = self._waits() + wait
            if not math.isfinite(wait):
                self._agenda.drop(offer)
        else:
            self._postpone(offer, None)

    def _postpone(self, offer: Offer, retry_after_s: float | None) -> None:
        offer.not_before = self._waits() + offer.backoff.wait_s(retry_after_s)

    def _refused(self, error: HushrecError) -> None:
        reason = error.reason if isinstance(error, FleetError) else error.code
        self.refusal = Refusal(reason, error.message)


def _wait_s(accepted: Accepted, totals: Totals, at_s: float) -> float:
    """Seconds until this device asks for a round that it can join: at a moment of its own after the round's start."""
    wait = earliest_round_in_s(accepted, totals, at_s=at_s)
    return wait + uniform() * SPREAD * accepted.plan.round_seconds if wait else 0.0
