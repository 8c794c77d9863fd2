"""The catalogue says what each item is, and marks exactly the items that were asked for."""

import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hushrec.catalog import Catalog, Item, write_catalog
from hushrec_privacy.errors import BundleError, CatalogError, ConfigError

from tests.tiny_bundle import write_tiny_catalog

IDS = ["mug", "cup", "lamp", "bag", "ghost"]
TITLES = ["A mug", "A cup", "A lamp", "A mug", None]
PRICES = np.array([2.5, 2.5, 30.0, 7.25, np.nan])
CATEGORIES = [("Mugs", "Kitchen"), ("Cups", "Kitchen"), ("Lamps",), ("Bags",), ()]
COLOURS = [("red",), ("red", "blue"), ("blue",), (), ()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a catalogue #1?.sqlite"
    write_catalog(path, IDS, TITLES, PRICES, {"category": CATEGORIES, "colour": COLOURS})
    return path


@pytest.fixture
def catalog(path: Path) -> Iterator[Catalog]:
    with Catalog(path) as catalog:
        yield catalog


def marked(catalog: Catalog, within: dict[str, str | list[str]]) -> list[str]:
    return catalog.ids(np.flatnonzero(catalog.mask(within)).tolist())


def test_an_item_has_all_that_the_shop_said_of_it(catalog: Catalog) -> None:
    assert catalog.get("cup") == Item(
        item="cup",
        title="A cup",
        category="Cups",
        brand=None,
        price=2.5,
        attributes={"category": ("Cups", "Kitchen"), "colour": ("red", "blue")},
    )
    assert catalog.get("ghost") == Item("ghost", None, None, None, None, {})


@pytest.mark.parametrize("item", ["", "Mug", "mug ", "\0", "\ud800", "' OR 1=1 --", "x" * 100_000])
def test_an_unknown_item_is_none_and_index_0(catalog: Catalog, item: str) -> None:
    assert catalog.get(item) is None
    assert catalog.index(item) == 0
    assert catalog.indexes([item, "lamp"]) == {"lamp": 3}


def test_ids_and_indexes_are_each_others_inverse(catalog: Catalog) -> None:
    assert catalog.size == len(IDS)
    assert [catalog.index(item) for item in IDS] == [1, 2, 3, 4, 5]
    assert catalog.ids([5, 1, 1]) == ["ghost", "mug", "mug"]
    assert catalog.indexes(IDS) == {item: index for index, item in enumerate(IDS, 1)}


@pytest.mark.parametrize("index", [0, 6, -1])
def test_an_index_outside_the_catalogue_has_no_id(catalog: Catalog, index: int) -> None:
    with pytest.raises(ConfigError, match=r"1\.\.5"):
        catalog.ids([index])


def test_many_ids_are_looked_up_in_one_go(tmp_path: Path) -> None:
    ids = [f"item {number}" for number in range(1700)]
    write_catalog(tmp_path / "c", ids, [None] * 1700, np.full(1700, np.nan), {})
    with Catalog(tmp_path / "c") as catalog:
        assert catalog.indexes([*ids, "other"]) == {item: index for index, item in enumerate(ids, 1)}


def test_many_items_are_described_in_one_go_and_in_the_order_asked_for(tmp_path: Path) -> None:
    path, items = tmp_path / "catalog.sqlite", 1_200
    write_tiny_catalog(path, items)
    asked = [7, 1, *range(items, 7, -1)]
    with Catalog(path) as catalog:
        for index, (title, price, pairs) in zip(asked, catalog.described(asked), strict=True):
            found = catalog.get(f"item-{index}")
            assert found is not None
            assert (title, price) == (found.title, found.price)
            assert pairs == [(column, value) for column, values in found.attributes.items() for value in values]
        assert not list(catalog.described([]))
        with pytest.raises(ConfigError, match=r"1\.\.1200"):
            list(catalog.described([3, 1_201]))


def test_values_of_every_kind_of_column(catalog: Catalog) -> None:
    assert catalog.columns == ("item", "title", "price", "category", "colour")
    assert catalog.values("category") == ["Bags", "Cups", "Kitchen", "Lamps", "Mugs"]
    assert catalog.values("title") == ["A cup", "A lamp", "A mug"]
    assert catalog.values("price") == ["2.5", "7.25", "30.0"]
    assert catalog.values("item") == sorted(IDS)


def test_one_value_marks_the_items_that_have_it(catalog: Catalog) -> None:
    assert marked(catalog, {"category": "Kitchen"}) == ["mug", "cup"]
    assert marked(catalog, {"title": "A mug"}) == ["mug", "bag"]
    assert marked(catalog, {"price": "2.50"}) == ["mug", "cup"]
    assert marked(catalog, {"item": ["lamp", "nothing"]}) == ["lamp"]


def test_several_values_are_a_choice_and_several_columns_narrow(catalog: Catalog) -> None:
    assert marked(catalog, {"category": ["Lamps", "Cups"]}) == ["cup", "lamp"]
    assert marked(catalog, {"category": ["Lamps", "Mugs"], "colour": "red"}) == ["mug"]
    assert marked(catalog, {"category": "Mugs", "colour": "blue"}) == []


@pytest.mark.parametrize("value", ["mugs", "Mugs ", "", "cheap", "\ud800", "Mug%", []])
def test_a_value_that_no_item_has_marks_nothing(catalog: Catalog, value: str | list[str]) -> None:
    for column in catalog.columns:
        assert marked(catalog, {column: value}) == []


def test_no_column_marks_every_item_but_never_row_0(catalog: Catalog) -> None:
    assert catalog.mask({}).tolist() == [False] + [True] * 5


def test_a_mask_is_kept_and_cannot_be_changed(catalog: Catalog) -> None:
    mask = catalog.mask({"colour": ["red", "blue"]})
    assert catalog.mask({"colour": ("blue", "red", "red")}) is mask
    with pytest.raises(ValueError, match="read-only"):
        mask[1] = False


def test_an_unknown_column_is_an_error_that_names_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="did you mean 'colour'"):
        catalog.mask({"color": "red"})
    with pytest.raises(CatalogError, match="it has item, title, price, category, colour"):
        catalog.values("size")


