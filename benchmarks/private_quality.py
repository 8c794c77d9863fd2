"""Ranking quality against epsilon of one private run on public data; one line of JSON a run.

    python benchmarks/private_quality.py SET EPSILON [--groups encoder,features,rows] [--q .1] [--steps 100] [--test]
    python benchmarks/private_quality.py SET EPSILON --baseline popularity|transitions

The unit is a user (on eshop a session: it has no users), delta is N^-1.1, the guarantee is that of the private
popularity table and of training together (PLD). Choose by `validation`; `--test` adds the test, for the end. Popularity
and transitions at epsilon inf are the plain counts. EPSILON inf trains without noise and without a guarantee; clipping,
sampling and everything else stay.
"""

import argparse
import functools
import json
import math
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse
from datasets import prepare
from hushrec_model.evaluate import evaluate
from hushrec_model.features import ItemFeatures
from hushrec_model.model import Model, ModelScorer, best_items
from hushrec_model.network import EncoderShape
from hushrec_model.private_training import PrivateSettings, train_private
from hushrec_model.reading import read_log
from hushrec_model.run_folder import split_features
from hushrec_model.splits import Queries, Split, split_log
from hushrec_model.user_sequences import UserSequences
from hushrec_privacy.mechanisms.float_gaussian import float_gaussian
from hushrec_privacy.randomness import OsRandom
from numpy.typing import NDArray

