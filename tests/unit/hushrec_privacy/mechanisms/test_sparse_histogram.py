"""Keeping what reaches a threshold costs what is kept, and has the distribution of noise on every cell."""

import numpy as np
import pytest
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.mechanisms.discrete_gaussian import sample_discrete_gaussian, sample_tail
from hushrec_privacy.mechanisms.sparse_histogram import noised_above
from scipy import stats

from tests.fixed_random import FixedRandom

ALARM = 1e-6


def test_the_tail_is_the_discrete_gaussian_above_its_start() -> None:
    drawn = sample_tail(FixedRandom(1), 200_000, 5, 7)
    y = np.arange(7, 40)
    weight = np.exp(-(y**2) / 50.0)
    expected = weight / weight.sum() * len(drawn)
    common = expected >= 10
    counts = np.bincount(drawn - 7, minlength=len(y))[: len(y)]
    seen, wanted = (
        np.append(counts[common], counts[~common].sum()),
        np.append(expected[common], expected[~common].sum()),
    )
    assert stats.chisquare(seen, wanted * seen.sum() / wanted.sum()).pvalue > ALARM
    wrong = np.bincount(sample_tail(FixedRandom(2), 200_000, 6, 7) - 7, minlength=len(y))[: len(y)]
    assert (
        stats.chisquare(np.append(wrong[common], wrong[~common].sum()), wanted * wrong.sum() / wanted.sum()).pvalue
        < ALARM
    )


def test_it_is_the_dense_mechanism_cut_at_the_threshold() -> None:
    source, cells, deviation, threshold = FixedRandom(3), 400, 4, 6
    index, counts = np.array([0, 7, 399]), np.array([3, 10, 20])
    dense = np.zeros(cells, np.int64)
    dense[index] = counts
    hits = np.zeros((2, cells))
    values: list[list[int]] = [[], []]
    for _ in range(3000):
        kept, noised = noised_above(source, cells, index, counts, deviation=deviation, threshold=threshold)
        assert (np.diff(kept) > 0).all()
        hits[0, kept] += 1
        values[0] += noised.tolist()
        whole = dense + sample_discrete_gaussian(source, cells, deviation)
        hits[1, whole >= threshold] += 1
        values[1] += whole[whole >= threshold].tolist()
    for cell in (*index, slice(1, 7), slice(8, 399)):
        sparse, plain = (hits[way, cell].sum() for way in (0, 1))
        trials = 3000 * np.size(hits[0, cell])
        assert stats.fisher_exact([[sparse, trials - sparse], [plain, trials - plain]]).pvalue > ALARM
    assert stats.chisquare(hits[0, 8:399]).pvalue > ALARM, "every empty cell is as likely as every other"
    cuts = np.unique(values[1])[:10]
    table = [np.bincount(np.searchsorted(cuts, drawn), minlength=len(cuts) + 1) for drawn in values]
    assert stats.chi2_contingency(np.array(table)[:, np.sum(table, 0) > 0]).pvalue > ALARM


def test_what_appears_varies_as_a_binomial() -> None:
    source, nothing = FixedRandom(4), np.zeros(0, np.int64)
    found = [len(noised_above(source, 10**6, nothing, nothing, deviation=100, threshold=300)[0]) for _ in range(400)]
    chance = stats.norm.sf(2.995)
    assert abs(np.mean(found) - 10**6 * chance) < 5 * np.sqrt(10**6 * chance / 400)
    assert 0.7 < np.var(found) / (10**6 * chance) < 1.4


@pytest.mark.parametrize(
    "wrong",
    [
        {"cells": 0},
        {"cells": 2**61},
        {"deviation": 0},
        {"threshold": 99},
        {"deviation": 2**21, "threshold": 2**22},
        {"index": np.array([3, 3]), "counts": np.array([1, 1])},
        {"index": np.array([10]), "counts": np.array([1])},
        {"index": np.array([1]), "counts": np.array([1, 2])},
    ],
    ids=str,
)
def test_what_has_no_guarantee_is_refused(wrong: dict[str, object]) -> None:
    given = {"cells": 10, "index": np.array([2]), "counts": np.array([5]), "deviation": 100, "threshold": 200} | wrong
    with pytest.raises(ConfigError):
        noised_above(FixedRandom(5), **given)  # type: ignore[arg-type]