@pytest.mark.parametrize("values", [7, None, ["red", 7], b"red"], ids=str)
def test_values_that_are_no_strings_are_an_error(catalog: Catalog, values: object) -> None:
    with pytest.raises(ConfigError, match="string"):
        catalog.mask({"colour": values})  # type: ignore[dict-item]


def test_nothing_is_written_beside_or_into_the_file(path: Path) -> None:
    before = path.read_bytes()
    path.chmod(0o444)
    with Catalog(path) as catalog:
        catalog.get("mug")
        catalog.values("title")
    assert path.read_bytes() == before
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_a_closed_catalogue_says_so(catalog: Catalog) -> None:
    catalog.close()
    catalog.close()
    with pytest.raises(BundleError, match="closed"):
        catalog.get("lamp")


@pytest.mark.parametrize("content", [b"", b"not a database" * 100, None], ids=["empty", "garbage", "missing"])
def test_what_is_no_catalogue_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "catalog.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"catalog\.sqlite"):
        Catalog(path)


def test_threads_get_their_own_answers(catalog: Catalog) -> None:
    wrong: list[str] = []

    def look(item: str, index: int) -> None:
        for _ in range(200):
            if catalog._find_index(item) != index:  # past the cache, so that threads meet in the database
                wrong.append(item)

    threads = [threading.Thread(target=look, args=(item, index)) for index, item in enumerate(IDS, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_same_catalogue_is_the_same_bytes(tmp_path: Path, path: Path) -> None:
    write_catalog(tmp_path / "again", IDS, TITLES, PRICES, {"category": CATEGORIES, "colour": COLOURS})
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_value_given_twice_counts_once(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c", ["a"], [None], np.array([1.0]), {"tag": [("x", "y", "x")]})
    with Catalog(tmp_path / "c") as catalog:
        item = catalog.get("a")
    assert item is not None
    assert item.attributes == {"tag": ("x", "y")}


def test_an_item_can_be_pickled(catalog: Catalog) -> None:
    item = catalog.get("mug")
    assert pickle.loads(pickle.dumps(item)) == item  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ids": ["mug", "mug", "c", "d", "e"]}, "twice"),
        ({"ids": ["\ud800", "b", "c", "d", "e"]}, "Unicode"),
        ({"titles": ["one"]}, "one entry an item"),
        ({"prices": np.array([1.0])}, "one entry an item"),
        ({"attributes": {"colour": [()]}}, "one entry an item"),
        ({"attributes": {"title": [()] * 5}}, "rename the column"),
    ],
    ids=str,
)
def test_a_catalogue_that_makes_no_sense_is_not_written(tmp_path: Path, changes: dict[str, object], match: str) -> None:
    whole: dict[str, object] = {"ids": IDS, "titles": TITLES, "prices": PRICES, "attributes": {}}
    with pytest.raises(ConfigError, match=match):
        write_catalog(tmp_path / "c", **(whole | changes))  # type: ignore[arg-type]


def test_a_catalogue_is_never_written_over(path: Path) -> None:
    with pytest.raises(ConfigError, match="exists"):
        write_catalog(path, IDS, TITLES, PRICES, {})
