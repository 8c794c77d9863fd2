"""Whatever a shop's ids look like, reading CSV, Parquet and JSON lines gives one log, and it is the sorted file."""

import json
import tempfile
from pathlib import Path

import polars as pl
from hushrec_model.log import Log
from hushrec_model.pseudonyms import pseudonym
from hushrec_model.reading import read_log
from hypothesis import given, settings
from hypothesis import strategies as st

KEY = b"key of the tests"
ids = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=6)
rows = st.lists(st.tuples(ids, ids, st.integers(0, 10**6)), min_size=1, max_size=20)


def shown(log: Log) -> list[tuple[str, str, int, int]]:
    assert log.time is not None
    return [
        (log.users[user], log.items[item - 1], time, row)
        for user, item, time, row in zip(log.user, log.item, log.time.tolist(), log.row.tolist(), strict=True)
    ]


@settings(max_examples=50)
@given(rows)
def test_all_formats_give_the_file_sorted_by_user_and_time(events: list[tuple[str, str, int]]) -> None:
    users = list(dict.fromkeys(user for user, _, _ in events))
    order = sorted(range(len(events)), key=lambda row: (users.index(events[row][0]), events[row][2], row))
    expected = [(pseudonym(events[r][0], KEY), events[r][1], events[r][2] * 10**6, r) for r in order]
    frame = pl.DataFrame(events, schema={"user": pl.String, "item": pl.String, "time": pl.Int64}, orient="row")
    with tempfile.TemporaryDirectory() as folder:
        frame.write_csv(Path(folder) / "e.csv")
        frame.write_parquet(Path(folder) / "e.parquet")
        lines = (json.dumps(row, ensure_ascii=False) for row in frame.to_dicts())
        (Path(folder) / "e.jsonl").write_text("\n".join(lines), encoding="utf-8")
        for name in ("e.csv", "e.parquet", "e.jsonl"):
            log, _, _ = read_log(Path(folder) / name, key=KEY)
            assert shown(log) == expected
            assert log.items == list(dict.fromkeys(item for _, item, _ in events))
