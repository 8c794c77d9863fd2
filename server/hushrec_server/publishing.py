"""What happens to a noised sum: the seam between rounds and releases.

A publisher is asked again until it has answered once, so it must recognise what it has published already. What it tells
of earlier publications comes from outside the database: it is what a database that was set back is held against.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from hushrec_privacy.ledger import Anchor
from hushrec_privacy.plans.plan import Plan
from numpy.typing import NDArray

__all__ = ["Newest", "Publisher", "RoundResult", "StoredResults", "Verdict"]


class Newest(NamedTuple):
    """The newest release, what devices start from; or the candidate, what they compare with it.

    Attributes:
        version: Model version; 0: there is none.
        bundle: Hash that names it, 64 hexadecimal digits; empty: there is none.
    """

    version: int = 0
    bundle: str = ""


class Verdict(NamedTuple):
    """What became of a result.

    Attributes:
        refused: Why it will never be published; empty: it is, unless it waits.
        keep: Whether the stored sum is still needed.
        waiting: What has to happen before it is decided; the publisher is asked again then. Empty: it is decided.
    """

    refused: str = ""
    keep: bool = False
    waiting: str = ""


@dataclass(frozen=True)
class RoundResult:
    """What a round came to.

    Attributes:
        plan: Of which plan.
        number: Of the round.
        release: Bundle that its devices started from, as it was told to them; of a plan that compares, the candidate.
        noised: Sum with its noise, shape (d,), int64, lattice steps. Public.
        survivors: How many devices are in it.
        anchor: The ledger's head after the round was spent.
    """

    plan: Plan
    number: int
    release: str
    noised: NDArray[np.int64]
    survivors: int
    anchor: Anchor


class Publisher(Protocol):
    """Makes results public. Safe to call from several processes."""

    def newest(self) -> Newest:
        """The newest release."""

    def candidate(self) -> Newest:
        """What a round of a plan that compares is about; version 0: there is nothing to compare."""

    def check_plan(self, plan: Plan) -> None:
        """Refuse a plan that devices could not carry out on the newest release.

        Raises:
            PlanError: It trains another number of parameters than the release has; names both.
        """

    def anchor(self) -> Anchor | None:
        """The ledger's head after the latest round whose result devices could see, by what they see; None: none did."""

    def anchored_by(self) -> str:
        """What tells the `anchor`, for the operator; empty: nothing does."""

    def last_published(self, plan_id: str) -> int:
        """The newest round of a plan whose result devices could see, by the same; 0: none, or it leaves no trace."""

    def publish(self, result: RoundResult) -> Verdict:
        """Publish a result, once, however often it is asked; durable on return, unless it waits.

        Raises:
            HushrecError: It could not be published now; it is asked again later.
        """


class StoredResults:
    """Publishes by leaving results in the database, for the shop to read: counters and evaluations."""

    def newest(self) -> Newest:
        """None."""
        return Newest()

    def candidate(self) -> Newest:
        """None."""
        return Newest()

    def check_plan(self, plan: Plan) -> None:
        """There is no release that it would have to fit."""

    def anchor(self) -> Anchor | None:
        """None."""
        return None

    def anchored_by(self) -> str:
        """Nothing."""
        return ""

    def last_published(self, plan_id: str) -> int:
        """Nothing leaves the database."""
        del plan_id
        return 0

    def publish(self, result: RoundResult) -> Verdict:
        """Nothing to do."""
        del result
        return Verdict(keep=True)
