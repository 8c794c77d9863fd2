"""The receipt of this device as a page for its shopper, in Markdown: for an app to show, and for `privacy receipt`.

    with SqliteLedgerStore(record, read_only=True) as store:
        print(receipt_page(device_receipt(store)))

The values come from `hushrec_privacy.report.receipt`; here are only words.
"""

import math

from hushrec_privacy.accounting.guarantee import Guarantee, rounded_up
from hushrec_privacy.report.receipt import NOT_ON_THE_RECEIPT, PlanReceipt, Receipt

__all__ = ["PLAN_COLUMNS", "SEALED_PAGE", "meaning", "plan_rows", "receipt_page"]

PLAN_COLUMNS = ("plan begins", "rounds", "epsilon spent", "delta", "times left", "epsilon at the end")

SEALED_PAGE = """# Privacy receipt of this device: sealed

This device takes part in nothing now: nobody has agreed to it. Whether it did before stands in its own record, which is
sealed, and stays closed until it is asked for. The app can open it, and so can this command, where RECORD is vault.db
in the app's fleet folder: hushrec privacy receipt RECORD
"""
"""What stands in place of a receipt while a device's record is not to be opened."""

_LARGEST = 100.0  # e^100 is no factor that tells anybody anything


def receipt_page(receipt: Receipt) -> str:
    """The page.

    Args:
        receipt: From `device_receipt`.
    """
    total = receipt.total
    lines = [
        f"# Privacy receipt of this device: epsilon {rounded_up(total.epsilon)} at delta {rounded_up(total.delta)}",
        "",
        *(f"**{line}**\n" for line in receipt.warnings()),
        meaning(total),
        "",
        f"Whose presence is hidden: {total.unit}. Neighbours: {total.adjacency}. Who is trusted: {total.trust}.",
        "",
        "## What this device took part in",
        "",
    ]
    lines += _table(receipt)
    lines += ["", "## What left this device", ""]
    lines += [f"- Plan {plan.plan[:16]}: {plan.sent}." for plan in receipt.plans] or ["- Nothing."]
    lines += ["", "## What is left", "", *(f"- {line}" for line in _left(receipt))]
    if receipt.plans:
        lines += ["", "## It holds only if", "", *(f"- {line}" for line in _assumptions(receipt))]
    lines += ["", "## What it does not cover", "", *(f"- {line}" for line in NOT_ON_THE_RECEIPT)]
    lines += ["", "## How to check it", "", *(f"- {line}" for line in receipt.checks())]
    return "\n".join(lines) + "\n"


def meaning(total: Guarantee) -> str:
    """What an epsilon says, in one sentence.

    >>> from dataclasses import replace
    >>> one = Guarantee(0.5, 1e-6, "a device", "zero-out", "Gaussian", "the server")
    >>> meaning(one)[-61:]
    'by a factor of 1.65 at most, but for a chance of about 1e-06.'
    >>> meaning(replace(one, epsilon=0.0, delta=0.0))
    'This device has sent nothing, so nothing that is published depends on it.'
    """
    if total.epsilon == 0 == total.delta:
        return "This device has sent nothing, so nothing that is published depends on it."
    if total.epsilon > _LARGEST:
        return "This is no protection: what is published may tell everything about what this device sent."
    factor = rounded_up(math.exp(total.epsilon), 3)
    return (
        "For whoever sees all that is published, the odds of anything they may suspect of what this device sent change "
        f"by a factor of {factor} at most, but for a chance of about {rounded_up(total.delta, 3)}."
    )


def plan_rows(receipt: Receipt) -> list[list[str]]:
    """One row a plan, under `PLAN_COLUMNS`."""
    return [
        [
            plan.plan[:16] + (" DEMO" if plan.demo else "") + (" ended" if plan.closed else ""),
            _rounds(plan),
            rounded_up(plan.spent.epsilon),
            rounded_up(plan.spent.delta),
            str(plan.left),
            rounded_up(plan.whole.epsilon),
        ]
        for plan in receipt.plans
    ]


def _table(receipt: Receipt) -> list[str]:
    if not receipt.plans:
        return ["No plan was joined."]
    rows = [PLAN_COLUMNS, ["---"] * len(PLAN_COLUMNS), *plan_rows(receipt)]
    return [f"| {' | '.join(row)} |" for row in rows]


def _rounds(plan: PlanReceipt) -> str:
    if not plan.rounds:
        return "none"
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in plan.rounds)


def _left(receipt: Receipt) -> list[str]:
    spent = f"rho {rounded_up(float(receipt.rho))} of {receipt.lifetime_rho}"
    lifetime = f"Of what this device spends in its lifetime, over all plans: {spent} is spent."
    return [lifetime, *(f"Plan {plan.plan[:16]}: {_times(plan.left)}." for plan in receipt.plans)]


def _times(left: int) -> str:
    if not left:
        return "nothing more, the device refuses further rounds"
    return f"{left} more round{'s' if left > 1 else ''} at most; after that the device refuses"


def _assumptions(receipt: Receipt) -> list[str]:
    plans = (line for plan in receipt.plans for line in plan.spent.assumptions)
    return list(dict.fromkeys((*plans, *receipt.total.assumptions)))
