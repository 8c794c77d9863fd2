"""Reading gives the same log from every format, in the written order, with what is known of the items."""

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hushrec_model.log import Log
from hushrec_model.pseudonyms import pseudonym
from hushrec_model.reading import read_log
from hushrec_privacy.errors import DataError

KEY = b"key of the tests"
EVENTS = pl.DataFrame(
    {
        "user": ["ben", "anna", "ben", "anna", "ben"],
        "item": ["cup", "mug", "mug", "cup", "lamp"],
        "time": ["2024-05-03T10:00:00Z", "2024-05-01", "2024-05-02 10:00:00", "1714471200", "2024-05-03T10:00:00Z"],
        "behavior": ["view_item", "purchase", "add_to_cart", "view", "cart"],
        "session": ["s1", "s2", "s1", "s2", "s3"],
    }
)


def written(folder: Path, frame: pl.DataFrame, ending: str) -> Path:
    path = folder / f"events.{ending}"
    plain = folder / f"events.{ending.split('.')[0]}"
    writers: dict[str, Callable[[], object]] = {
        "csv": lambda: frame.write_csv(plain),
        "tsv": lambda: frame.write_csv(plain, separator="\t"),
        "parquet": lambda: frame.write_parquet(plain),
        "jsonl": lambda: frame.write_ndjson(plain),
    }
    writers[ending.split(".")[0]]()
    if ending.endswith(".gz"):
        path.write_bytes(gzip.compress(plain.read_bytes()))
    if ending.endswith(".xz"):
        path.write_bytes(lzma.compress(plain.read_bytes()))
    return path


def shown(log: Log) -> list[tuple[str, str, str, int]]:
    columns = (column.tolist() for column in (log.user, log.item, log.behavior, log.row))
    return [(log.users[u], log.items[i - 1], log.behaviors[b], r) for u, i, b, r in zip(*columns, strict=True)]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl", "csv.gz", "csv.xz", "jsonl.xz"])
def test_every_format_gives_the_same_log(tmp_path: Path, ending: str) -> None:
    frame = EVENTS.with_columns(time=pl.Series(["2024-05-03T10:00:00Z"] * 2 + ["2024-05-02T10:00:00Z"] * 3))
    log, items, warnings = read_log(written(tmp_path, frame, ending), key=KEY)
    anna, ben = pseudonym("anna", KEY), pseudonym("ben", KEY)
    assert log.users == [ben, anna]
    assert shown(log) == [
        (ben, "mug", "cart", 2),
        (ben, "lamp", "cart", 4),
        (ben, "cup", "view", 0),
        (anna, "cup", "view", 3),
        (anna, "mug", "purchase", 1),
    ]
    assert log.session is not None
    assert log.session.tolist() == [0, 2, 0, 1, 1]
    assert log.behaviors == ("view", "purchase", "cart")
    assert (log.listed, items.title, warnings) == (0, [None] * 3, [])


def test_times_that_change_their_spelling_on_the_way_are_read(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "user": ["u"] * 1502,
            "item": ["a"] * 1502,
            "time": ["2024-05-01"] * 1500 + ["2024-05-01 00:00", "2024-04-30T23:00:00-01:00"],
        }
    )
    log, _, _ = read_log(written(tmp_path, frame, "csv"), key=KEY)
    assert log.time is not None
    assert set(log.time.tolist()) == {1_714_521_600_000_000}


def test_text_with_one_line_a_user_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "events.txt"
    path.write_text("u2 a b\nu1 c\nu2 a\n")
    log, _, _ = read_log(path, key=KEY)
    assert log.users == [pseudonym("u2", KEY), pseudonym("u1", KEY)]
    assert [log.items[i - 1] for i in log.item] == ["a", "b", "a", "c"]
    assert log.row.tolist() == [0, 1, 3, 2]
    assert (log.time, log.session, log.behaviors) == (None, None, ("view",))


def test_whole_numbers_are_the_same_ids_as_integers_floats_and_text(tmp_path: Path) -> None:
    logs = []
    for dtype in (pl.Int64, pl.Float64, pl.String):
        frame = pl.DataFrame({"user": [17850, 12345], "item": [1, 2]}).cast(dtype)
        logs.append(read_log(written(tmp_path, frame, "parquet"), key=KEY)[0])
    assert [log.users for log in logs] == [[pseudonym("17850", KEY), pseudonym("12345", KEY)]] * 3
    assert [log.items for log in logs] == [["1", "2"]] * 3


