"""Which of its plans a device asks for next, and when: those it may join, each with waits of its own."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hushrec_privacy.plans.plan import Plan

from hushrec.fleet.backoff import Backoff
from hushrec.fleet.joining import Accepted
from hushrec.fleet.pacing import Pace

__all__ = ["Agenda", "Offer"]


@dataclass
class Offer:
    """A plan that the device may join.

    Attributes:
        accepted: The plan.
        not_before: By the clock of `Waits`, before which it is not asked for.
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

    def due(self, now: float, wanted: Callable[[Plan], bool]) -> Offer | None:
        """The offer that has waited longest of those that may be asked for.

        Args:
            now: By the clock of `Waits`.
            wanted: Whether there is anything to take part with in a plan.
        """
        first = min(self._wanted(wanted), key=lambda offer: offer.not_before, default=None)
        return first if first is not None and first.not_before <= now else None

    def wait_s(self, now: float, wanted: Callable[[Plan], bool]) -> float:
        """Seconds until one may be asked for; infinite: there is none."""
        return min((max(0.0, offer.not_before - now) for offer in self._wanted(wanted)), default=math.inf)

    def _wanted(self, wanted: Callable[[Plan], bool]) -> list[Offer]:
        return [offer for offer in self._offers.values() if wanted(offer.accepted.plan)]
