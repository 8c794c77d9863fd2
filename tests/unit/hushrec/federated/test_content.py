"""What a device reads from the catalogue is what training numbered."""

import numpy as np
import pytest
import torch
from hushrec.bundle import Bundle
from hushrec.federated.content import Content
from hushrec.federated.layout import FEATURE_TABLES
from hushrec_model.content_gradients import content_maps
from hushrec_model.model import Model

from tests.learning_bundle import ITEMS, learning_bundle

TABLES = {"features.attributes": "attributes", "features.prices": "price", "features.words": "words"}
SOME = np.array([1, 2, 7, 30, 40])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Model]:
    return learning_bundle(tmp_path_factory.mktemp("bundle") / "shop.hush")


@pytest.mark.parametrize("items", [SOME, np.arange(1, ITEMS + 1), np.array([], np.int64)])
def test_vectors_are_summed_as_by_the_model(made: tuple[Bundle, Model], items: np.ndarray) -> None:
    bundle, model = made
    content = Content(bundle, items)
    with torch.no_grad():
        model.items.projection.weight.zero_()  # type: ignore[union-attr]
        expected = model.items.content()
    assert isinstance(expected, torch.Tensor)
    found = content.vectors({name: bundle.array(name) for name in FEATURE_TABLES})
    np.testing.assert_allclose(found, expected.numpy()[items - 1], atol=1e-6)


@pytest.mark.parametrize("name", FEATURE_TABLES)
def test_gradients_are_carried_as_by_the_model(made: tuple[Bundle, Model], name: str) -> None:
    bundle, model = made
    vectors = np.random.default_rng(0).standard_normal((len(SOME), 64)).astype(np.float32)
    carried = content_maps(model.items)[f"{TABLES[name]}.weight"].gradients(
        torch.from_numpy(SOME)[None], torch.from_numpy(vectors)[None]
    )
    found = Content(bundle, SOME).gradients(name, vectors, len(bundle.array(name)))
    np.testing.assert_allclose(found, carried[0].numpy(), atol=1e-6)
    assert found.any()


def test_only_the_tables_given_are_summed(made: tuple[Bundle, Model]) -> None:
    assert not Content(made[0], SOME).vectors({}).any()


def test_a_shop_that_knows_nothing_reads_no_catalogue(tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle, _ = learning_bundle(tmp_path_factory.mktemp("bare") / "shop.hush", described=False)
    bundle.path("catalog.sqlite").unlink()
    assert not Content(bundle, SOME).vectors({}).any()
