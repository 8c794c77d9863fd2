"""A bundle evaluated: as the device ranks, and near what torch ranks with the weights it was made of."""

from pathlib import Path

import numpy as np
import pytest
from hushrec.bundle import Bundle
from hushrec.counts import Blend
from hushrec_model.blend import BlendScorer
from hushrec_model.counting import count_tables
from hushrec_model.model import ModelScorer
from hushrec_model.pipeline import train
from hushrec_model.run_folder import Run, load_run
from hushrec_quantize.bundle_scorer import BundleScorer
from hushrec_quantize.pipeline import QuantizeOptions, quantize
from hushrec_quantize.verify import Tolerance, overlap

from tests.planted import queries
from tests.shop_files import write_shop_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    events, items = write_shop_files(folder)
    train(events, items, folder / "run")
    quantize(folder / "run", folder / "shop.hush", QuantizeOptions(prune=0.0, tolerance=Tolerance(0.5, 0.5, 0.9)))
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load_run(folder / "run")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle.open(folder / "shop.hush")


@pytest.mark.parametrize("filter_seen", [False, True])
@pytest.mark.parametrize("blended", [False, True])
def test_lists_of_bundle_and_torch_overlap(run: Run, bundle: Bundle, filter_seen: bool, blended: bool) -> None:
    alone, index = ModelScorer(run.model, filter_seen=filter_seen), np.arange(len(run.split.test))
    blend = Blend(bundle.manifest.blend, count_tables(run.split.train, len(run.split.items)))
    floating = BlendScorer(alone, blend, filter_seen=filter_seen) if blended else alone
    device = BundleScorer(bundle, filter_seen=filter_seen, blend=None if blended else ())
    asked = run.split.test
    assert overlap(floating.top(asked, index, 10), device.top(asked, index, 10)) > 0.95


def test_lists_hold_distinct_items_and_no_seen_ones(run: Run, bundle: Bundle) -> None:
    listed = BundleScorer(bundle, filter_seen=True).top(run.split.test, np.arange(60), 100)
    for query, row in enumerate(listed):
        shown = row[row > 0].tolist()
        assert sorted(shown) == sorted(set(range(1, 41)) - set(run.split.test.history(query).tolist()))
        assert (row[len(shown) :] == 0).all()


def test_events_outside_the_catalogue_are_passed_over(bundle: Bundle) -> None:
    scorer = BundleScorer(bundle, filter_seen=True)
    known = queries([[3, 4, 5]], [[1]], behaviors=[[0, 1, 0]])
    mixed = queries([[0, 3, 41, 4, 999, 5, 0]], [[1]], behaviors=[[1, 0, 1, 1, 0, 0, 1]])
    one, two = (scorer.top(asked, np.zeros(1, np.int64), 20) for asked in (known, mixed))
    np.testing.assert_array_equal(one, two)


def test_behaviours_matter(bundle: Bundle) -> None:
    scorer = BundleScorer(bundle, filter_seen=False, blend=())
    asked = queries([[3, 4, 5]] * 2, [[1]] * 2, behaviors=[[0, 0, 0], [1, 1, 1]])
    looked, bought = scorer.top(asked, np.arange(2), 40)
    assert looked.tolist() != bought.tolist()


def test_a_history_of_which_nothing_is_known_gets_what_is_popular(bundle: Bundle) -> None:
    popular = np.argsort(-bundle.array("popularity")[1:], kind="stable") + 1
    listed = BundleScorer(bundle, filter_seen=True).top(queries([[], [0, 99]], [[1], [1]]), np.arange(2), 10)
    assert listed.tolist() == [popular[:10].tolist()] * 2


def test_no_race_of_two_scorers_decides_what_an_evaluation_finds(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hushrec.engine.fastest", lambda *_: pytest.fail("the scorers were timed"))
    BundleScorer(bundle, filter_seen=True).top(queries([[3]], [[1]]), np.zeros(1, np.int64), 1)
