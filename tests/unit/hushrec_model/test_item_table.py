"""The vector of an item: the sum of what is known of it, of unit length, and what the ID row does when."""

import numpy as np
import pytest
import torch
from hushrec_model.features import ItemFeatures, item_features
from hushrec_model.item_table import ItemTable
from torch import Tensor

from tests.planted import all_known, nothing_known

ITEMS = 12


def table(features: ItemFeatures, seen: set[int] | None = None, id_dropout: float = 0.3) -> ItemTable:
    """A table whose items in `seen` (numbers from 1) were trained; all of them if None."""
    torch.manual_seed(0)
    trained = torch.tensor([seen is None or item + 1 in seen for item in range(len(features.price_bucket))])
    return ItemTable(features, trained, id_dropout=id_dropout)


def direction(vector: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vector.detach(), dim=-1)


@pytest.mark.parametrize("features", [nothing_known(ITEMS), all_known(ITEMS)], ids=["ids only", "all content"])
@pytest.mark.parametrize("training", [False, True])
def test_every_item_has_unit_length_and_padding_none(features: ItemFeatures, training: bool) -> None:
    generator = torch.Generator().manual_seed(1) if training else None
    vectors = table(features)(generator)
    assert vectors.shape == (ITEMS + 1, 64)
    assert (vectors[0] == 0).all()
    torch.testing.assert_close(vectors[1:].norm(dim=1), torch.ones(ITEMS))


def test_an_item_that_training_never_saw_takes_the_rows_of_those_most_like_it() -> None:
    titles = ["red mug", "red mug", "garden chair", "mug, red"]
    items = table(item_features(titles, np.full(4, np.nan), {}), seen={1, 2, 3})
    content = items.content()
    assert isinstance(content, Tensor)
    alike = items.id.weight[:2].mean(0)
    torch.testing.assert_close(items()[4], direction(alike + content[3]))
    torch.testing.assert_close(items.raw()[4], alike + content[3])
    torch.testing.assert_close(items()[1:4], direction(items.id.weight[:3] + content[:3]))


def test_an_item_like_no_trained_one_is_its_content_alone() -> None:
    items = table(item_features(["red mug", "garden chair"], np.full(2, np.nan), {}), seen={1})
    content = items.content()
    assert isinstance(content, Tensor)
    torch.testing.assert_close(items()[2], direction(content[1]))


def test_an_item_of_which_nothing_is_known_has_no_direction() -> None:
    vectors = table(nothing_known(ITEMS), seen={2})()
    assert (vectors.norm(dim=1) > 0).tolist() == [False, False, True, *[False] * (ITEMS - 2)]


def test_training_reads_the_row_of_an_unseen_item() -> None:
    items = table(nothing_known(ITEMS), seen=set())
    assert (items(torch.Generator().manual_seed(0))[1:].norm(dim=1) > 0).all()


def test_without_content_no_row_is_dropped() -> None:
    items = table(nothing_known(ITEMS), id_dropout=0.99)
    torch.testing.assert_close(items(torch.Generator().manual_seed(0)), items())


def test_the_given_share_of_rows_is_dropped_and_leaves_the_content() -> None:
    items = table(all_known(400), id_dropout=0.3)
    content = items.content()
    assert isinstance(content, Tensor)
    found = items(torch.Generator().manual_seed(0))[1:]
    bare = torch.isclose(found, direction(content), atol=1e-6).all(1)
    whole = torch.isclose(found, direction(items.id.weight + content), atol=1e-6).all(1)
    assert (bare ^ whole).all()
    assert bare.float().mean() == pytest.approx(0.3, abs=0.07)
    again = items(torch.Generator().manual_seed(0))[1:]
    other = items(torch.Generator().manual_seed(1))[1:]
    assert torch.equal(found, again)
    assert not torch.equal(found, other)


def test_content_is_the_sum_of_means_and_of_one_price_and_one_projection() -> None:
    features = all_known(ITEMS)
    items = table(features)
    assert items.attributes is not None
    assert items.words is not None
    assert items.price is not None
    assert items.projection is not None
    for item in range(ITEMS):
        wanted = torch.zeros(64)
        for bags, module in ((features.attributes, items.attributes), (features.words, items.words)):
            values = bags.values[bags.offsets[item] : bags.offsets[item + 1]]
            if len(values):
                wanted += module.weight[torch.from_numpy(values)].mean(0)
        wanted += items.price.weight[int(features.price_bucket[item])]
        assert features.vectors is not None
        wanted += items.projection.weight @ direction(torch.from_numpy(features.vectors[item]))
        torch.testing.assert_close(items.content()[item], wanted)  # type: ignore[index]


def test_what_no_item_has_gets_no_table() -> None:
    items = table(item_features(["a mug", None], np.full(2, np.nan), {"brand": [(), ()]}))
    assert (items.attributes, items.price, items.projection) == (None, None, None)
    assert items.words is not None


def test_an_item_without_a_vector_adds_nothing_by_it() -> None:
    vectors = np.zeros((2, 5), np.float32)
    vectors[1] = 1
    items = table(item_features([None, None], np.full(2, np.nan), {}, vectors), seen=set())
    assert (items().norm(dim=1) > 0).tolist() == [False, False, True]
