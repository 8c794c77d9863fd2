"""The engine against the plain loop, and both scorers against each other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec import ort
from hushrec.bundle import Bundle
from hushrec.engine import Engine
from hushrec.scorer import PackedScorer, PlainScorer, choose_scorer
from hushrec.tables import dequantize_rows
from hushrec_privacy.errors import BundleError, ConfigError
from numpy.typing import NDArray

from tests.tiny_bundle import ITEMS, MAX_HISTORY, tiny_bundle

V = len(ITEMS)


class Notes:
    """A memory that says what was asked of it."""

    def __init__(self, **kept: bytes) -> None:
        self.kept = kept

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.kept[key] = value


def remembering(name: str) -> Notes:
    return Notes(**{f"scorer/onnxruntime-{ort.version()}": name.encode()})


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(tiny_bundle(tmp_path))


def test_both_scorers_give_the_same_scores(bundle: Bundle) -> None:
    items, behaviors = np.array([3, 9, 27]), np.array([0, 2, 1])
    packed, plain = (Engine(bundle, remembering(name)) for name in ("packed", "plain"))
    assert (packed.scorer, plain.scorer) == ("packed", "plain")
    one, two = packed.scores(items, behaviors), plain.scores(items, behaviors)
    assert one.shape == (bundle.manifest.model.capacity,)
    np.testing.assert_allclose(one, two, atol=0.25)
    table = dequantize_rows(bundle.array("items.codes"), bundle.array("items.scales"))
    (user,) = np.linalg.lstsq(table, two, rcond=None)[:1]
    np.testing.assert_allclose(two, table @ user, atol=1e-4)  # every score is the product with one user vector


def test_row_0_and_spare_rows_score_0(bundle: Bundle) -> None:
    for name in ("packed", "plain"):
        scores = Engine(bundle, remembering(name)).scores(np.array([5]))
        assert scores[0] == 0
        assert not scores[V + 1 :].any()


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


@pytest.mark.parametrize("outside", [-1, 10_000, 2**62])
def test_an_item_outside_the_table_is_an_unknown_item(bundle: Bundle, outside: int) -> None:
    engine = Engine(bundle)
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
    monkeypatch.setattr("hushrec.engine.choose_scorer", lambda *_: pytest.fail("measured again"))
    assert Engine(bundle, notes).scorer == chosen


def test_a_scorer_that_this_onnx_runtime_cannot_open_is_replaced(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise BundleError("no such operator")

    monkeypatch.setattr("hushrec.engine.PackedScorer", refuse)
    assert Engine(bundle).scorer == "plain"


class Planted:
    """A scorer that takes as long as it is told."""

    def __init__(self, scores: NDArray[np.float32], value: float, clock: list[float], takes: float) -> None:
        self.scores, self.value, self.clock, self.takes = scores, value, clock, takes

    def score(self) -> None:
        self.scores[:] = self.value
        self.clock[0] += self.takes


@pytest.mark.parametrize(
    ("packed_s", "plain_s", "packed_value", "expected"),
    [
        (1, 2, 5.0, "packed"),
        (2, 1, 5.0, "plain"),
        (1, 2, 5.05, "packed"),
        (1, 2, 5.2, "plain"),
        (1, 2, np.nan, "plain"),
    ],
)
def test_the_faster_scorer_wins_if_it_is_right(
    packed_s: float, plain_s: float, packed_value: float, expected: str
) -> None:
    clock, scores, user = [0.0], np.zeros((1, 4), np.float32), np.zeros((1, 64), np.float32)
    packed, plain = Planted(scores, packed_value, clock, packed_s), Planted(scores, 5.0, clock, plain_s)
    assert choose_scorer(packed, plain, user, scores, lambda: clock[0]) == expected


def test_the_plain_scorer_reads_tables_of_any_length() -> None:
    rng = np.random.default_rng(0)
    codes, scales = rng.integers(1, 256, (9_000, 64), np.uint8), rng.random(9_000).astype(np.float32)
    user, scores = rng.standard_normal((1, 64)).astype(np.float32), np.empty((1, 9_000), np.float32)
    PlainScorer(codes, scales, user, scores).score()
    expected = dequantize_rows(codes, scales).astype(np.float64) @ user[0]
    np.testing.assert_allclose(scores[0], expected, rtol=1e-4, atol=2e-2)


def test_a_broken_graph_is_a_bundle_error(tmp_path: Path) -> None:
    (tmp_path / "scorer.onnx").write_bytes(b"no graph")
    buffer = np.zeros((1, 64), np.float32)
    with pytest.raises(BundleError, match=r"scorer\.onnx: ONNX Runtime .* cannot open it"):
        PackedScorer(tmp_path / "scorer.onnx", buffer, buffer)


def test_a_graph_that_is_opened_aside_fails_where_it_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "encoder.onnx").write_bytes(b"no graph")
    wait = ort.open_aside(tmp_path / "encoder.onnx")
    for _ in range(2):
        with pytest.raises(BundleError, match=r"encoder\.onnx: ONNX Runtime .* cannot open it"):
            wait()
