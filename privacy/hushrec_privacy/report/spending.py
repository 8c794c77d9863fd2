"""What a ledger has spent and has left, per plan and in all, as plain values: tables and pages are made elsewhere.

The fields follow what NIST SP 800-226 (Guidelines for Evaluating Differential Privacy Guarantees) asks of a statement:
unit, neighbours, parameters, mechanism and composition, trust model, what the implementation adds, what is not covered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hushrec_privacy.accounting.guarantee import Guarantee, compose, number
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.ledger.chain import Anchor, LedgerStore
from hushrec_privacy.ledger.entries import Spend
from hushrec_privacy.ledger.ledger import history, verify
from hushrec_privacy.ledger.openings import guarantee_after
from hushrec_privacy.ledger.participation import is_participation_record
from hushrec_privacy.ledger.rules import PlanTotals

__all__ = ["NOT_COVERED", "PlanReport", "SpendingReport", "spending_report", "together"]

NOT_COVERED = (
    "who takes part and when: check-in times, network addresses and the number of participants",
    "what a shopper does in the shop itself: orders, web logs and anything sent outside hushrec",
    "facts about many shoppers at once: differential privacy hides one unit, not a trend",
    "a device, server or training machine that is taken over while it works on the raw data",
    "timing and other side channels of the noise sampler",
)

_POINTS = 50


@dataclass(frozen=True)
class PlanReport:
    """One plan of the ledger.

    Attributes:
        plan: Its id.
        spent: What holds after the rounds that are spent.
        whole: What will hold if every round is spent that the limits still allow.
        rounds: Rounds spent.
        rounds_left: Rounds that may still be spent.
        closed: Whether it has ended.
        demo: Whether it was made under limits that protect nobody.
        curve: (number of rounds spent, epsilon after them) at up to 50 of the spends; empty if not asked for.
        noise_multiplier: Noise over the bound of one contribution; None if the mechanism has none.
    """

    plan: str
    spent: Guarantee
    whole: Guarantee
    rounds: int
    rounds_left: int
    closed: bool
    demo: bool
    curve: tuple[tuple[int, float], ...]
    noise_multiplier: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "plan": self.plan,
            "demo": self.demo,
            "closed": self.closed,
            "spent": {"rounds": self.rounds, "epsilon": number(self.spent.epsilon), "delta": self.spent.delta},
            "left": {"rounds": self.rounds_left, "epsilon_at_the_end": number(self.whole.epsilon)},
            "mechanism": self.spent.mechanism,
            "assumptions": list(self.spent.assumptions),
            "slack": dict(self.spent.slack),
            "curve": [[rounds, number(epsilon)] for rounds, epsilon in self.curve],
        }


@dataclass(frozen=True)
class SpendingReport:
    """A whole ledger, or several together.

    Attributes:
        total: All plans together that have spent, composed exactly, at the sum of their deltas. There is always one:
            plans of different units or adjacencies cannot be in one ledger.
        plans: One report a plan, in the order in which they were opened.
        entries: Entries of the ledger.
        heads: Its last one, or that of each ledger: the anchors to keep elsewhere.
    """

    total: Guarantee
    plans: tuple[PlanReport, ...]
    entries: int
    heads: tuple[Anchor, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            **self.total.to_dict(),
            "plans": [plan.to_dict() for plan in self.plans],
            "not_covered": list(NOT_COVERED),
            "nist_sp_800_226": self.nist_fields(),
            "entries": self.entries,
            "head": " ".join(str(head) for head in self.heads),
        }

    def nist_fields(self) -> dict[str, str]:
        """What NIST SP 800-226 asks, by name, as summaries by others have it."""
        total = self.total
        return {
            "privacy parameters": f"epsilon {number(total.epsilon)}, delta {total.delta:g}",
            "unit of privacy": total.unit,
            "neighbouring datasets": total.adjacency,
            "mechanism": total.mechanism,
            "composition": "exact inside a plan and over all plans; deltas of several plans are added",
            "trust model": total.trust,
            "bounded contributions": "the L2 norm of a unit's whole contribution, and how often it contributes",
            "implementation": "noise from the operating system's randomness; "
            + (
                "central training adds it in floating point, whose last bits are not covered; counts get whole numbers"
                if total.adjacency == "add-or-remove"
                else "integers only, rounding is part of the stated epsilon"
            ),
            "side channels": "the time that noise takes is not hidden: let nobody measure single draws",
            "accuracy and bias": "no matter of a ledger; noise costs small groups most, so measure quality for each",
            "security and access control": "the ledger is its owner's alone to read; log, keys and noise state are as "
            "safe as the shop keeps them",
            "data exposure": "this ledger holds parameters and counts only; no record of any shopper",
            "not covered": "; ".join(NOT_COVERED),
        }


def spending_report(store: LedgerStore, *, anchor: Anchor | None = None, curves: bool = False) -> SpendingReport:
    """Verify a ledger and say what it has spent.

    Args:
        store: The ledger.
        anchor: A point of it kept elsewhere; without one an older copy of the ledger passes.
        curves: Compute epsilon over time as well.

    Raises:
        LedgerError: The ledger is damaged, altered, or older than the anchor.
        ConfigError: It holds no plan yet, or it is the participation record of a device, which counts otherwise.
    """
    totals = verify(store, anchor=anchor)
    if not totals.plans:
        raise ConfigError("the ledger has no plan yet; nothing was spent and there is nothing to report")
    if is_participation_record(totals):  # its last round is not the last one that is published
        raise ConfigError("this is the participation record of a device; use: hushrec privacy receipt")
    spends: dict[str, list[Spend]] = {plan: [] for plan in totals.plans}
    if curves:
        for place, entry in history(store):
            if isinstance(entry, Spend) and place.index <= totals.head.index:  # a run may go on meanwhile
                spends[entry.plan].append(entry)
    plans = tuple(_plan_report(plan, spends[name]) for name, plan in totals.plans.items())
    return SpendingReport(_total(plans), plans, totals.entries, (totals.head,))


def together(reports: Sequence[SpendingReport]) -> SpendingReport:
    """What several ledgers about the same people have spent, such as those of training run after training run.

    Args:
        reports: One a ledger, at least one.

    Raises:
        ConfigError: Two hold the same plan, so one is a copy of the other; or they differ in unit or adjacency.
    """
    if len(reports) == 1:
        return reports[0]
    plans = tuple(plan for report in reports for plan in report.plans)
    for at, plan in enumerate(plans):
        if plan.plan in {other.plan for other in plans[:at]}:
            raise ConfigError(f"the plan {plan.plan[:16]} is in two of the ledgers; name each ledger once, and no copy")
    entries = sum(report.entries for report in reports)
    return SpendingReport(_total(plans), plans, entries, tuple(head for report in reports for head in report.heads))


def _total(plans: Sequence[PlanReport]) -> Guarantee:
    return compose([plan.spent for plan in plans if plan.rounds] or [plan.spent for plan in plans])


def _plan_report(plan: PlanTotals, spends: list[Spend]) -> PlanReport:
    opened, left = plan.opened, plan.rounds_left
    last = opened.limits.max_rounds
    noise = opened.parameters.get("noise_multiplier")
    spent = guarantee_after(opened, plan.rounds, plan.last)
    return PlanReport(
        plan=opened.plan,
        spent=spent,
        whole=guarantee_after(opened, plan.rounds + left, last) if left else spent,
        rounds=plan.rounds,
        rounds_left=left,
        closed=plan.closed,
        demo=opened.demo,
        curve=_curve(plan, spends),
        noise_multiplier=None if noise is None else float(noise),
    )


def _curve(plan: PlanTotals, spends: list[Spend]) -> tuple[tuple[int, float], ...]:
    """Epsilon after up to 50 of the spends; fewer where one costs seconds."""
    most = 12 if plan.opened.mechanism == "poisson-gaussian" else _POINTS
    step = max(1, -(-len(spends) // most))
    points, rounds = [], 0
    for index, spend in enumerate(spends):
        rounds += spend.last - spend.first + 1
        if (len(spends) - 1 - index) % step == 0:
            points.append((rounds, guarantee_after(plan.opened, rounds, spend.last).epsilon))
    return tuple(points)
