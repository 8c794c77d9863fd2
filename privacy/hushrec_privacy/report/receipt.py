"""The receipt of one device: what its own participation record says that it took part in, sent, spent and has left.

Plain values for the shopper whose device it is; pages are made elsewhere. Every epsilon and rho is computed anew from
the plans' numbers (see `ledger.device_cost`), whatever the record's entries tell. It knows this one record: neither
what a server did with the sums, nor another device of the same shopper.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hushrec_privacy.accounting.claims import DEVICE, ROUNDS_TRUST
from hushrec_privacy.accounting.guarantee import Guarantee, compose, number
from hushrec_privacy.canonical import decimal, float_text_up, subtract_decimals
from hushrec_privacy.errors import LedgerError
from hushrec_privacy.ledger.chain import Anchor, LedgerStore
from hushrec_privacy.ledger.device_cost import device_guarantee, device_rho
from hushrec_privacy.ledger.entries import Open, Spend
from hushrec_privacy.ledger.ledger import history, verify
from hushrec_privacy.ledger.openings import BANDED, LOCAL
from hushrec_privacy.ledger.participation import is_participation_record
from hushrec_privacy.ledger.rules import PlanTotals
from hushrec_privacy.plans.schema import UPDATE

__all__ = ["NOT_ON_THE_RECEIPT", "PlanReceipt", "Receipt", "device_receipt"]

NOT_ON_THE_RECEIPT = (
    "that this device took part, in which rounds, and from which address: the server sees who checks in",
    "what the shopper does in the shop itself: orders, accounts, web logs and anything sent outside hushrec",
    "other devices and accounts of the same person: each has a receipt of its own, and they add up",
    "facts about many shoppers at once: differential privacy hides one device, not a trend",
    "this device in somebody else's hands, and a record that was deleted: a new one knows nothing of what was spent",
    "whether the server adds its noise and keeps it secret: a device cannot see that",
)

_ROUNDING = 1 - 1e-12


@dataclass(frozen=True)
class PlanReceipt:
    """One plan that the device joined.

    Attributes:
        plan: Its id.
        spent: What holds for the participations so far, all rounds of the plan taken as published.
        whole: What will hold if the device takes part as often as the limits still allow.
        rounds: The rounds it took part in: first and last of each run of rounds, ascending.
        participations: How many rounds these are.
        left: How many more the plan's cap, its rounds, their separation and the lifetime rho allow.
        closed: Whether it has ended.
        demo: Whether it was made under limits that protect nobody.
        rho: mu^2 / 2 of the participations so far; infinite where there is no guarantee.
        told_rho: What the record was told of that, a decimal string.
        sent: What left the device, in words.
    """

    plan: str
    spent: Guarantee
    whole: Guarantee
    rounds: tuple[tuple[int, int], ...]
    participations: int
    left: int
    closed: bool
    demo: bool
    rho: float
    told_rho: str
    sent: str

    @property
    def understated(self) -> bool:
        """Whether the record was told a smaller rho than the participations cost, so that its limit counted wrongly."""
        return math.isfinite(self.rho) and float(self.told_rho) < self.rho * _ROUNDING

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "plan": self.plan,
            "demo": self.demo,
            "closed": self.closed,
            "rounds": [list(run) for run in self.rounds],
            "spent": {
                "participations": self.participations,
                "epsilon": number(self.spent.epsilon),
                "delta": self.spent.delta,
                "rho": number(self.rho),
                "rho_told": self.told_rho,
            },
            "left": {"participations": self.left, "epsilon_at_the_end": number(self.whole.epsilon)},
            "sent": self.sent,
            "mechanism": self.spent.mechanism,
            "unit": self.spent.unit,
            "adjacency": self.spent.adjacency,
            "trust": self.spent.trust,
            "assumptions": list(self.spent.assumptions),
            "slack": dict(self.spent.slack),
        }


@dataclass(frozen=True)
class Receipt:
    """A whole participation record.

    Attributes:
        total: All plans together that the device took part in, composed exactly, at the sum of their deltas; epsilon
            and delta 0 where there is none.
        plans: One receipt a plan, in the order in which they were joined.
        lifetime_rho: What this device spends at most in its life, over all plans, a decimal string.
        rho_left: What is left of that by what the record was told, a decimal string.
        entries: Entries of the record, all of them verified.
        head: Its last one.
        anchored: Whether the record was compared with a head of an earlier receipt.
    """

    total: Guarantee
    plans: tuple[PlanReceipt, ...]
    lifetime_rho: str
    rho_left: str
    entries: int
    head: Anchor
    anchored: bool

    @property
    def rho(self) -> str:
        """What is spent of the lifetime rho by what the record was told, a decimal string."""
        return subtract_decimals(self.lifetime_rho, self.rho_left)

    def warnings(self) -> tuple[str, ...]:
        """What the shopper should not overlook, one sentence each."""
        found = []
        if any(plan.demo for plan in self.plans):
            found.append("DEMO: a plan was made under limits that protect nobody")
        if self.total.epsilon == math.inf:
            found.append("there is no guarantee for what this device sent: see the mechanism of each plan")
        if any(plan.understated for plan in self.plans):
            found.append("the record was told a smaller rho than its rounds cost: the app counts wrongly, or lies")
        return tuple(found)

    def checks(self) -> tuple[str, ...]:
        """How the shopper can check the receipt, one sentence each."""
        compared = (
            "It was compared with the head of an earlier receipt: it is no older, and what was there is unchanged."
            if self.anchored
            else "It was compared with no earlier receipt, so an older copy of the record would have passed."
        )
        return (
            f"All {self.entries} entries of the record were read: each fits the hash before it and kept every limit.",
            compared,
            f"Keep the head {self.head}, and give it the next time: hushrec privacy receipt RECORD --anchor HEAD",
            "Compare a plan's id with the one that the shop publishes: it is the sha256 of the plan.",
            "Read every entry yourself: hushrec privacy ledger show RECORD",
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            **self.total.to_dict(),
            "plans": [plan.to_dict() for plan in self.plans],
            "lifetime": {"rho_limit": self.lifetime_rho, "rho_spent": self.rho, "rho_left": self.rho_left},
            "warnings": list(self.warnings()),
            "not_covered": list(NOT_ON_THE_RECEIPT),
            "how_to_check": list(self.checks()),
            "entries": self.entries,
            "head": str(self.head),
            "anchored": self.anchored,
        }


def device_receipt(store: LedgerStore, *, anchor: Anchor | None = None) -> Receipt:
    """Verify a device's participation record and make its receipt.

    Args:
        store: The record; opened read-only is enough, also while the app has it open.
        anchor: The head of an earlier receipt; without one an older copy of the record passes.

    Raises:
        LedgerError: The record is damaged, altered or older than the anchor, or it is the ledger of a shop or of a
            training run.
    """
    totals = verify(store, anchor=anchor)
    lifetime, left = totals.genesis.lifetime_rho, totals.rho_left
    if lifetime is None or left is None or not is_participation_record(totals):
        raise LedgerError(
            "this is no participation record of a device, whose lifetime and plans are limited; for the ledger of a "
            "shop or a training run use: hushrec privacy report"
        )
    rounds: dict[str, list[tuple[int, int]]] = {plan: [] for plan in totals.plans}
    for place, entry in history(store):
        if isinstance(entry, Spend) and place.index <= totals.head.index:
            rounds[entry.plan].append((entry.first, entry.last))
    plans = tuple(_plan_receipt(plan, tuple(rounds[name]), decimal(left)) for name, plan in totals.plans.items())
    return Receipt(
        total=_total(plans),
        plans=plans,
        lifetime_rho=lifetime,
        rho_left=left,
        entries=totals.entries,
        head=totals.head,
        anchored=anchor is not None,
    )


def _total(plans: tuple[PlanReceipt, ...]) -> Guarantee:
    parts = [plan.spent for plan in plans if plan.participations]
    if parts:
        return compose(parts)
    known = plans[0].spent if plans else None
    return Guarantee(
        epsilon=0.0,
        delta=0.0,
        unit=DEVICE if known is None else known.unit,
        adjacency="zero-out" if known is None else known.adjacency,
        mechanism="nothing was sent",
        trust=ROUNDS_TRUST if known is None else known.trust,
    )


def _plan_receipt(plan: PlanTotals, rounds: tuple[tuple[int, int], ...], rho_left: Decimal) -> PlanReceipt:
    opened, left = plan.opened, _left(plan, rho_left)
    return PlanReceipt(
        plan=opened.plan,
        spent=device_guarantee(opened, plan.rounds),
        whole=device_guarantee(opened, plan.rounds + left),
        rounds=rounds,
        participations=plan.rounds,
        left=left,
        closed=plan.closed,
        demo=opened.demo,
        rho=device_rho(opened, plan.rounds),
        told_rho=plan.rho,
        sent=_sent(opened, plan.rounds),
    )


def _left(plan: PlanTotals, rho_left: Decimal) -> int:
    """Participations that cap, rounds and separation leave, and whose rho fits into what is left of it."""
    opened = plan.opened
    if opened.limits.max_rho is not None:
        rho_left = min(rho_left, decimal(subtract_decimals(opened.limits.max_rho, plan.rho)))
    if math.isinf(device_rho(opened, plan.rounds + plan.rounds_left)):
        return plan.rounds_left  # what a round costs is not known, so the app may tell anything
    so_far = float_text_up(device_rho(opened, plan.rounds))
    fitting, too_many = 0, plan.rounds_left + 1
    while too_many - fitting > 1:
        tried = (fitting + too_many) // 2
        cost = subtract_decimals(float_text_up(device_rho(opened, plan.rounds + tried)), so_far)
        if decimal(cost) <= rho_left:
            fitting = tried
        else:
            too_many = tried
    return fitting


def _sent(opened: Open, participations: int) -> str:
    if not participations:
        return "nothing"
    times = "once" if participations == 1 else f"{participations} times"
    if opened.mechanism == LOCAL and {"parameters", "clip_norm", "keep_days"} <= set(opened.parameters):
        given = opened.parameters
        return (
            f"at most {times}: {given['parameters']} numbers ({opened.purpose}), cut to a length of "
            f"{given['clip_norm']} and noised on this device; the server sees them, each time, and is to delete them "
            f"after {given['keep_days']} days"
        )
    if opened.mechanism != BANDED or "parameters" not in opened.parameters:
        return f"at most {times}: what this plan calls {opened.mechanism}"
    given = opened.parameters
    what = f"numbers ({opened.purpose})" if opened.purpose else "numbers by which the model should change"
    is_update = not opened.purpose or opened.purpose.startswith(f"{UPDATE}: ")
    # Segments have bounds of their own, in units of their own; those are in the plan and not in this entry.
    bound = (
        f"cut to a length of {given.get('clip_norm', '?')}" if is_update else "each part cut to its bound in the plan"
    )
    return (
        f"at most {times}: {given['parameters']} {what}, {bound} and masked, so that the server reads only the sum "
        f"over at least {given.get('min_cohort', '?')} devices; no event, item or search leaves by itself"
    )
