"""The engine against the plain loop, its scorers against each other, and many histories against each alone."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec import ort
from hushrec.batch import BatchScorer
from hushrec.bundle import Bundle
from hushrec.engine import Engine
from hushrec.history_buffer import TableFile
from hushrec.scorer import PlainScorer, Scorer, ScorerName, fastest
from hushrec.tables import dequantize_rows
from hushrec_privacy.errors import BundleError, ConfigError
from hushrec_quantize.graphs import build_graphs
from numpy.typing import NDArray

from tests.encoder_reference import random_encoder, random_items
from tests.engine_folder import Folder
from tests.tiny_bundle import ITEMS, MAX_HISTORY, tiny_bundle

V = len(ITEMS)
INT8: tuple[ScorerName, ...] = ("product", "blocks")
SCORERS: tuple[ScorerName, ...] = (*INT8, "plain")


class Notes:
    """A memory that says what was asked of it."""

    def __init__(self, **kept: bytes) -> None:
        self.kept = kept

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.kept[key] = value


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(tiny_bundle(tmp_path))


def test_all_scorers_give_the_same_scores(bundle: Bundle) -> None:
    items, behaviors = np.array([3, 9, 27]), np.array([0, 2, 1])
    plain = Engine(bundle, scorer="plain").scores(items, behaviors)
    for name in INT8:
        engine = Engine(bundle, scorer=name)
        assert engine.scorer == name
        found = engine.scores(items, behaviors)
        assert found.shape == (bundle.manifest.model.capacity,)
        np.testing.assert_allclose(found, plain, atol=0.25)
    table = dequantize_rows(bundle.array("items.codes"), float(bundle.array("items.scale")[0]))
    (user,) = np.linalg.lstsq(table, plain, rcond=None)[:1]
    np.testing.assert_allclose(plain, table @ user, atol=1e-4)  # every score is the product with one user vector


def test_row_0_and_spare_rows_score_0(bundle: Bundle) -> None:
    for name in SCORERS:
        scores = Engine(bundle, scorer=name).scores(np.array([5]))
        assert abs(scores[0]) < 1e-4
        assert np.abs(scores[V + 1 :]).max() < 1e-4


def test_nothing_is_kept_between_calls(bundle: Bundle) -> None:
    engine = Engine(bundle)
    histories = [np.arange(1, 1 + n) for n in (3, 8, 1, 3, 8)]
    first = [engine.scores(history).copy() for history in histories]
    for history, expected in zip(reversed(histories), reversed(first), strict=True):
        assert np.array_equal(engine.scores(history), expected)
    engine.scores(np.array([4]))[:] = np.nan
    assert np.array_equal(engine.scores(histories[0]), first[0])


def test_only_the_last_events_count(bundle: Bundle) -> None:
    engine = Engine(bundle)
    long = np.arange(1, MAX_HISTORY + 20)
    kinds = long % 3
    expected = engine.scores(long[-MAX_HISTORY:], kinds[-MAX_HISTORY:]).copy()
    assert np.array_equal(engine.scores(long, kinds), expected)


def test_order_and_behaviour_count(bundle: Bundle) -> None:
    engine = Engine(bundle)
    items = np.array([1, 2, 3])
    base = engine.scores(items).copy()
    assert np.array_equal(base, engine.scores(items, np.zeros(3, np.int64)))
    assert not np.array_equal(base, engine.scores(items[::-1]))
    assert not np.array_equal(base, engine.scores(items, np.array([0, 0, 1])))


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("outside", [-1, 10_000, 2**62])
def test_an_item_outside_the_table_is_an_unknown_item(bundle: Bundle, outside: int, scorer: ScorerName) -> None:
    engine = Engine(bundle, scorer=scorer)
    expected = engine.scores(np.array([1, 0, 2])).copy()
    assert np.array_equal(engine.scores(np.array([1, outside, 2])), expected)


def test_wrong_histories_are_refused(bundle: Bundle) -> None:
    engine = Engine(bundle)
    with pytest.raises(ConfigError, match="history is empty"):
        engine.scores(np.array([], np.int64))
    with pytest.raises(ConfigError, match="2 items but 3 behaviours"):
        engine.scores(np.array([1, 2]), np.array([0, 0, 0]))
    for wrong in (-1, 3):
        with pytest.raises(ConfigError, match="not among the bundle's 3 behaviours"):
            engine.scores(np.array([1, 2]), np.array([0, wrong]))


def test_the_choice_of_the_scorer_is_measured_once_and_remembered(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    chosen = Engine(bundle, notes).scorer
    assert list(notes.kept.values()) == [chosen.encode()]
    monkeypatch.setattr("hushrec.engine.fastest", lambda *_: pytest.fail("measured again"))
    for name in SCORERS:
        notes.kept = dict.fromkeys(notes.kept, name.encode())
        assert Engine(bundle, notes).scorer == name


def test_what_no_scorer_is_called_is_not_remembered(bundle: Bundle) -> None:
    notes = Notes()
    Engine(bundle, notes)
    notes.kept = dict.fromkeys(notes.kept, b"packed\xff")
    assert Engine(bundle, notes).scorer in SCORERS
    assert set(notes.kept.values()) <= {name.encode() for name in SCORERS}


def product_remembered(bundle: Bundle) -> Notes:
    notes = Notes()
    Engine(bundle, notes)
    notes.kept = dict.fromkeys(notes.kept, b"product")
    return notes


@pytest.mark.parametrize("remembered", [True, False])
def test_scorers_that_this_onnx_runtime_cannot_open_are_replaced(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    notes = product_remembered(bundle) if remembered else Notes()
    real = ort.open_session

    def refuse(graph: Path) -> Any:
        if graph.name != "encoder.onnx":
            raise BundleError("no such operator")
        return real(graph)

    monkeypatch.setattr("hushrec.ort.open_session", refuse)
    assert Engine(bundle, notes).scorer == "plain"
    with pytest.raises(BundleError, match="no such operator"):
        Engine(bundle, scorer="product")


@pytest.mark.parametrize(
    ("items", "measured"),
    [(60, {"plain", "product", "blocks"}), (150_000, {"plain", "blocks"})],
)
def test_only_scorers_that_may_win_at_a_size_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, items: int, measured: set[str]
) -> None:
    asked: list[set[str]] = []

    def choose(scorers: dict[ScorerName, Callable[[], Scorer]], _: NDArray[np.float32]) -> tuple[str, Scorer]:
        asked.append(set(scorers))
        return "plain", scorers["plain"]()

    monkeypatch.setattr("hushrec.engine.fastest", choose)
    weights = random_encoder(heads=(1,), channels=(16,), max_history=8)
    graphs = build_graphs(weights, np.zeros((items + 1, 64), np.float32))
    graphs.write(tmp_path)
    Engine(Folder(tmp_path, items, graphs.capacity))
    assert asked == [measured]


def test_a_table_of_several_blocks_is_scored_like_any_other(tmp_path: Path) -> None:
    items = 70_000
    graphs = build_graphs(random_encoder(heads=(1,), channels=(16,), max_history=8), random_items(items))
    graphs.write(tmp_path)
    folder, history = Folder(tmp_path, items, graphs.capacity), np.array([5, 69_999, 70_000, 5, 1])
    plain = Engine(folder, scorer="plain").scores(history)
    for name in INT8:
        engine = Engine(folder, scorer=name)
        engine.scores(np.array([3, 5]))
        np.testing.assert_allclose(engine.scores(history), plain, atol=0.25)


class Planted:
    """A scorer that takes as long as it is told."""

    def __init__(self, scores: NDArray[np.float32], value: float, clock: list[float], takes: float) -> None:
        self.scores, self.value, self.clock, self.takes = scores, value, clock, takes

    def score(self) -> None:
        self.scores[:] = self.value
        self.clock[0] += self.takes


@pytest.mark.parametrize(
    ("plain_s", "product", "blocks", "expected"),
    [
        (2, (1, 5.0), (1.5, 5.0), "product"),
        (2, (1, 5.0), (0.95, 5.0), "product"),
        (2, (1.5, 5.0), (1, 5.0), "blocks"),
        (1, (2, 5.0), (3, 5.0), "plain"),
        (2, (1, 5.05), (1.5, 5.0), "product"),
        (2, (1, 5.2), (1.5, 5.0), "blocks"),
        (2, (1, np.nan), (3, 5.0), "plain"),
    ],
)
def test_the_fastest_scorer_wins_if_it_is_right_and_clearly_faster(
    plain_s: float, product: tuple[float, float], blocks: tuple[float, float], expected: str
) -> None:
    clock, scores = [0.0], np.zeros((1, 4), np.float32)
    planted: dict[ScorerName, tuple[float, float]] = {"plain": (plain_s, 5.0), "product": product, "blocks": blocks}
    made = {name: partial(Planted, scores, value, clock, takes) for name, (takes, value) in planted.items()}
    assert fastest(made, scores, lambda: clock[0])[0] == expected


class Nothing:
    """Stands for an encoder whose user vector is there already."""

    def score(self) -> None:
        pass


def test_the_plain_scorer_reads_tables_of_any_length() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 256, (9_000, 64), np.uint8)
    user, scores = rng.standard_normal((1, 64)).astype(np.float32), np.empty((1, 9_000), np.float32)
    PlainScorer(Nothing(), user, codes, 0.5, scores).score()
    expected = dequantize_rows(codes, 0.5).astype(np.float64) @ user[0]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-4, atol=2e-2)


def test_a_table_that_was_cut_off_while_it_is_used_is_a_bundle_error(tmp_path: Path) -> None:
    (tmp_path / "items.bin").write_bytes(bytes(range(64)) * 3)
    table = TableFile(tmp_path / "items.bin", 64)
    assert table.rows(np.array([1, 0])).tolist() == [list(range(64))] * 2
    with pytest.raises(BundleError, match=r"items\.bin ended"):
        table.rows(np.array([1, 2]))


@pytest.mark.parametrize("remembered", [True, False])
def test_a_processor_whose_products_overflow_scores_by_another_graph(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, remembered: bool
) -> None:
    notes = product_remembered(bundle) if remembered else Notes()
    monkeypatch.setattr("hushrec.scorer._LARGEST_SUM", 1)  # what this processor adds up differs from it
    with pytest.raises(BundleError, match=r"scorer\.onnx: this processor's int8 products overflow"):
        Engine(bundle, scorer="product")
    engine = Engine(bundle, notes)
    assert engine.scorer in {"plain", "blocks"}
    asked = histories(5, MAX_HISTORY)
    for at, scores in engine.scores_many((items, None) for items in asked):
        np.testing.assert_array_equal(scores, engine.scores(asked[at]))


def test_a_scorer_that_cannot_say_whether_its_products_overflow_is_not_used(tmp_path: Path) -> None:
    graphs = build_graphs(random_encoder(heads=(1,), channels=(16,), max_history=8), random_items(60))
    graphs.write(tmp_path)
    (tmp_path / "scorer.onnx").write_bytes(graphs.encoder_onnx)
    folder = Folder(tmp_path, 60, graphs.capacity)
    assert Engine(folder).scorer in {"plain", "blocks"}
    with pytest.raises(BundleError, match="has no output largest_sum"):
        Engine(folder, scorer="product")


def test_a_broken_graph_is_a_bundle_error(tmp_path: Path) -> None:
    (tmp_path / "scorer.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"scorer\.onnx: ONNX Runtime .* cannot open it"):
        ort.open_session(tmp_path / "scorer.onnx")


def histories(count: int, longest: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(count)
    return [rng.integers(1, V + 1, rng.integers(1, longest + 1)) for _ in range(count)]


@pytest.mark.parametrize("threads", [1, 3, None])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_many_histories_are_scored_as_each_alone(bundle: Bundle, threads: int | None, count: int) -> None:
    engine, asked = Engine(bundle), histories(count, MAX_HISTORY + 3)
    kinds = [items % 3 for items in asked]
    seen = set()
    for at, scores in engine.scores_many(zip(asked, kinds, strict=True), threads=threads):
        seen.add(at)
        np.testing.assert_allclose(scores, engine.scores(asked[at], kinds[at]), atol=0.5)
    assert seen == set(range(count))


def test_the_best_of_many_histories(bundle: Bundle) -> None:
    engine, asked = Engine(bundle), histories(30, 12)
    for hide in (True, False, None):
        best, scores = engine.recommend_many(asked, 10, exclude_seen=hide)
        assert best.shape == scores.shape == (30, 10)
        assert (np.diff(scores, axis=1) <= 0).all()
        assert ((best >= 1) & (best <= V)).all()
        shown_again = [len(set(one) & set(history)) for one, history in zip(best, asked, strict=True)]
        assert (sum(shown_again) == 0) == (hide is True)  # the bundle itself hides nothing
    kinds = [np.full(len(items), 1) for items in asked]
    assert not np.array_equal(engine.recommend_many(asked, 10, behaviors=kinds)[0], best)


def test_fewer_items_than_asked_for_are_filled_up(bundle: Bundle) -> None:
    best, scores = Engine(bundle).recommend_many([np.array([1, 2])], V, exclude_seen=True)
    assert best[0, -3:].tolist() == [best[0, -3], 0, 0]
    assert best[0, -3] > 0
    assert np.isneginf(scores[0]).tolist() == [False] * (V - 2) + [True] * 2


def test_many_histories_with_a_wrong_one_are_refused(bundle: Bundle) -> None:
    engine = Engine(bundle)
    with pytest.raises(ConfigError, match="history is empty"):
        engine.recommend_many([np.array([1]), np.array([], np.int64)])
    with pytest.raises(ConfigError, match="threads is 0"):
        engine.recommend_many([np.array([1])], threads=0)
    for wrong in (-1, 1.5):
        with pytest.raises(ConfigError, match="k is"):
            engine.recommend_many([np.array([1])], wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="2 histories but behaviours of 1"):
        engine.recommend_many([np.array([1])] * 2, behaviors=[np.array([0])])


def test_a_list_is_never_longer_than_the_catalogue(bundle: Bundle) -> None:
    best, scores = Engine(bundle).recommend_many([np.array([1])], 10**9, exclude_seen=False)
    assert sorted(best[0].tolist()) == list(range(1, V + 1))
    assert scores.shape == (1, V)


def test_a_scorer_that_does_not_exist_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="packed"):
        Engine(bundle, scorer="packed")  # type: ignore[arg-type]


def test_a_batch_that_scores_otherwise_than_the_engine_is_not_believed(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, asked = Engine(bundle), histories(9, 5)
    expected = {at: scores.copy() for at, scores in enumerate(map(engine.scores, asked))}

    def wrong(_: BatchScorer, __: list[Any], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        scores[:] = 7
        return scores

    monkeypatch.setattr(BatchScorer, "_run", wrong)
    for at, scores in engine.scores_many([(items, None) for items in asked]):
        assert np.array_equal(scores, expected[at])


def test_without_the_graph_for_batches_each_history_is_scored_alone(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, asked = Engine(bundle), histories(9, 5)

    def refuse(_: Path) -> None:
        raise BundleError("no such operator")

    monkeypatch.setattr("hushrec.ort.open_session", refuse)
    assert {at for at, _ in engine.scores_many([(items, None) for items in asked])} == set(range(9))


def test_a_history_that_was_refused_leaves_no_trace(bundle: Bundle) -> None:
    engine = Engine(bundle)
    items, kinds = np.array([3, 5, 7]), np.array([0, 1, 2])
    expected = engine.scores(items, kinds).copy()
    with pytest.raises(ConfigError, match="not among the bundle's 3 behaviours"):
        engine.scores(np.array([2, 4]), np.array([0, 9]))
    np.testing.assert_array_equal(engine.scores(items, kinds), expected)
