"""Files of a made-up shop with everything a shop can have: behaviours, titles, prices, brands, several categories.

Shoppers walk from an item to the next one, mostly, look at it, and buy every third; some items lack some content.
"""

import csv
import random
from collections.abc import Sequence
from pathlib import Path

BEHAVIORS = ("view_item", "purchase")
START_S = 1_600_000_000


def user_id(user: int) -> str:
    """What the shop calls a shopper; must never be found in what hushrec writes."""
    return f"jane.doe.{user:05d}@shop.example"


def write_shop_files(
    folder: Path,
    users: int = 60,
    items: int = 40,
    *,
    length: int = 9,
    seed: int = 0,
    spare: int = 0,
    last: int | None = None,
    times: bool = True,
) -> tuple[Path, Path]:
    """Write events.csv and items.csv.

    Args:
        folder: Where to.
        users: Shoppers.
        items: Items, all listed.
        length: Events of each shopper, two at a time in one minute.
        seed: Of the walks.
        spare: The last so many items are where no walk comes.
        last: Item of everybody's last event; None: as the walk goes.
        times: Whether the events have times.
    """
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for user in range(users):
        item, time = rng.randrange(items - spare), START_S + 3_600 * user
        for at in range(length):
            item = (item + rng.choice([1, 1, 1, 1, 2])) % (items - spare)
            if at == length - 1 and last is not None:
                item = last
            rows.append([user_id(user), f"sku-{item}", BEHAVIORS[at % 3 == 2], time + at // 2 * 86_400])
    columns = ["user", "item", "event", "time"] if times else ["user", "item", "event"]
    _write(folder / "events.csv", columns, [row[: len(columns)] for row in rows])
    known = [
        [
            f"sku-{item}",
            f"Thing number {item}" if item % 7 else "",
            f"{item + 1}.99" if item % 5 else "",
            "gifts|mugs" if item % 3 else "lamps",
            "Acme" if item % 2 else "",
            ["red", "green", "blue"][item % 3],
        ]
        for item in range(items)
    ]
    _write(folder / "items.csv", ["item", "title", "price", "category", "brand", "colour"], known)
    return folder / "events.csv", folder / "items.csv"


def _write(path: Path, columns: list[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
