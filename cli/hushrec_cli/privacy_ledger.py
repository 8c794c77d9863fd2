"""The commands `privacy ledger ...`, `privacy report` and `privacy card`: what was spent, told to those who ask."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from hushrec_privacy.errors import ConfigError

from hushrec_cli.options import Json, VaultKey
from hushrec_cli.output import Cell, print_data, print_json, print_table, say, write_file
from hushrec_cli.page import Section, Table, render_page
from hushrec_cli.plots import Lines
from hushrec_cli.privacy import say_assumptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hushrec_privacy.ledger import Anchor, Entry, LedgerStore
    from hushrec_privacy.report.spending import SpendingReport

__all__ = ["AnchorText", "card", "ledger", "ledger_app", "opened_ledger", "read_anchor", "report", "show", "verify"]

ledger_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_WHERE = "such as runs/shop/ledger.db; or a server's database: its file, or a postgresql+psycopg:// URL."
_OR_VAULT = f"{_WHERE[:-1]}; or a device's vault."
LedgerFile = Annotated[str, typer.Argument(metavar="LEDGER", help=f"A privacy ledger, {_OR_VAULT}")]
LedgerFiles = Annotated[list[str], typer.Argument(metavar="LEDGER...", help=f"One or more, {_WHERE}")]
AnchorText = Annotated[
    str | None,
    typer.Option(
        "--anchor",
        metavar="HEAD|FILE",
        help="A head of this ledger that was kept elsewhere, or a file with one; shows older copies.",
    ),
]


@ledger_app.callback()
def ledger() -> None:
    """Look into a privacy ledger, and verify it.

    Example: hushrec privacy ledger verify runs/shop/ledger.db
    """


@ledger_app.command()
def verify(ledger: LedgerFile, anchor: AnchorText = None, vault_key: VaultKey = None, as_json: Json = False) -> None:
    """Check every entry of a ledger: chain, limits, and that it is no older than an anchor.

    Without --anchor an older copy of the same ledger cannot be told from the newest one.

    Example: hushrec privacy ledger verify runs/shop/ledger.db
    """
    from hushrec_privacy.ledger import verify as verify_store

    with opened_ledger(ledger, vault_key) as store:
        totals = verify_store(store, anchor=read_anchor(anchor))
    facts = {"entries": totals.entries, "plans": len(totals.plans), "head": str(totals.head)}
    if as_json:
        print_json({"verified": True, "anchored": anchor is not None, **facts})
        return
    say(f"verified; entries: {totals.entries}, plans: {len(totals.plans)}")
    if anchor is None:
        say("without --anchor nobody can tell this ledger from an older copy of it; keep this head elsewhere:")
    print_data(str(totals.head))


@ledger_app.command()
def show(ledger: LedgerFile, vault_key: VaultKey = None, as_json: Json = False) -> None:
    """List every entry of a ledger, after verifying it.

    Example: hushrec privacy ledger show runs/shop/ledger.db
    """
    from hushrec_privacy.ledger import history
    from hushrec_privacy.ledger import verify as verify_store

    with opened_ledger(ledger, vault_key) as store:
        verify_store(store)
        rows = [_entry_row(anchor, entry) for anchor, entry in history(store)]
    if as_json:
        print_json({"entries": rows})
        return
    print_table(
        ["entry", "kind", "plan", "rounds", "rho", "epsilon", "hash begins"],
        [[row[name] for name in ("index", "kind", "plan", "rounds", "rho", "epsilon", "hash")] for row in rows],
    )


def _entry_row(anchor: "Anchor", entry: "Entry") -> dict[str, Any]:
    first, last = getattr(entry, "first", None), getattr(entry, "last", None)
    return {
        "index": anchor.index,
        "kind": entry.kind,
        "plan": getattr(entry, "plan", "")[:16],
        "rounds": "" if first is None else str(first) if first == last else f"{first}-{last}",
        "rho": getattr(entry, "rho", None) or "",
        "epsilon": getattr(entry, "epsilon", None) or "",
        "hash": anchor.hash.hex()[:16],
    }


def report(
    ledgers: LedgerFiles,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots here.")] = None,
    anchor: AnchorText = None,
    as_json: Json = False,
) -> None:
    """Say what a ledger has spent and has left, and all that the number depends on.

    Delta is the one that each plan in the ledger states. What several plans cost together is exact, at the sum of
    their deltas. Name the ledgers of all that was published about the same people, such as of a run each month, and
    the total is for all of them.

    Example: hushrec privacy report runs/shop/ledger.db --html privacy.html
    """
    from hushrec_privacy.report.spending import spending_report, together

    if anchor is not None and len(ledgers) > 1:
        raise ConfigError("--anchor is for one ledger; check the others with: hushrec privacy ledger verify")
    reports = []
    for ledger in ledgers:
        with opened_ledger(ledger) as store:
            reports.append(spending_report(store, anchor=read_anchor(anchor), curves=html is not None))
    found = together(reports)
    if html is not None:
        write_file(html, _page(found))
    if as_json:
        print_json(found.to_dict())
        return
    print_table(["property", "value"], _total_rows(found))
    print_data("")
    print_table(_PLAN_COLUMNS, _plan_rows(found))
    say_assumptions(found.total)


_PLAN_COLUMNS = ("plan begins", "rounds spent", "rounds left", "epsilon spent", "epsilon at the end", "delta")


def _total_rows(found: "SpendingReport") -> list[list[Cell]]:
    from hushrec_privacy.accounting.guarantee import rounded_up

    total = found.total
    rows: list[list[Cell]] = [["epsilon", rounded_up(total.epsilon)], ["delta", rounded_up(total.delta)]]
    rows += [[name, value] for name, value in found.nist_fields().items() if name != "privacy parameters"]
    rows += [[f"slack: {name}", f"{size:.3g}"] for name, size in total.slack]
    if any(plan.demo for plan in found.plans):
        rows.append(["DEMO", "made under limits that protect nobody"])
    rows += [["entries", f"{found.entries:,}"]]
    return rows + [["head, to keep elsewhere", str(head)] for head in found.heads]


def _plan_rows(found: "SpendingReport") -> list[list[Cell]]:
    from hushrec_privacy.accounting.guarantee import rounded_up

    return [
        [
            plan.plan[:16] + (" DEMO" if plan.demo else ""),
            plan.rounds,
            plan.rounds_left,
            rounded_up(plan.spent.epsilon),
            rounded_up(plan.whole.epsilon),
            rounded_up(plan.spent.delta),
        ]
        for plan in found.plans
    ]


def _page(found: "SpendingReport") -> str:
    curves = tuple(
        (plan.plan[:8], tuple((float(rounds), epsilon) for rounds, epsilon in plan.curve)) for plan in found.plans
    )
    noise = tuple(
        (f"noise {plan.plan[:8]}", tuple((float(rounds), plan.noise_multiplier or 0.0) for rounds, _ in plan.curve))
        for plan in found.plans
        if plan.noise_multiplier is not None
    )
    plots = [Lines("epsilon over the rounds spent", "rounds spent", curves)]
    if noise:
        last = max((x for _, points in noise for x, _ in points), default=1.0)
        signal = ("one contribution", ((1.0, 1.0), (last, 1.0)))
        plots.append(Lines("noise against signal, in clip norms", "rounds spent", (*noise, signal)))
    sections = [
        Section(
            "What is promised", (), (Table(("property", "value"), tuple(tuple(row) for row in _total_rows(found))),)
        ),
        Section("Each plan", (), (Table(_PLAN_COLUMNS, tuple(tuple(row) for row in _plan_rows(found))),)),
        Section("Over time", (), tuple(plots)),
        Section("It holds only if", tuple(f"• {line}" for line in found.total.assumptions)),
        Section("What it does not cover", tuple(f"• {line}" for line in found.to_dict()["not_covered"])),
    ]
    return render_page("Privacy report", sections)


def card(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.")],
    out: Annotated[Path | None, typer.Option(help="Write the page here instead of printing it.")] = None,
    shop: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="JSON with what only the shop can tell: see below."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the one page of Markdown about a bundle's privacy that a shop can publish.

    It has the fields that a registry of deployments asks for. Those that the bundle cannot know come from --shop, an
    object with texts for any of name, data_curators, intended_use, region, sector, published and justification.

    Example: hushrec privacy card shop.hush --out privacy.md
    """
    from hushrec.bundle import Bundle
    from hushrec.deployment_facts import SHOP_FACTS, deployment_facts, facts_page, read_shop_facts

    told = None if shop is None else read_shop_facts(shop.read_bytes())
    facts = deployment_facts(Bundle.open(bundle, verify=True).manifest, told)
    missing = [name for name in SHOP_FACTS if facts[name] is None]
    if missing:
        say(f"not stated, and only the shop can: {', '.join(missing)}; give them with --shop FILE")
    if out is not None:
        write_file(out, facts_page(facts))
    if as_json:
        print_json(facts)
    elif out is None:
        print_data(facts_page(facts).rstrip("\n"))


