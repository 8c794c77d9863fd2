"""The command `recommend`: what a bundle would show to a shopper with a given history."""

from pathlib import Path
from typing import Annotated

import typer

from hushrec_cli.options import Json, comma_list
from hushrec_cli.output import price_text, print_json, print_table, say

__all__ = ["recommend"]


def recommend(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.")],
    history: Annotated[
        str, typer.Option(metavar="ITEM,ITEM,...", help="Item ids, the oldest first; none: what a newcomer is shown.")
    ] = "",
    count: Annotated[int, typer.Option("--count", "-k", help="How many to show.")] = 10,
    as_json: Json = False,
) -> None:
    """Recommend items for a history, as a shopper's device would.

    Example: hushrec recommend shop.hush --history 22423,85123A -k 5
    """
    from hushrec import Recommender

    from hushrec_cli.shown import recommendation_row

    with Recommender.open(bundle) as shop:
        items = comma_list(history)
        unknown = [item for item in items if shop.catalog.get(item) is None]
        for item in items:
            shop.observe(item)
        rows = [recommendation_row(shop, found) for found in shop.recommend(count)]
    if unknown:
        say(f"not in this bundle's catalogue: {', '.join(unknown)}")
    if as_json:
        print_json({"history": items, "unknown": unknown, "recommendations": rows})
    else:
        cells = [[row["item"], row["name"], price_text(row["price"]), row["score"], row["reason"]] for row in rows]
        print_table(["item", "name", "price", "score", "reason"], cells)
