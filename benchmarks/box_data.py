"""Make the data sets in the box: `model/hushrec_model/data`, at most 2 MB.

    python benchmarks/box_data.py

Reads online_retail and eshop_clothing_2008 under HUSHREC_EVAL_DATA (default: ../shared/data beside the repository).
The same input gives the same rows again. What is left out and decided is written in `online_retail.py`,
`eshop_clothing.py`, and in each set's ATTRIBUTION.md, which is kept by hand.
"""

from pathlib import Path

import polars as pl
from datasets import data_folder
from eshop_clothing import eshop_events, eshop_items
from online_retail import online_retail_events, online_retail_items

__all__ = ["main"]

BOX = Path(__file__).resolve().parents[1] / "model" / "hushrec_model" / "data"
MOST_BYTES = 2_000_000


def main() -> None:
    """Write both sets and check the size."""
    root = data_folder()
    invoices = root / "online_retail" / "transactions.parquet"
    clicks = root / "eshop_clothing_2008" / "eshop_clothing_2008.csv.xz"
    _write(BOX / "online_retail", online_retail_events(invoices), online_retail_items(invoices))
    _write(BOX / "eshop_clothing_2008", eshop_events(clicks), eshop_items(clicks))
    size = sum(file.stat().st_size for file in BOX.rglob("*.parquet"))
    print(f"{size:,} bytes in {BOX}")
    if size > MOST_BYTES:
        raise SystemExit(f"more than {MOST_BYTES:,} bytes")


def _write(folder: Path, events: pl.DataFrame, items: pl.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in (("events", events), ("items", items)):
        frame.write_parquet(folder / f"{name}.parquet", compression="zstd", compression_level=22, statistics=False)
        print(f"{folder.name}/{name}.parquet: {len(frame):,} rows, columns {', '.join(frame.columns)}")


if __name__ == "__main__":
    main()
