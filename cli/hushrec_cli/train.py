"""The command `train`: from a shop's event log to a folder with a trained model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hushrec_cli.options import Columns, Events, Json, Protocol, TestFrom, column_roles, comma_list, parse_time
from hushrec_cli.output import Cell, print_json, print_table, say
from hushrec_cli.page import Section, Table, render_page
from hushrec_cli.plots import Lines
from hushrec_cli.progress import ProgressLine

if TYPE_CHECKING:
    from hushrec_model.pipeline import TrainReport

__all__ = ["train"]

_Anchor = Annotated[
    str | None,
    typer.Option(
        "--anchor",
        metavar="HEAD|FILE",
        help="With --epsilon: a file elsewhere that keeps the ledger's head, or a head; refuses an older folder.",
    ),
]
_Teacher = Annotated[
    bool | None,
    typer.Option(
        "--teacher/--no-teacher",
        help="Train a teacher first that the model learns from: better, in about twice the time. Default: yes, but "
        "not with --epsilon.",
        show_default=False,
    ),
]
_MaxMinutes = Annotated[float | None, typer.Option(help="Time limit; the training schedule is shortened to fit.")]
_QUALITY = ("scores", "validation NDCG@10", "test HR@10", "test NDCG@10")


def train(
    events: Events,
    out: Annotated[Path, typer.Option(help="Folder of the run. An interrupted run there goes on.")],
    items: Annotated[
        Path | None, typer.Option(help="What is known of the items: title, category, brand, price, vector.")
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="How the log is divided into training, validation and test.")
    ] = Protocol.LEAVE_ONE_OUT,
    test_from: TestFrom = None,
    column: Columns = None,
    attributes: Annotated[
        str, typer.Option(metavar="NAME,NAME,...", help="Further columns of the items file to learn from.")
    ] = "",
    teacher: _Teacher = None,
    min_shoppers: Annotated[
        int, typer.Option(help="Leave pairs of items that fewer shoppers made out of the tables. No privacy guarantee.")
    ] = 1,
    epsilon: Annotated[
        float | None, typer.Option(help="Train under differential privacy: the budget of one user, tables included.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="Delta of that budget; default: users^-1.1.")] = None,
    max_grad_norm: Annotated[
        float | None, typer.Option(help="L2 norm that one user's gradient is clipped to; default: .5.")
    ] = None,
    anchor: _Anchor = None,
    seed: Annotated[int, typer.Option(help="The same seed, data and machine give the same model.")] = 0,
    max_minutes: _MaxMinutes = None,
    device: Annotated[str, typer.Option(help="A PyTorch device: cpu, cuda, mps.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Train a model on a shop's event log.

    What differs between shops (history, layers, epochs, filtering) is decided from the data and printed. The folder
    keeps the prepared events, with pseudonyms instead of user ids, so that `hushrec quantize` can measure, and a page
    about the run, report.html.

    With --epsilon every number that is learned is noised, for each user as a whole; --items must name the catalogue,
    and ledger.db keeps what was spent. The figures that are printed come from private events: keep them. A folder that
    was restored from a backup would spend anew, unseen: give every call of a run the same --anchor FILE, on another
    disk or machine and not in the backup.

    Example: hushrec train events.csv --items items.csv --out runs/shop
    """
    until = parse_time(test_from)
    columns = column_roles(column)
    from hushrec_model.pipeline import TrainOptions
    from hushrec_model.pipeline import train as train_run

    options = TrainOptions(
        protocol=protocol.value,
        test_from=until,
        seed=seed,
        max_minutes=max_minutes,
        columns=columns,
        attributes=comma_list(attributes),
        teacher=teacher,
        min_shoppers=min_shoppers,
        epsilon=epsilon,
        delta=delta,
        max_grad_norm=max_grad_norm,
        anchor=anchor,
        device=device,
    )
    with ProgressLine() as progress:
        report = train_run(events, items, out, options, progress)
    _write_page(report)
    if as_json:
        print_json(report.to_dict())
    else:
        _show(report)


def _show(report: "TrainReport") -> None:
    if report.privacy is None:
        say(f"best epoch {report.best_epoch} of {len(report.epochs)}, {report.seconds:.0f} s of training")
    else:
        say(f"{report.privacy['steps']} steps, {report.seconds:.0f} s")
        say(f"what it cost: hushrec privacy report {report.out / 'ledger.db'}")
    say(f"{report.users:,} test users, {report.items:,} items")
    say(f"protocol {report.protocol}, {report.protocol_sha256[:16]}")
    print_table(_QUALITY, _quality_rows(report))
    say(f"next: hushrec quantize {report.out} --out shop.hush")


def _quality_rows(report: "TrainReport") -> list[list[Cell]]:
    names = {"model": "Transformer alone", "blend": "blended with counts"}
    return [
        [names.get(part, part), report.validation.get(part), found["hr@10"], found["ndcg@10"]]
        for part, found in report.test.items()
    ]


def _write_page(report: "TrainReport") -> None:
    """Write report.html into the folder of the run."""
    quality = Table(_QUALITY, tuple(tuple(row) for row in _quality_rows(report)))
    sections = [
        Section(
            "Quality",
            (
                f"{report.users:,} test users, {report.items:,} items, protocol {report.protocol}, "
                f"{report.protocol_sha256}.",
            ),
            (quality,),
        ),
        _training_section(report),
        Section("What the data decided", tuple(report.decisions)),
        Section("What reading found", tuple(report.warnings) or ("Nothing odd.",)),
    ]
    page = render_page(f"Training run {report.out.name}", sections)
    (report.out / "report.html").write_text(page, encoding="utf-8")


def _training_section(report: "TrainReport") -> Section:
    if report.privacy is not None:
        rows = tuple((name, str(value)) for name, value in report.privacy.items() if not isinstance(value, list | dict))
        return Section("Privacy", tuple(report.privacy["assumptions"]), (Table(("property", "value"), rows),))
    return Section(
        "Training",
        (f"{report.seconds:.0f} seconds; epoch {report.best_epoch} of {len(report.epochs)} was kept.",),
        (_curve(report, "loss", "Loss in training"), _curve(report, "ndcg@10", "Validation NDCG@10")),
    )


def _curve(report: "TrainReport", key: str, title: str) -> Lines:
    points = tuple((float(number), epoch[key]) for number, epoch in enumerate(report.epochs, start=1))
    return Lines(title, "epoch", ((title, points),))
