"""What items and reasons are called."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hushrec import Item, Recommender
from hushrec_cli.shown import item_row, recommendation_row

from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Recommender]:
    with Recommender.open(tiny_bundle(tmp_path)) as shop:
        yield shop


def named(shop: Recommender, monkeypatch: pytest.MonkeyPatch, title: str | None, category: str | None) -> object:
    found = Item("item-1", title, category, None, 2.5, {})
    monkeypatch.setattr(shop, "catalog", SimpleNamespace(get=lambda _: found, close=shop.catalog.close))
    return item_row(shop, "item-1")["name"]


@pytest.mark.parametrize(
    ("title", "category", "name"),
    [
        ("Blue mug", "Mugs", "Blue mug"),
        (None, "Mugs", "Mugs item-1"),
        ("", "Mugs", "Mugs item-1"),
        (None, None, "item-1"),
    ],
)
def test_an_item_is_called_by_the_best_that_is_known(
    shop: Recommender, monkeypatch: pytest.MonkeyPatch, title: str | None, category: str | None, name: str
) -> None:
    assert named(shop, monkeypatch, title, category) == name


def test_an_item_outside_the_catalogue_is_called_by_its_id(shop: Recommender) -> None:
    assert item_row(shop, "gone") == {"item": "gone", "title": None, "price": None, "name": "gone"}


def test_a_reason_names_the_items_behind_it(shop: Recommender) -> None:
    shop.observe("item-3")
    rows = [recommendation_row(shop, found) for found in shop.recommend(10, exclude_seen=True)]
    assert all("Thing number 3" in row["reason"] for row in rows if row["reason_code"] in ("because-of", "similar"))
    assert {row["reason_code"] for row in rows} & {"because-of", "similar"}
