"""The boxed shops are there, small, attributed, and read without a word to say."""

from pathlib import Path

import pytest
from hushrec_model.boxed import BOXED, boxed_events, boxed_items
from hushrec_model.reading import read_log
from hushrec_privacy.errors import ConfigError

FOLDER = boxed_events("online_retail").parents[1]


def test_the_box_takes_at_most_two_megabytes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 2_000_000


@pytest.mark.parametrize("name", BOXED)
def test_each_shop_says_whose_it_is(name: str) -> None:
    text = (FOLDER / name / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(part in text for part in ("**Source**", "doi.org/10.24432/", "CC BY 4.0", "**What was changed**"))


@pytest.mark.parametrize(
    ("name", "events", "users", "items", "columns"),
    [
        ("online_retail", 396_258, 4_334, 3_658, ["category"]),
        ("eshop_clothing_2008", 165_474, 24_026, 217, ["category"]),
    ],
)
def test_each_shop_is_read_whole(name: str, events: int, users: int, items: int, columns: list[str]) -> None:
    log, known, _ = read_log(boxed_events(name), boxed_items(name), key=b"key of the tests")
    assert (len(log), len(log.users), len(log.items), log.listed) == (events, users, items, items)
    assert list(known.attributes) == columns
    assert (known.price > 0).all()


def test_titles_are_titles_and_fees_are_gone() -> None:
    log, known, _ = read_log(boxed_events("online_retail"), boxed_items("online_retail"), key=b"key of the tests")
    titles = dict(zip(log.items, known.title, strict=True))
    assert titles["85123A"] == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert not {"POST", "DOT", "M", "C2", "BANK CHARGES"} & set(log.items)
    assert not any(title is None or "?" in title or "damage" in title.lower() for title in titles.values())


def test_an_unknown_shop_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'online_retail'"):
        boxed_events("online_retial")


def test_paths_stay_valid() -> None:
    paths = [of(name) for name in BOXED for of in (boxed_events, boxed_items)]
    assert all(isinstance(path, Path) and path.is_file() for path in paths)
