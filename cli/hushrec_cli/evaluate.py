"""The command `evaluate`: how well a training folder or a bundle ranks, beside every baseline."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hushrec_cli.options import Columns, Events, Json, Protocol, TestFrom, column_roles, parse_time
from hushrec_cli.output import Cell, print_json, print_table, say
from hushrec_cli.progress import ProgressLine

__all__ = ["evaluate", "quality_rows"]

BASELINE_NAMES = {
    "popularity": "popularity",
    "recent_popularity": "recent popularity",
    "last_item": "last item's followers",
    "markov": "decayed transitions",
    "item_knn": "item neighbours",
    "personal_frequency": "what the shopper had most",
}
"""What each baseline is called in tables, by its key in JSON."""


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="DIR_OR_BUNDLE", help="A training folder or a bundle.")],
    events: Events,
    protocol: Annotated[
        Protocol | None, typer.Option(help="How the log is divided; default: as the model was trained.")
    ] = None,
    test_from: TestFrom = None,
    column: Columns = None,
    parts: Annotated[
        bool, typer.Option("--parts", help="Also evaluate each part of the blend alone, and the blend without it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure ranking quality beside every baseline.

    Every list ranks the whole catalogue. A bundle is measured through the runtime that devices use. Numbers with the
    same protocol hash answer the same question.

    Example: hushrec evaluate shop.hush events.csv --parts
    """
    until = parse_time(test_from)
    columns = column_roles(column)
    from hushrec_quantize.evaluation import evaluate_any

    with ProgressLine() as progress:
        found = evaluate_any(
            model,
            events,
            protocol=None if protocol is None else protocol.value,
            test_from=until,
            columns=columns,
            parts=parts,
            progress=progress,
        )
    if as_json:
        print_json(found)
        return
    say(f"{found['users']:,} test users, {found['items']:,} items")
    say(f"protocol {found['protocol']}, {found['protocol_sha256'][:16]}")
    print_table(["ranked by", "HR@10", "NDCG@10"], quality_rows(found, str(model)))


def quality_rows(found: dict[str, Any], name: str) -> list[list[Cell]]:
    """Rows of one evaluation: the model, each part of it alone, the model without each, each baseline; a baseline that
    cannot exist is a dash.

    Args:
        found: What `hushrec evaluate --json` prints.
        name: What the model is called in the table.
    """
    rows: list[list[Cell]] = [[name, found["hr@10"], found["ndcg@10"]]]
    for part, scores in found.get("parts", {}).items():
        rows.append([f"  {part} alone", scores["hr@10"], scores["ndcg@10"]])
    for part, scores in found.get("without", {}).items():
        rows.append([f"  without {part}", scores["hr@10"], scores["ndcg@10"]])
    for key, scores in found["baselines"].items():
        rows.append([BASELINE_NAMES.get(key, key), *(scores[m] if scores else None for m in ("hr@10", "ndcg@10"))])
    return rows
