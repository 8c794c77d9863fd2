"""Which of its plans a device asks for next, and when: those it may join, each with waits of its own."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from hushrec.fleet.backoff import Backoff
from hushrec.fleet.joining import Accepted
from hushrec.fleet.pacing import Pace

__all__ = ["Agenda", "Offer"]


@dataclass
class Offer:
    """A plan that the device may join.

    Attributes:
        accepted: The plan.
        not_before: Seconds since 1970-01-01 UTC, before which it is not asked for.
        backoff: Waits after check-ins and rounds that came to nothing.
    """

    accepted: Accepted
    not_before: float
    backoff: Backoff = field(init=False)

    def __post_init__(self) -> None:
        """Pace it by its plan."""
        self.backoff = Pace(self.accepted.plan.round_seconds).check_ins()


class Agenda:
    """All offers. Not for several threads at once."""

    def __init__(self) -> None:
        self._offers: dict[str, Offer] = {}

    def renew(self, plans: Iterable[tuple[Accepted, float]]) -> None:
        """Take the plans that are offered now; one that was there keeps its later time and its waits.

        Args:
            plans: Each with the time before which no round of it can be joined.
        """
        fresh = {}
        for accepted, not_before in plans:
            offer = self._offers.get(accepted.plan_id) or Offer(accepted, not_before)
            offer.not_before = max(offer.not_before, not_before)
            fresh[accepted.plan_id] = offer
        self._offers = fresh

    def drop(self, offer: Offer) -> None:
        """Ask no more for a plan until it is offered anew."""
        self._offers.pop(offer.accepted.plan_id, None)

    def due(self, now: float) -> Offer | None:
        """The offer that has waited longest, if any may be asked for."""
        first = min(self._offers.values(), key=lambda offer: offer.not_before, default=None)
        return first if first is not None and first.not_before <= now else None

    def wait_s(self, now: float) -> float:
        """Seconds until one may be asked for; infinite: there is none."""
        return min((max(0.0, offer.not_before - now) for offer in self._offers.values()), default=math.inf)

    def __iter__(self) -> "Iterable[Offer]":
        return iter(self._offers.values())
