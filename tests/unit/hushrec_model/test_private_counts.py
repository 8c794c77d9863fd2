"""What the tables of a private run can move by, and what their noise is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hushrec.counts import Blend
from hushrec_model import private_counts
from hushrec_model.private_counts import (
    COUNTS_NOISE,
    STEPS,
    Counts,
    counts_mu,
    load_counts,
    release_counts,
    save_counts,
    transitions_deviation,
)
from hushrec_model.sequences import Sequences
from hushrec_privacy.errors import CheckpointError, ConfigError
from hushrec_privacy.randomness import OsRandom
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

ITEMS = 12
Ints = NDArray[np.int64]


def sequences(users: list[list[int]]) -> Sequences:
    item = np.array([i for user in users for i in user], np.int32)
    offsets = np.cumsum([0, *map(len, users)]).astype(np.int64)
    return Sequences(offsets, item, np.zeros(len(item), np.int8), None, None)


users = st.lists(st.lists(st.integers(0, ITEMS), min_size=0, max_size=40), min_size=1, max_size=6)


def plain(train: Sequences, patch: pytest.MonkeyPatch, protocol: str = "leave-one-out") -> tuple[Ints, Ints, bool]:
    """The tables before noise, in steps, recorded where noise is drawn: popularity, pairs, the decision."""
    drawn: list[tuple[int, int]] = []
    pairs = np.zeros(ITEMS * ITEMS, np.int64)

    def silent(_source: OsRandom, count: int, deviation: int) -> Ints:
        drawn.append((count, deviation))
        return np.zeros(count, np.int64)

    def seen(
        _source: OsRandom, cells: int, index: Ints, counts: Ints, *, deviation: int, threshold: int
    ) -> tuple[Ints, Ints]:
        assert (cells, deviation) == (ITEMS * ITEMS, 5000)
        assert threshold >= deviation
        pairs[index] = counts
        return index, counts

    with patch.context() as inner:
        inner.setattr(private_counts, "sample_discrete_gaussian", silent)
        inner.setattr(private_counts, "noised_above", seen)
        found = release_counts(train, ITEMS, 5000, OsRandom(), protocol)
    assert drawn == [(ITEMS + 1, COUNTS_NOISE * STEPS), (1, COUNTS_NOISE * STEPS)]
    return np.rint(found.popularity * STEPS).astype(np.int64), pairs, found.filter_seen


@settings(max_examples=60, deadline=None)
@given(
    users=users,
    more=st.lists(st.integers(0, ITEMS), min_size=0, max_size=40),
    protocol=st.sampled_from(["leave-one-out", "sessions", "baskets"]),
)
def test_one_user_moves_each_table_by_at_most_the_bound(users: list[list[int]], more: list[int], protocol: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        without = plain(sequences(users), patch, protocol)
        with_one = plain(sequences([*users, more]), patch, protocol)
    for before, after in zip(without[:2], with_one[:2], strict=True):
        moved = [int(step) for step in after - before]
        assert sum(step * step for step in moved) <= STEPS * STEPS


def test_pairs_fade_with_their_distance_and_count_a_quarter_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pairs, _ = plain(sequences([[1, 2, 3]]), monkeypatch)
    table = pairs.reshape(ITEMS, ITEMS) / pairs[1]
    np.testing.assert_allclose([table[1, 2], table[0, 2], table[1, 0], table[2, 0]], [1, 0.8, 0.25, 0.2], atol=2e-3)
    assert np.count_nonzero(pairs) == 6
    _, pairs, _ = plain(sequences([[1, 2, 3]]), monkeypatch, "sessions")
    table = pairs.reshape(ITEMS, ITEMS) / pairs[1]
    np.testing.assert_allclose([table[1, 2], table[0, 2], table[1, 0], table[2, 0]], [1, 0.4, 0.1, 0.04], atol=2e-3)
    _, alone, _ = plain(sequences([[4, 4]]), monkeypatch)
    assert not alone.any(), "an item is no neighbour of itself"


def test_who_returns_decides_whether_seen_items_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain(sequences([[1, 2, 3]] * 50), monkeypatch)[2]
    assert not plain(sequences([[1, 2, 1]] * 50), monkeypatch)[2]


def test_noise_is_fresh_and_of_the_stated_size() -> None:
    train = sequences([[1, 2]] * 3)
    drawn = np.array([release_counts(train, 4000, 5000, OsRandom(), "leave-one-out").popularity[3:] for _ in range(2)])
    assert not np.array_equal(drawn[0], drawn[1])
    positive = drawn[drawn > 0]
    assert abs((drawn > 0).mean() - 0.5) < 0.04, "negative ones are cut to 0"
    assert 0.9 < np.sqrt((positive**2).mean()) / COUNTS_NOISE < 1.1


def test_transitions_stand_out_of_the_noise_and_noise_alone_fills_few_entries() -> None:
    counts = release_counts(sequences([[1, 2]] * 400), 300, 5000, OsRandom(), "leave-one-out")
    near, scale = counts.transitions["items"], counts.transitions["scales"]
    assert (near[1, 0], near[2, 0]) == (2, 1)
    assert np.count_nonzero(near) <= 4, "the pair is beyond doubt, the rest is no more than noise"
    crowd = [[3 * group + 1, 3 * group + 2, 3 * group + 3] for group in range(100) for _ in range(60)]
    counts = release_counts(sequences([[1, 2]] * 400 + crowd), 300, 5000, OsRandom(), "leave-one-out")
    near, scale = counts.transitions["items"], counts.transitions["scales"]
    assert near[1, 0] == 2
    assert scale[1] > 0
    assert 12 < np.count_nonzero(near) / 300 < 20, "16 a row are expected"
    weights: Any = counts.transitions["weights"]
    assert weights[1, 0] == 255
    assert (weights[1, 1:] < 128).all(), "the threshold is taken off: lucky cells weigh little"


def test_all_releases_are_counted() -> None:
    deviation = transitions_deviation(0.25, 1000)
    assert STEPS / 0.25 <= deviation <= STEPS / 0.25 + 3
    assert counts_mu(deviation, 1000) == pytest.approx(
        np.sqrt(2 / COUNTS_NOISE**2 + (STEPS / deviation) ** 2), rel=1e-6
    )
    assert counts_mu(deviation, 1000) >= np.sqrt(2 / COUNTS_NOISE**2 + (STEPS / deviation) ** 2)
    with pytest.raises(ConfigError, match="bury everything"):
        transitions_deviation(1e-3, 1000)


def test_what_was_released_blends() -> None:
    counts = release_counts(sequences([[1, 2]] * 400), ITEMS, 5000, OsRandom(), "leave-one-out")
    assert [part.name for part in counts.parts()] == ["popularity", "transitions"]
    scores = np.zeros(ITEMS + 1, np.float32)
    Blend(counts.parts(), counts.arrays()).add_to(scores, np.array([1]))
    assert scores[1:].argmax() + 1 == 2
    assert [part.name for part in Counts(counts.popularity, True, "sessions").parts()] == ["popularity"]


def test_the_protocol_decides_how_counts_join_the_scores() -> None:
    counts = release_counts(sequences([[1, 2]] * 400), ITEMS, 5000, OsRandom(), "leave-one-out")
    users, sessions, baskets = (
        replace(counts, protocol=name, filter_seen=False).parts() for name in ("leave-one-out", "sessions", "baskets")
    )
    assert [part.name for part in baskets] == ["popularity", "transitions", "own"]
    assert [part.name for part in users] == [part.name for part in sessions] == ["popularity", "transitions"]
    assert sessions[1].window < users[1].window
    assert len(replace(counts, protocol="baskets", filter_seen=True).parts()) == 2, "seen items are left out anyway"


def test_counts_are_kept_whole(tmp_path: Path) -> None:
    counts = release_counts(sequences([[1, 2]] * 3), ITEMS, 5000, OsRandom(), "baskets")
    save_counts(tmp_path / "counts.npz", counts)
    kept = load_counts(tmp_path / "counts.npz")
    assert kept.arrays().keys() == counts.arrays().keys()
    for name, array in kept.arrays().items():
        np.testing.assert_array_equal(array, counts.arrays()[name])
    assert (kept.filter_seen, kept.protocol) == (counts.filter_seen, "baskets")
    data = (tmp_path / "counts.npz").read_bytes()
    (tmp_path / "counts.npz").write_bytes(data[: len(data) // 2])
    for path in (tmp_path / "counts.npz", tmp_path / "missing.npz"):
        with pytest.raises(CheckpointError, match="missing or damaged"):
            load_counts(path)
