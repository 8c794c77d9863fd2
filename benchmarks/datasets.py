"""Turn each public data set into the event and item files that `hushrec train` reads.

    python benchmarks/datasets.py beauty|ml-1m|retailrocket|eshop|online_retail|complete_journey OUT_DIR

The sets are looked for under HUSHREC_EVAL_DATA (default: ../shared/data, seen from the repository). Most may be used
for evaluation only and are never part of this repository; each folder's SOURCE.md says why. Where a set has no times,
its rows get made-up ones, a second apart in row order: the order is real, recency is not.
"""

import argparse
import json
import lzma
import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from eshop_clothing import eshop_events, eshop_items
from online_retail import online_retail_events, online_retail_items

__all__ = ["SETS", "Prepared", "data_folder", "main", "prepare"]

SHORTEST_PREFIX = 2  # items, in the test file of RetailRocket
FIRST_TIME = datetime(2000, 1, 1, tzinfo=UTC)  # of made-up times


@dataclass(frozen=True)
class Prepared:
    """The files of one set.

    Attributes:
        events: Events file.
        items: Items file; None if nothing is known of the items.
        train_options: What `hushrec train` (and `evaluate`) need to be told beyond the files.
    """

    events: Path
    items: Path | None
    train_options: tuple[str, ...]

    def command(self) -> str:
        """The recommended command line."""
        items = ("--items", str(self.items)) if self.items else ()
        words = ("hushrec", "train", str(self.events), *items, "--out", str(self.events.parent / "run"))
        return shlex.join([*words, *self.train_options])


@dataclass(frozen=True)
class _Frames:
    events: pl.DataFrame
    items: pl.DataFrame | None
    train_options: tuple[str, ...]


