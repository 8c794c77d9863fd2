"""The command `quantize`: from a training folder to a bundle, with a table of what every step cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hushrec_cli.options import Json
from hushrec_cli.output import Cell, person_cell, print_json, print_table, say
from hushrec_cli.page import Section, Table, render_page
from hushrec_cli.plots import Bars
from hushrec_cli.progress import ProgressLine

if TYPE_CHECKING:
    from hushrec_quantize.pipeline import QuantizeReport

__all__ = ["STEP_COLUMNS", "quantize", "step_rows", "write_page"]

STEP_COLUMNS = ["step", "parameters", "bytes", "NDCG@10", "overlap", "latency, µs"]
"""Head of the table of steps; overlap: share of the ten best items kept."""


def quantize(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `hushrec train` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle, such as shop.hush.")],
    prune: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=0.95,
            help="Share of the encoder's parameters to remove: a smaller file that ranks worse and is hardly faster.",
        ),
    ] = 0.0,
    model_version: Annotated[
        int, typer.Option(min=1, help="Version of this release; devices refuse a lower one than they have.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Make an int8 bundle of a trained model.

    Prunes if asked to, quantizes, verifies and packs. Nothing is written when the bundle ranks worse than its
    tolerance. A page with the table of steps as plots is written beside the bundle, as OUT.html. After `train
    --epsilon` nothing is fitted or refused by private events, and no figure of them enters the bundle; the page and
    table are the shop's own.

    Example: hushrec quantize runs/shop --out shop.hush
    """
    from hushrec_quantize.pipeline import QuantizeOptions
    from hushrec_quantize.pipeline import quantize as quantize_run

    with ProgressLine() as progress:
        report = quantize_run(run, out, QuantizeOptions(prune=prune, model_version=model_version), progress)
    page = write_page(report, out)
    if as_json:
        print_json(report.to_dict())
        return
    print_table(STEP_COLUMNS, step_rows(report))
    say(f"wrote {out} and {page}")


def step_rows(report: "QuantizeReport") -> list[list[Cell]]:
    """One row a step of quantizing, under `STEP_COLUMNS`."""
    return [
        [step.name, step.parameters, step.bytes, step.ndcg10, step.overlap, step.latency_us] for step in report.steps
    ]


def write_page(report: "QuantizeReport", bundle: Path) -> Path:
    """Write the page about a bundle beside it, and give its path."""
    page = bundle.with_name(bundle.name + ".html")
    rows = step_rows(report)
    names = tuple(str(row[0]) for row in rows)
    plots = tuple(_bars(names, rows, column) for column in range(1, len(STEP_COLUMNS)))
    sections = [
        Section(
            "Steps",
            (
                "From the trained float model to the int8 bundle: what each step removed and what it cost.",
                "Bytes are of the encoder. Overlap is the share of the ten best items kept: those of the trained model "
                "after pruning, those of the same weights in float after int8. Latency is one answer for one history "
                "on one thread; half of all are faster. All steps are asked in turn, so their ratios count more than "
                "the times.",
            ),
            (Table(tuple(STEP_COLUMNS), tuple(tuple(row) for row in rows)),),
        ),
        Section("Plots", blocks=plots),
    ]
    page.write_text(render_page(f"How {bundle.name} was made", sections), encoding="utf-8")
    return page


def _bars(names: tuple[str, ...], rows: list[list[Cell]], column: int) -> Bars:
    cells = [row[column] for row in rows]
    values = tuple(float(cell) if isinstance(cell, (int, float)) else float("nan") for cell in cells)
    return Bars(STEP_COLUMNS[column], names, values, tuple(person_cell(cell) for cell in cells))