@contextmanager
def opened_ledger(place: str | Path, vault_key: Path | None = None) -> "Iterator[LedgerStore]":
    """Open a ledger, the participation record in a device's vault, or the ledger in a server's database, to read it.

    Args:
        place: A file, or the URL of a PostgreSQL.
        vault_key: File of a vault's key; None: the system's keyring has it.
    """
    text = str(place).removeprefix("sqlite:///")
    if "://" in text or _is_server_database(Path(text)):
        from hushrec_server.database import Database
        from hushrec_server.ledger_store import DatabaseLedgerStore

        database = Database.open(text if "://" in text else f"sqlite:///{Path(text).resolve()}")
        try:
            yield DatabaseLedgerStore(database)
        finally:
            database.close()
        return
    if _is_vault(Path(text)):
        from hushrec.vault import Vault
        from hushrec.vault_ledger import VaultLedgerStore
        from hushrec_privacy.key_files import read_key

        key = None if vault_key is None else read_key(vault_key, "vault key")
        with Vault.open(text, key) as vault:
            yield VaultLedgerStore(vault)
        return
    from hushrec_privacy.ledger import SqliteLedgerStore

    with SqliteLedgerStore(Path(text), read_only=True) as store:
        yield store


def _is_vault(path: Path) -> bool:
    from hushrec.vault_file import APPLICATION_ID

    try:
        with path.open("rb") as file:
            return file.read(72)[68:] == APPLICATION_ID.to_bytes(4, "big")  # its place in the header of a SQLite file
    except OSError:
        return False


def _is_server_database(path: Path) -> bool:
    """Whether a SQLite file is a server's; of anything that is neither, a ledger's store says what is wrong."""
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            wanted = "SELECT count(*) FROM sqlite_master WHERE name IN ('ledger_entry', 'hushrec_schema')"
            return bool(database.execute(wanted).fetchone()[0] == 2)
    except sqlite3.Error:
        return False


def read_anchor(text: str | None) -> "Anchor | None":
    """Read what was given as --anchor, if anything was."""
    from hushrec_privacy.ledger import anchored

    return None if text is None else anchored.read_anchor(text)