def test_a_list_is_no_id(tmp_path: Path) -> None:
    path = written(tmp_path, pl.DataFrame({"user": ["u"], "item": [["a", "b"]]}), "parquet")
    with pytest.raises(DataError, match="column 'item': holds lists, not ids"):
        read_log(path, key=KEY)


def test_behaviours_without_a_name_count_as_views(tmp_path: Path) -> None:
    frame = EVENTS.drop("time").with_columns(behavior=pl.Series(["cart", None, "cart", None, "cart"]))
    log, _, warnings = read_log(written(tmp_path, frame, "parquet"), key=KEY)
    assert log.behaviors == ("cart", "view")
    place = f"{tmp_path / 'events.parquet'}, column 'behavior'"
    assert warnings == [f"{place}: 2 rows without a behaviour count as 'view' (rows 2, 4)"]


def test_a_column_of_everything_is_no_behaviour(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["u"] * 101, "item": ["a"] * 101, "event": [f"click {n}" for n in range(101)]})
    with pytest.raises(DataError, match=r"column 'event': 101 different behaviours .* name another column"):
        read_log(written(tmp_path, frame, "csv"), key=KEY)


def item_file(folder: Path, ending: str) -> Path:
    mug = {"sku": "mug", "name": "Red mug", "genres": "Gifts| Mugs |Gifts", "price": "4.5", "colour": "red"}
    lamp = {"sku": "lamp", "name": None, "genres": None, "price": None, "colour": ""}
    path = folder / f"items.{ending}"
    if ending == "csv":
        pl.DataFrame([{**mug, "embedding": "[0.5, 1.0]"}, {**lamp, "embedding": None}]).write_csv(path)
        return path
    rows: list[dict[str, object]] = [{**mug, "embedding": [0.5, 1.0]}, {**lamp, "embedding": None}]
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pl.DataFrame(rows).write_parquet(path)
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_items_are_described_in_the_order_of_their_file_then_of_the_events(tmp_path: Path, ending: str) -> None:
    log, items, _ = read_log(
        written(tmp_path, EVENTS.drop("time"), "csv"), item_file(tmp_path, ending), attributes=("colour",), key=KEY
    )
    assert (log.items, log.listed) == (["mug", "lamp", "cup"], 2)
    assert items.title == ["Red mug", None, None]
    assert items.attributes == {"category": [("Gifts", "Mugs"), (), ()], "colour": [("red",), (), ()]}
    np.testing.assert_array_equal(items.price, [4.5, np.nan, np.nan])
    assert items.vectors is not None
    np.testing.assert_array_equal(items.vectors, np.array([[0.5, 1], [0, 0], [0, 0]], np.float32))
    assert items.vectors.dtype == np.float32


def test_lists_are_several_values(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pl.DataFrame({"item": ["mug"], "category": [["Mugs", "Gifts"]]}).write_parquet(path)
    _, items, _ = read_log(written(tmp_path, EVENTS.drop("time"), "csv"), path, key=KEY)
    assert items.attributes["category"][0] == ("Mugs", "Gifts")


def test_columns_named_like_ours_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("id,row,time\nmug,r1,t1\n")
    _, items, _ = read_log(written(tmp_path, EVENTS.drop("time"), "csv"), path, attributes=("row", "time"), key=KEY)
    assert items.attributes == {"row": [("r1",), (), ()], "time": [("t1",), (), ()]}


def test_without_prices_in_the_items_file_the_earliest_price_paid_is_taken(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user": ["u"] * 4, "item": ["a", "a", "a", "b"], "time": [30, 20, 10, 5], "price": ["3", "2", "NaN", ""]}
    )
    _, items, _ = read_log(written(tmp_path, frame, "csv"), key=KEY)
    np.testing.assert_array_equal(items.price, [2, np.nan])


def test_a_column_that_nothing_uses_is_said_to_be_unused(tmp_path: Path) -> None:
    path = written(tmp_path, pl.DataFrame({"user": ["u", "u"], "item": ["a", "b"], "qty": [1, 2]}), "csv")
    assert read_log(path, key=KEY)[2] == [f"{path}, column 'qty': not used"]


def test_no_real_user_id_is_in_the_log(tmp_path: Path) -> None:
    log, items, warnings = read_log(written(tmp_path, EVENTS.drop("time"), "csv"), key=KEY)
    assert "anna" not in repr((log, items, warnings))
