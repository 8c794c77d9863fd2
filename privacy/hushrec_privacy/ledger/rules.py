"""What a ledger allows next, and what it has counted: the same rules before an entry is written and when it is read.

A plan's rounds strictly increase, `separation` apart, at most `cap` of them and none above `max_rounds`; no ρ or ε
above its limit; all plans of one ledger count the same unit under the same adjacency, since no sum over different ones
means anything. Sums are exact (decimals). Computes no ε: that is the accounting's, from the parameters.
"""

from dataclasses import dataclass, field, replace
from decimal import Decimal

from hushrec_privacy.canonical import add_exactly, decimal, decimal_text, subtract_decimals
from hushrec_privacy.errors import BudgetError
from hushrec_privacy.ledger.chain import Anchor
from hushrec_privacy.ledger.entries import Close, Entry, Genesis, Open, Spend

__all__ = ["PlanTotals", "Totals", "check_entry", "count_entry"]


@dataclass(frozen=True, slots=True)
class PlanTotals:
    """What one plan has spent.

    Attributes:
        opened: Its first entry.
        rounds: How many rounds are spent.
        last: The last spent round; 0: none.
        spent: Sum of the ρ of its spends, exact.
        epsilon: The ε that its last spend told, a decimal string; None: none did.
        closed: Whether nothing more may be spent.
    """

    opened: Open
    rounds: int = 0
    last: int = 0
    spent: Decimal = Decimal(0)
    epsilon: str | None = None
    closed: bool = False

    @property
    def rho(self) -> str:
        """Sum of the ρ of its spends, a decimal string."""
        return decimal_text(self.spent)

    @property
    def rounds_left(self) -> int:
        """How many rounds may still be spent: the fewest that the cap, T and the separation leave."""
        limits = self.opened.limits
        if self.closed:
            return 0
        earliest = self.last + limits.separation if self.last else 1
        places = max(0, (limits.max_rounds - earliest) // limits.separation + 1)
        return places if limits.cap is None else min(places, limits.cap - self.rounds)


@dataclass(slots=True)
class Totals:
    """What a ledger holds, all plans together.

    Attributes:
        genesis: Its first entry.
        head: Its last entry, to be kept elsewhere as an anchor.
        plans: The plans by id, in the order in which they were opened.
        spent: Sum of the ρ of all spends, exact.
    """

    genesis: Genesis
    head: Anchor
    plans: dict[str, PlanTotals] = field(default_factory=dict)
    spent: Decimal = Decimal(0)

    @property
    def rho(self) -> str:
        """Sum of the ρ of all spends, a decimal string."""
        return decimal_text(self.spent)

    @property
    def entries(self) -> int:
        """Number of entries, the first included."""
        return self.head.index + 1

    @property
    def rho_left(self) -> str | None:
        """What is left of the lifetime ρ, a decimal string; None: it has no limit."""
        limit = self.genesis.lifetime_rho
        return None if limit is None else subtract_decimals(limit, self.rho)

    @property
    def unit(self) -> str | None:
        """Whom the ledger protects; None: it has no plan yet."""
        return next((plan.opened.unit for plan in self.plans.values()), None)

    @property
    def adjacency(self) -> str | None:
        """The neighbouring relation of all its plans; None: it has no plan yet."""
        return next((plan.opened.adjacency for plan in self.plans.values()), None)

    @property
    def demo(self) -> bool:
        """Whether any plan was made under limits that protect nobody."""
        return any(plan.opened.demo for plan in self.plans.values())


def check_entry(entry: Entry, totals: Totals | None) -> None:
    """Refuse an entry that may not come next.

    Args:
        entry: What is to be added.
        totals: What the ledger holds; None: nothing.

    Raises:
        BudgetError: It may not; the message names the rule.
    """
    if isinstance(entry, Genesis) or totals is None:
        if not isinstance(entry, Genesis) or totals is not None:
            raise BudgetError("a ledger begins with one entry of the kind genesis, and has no second one")
    elif isinstance(entry, Open):
        _check_open(entry, totals)
    else:
        plan = totals.plans.get(entry.plan)
        if plan is None:
            raise BudgetError(f"{_named(entry.plan)} is not in this ledger; open it first")
        if plan.closed:
            raise BudgetError(f"{_named(entry.plan)} is closed; nothing more can be spent in it")
        if isinstance(entry, Spend):
            _check_rounds(entry, plan)
            _check_rho(entry, plan, totals)
            _check_epsilon(entry, plan)


def count_entry(entry: Entry, totals: Totals | None, head: Anchor) -> Totals:
    """Count an entry that `check_entry` has allowed.

    Args:
        entry: What was added.
        totals: What the ledger held before it; changed. None: nothing.
        head: Where the entry lies.

    Returns:
        What the ledger holds with it.
    """
    if isinstance(entry, Genesis) or totals is None:
        return Totals(entry if isinstance(entry, Genesis) else Genesis(), head)
    if isinstance(entry, Open):
        totals.plans[entry.plan] = PlanTotals(entry)
    elif isinstance(entry, Close):
        totals.plans[entry.plan] = replace(totals.plans[entry.plan], closed=True)
    else:
        plan, rho = totals.plans[entry.plan], decimal(entry.rho or "0")
        totals.plans[entry.plan] = PlanTotals(
            opened=plan.opened,
            rounds=plan.rounds + entry.last - entry.first + 1,
            last=entry.last,
            spent=add_exactly(plan.spent, rho),
            epsilon=entry.epsilon or plan.epsilon,
        )
        totals.spent = add_exactly(totals.spent, rho)
    totals.head = head
    return totals


def _check_open(entry: Open, totals: Totals) -> None:
    if entry.plan in totals.plans:
        raise BudgetError(f"{_named(entry.plan)} is in this ledger already; a plan is opened once")
    for name in ("unit", "adjacency"):
        given, kept = getattr(entry, name), getattr(totals, name)
        if kept not in (None, given):
            raise BudgetError(
                f"{_named(entry.plan)} has the {name} {given!r} and this ledger counts {kept!r}: their budgets cannot "
                "be added; keep another ledger and report both"
            )


def _check_rounds(entry: Spend, plan: PlanTotals) -> None:
    limits, name = plan.opened.limits, _named(entry.plan)
    shown = f"round {entry.first}" if entry.first == entry.last else f"rounds {entry.first} to {entry.last}"
    if entry.first <= plan.last:
        raise BudgetError(f"{name}: {shown} asked for, and round {plan.last} is spent already; rounds only increase")
    if plan.last and entry.first - plan.last < limits.separation:
        raise BudgetError(
            f"{name}: {shown} comes too soon after round {plan.last}; they must be {limits.separation} apart"
        )
    if entry.last > entry.first and limits.separation > 1:
        raise BudgetError(f"{name}: {shown} asked for at once; spent rounds must be {limits.separation} apart")
    if entry.last > limits.max_rounds:
        raise BudgetError(f"{name}: {shown} asked for; the plan ends with round {limits.max_rounds}")
    count = entry.last - entry.first + 1
    if limits.cap is not None and plan.rounds + count > limits.cap:
        raise BudgetError(f"{name}: {plan.rounds} of at most {limits.cap} rounds are spent; {count} more asked for")


def _check_rho(entry: Spend, plan: PlanTotals, totals: Totals) -> None:
    limit, lifetime = plan.opened.limits.max_rho, totals.genesis.lifetime_rho
    if entry.rho is None:
        if limit is not None or lifetime is not None:
            raise BudgetError(f"{_named(entry.plan)}: ρ is limited here, so every spend must tell its own")
        return
    rho = decimal(entry.rho)
    for whole, spent, plans in ((limit, plan.spent, entry.plan), (lifetime, totals.spent, None)):
        if whole is not None and add_exactly(spent, rho) > decimal(whole):
            name = "all plans together" if plans is None else _named(plans)
            raise BudgetError(
                f"{name}: ρ {decimal_text(spent)} of {whole} is spent; {entry.rho} more would be too much"
            )


def _check_epsilon(entry: Spend, plan: PlanTotals) -> None:
    limit, name = plan.opened.limits.max_epsilon, _named(entry.plan)
    if entry.epsilon is None:
        if limit is not None or plan.epsilon is not None:
            raise BudgetError(f"{name}: every spend of this plan must tell the ε reached after it")
        return
    if plan.epsilon is not None and decimal(entry.epsilon) < decimal(plan.epsilon):
        raise BudgetError(f"{name}: ε {entry.epsilon} told after {plan.epsilon}; spending never lowers it")
    if limit is not None and decimal(entry.epsilon) > decimal(limit):
        raise BudgetError(f"{name}: ε would reach {entry.epsilon}; the limit is {limit}")


def _named(plan: str) -> str:
    return f"plan {plan[:12]}…"