Floats = NDArray[np.float32]
VALIDATION, TEST = 4_000, 20_000  # queries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=("ml-1m", "beauty", "eshop"))
    parser.add_argument("epsilon", type=float)
    parser.add_argument("--baseline", choices=("popularity", "transitions"))
    parser.add_argument("--groups", default="encoder,features,rows")
    parser.add_argument("--q", type=float, default=0.1, help="sampling rate")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--clip", type=float, default=0.5)
    parser.add_argument("--negatives", type=int, default=1024)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--channels", type=int, default=88)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--scale", type=float, default=20.0, help="score scale at the start")
    parser.add_argument("--start", default="random", choices=("random", "mean"))
    parser.add_argument("--averaging", type=float, default=0.25)
    parser.add_argument("--prior-noise", type=float, default=10.0, help="noise of the popularity table; 0: no table")
    parser.add_argument("--bound", type=int, default=20, help="newest items of a user that a count table counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    split, features = load(options.set)
    users = UserSequences(split.train, 10**6)
    delta = len(users) ** -1.1
    began = time.monotonic()
    facts: dict[str, Any] = {"users": len(users), "items": len(split.items), "delta": delta}
    if options.baseline:
        scorer: Any = counts_scorer(split, options, delta, facts)
    else:
        scorer = trained_scorer(split, features, options, len(users), delta, facts)
    facts["seconds"] = round(time.monotonic() - began, 1)
    asked = [("validation", split.valid, VALIDATION)] + ([("test", split.test, TEST)] if options.test else [])
    for name, queries, most in asked:
        index = np.unique(np.linspace(0, len(queries) - 1, min(most, len(queries))).astype(np.int64))
        facts[name] = round(evaluate(scorer, queries, len(split.items), index=index).ndcg, 5)
    print(json.dumps(vars(options) | facts), flush=True)


@functools.cache
def load(name: str) -> tuple[Split, ItemFeatures]:
    """Split and content of a set, as `hushrec train` makes them."""
    with tempfile.TemporaryDirectory() as folder:
        files = prepare(name, Path(folder))
        words = list(files.train_options)
        given = dict(zip(words[::2], words[1::2], strict=True))
        attributes = tuple(given["--attributes"].split(",")) if "--attributes" in given else ()
        log, known, _ = read_log(files.events, files.items, columns={}, attributes=attributes, key=bytes(32))
    since = datetime.fromisoformat(given["--test-from"] + "T00:00:00+00:00") if "--test-from" in given else None
    split = split_log(log, given.get("--protocol", "leave-one-out"), test_from=since)
    return split, split_features(split, known)


def trained_scorer(
    split: Split, features: ItemFeatures, options: argparse.Namespace, users: int, delta: float, facts: dict[str, Any]
) -> "WithPrior":
    """Train one model; the popularity table that it builds on is paid for from the same epsilon."""
    noise = 0.0
    if math.isfinite(options.epsilon):
        noise = noise_multiplier(options.q, options.steps, options.epsilon, delta, options.prior_noise)
    prior = None
    if options.prior_noise:
        scale = options.prior_noise if noise else 1.0
        prior = log_popularity(noised_popularity(split, options.bound, scale if noise else 0.0), scale)
    shape = EncoderShape(
        heads=(options.heads,) * options.layers,
        channels=(options.channels,) * options.layers,
        max_history=options.history,
        width=options.width,
    )
    settings = PrivateSettings(
        shape=shape,
        groups=tuple(options.groups.split(",")),
        sampling_rate=options.q,
        steps=options.steps,
        noise_multiplier=noise,
        population=users,
        max_grad_norm=options.clip,
        learning_rate=options.lr,
        negatives=options.negatives,
        averaging=options.averaging,
        score_scale=options.scale,
        start=options.start,
        seed=options.seed,
    )
    facts["noise_multiplier"] = noise
    trained = train_private(split, features, settings, spend=nothing, prior=prior)
    return WithPrior(trained.model, prior, filter_seen=split.filter_seen)


def nothing(_first: int, _steps: int) -> None:
    """A benchmark keeps no ledger."""


class WithPrior:
    """The Transformer's scores plus a prior."""

    def __init__(self, model: Model, prior: Floats | None, *, filter_seen: bool) -> None:
        self._scorer = ModelScorer(model, filter_seen=filter_seen)
        self._prior = np.float32(0) if prior is None else prior

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """As every scorer."""
        result = np.zeros((len(index), k), np.int32)
        for rows, scores in self._scorer.score_blocks(queries, index):
            result[rows] = best_items((scores.numpy() + self._prior).astype(np.float32), k)
        return result


def noised_popularity(split: Split, bound: int, noise: float) -> Floats:
    """Users' newest distinct items; each user's row has L2 norm 1 at most. Shape (V + 1,)."""
    counts = np.zeros(len(split.items) + 1)
    for items in newest(split, bound):
        distinct = np.unique(items)
        counts[distinct] += len(distinct) ** -0.5
    counts += float_gaussian(OsRandom(), len(counts), noise)
    counts[0] = 0
    return np.maximum(counts, 0).astype(np.float32)


def newest(split: Split, bound: int) -> Iterator[NDArray[np.int64]]:
    """The newest items of each user, oldest first."""
    users = UserSequences(split.train, bound - 1)
    for user in range(len(users)):
        yield users.batch(np.array([user])).items[0].numpy()


def log_popularity(counts: Floats, scale: float) -> Floats:
    """log(1 + counts / scale): what lies in the noise comes out equal."""
    logarithm: Floats = np.log1p(counts / np.float32(scale)).astype(np.float32)
    return logarithm


def counts_scorer(split: Split, options: argparse.Namespace, delta: float, facts: dict[str, Any]) -> Any:
    """Popularity, or transitions over it, from one Gaussian release each (a tenth of rho for popularity)."""
    private = math.isfinite(options.epsilon)
    mu = gaussian_mu(options.epsilon, delta) if private else math.inf
    alone = options.baseline == "popularity"
    noise = 1 / mu if alone else 1 / (mu * math.sqrt(0.1))
    bound = options.bound if private else 10**6
    popularity = noised_popularity(split, bound, noise)
    table = None
    if not alone:
        table = transitions(split, options.bound, 1 / (mu * math.sqrt(0.9)))
    facts["noise_multiplier"] = noise
    return CountsScorer(log_popularity(popularity, max(noise, 1e-3)), table, filter_seen=split.filter_seen)


def transitions(split: Split, bound: int, noise: float) -> "sparse.csr_matrix":
    """Decayed transitions of each user's newest items, its L2 norm 1 at most, noise on *every* pair, then 4 noises as
    threshold."""
    items = len(split.items) + 1
    rows, columns, values = [], [], []
    for user in newest(split, bound):
        gaps = range(1, min(6, len(user)))
        row = np.concatenate([user[:-gap] for gap in gaps])
        column = np.concatenate([user[gap:] for gap in gaps])
        value = np.concatenate([np.full(len(user) - gap, 0.8 ** (gap - 1)) for gap in gaps])
        pair, place = np.unique(row * items + column, return_inverse=True)
        total = np.bincount(place, value)
        rows.append(pair // items)
        columns.append(pair % items)
        values.append(total / np.linalg.norm(total))
    at = (np.concatenate(rows), np.concatenate(columns))
    counts = sparse.coo_matrix((np.concatenate(values), at), shape=(items, items)).tocsr()
    if not noise:
        return counts
    random, kept = np.random.default_rng(), []
    for first in range(0, items, 512):  # a benchmark's noise, in which nobody's data is at stake
        block = counts[first : first + 512].toarray()
        block += random.standard_normal(block.shape, np.float32) * noise
        kept.append(sparse.csr_matrix(np.where(block > 4 * noise, block, 0)))
    return sparse.vstack(kept).tocsr()


class CountsScorer:
    """log-popularity plus log1p of the last five items' transitions."""

    def __init__(self, prior: Floats, table: "sparse.csr_matrix | None", *, filter_seen: bool) -> None:
        self._prior, self._table, self._filter_seen = prior, table, filter_seen
        if table is not None:
            sums = np.asarray(table.sum(1)).ravel()
            self._table = sparse.diags(1 / np.sqrt(np.maximum(sums, 1e-9))) @ table

    def top(self, queries: Queries, index: NDArray[np.int64], k: int) -> NDArray[np.int32]:
        """As every scorer."""
        scores = np.tile(self._prior, (len(index), 1))
        for row, query in zip(scores, index, strict=True):
            history = queries.history(query)
            if self._table is not None:
                last = history[-5:][::-1]
                weights = sparse.csr_matrix(0.6 ** np.arange(len(last))[None, :])
                row += 3 * np.log1p((weights @ self._table[last]).toarray()[0] / 0.03).astype(np.float32)
            row[0] = -np.inf
            if self._filter_seen:
                row[history] = -np.inf
        return best_items(scores, k)


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The mu of a Gaussian mechanism with (epsilon, delta): Balle and Wang 2018, arXiv:1805.06530, theorem 8."""
    from scipy.special import log_ndtr
    from scipy.stats import norm

    def delta_of(mu: float) -> float:
        return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu)))

    low, high = 1e-4, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle) <= delta else (low, middle)
    return low


def noise_multiplier(q: float, steps: int, epsilon: float, delta: float, prior_noise: float) -> float:
    """The smallest z for training, to .3 %, with one Gaussian release of noise `prior_noise` beside it."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    def spent(z: float) -> float:
        accountant = PLDAccountant(value_discretization_interval=1e-3)
        accountant.compose(PoissonSampledDpEvent(q, GaussianDpEvent(z)), steps)
        if prior_noise:
            accountant.compose(GaussianDpEvent(prior_noise))
        return float(accountant.get_epsilon(delta))

    high = math.sqrt(steps) * q / gaussian_mu(epsilon, delta) + 0.5
    while spent(high) > epsilon:
        high *= 1.5
    low = high / 4
    while high / low > 1.003:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= epsilon else (middle, high)
    return high


if __name__ == "__main__":
    main()
