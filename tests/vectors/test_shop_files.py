"""Every hand-written file in `shop_files` gives the error or the counted warning that it was written for."""

import shutil
from pathlib import Path

import pytest
from hushrec_model.reading import read_log
from hushrec_privacy.errors import ConfigError, DataError

FILES = Path(__file__).parent / "shop_files"
KEY = b"key of the tests"
TIMES = "write times like 2024-05-31T14:00:00+00:00 or as seconds since 1970, and remove rows that have none"
ICONV = "if the file is Latin-1, convert it: iconv -f LATIN1 -t UTF-8"

EVENT_ERRORS = {
    "missing.csv": "there is no such file",
    "no_user_column.csv": "has no column that is obviously the user; its columns are who, item. Say which one: user=",
    "two_user_columns.csv": "columns 'customer_id', 'visitor_id' may each be the user; say user=COLUMN",
    "bad_time.csv": f"column 'time': 2 times cannot be read: 'yesterday', '31/12/2024' (rows 2, 3); {TIMES}",
    "empty_time.csv": f"column 'time': 1 times cannot be read: nothing (row 2); {TIMES}",
    "no_bytes.csv": "the file is empty",
    "header_only.csv": "has columns but no rows",
    "latin1.csv": f"row 2, column 'item': byte 8 of the line is not UTF-8; {ICONV}",
    "latin1_header.csv": f"first line: byte 14 is not UTF-8; {ICONV}",
    "latin1.txt": f"line 2: byte 8 is not UTF-8; {ICONV}",
    "latin1.jsonl": f"line 2: byte 26 is not UTF-8; {ICONV}",
    "utf16.csv": "is UTF-16, not UTF-8; save it as UTF-8",
    "nobody_at_all.csv": "no row has both a user and an item",
    "ragged.csv": "row 2: 3 fields, but the header names 2 columns",
    "broken.jsonl": "line 2: is no JSON at character 24",
    "events.xlsx": "unknown kind of file; names end in .csv, .tsv, .parquet, .jsonl, .ndjson, .txt",
    "not_parquet.parquet": "cannot be read as parquet: ",
    "not_packed.csv.gz": "cannot be unpacked: ",
}

EVENT_WARNINGS = {
    "good.csv": [": 1 users have one event (row 2)"],
    "nan_price.csv": [", column 'price': 3 prices are no number of at least 0 and count as unknown (rows 2, 3, 4)"],
    "duplicate_rows.csv": [
        ": 2 rows equal an earlier one in user, item, time and behaviour, and are kept (rows 2, 5)",
        ": 1 users have one event (row 3)",
    ],
    "one_event.csv": [": 1 users have one event (row 2)"],
    "nobody.csv": [
        ", column 'user': 1 rows without user are left out (row 2)",
        ", column 'item': 1 rows without item are left out (row 3)",
    ],
    "lines.txt": [": 2 lines without items are left out (lines 2, 3)", ": 1 users have one event (row 4)"],
}

ITEM_ERRORS = {
    "no_item_column.csv": "has no column that is obviously the item; its columns are title, price. Say which one: ",
    "header_only.csv": "has columns but no rows",
    "lines.txt": "an items file is CSV, Parquet or JSON lines, not text",
    "bad_vectors.csv": "column 'vector': 2 vectors are not 2 finite numbers like the others (rows 2, 3)",
}

ITEM_WARNINGS = {
    "items.csv": [": columns not used: 'colour'; name them as attributes to use them"],
    "repeated_items.csv": [
        ", column 'item': 1 rows without item are left out (row 2)",
        ", column 'item': 1 rows that repeat an item are left out (row 3)",
        ", column 'price': 1 prices are no number of at least 0 and count as unknown (row 4)",
    ],
    "vectors.csv": [", column 'vector': 1 items have no vector and get one of zeros (row 2)"],
}


@pytest.mark.parametrize("name", EVENT_ERRORS)
def test_a_wrong_events_file_is_refused_by_name_and_reason(name: str) -> None:
    with pytest.raises(DataError) as refused:
        read_log(FILES / name, key=KEY)
    assert str(refused.value).startswith(str(FILES / name))
    assert EVENT_ERRORS[name] in str(refused.value)


@pytest.mark.parametrize("name", EVENT_WARNINGS)
def test_a_doubtful_events_file_is_read_with_its_doubts_counted(name: str) -> None:
    _, _, warnings = read_log(FILES / name, key=KEY)
    assert warnings == [f"{FILES / name}{text}" for text in EVENT_WARNINGS[name]]


@pytest.mark.parametrize("name", ITEM_ERRORS)
def test_a_wrong_items_file_is_refused_by_name_and_reason(name: str) -> None:
    with pytest.raises(DataError) as refused:
        read_log(FILES / "one_event.csv", FILES / name, key=KEY)
    assert str(refused.value).startswith(str(FILES / name))
    assert ITEM_ERRORS[name] in str(refused.value)


@pytest.mark.parametrize("name", ITEM_WARNINGS)
def test_a_doubtful_items_file_is_read_with_its_doubts_counted(name: str) -> None:
    _, _, warnings = read_log(FILES / "one_event.csv", FILES / name, key=KEY)
    assert [text for text in warnings if "one_event" not in text] == [f"{FILES / name}{t}" for t in ITEM_WARNINGS[name]]


def test_items_that_only_events_name_are_counted_and_kept() -> None:
    log, items, warnings = read_log(FILES / "unlisted_item.csv", FILES / "items.csv", attributes=("colour",), key=KEY)
    assert log.items == ["mug", "cup", "lamp", "vase"]
    assert log.listed == 3
    assert items.title[3] is None
    assert warnings == [
        f"{FILES / 'unlisted_item.csv'}, column 'item': 2 events are on 1 items that {FILES / 'items.csv'} lacks, "
        "such as 'vase'; kept, without description (rows 2, 3)"
    ]


def test_an_attribute_that_the_items_file_lacks_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"has no column 'color' \(did you mean 'colour'\?\)"):
        read_log(FILES / "good.csv", FILES / "items.csv", attributes=("color",), key=KEY)


def test_attributes_without_an_items_file_are_refused() -> None:
    with pytest.raises(ConfigError, match="attributes colour are columns of an items file, and none is given"):
        read_log(FILES / "good.csv", attributes=("colour",), key=KEY)


def test_a_column_that_was_named_and_is_not_there_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"has no column 'customer' for the user \(did you mean 'customer_id'\?\)"):
        read_log(FILES / "good.csv", columns={"user": "customer"}, key=KEY)


def test_a_role_that_does_not_exist_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"'users' is no role of a column; .*\(did you mean 'user'\?\)"):
        read_log(FILES / "good.csv", columns={"users": "customer_id"}, key=KEY)


def test_every_file_in_the_folder_is_asked_for() -> None:
    asked = {*EVENT_ERRORS, *EVENT_WARNINGS, *ITEM_ERRORS, *ITEM_WARNINGS, "unlisted_item.csv", "README.md"}
    assert {path.name for path in FILES.iterdir()} == asked - {"missing.csv"}


def test_no_error_or_warning_quotes_a_user(tmp_path: Path) -> None:
    for name in EVENT_WARNINGS:
        copy = Path(shutil.copy(FILES / name, tmp_path / name))
        _, _, warnings = read_log(copy, key=KEY)
        assert not any(user in text for text in warnings for user in ("anna", "ben", "carl"))