def data_folder() -> Path:
    """Where the sets lie: HUSHREC_EVAL_DATA, or ../shared/data beside the repository."""
    given = os.environ.get("HUSHREC_EVAL_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[1].parent / "shared" / "data"


def prepare(name: str, out_dir: Path) -> Prepared:
    """Write `events.parquet` and, where items are described, `items.parquet` of one set into `out_dir`.

    Raises:
        KeyError: No set of that name.
        FileNotFoundError: The set is not under `data_folder()`.
    """
    frames = SETS[name](data_folder())
    out_dir.mkdir(parents=True, exist_ok=True)
    events, items = out_dir / "events.parquet", out_dir / "items.parquet"
    frames.events.write_parquet(events, compression="zstd")
    if frames.items is not None:
        frames.items.write_parquet(items, compression="zstd")
    return Prepared(events, None if frames.items is None else items, frames.train_options)


def _lines(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as text:
        for line in text:
            yield line.rstrip("\n")


def _table(path: Path) -> pl.DataFrame:
    return pl.read_csv(lzma.decompress(path.read_bytes()), separator="\t", infer_schema=False, quote_char=None)


def _with_made_up_times(sequences: list[tuple[str, list[str]]]) -> pl.DataFrame:
    """One row an event, user by user, a second apart."""
    users, items = ([pair[side] for pair in sequences] for side in (0, 1))
    events = pl.DataFrame({"user": users, "item": items}).explode("item")
    passed = pl.duration(seconds=pl.int_range(pl.len()), time_unit="us")
    return events.with_columns(time=pl.lit(FIRST_TIME).dt.cast_time_unit("us") + passed)


def _beauty(root: Path) -> _Frames:
    """Amazon Beauty, 5-core: title from keywords of the description, category from anonymous category and brand ids."""
    folder = root / "amazon_beauty"
    lines = (line.split() for line in _lines(folder / "Beauty.txt.xz"))
    attributes = json.loads(lzma.decompress((folder / "Beauty_item2attributes.json.xz").read_bytes()))
    joined = ["|".join(map(str, values)) for values in attributes.values()]
    categories = pl.DataFrame({"item": list(attributes), "category": joined})
    items = _table(folder / "items_asin_text.tsv.xz").select("item", title="keywords").join(categories, "item", "left")
    return _Frames(_with_made_up_times([(user, items_of) for user, *items_of in lines]), items, ())


def _ml_1m(root: Path) -> _Frames:
    """MovieLens-1M in the SASRec preparation: title with year, category from genres."""
    rows = [line.split() for line in _lines(root / "ml-1m" / "ml-1m.txt.xz")]
    items = _table(root / "ml-1m" / "items.tsv.xz").select("item", "title", category="genres")
    return _Frames(_with_made_up_times([(user, [item]) for user, item in rows]), items, ())


def _retailrocket(root: Path) -> _Frames:
    """RetailRocket views: the training sessions, then the test sessions, each the longest prefix and its target.

    The test file lists the prefixes of a session from the longest down to two items, each with the item that follows.
    """
    folder = root / "retailrocket_sessions"
    sessions = [line.split() for line in _lines(folder / "train_sessions.txt.xz")]
    trained = sum(map(len, sessions))
    left = 0  # how many shorter prefixes of the last session are still to come
    for line in _lines(folder / "test_prefix_target.txt.xz"):
        prefix, target = line.split("\t")
        items = prefix.split()
        if left:
            if [*items, target] != sessions[-1][: left + SHORTEST_PREFIX]:
                raise ValueError(f"the test file is not made of whole sessions, longest prefix first: {line[:80]!r}")
            left -= 1
            continue
        sessions.append([*items, target])
        left = len(items) - SHORTEST_PREFIX
    test_from = (FIRST_TIME + timedelta(seconds=trained)).isoformat()
    events = _with_made_up_times([(str(number + 1), items) for number, items in enumerate(sessions)])
    return _Frames(events, None, ("--protocol", "sessions", "--test-from", test_from))


def _eshop(root: Path) -> _Frames:
    """Clicks in a shop for pregnant women's clothing, five months of 2008; a session is a user."""
    source = root / "eshop_clothing_2008" / "eshop_clothing_2008.csv.xz"
    options = ("--protocol", "sessions", "--test-from", "2008-08-01", "--attributes", "colour,location,photo,page")
    return _Frames(eshop_events(source), eshop_items(source), options)


def _online_retail(root: Path) -> _Frames:
    """A British gift shop, a year of invoices, cleaned."""
    source = root / "online_retail" / "transactions.parquet"
    return _Frames(online_retail_events(source), online_retail_items(source), ("--protocol", "baskets"))


def _complete_journey(root: Path) -> _Frames:
    """A sample of a year's groceries of 2,377 households; all products that the chain lists are items."""
    folder = root / "complete_journey"
    events = pl.read_parquet(folder / "transactions_sample.parquet").select(
        user="household_id",
        item="product_id",
        time=pl.col("transaction_timestamp").dt.replace_time_zone("UTC"),
        price=pl.when(pl.col("quantity") > 0).then(pl.col("sales_value") / pl.col("quantity")),
        quantity="quantity",
    )
    items = pl.read_parquet(folder / "products.parquet").select(
        "department", item="product_id", title="product_type", category="product_category", brand="manufacturer_id"
    )
    return _Frames(events, items, ("--protocol", "baskets", "--attributes", "department"))


SETS: dict[str, Callable[[Path], _Frames]] = {
    "beauty": _beauty,
    "ml-1m": _ml_1m,
    "retailrocket": _retailrocket,
    "eshop": _eshop,
    "online_retail": _online_retail,
    "complete_journey": _complete_journey,
}


def main() -> None:
    """Parse the command line, write the files, print how to train on them."""
    parser = argparse.ArgumentParser(description="Make the event and item files of a public data set.")
    parser.add_argument("name", choices=sorted(SETS))
    parser.add_argument("out_dir", type=Path)
    given = parser.parse_args()
    try:
        prepared = prepare(given.name, given.out_dir)
    except FileNotFoundError as error:
        parser.exit(1, f"{error.filename or error}: not there; set HUSHREC_EVAL_DATA to the folder of the sets\n")
    print(prepared.command())


if __name__ == "__main__":
    main()
