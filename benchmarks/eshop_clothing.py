"""The clicks of `eshop_clothing_2008` as events and items: names instead of the codes of its codebook.

The set has a day and an order inside the session, no clock: an event's time is its day plus as many seconds as its
order. The product codes are those of the copy used (1 to 217, no names), so items have no title.
"""

import lzma
from pathlib import Path

import polars as pl

__all__ = ["eshop_events", "eshop_items"]

# The names of the codebook that comes with the set at UCI (id 553), in the order of its codes, from 1.
CATEGORIES = ("Trousers", "Skirts", "Blouses", "Sale")
COLOURS = (
    *("beige", "black", "blue", "brown", "burgundy", "gray", "green"),
    *("navy blue", "many colours", "olive", "pink", "red", "violet", "white"),
)
LOCATIONS = ("top left", "top middle", "top right", "bottom left", "bottom middle", "bottom right")
PHOTOS = ("en face", "profile")


def eshop_events(source: Path) -> pl.DataFrame:
    """Columns user (the session's number), item, time; rows as in the source."""
    day = pl.datetime("year", "month", "day", time_zone="UTC", time_unit="us")
    return _read(source).select(
        user=pl.col("session.ID").cast(pl.String),
        item=pl.col("page.2..clothing.model.").cast(pl.String),
        time=day + pl.duration(seconds="order", time_unit="us"),
    )


def eshop_items(source: Path) -> pl.DataFrame:
    """One row a product: item, category, price (US dollars) and where and how its picture is shown."""
    products = _read(source).unique("page.2..clothing.model.").sort("page.2..clothing.model.")
    return products.select(
        item=pl.col("page.2..clothing.model.").cast(pl.String),
        category=_named("page.1..main.category.", CATEGORIES),
        price=pl.col("price").cast(pl.Float64),
        colour=_named("colour", COLOURS),
        location=_named("location", LOCATIONS),
        photo=_named("model.photography", PHOTOS),
        page=pl.col("page").cast(pl.String),
    )


def _read(source: Path) -> pl.DataFrame:
    return pl.read_csv(lzma.decompress(source.read_bytes())).cast(pl.Int64)


def _named(column: str, names: tuple[str, ...]) -> pl.Expr:
    return pl.col(column).replace_strict(dict(enumerate(names, start=1)), return_dtype=pl.String)
