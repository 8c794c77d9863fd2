"""The invoices of `online_retail` as events and items, cleaned.

What is left out, and why:

- lines without a customer (135,080): nobody to recommend to;
- cancellations (invoice C…), quantities and prices of 0 or less: no purchases;
- postage, carriage, bank charges, manual lines: codes that do not start with five digits (but `PADS` and `DCGS…` are
  products), and the two services that have such a code.

What is decided: codes are compared in upper case. A title is the description that most purchases of the code carry,
ties by alphabet; the source renames products, and stock notes ("damaged", "?") occur only on lines that are no
purchases. A price is the median of the code's purchases, in pounds. A category comes from the title: the last word that
names a kind of thing. A time is the sheet's British clock, read as UTC.
"""

import re
from pathlib import Path

import polars as pl

__all__ = ["online_retail_events", "online_retail_items"]

PRODUCT_CODE = r"^(\d{5}|PADS$|DCGS)"
SERVICES = ("Next Day Carriage", "High Resolution Image")

# Words of titles, by the category that they name.
KINDS = {
    "Bags": "BAG BAGS SHOPPER HANDBAG WASHBAG BACKPACK RUCKSACK PURSE WALLET TOTE CASE SATCHEL",
    "Bakeware": "CAKE CASES CAKECASES CUTTERS BAKING TINS CAKESTAND CUPCAKE MOULD WHISK ROLLING",
    "Bathroom": "FLANNEL TOWEL SOAP BATHROOM BATH SPONGE TOILETRY",
    "Books and paper": "NOTEBOOK SKETCHBOOK JOURNAL DIARY BOOK NOTEPAD PLANNER CALENDAR ENVELOPES WRITING",
    "Boxes and tins": "BOX BOXES TIN CANISTER CANNISTER CABINET CHEST TRUNK DRAWERS BASKET CONTAINER TIDY ORGANISER",
    "Candles": "CANDLE CANDLES T-LIGHT T-LIGHTS TEALIGHT CANDLEHOLDER CANDLESTICK INCENSE VOTIVE SCONCE",
    "Cards": "CARD CARDS POSTCARD POSTCARDS INVITES",
    "Christmas": "CHRISTMAS XMAS BAUBLE BAUBLES ADVENT SANTA REINDEER STOCKING SNOWMAN NOEL",
    "Clocks": "CLOCK CLOCKS TIMER",
    "Craft": "KIT FELTCRAFT RIBBON RIBBONS REEL BUTTONS SEWING KNITTING PATCHES STICKERS STENCIL STAMP TAPE BEADS",
    "Cups and mugs": "MUG MUGS CUP CUPS TEACUP TEACUPS SAUCER BEAKER TUMBLER",
    "Cushions": "CUSHION CUSHIONS QUILT THROW BLANKET FILLER",
    "Decorations": "DECORATION DECORATIONS GARLAND BUNTING WREATH STREAMER STREAMERS LANTERN LANTERNS MOBILE CHIME",
    "Door and wall": "HOOK HOOKS HANGER KNOB DOORKNOB DOORMAT DOORSTOP DOORSIGN TILE PLAQUE RACK PEGS BELL",
    "Frames and mirrors": "FRAME FRAMES MIRROR ALBUM PHOTO",
    "Garden": "GARDEN PLANTER WATERING PARASOL BIRDHOUSE FEEDER WINDMILL HERB POT POTS GNOME THERMOMETER BUCKET",
    "Gift wrap": "WRAP TAG TAGS TISSUE GIFTWRAP",
    "Glass and jars": "JAR JARS GLASS GLASSES BOTTLE BOTTLES VASE JUG DECANTER GOBLET CARAFE",
    "Jewellery": "NECKLACE BRACELET EARRINGS RING RINGS BANGLE CHARM BROOCH PENDANT NECKL. HAIRCLIP HAIRBAND TIARA",
    "Kitchen": "BOWL BOWLS PLATE PLATES TRAY DISH CUTLERY TEAPOT SPOON SPOONS APRON COASTER COASTERS PLACEMATS PAN EGG "
    "COSY TOWELS CHOPPING SCALES LADLE COLANDER FORK KNIFE BREAD BUTTER TEA LUNCH SNACK NAPKINS STRAINER MEASURING",
    "Lamps and lights": "LIGHT LIGHTS LAMP LAMPSHADE TORCH CHANDELIER",
    "Magnets and stationery": "MAGNETS MAGNET PENCIL PENCILS PEN PENS ERASER ERASERS RUBBER RULER CHALK CRAYONS",
    "Party": "PARTY BALLOONS BALLOON STRAWS DOILY DOILIES TISSUES CONE CONES BIRTHDAY GAMES",
    "Signs": "SIGN SIGNS LETTERS LETTER CHALKBOARD BLACKBOARD NUMBER",
    "Toys": "TOY TOYS DOLL DOLLS JIGSAW PUPPET SKITTLES DOMINOES BALL GAME PUZZLE HELICOPTER SOLDIERS MARBLES YO-YO "
    "TEDDY CARS SPINNING SKIPPING PLAYHOUSE RABBIT BUNNY BINGO SNAP LUDO",
    "Wall art": "WALL-ART PICTURE PRINT",
    "Umbrellas": "UMBRELLA UMBRELLAS PONCHO RAINCOAT",
    "Warmers": "WARMER WARMERS HOT-WATER-BOTTLE",
}


def online_retail_events(source: Path) -> pl.DataFrame:
    """Columns user, item, time, price (pounds a piece), quantity; rows in the order of the source."""
    return _purchases(source).select("user", "item", "time", "price", "quantity")


def online_retail_items(source: Path) -> pl.DataFrame:
    """One row a product: item, title, category (empty where the title names no known kind), price."""
    bought = _purchases(source)
    titles = bought.group_by("item", "title").len().sort(["len", "title"], descending=[True, False])
    titles = titles.unique("item", keep="first", maintain_order=True)
    prices = bought.group_by("item").agg(pl.col("price").median().round(3))
    categories = pl.col("title").map_elements(_category, return_dtype=pl.String, skip_nulls=True)
    joined = titles.join(prices, "item").with_columns(category=categories)
    return joined.select("item", "title", "category", "price").sort("item")


def _purchases(source: Path) -> pl.DataFrame:
    lines = pl.scan_parquet(source).with_columns(
        item=pl.col("stock_code").str.to_uppercase(), title=pl.col("description").str.replace_all(r"\s+", " ")
    )
    return (
        lines.filter(
            pl.col("customer_id").is_not_null(),
            pl.col("quantity") > 0,
            pl.col("unit_price") > 0,
            ~pl.col("invoice").str.starts_with("C"),
            pl.col("item").str.contains(PRODUCT_CODE),
            ~pl.col("description").is_in(SERVICES),
        )
        .select(
            "item",
            "title",
            "quantity",
            user=pl.col("customer_id").cast(pl.String),
            time=pl.col("invoice_time").dt.replace_time_zone("UTC"),
            price="unit_price",
        )
        .collect()
    )


_KIND_OF_WORD = {word: kind for kind, words in KINDS.items() for word in words.split()}


def _category(title: str) -> str | None:
    joined = title.upper().replace("HOT WATER BOTTLE", "HOT-WATER-BOTTLE").replace("WALL ART", "WALL-ART")
    words = re.split(r"[ ,/+]+", joined)
    return next((_KIND_OF_WORD[word] for word in reversed(words) if word in _KIND_OF_WORD), None)
