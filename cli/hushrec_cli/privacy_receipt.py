"""The command `privacy receipt`: what a device spent, told to its shopper."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hushrec_cli.options import Json, VaultKey
from hushrec_cli.output import Cell, print_data, print_json, write_file
from hushrec_cli.page import Section, Table, render_page
from hushrec_cli.privacy_ledger import AnchorText, opened_ledger, read_anchor

if TYPE_CHECKING:
    from hushrec_privacy.report.receipt import Receipt

__all__ = ["receipt"]


def receipt(
    record: Annotated[
        Path,
        typer.Argument(metavar="RECORD", readable=False, help="The vault of a device, or a plain record."),
    ],
    html: Annotated[Path | None, typer.Option(help="Write it as a page here, too.")] = None,
    anchor: AnchorText = None,
    vault_key: VaultKey = None,
    as_json: Json = False,
) -> None:
    """Print a device's own receipt: the rounds it took part in, what they cost it, what left it, what is left.

    Computed on the device from its own record, as if every round of a plan were published. With --anchor, the head on
    an earlier receipt, an older copy of the record is refused.

    Example: hushrec privacy receipt ann.profile.fleet/vault.db --vault-key vault.key --html receipt.html
    """
    from hushrec.receipt import receipt_page
    from hushrec_privacy.report.receipt import device_receipt

    with opened_ledger(record, vault_key) as store:
        found = device_receipt(store, anchor=read_anchor(anchor))
    if html is not None:
        write_file(html, _page(found))
    if as_json:
        print_json(found.to_dict())
    else:
        print_data(receipt_page(found).rstrip("\n"))


def _page(found: "Receipt") -> str:
    from hushrec.receipt import PLAN_COLUMNS, meaning, plan_rows
    from hushrec_privacy.accounting.guarantee import rounded_up
    from hushrec_privacy.report.receipt import NOT_ON_THE_RECEIPT

    total = found.total
    facts: list[tuple[Cell, ...]] = [
        ("epsilon", rounded_up(total.epsilon)),
        ("delta", rounded_up(total.delta)),
        ("unit", total.unit),
        ("adjacency", total.adjacency),
        ("mechanism", total.mechanism),
        ("trust", total.trust),
        ("rho of a lifetime", f"{rounded_up(float(found.rho))} of {found.lifetime_rho} spent"),
    ]
    sections = [
        Section("What it cost", (*found.warnings(), meaning(total)), (Table(("property", "value"), tuple(facts)),)),
        Section("Each plan", (), (Table(PLAN_COLUMNS, tuple(tuple(row) for row in plan_rows(found))),)),
        Section(
            "What left this device",
            tuple(f"• Plan {plan.plan[:16]}: {plan.sent}" for plan in found.plans) or ("• Nothing",),
        ),
        Section("It holds only if", tuple(f"• {line}" for line in total.assumptions)),
        Section("What it does not cover", tuple(f"• {line}" for line in NOT_ON_THE_RECEIPT)),
        Section("How to check it", tuple(f"• {line}" for line in found.checks())),
    ]
    return render_page("Privacy receipt of this device", sections)
