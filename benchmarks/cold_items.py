"""Items that training never saw: how often they reach the top ten, and what that costs the others.

    python benchmarks/cold_items.py [--sets online_retail,beauty,ml-1m] [--epochs 5] [--work DIR]

One item in twenty, by a hash of its id, is taken out of training, of every history and of the validation targets; it
stays in the catalogue with its content. Test targets that are such items are the cold slice. Every set is trained
twice: with what its items file has, and with a column of vectors made from the titles beside it (TF-IDF over words
and over character n-grams, truncated to its singular vectors). The bonus of unseen items is chosen as in `hushrec
train`, on validation, which holds no hidden item. The rival scores hidden items by a content-kNN: the decayed sum of
the cosines between their titles and those of the history. Decay, bend and weight are those that find most of the
hidden items' validation targets, which nothing else reads and no shop has; in one more row they are the same for all
sets, as ours are. Its bonus costs validation what ours does. Float32 with counts.

Prints, for each set, recall@10 of hidden items among all items and among the hidden ones, NDCG@10 on all other
targets, and the curve of that recall against the share of NDCG@10 lost. Trained models are kept in DIR.
"""

import argparse
import copy
import hashlib
import itertools
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
import torch
from datasets import prepare
from hushrec.counts import Blend
from hushrec_model.blend import fit_blend
from hushrec_model.counting import count_tables
from hushrec_model.features import ItemFeatures
from hushrec_model.model import Model, ModelScorer
from hushrec_model.reading import read_log
from hushrec_model.run_folder import catalog_items, split_features
from hushrec_model.sequences import Queries, Sequences
from hushrec_model.settings import decide
from hushrec_model.splits import Split, split_log
from hushrec_model.training import build_model, train_model
from hushrec_model.unseen import fit_unseen, unseen_tables
from numpy.typing import NDArray
from quality import head, line

Floats = NDArray[np.float32]

SETS = ("online_retail", "beauty")
ONE_IN = 20
WIDTH = 128  # of the vectors made from titles
SEED = 0
LOSSES = (0.0025, 0.005, 0.01, 0.02)
PLACES = 10
DECAYS, BENDS, WEIGHTS = (0.6, 0.8, 0.95), (0.03, 0.1, 0.3), (1.0, 2.0, 4.0)  # that the rival chooses from
ONE_FOR_ALL = (0.95, 0.1, 2.0)  # the best on the validation of three sets together
_ASKED = 5_000  # of the queries without a hidden target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--epochs", type=int, default=5, help="passes at most; a shop's own training takes up to 12")
    parser.add_argument("--work", type=Path, default=Path("runs/cold_items"))
    options = parser.parse_args()
    for name in options.sets.split(","):
        case = load(name, options.work / name)
        report(name, [row for with_titles in (False, True) for row in measure(case, with_titles, options.epochs)])


@dataclass(frozen=True)
class Case:
    """One set without its hidden items.

    Attributes:
        split: As a shop has it to whom the hidden items are new: they occur in test targets only.
        valid: Its validation with the hidden targets, for the rival to choose by.
        features: Content of the V items, without vectors.
        titles: Vectors made from the titles, shape (V, WIDTH).
        hidden: Shape (V + 1,).
        behaviors: How many the log knows.
        folder: Where models are kept.
    """

    split: Split
    valid: Queries
    features: ItemFeatures
    titles: Floats
    hidden: NDArray[np.bool_]
    behaviors: int
    folder: Path


def load(name: str, folder: Path) -> Case:
    """Prepare one set and hide its items."""
    files = prepare(name, folder)
    if files.items is None:
        raise SystemExit(f"{name} has no items file, so nothing is known of a hidden item; choose others by --sets")
    chosen = dict(zip(files.train_options[::2], files.train_options[1::2], strict=True))
    attributes = tuple(chosen.get("--attributes", "").split(",")) if "--attributes" in chosen else ()
    log, known, _ = read_log(files.events, files.items, columns={}, attributes=attributes, key=bytes(32))
    whole = split_log(log, chosen.get("--protocol", "leave-one-out"))
    hidden = np.array([False, *map(is_hidden, whole.items)])
    titles = title_vectors(catalog_items(whole, known).title)
    split, valid = hide(whole, hidden)
    return Case(split, valid, split_features(whole, known), titles, hidden, len(log.behaviors), folder)


def is_hidden(item: str) -> bool:
    """Whether an item is kept out, which its id alone decides."""
    return hashlib.sha256(item.encode()).digest()[0] % ONE_IN == 1


def hide(split: Split, hidden: NDArray[np.bool_]) -> tuple[Split, Queries]:
    """Take items out of training, of histories and of validation targets.

    Args:
        split: The whole.
        hidden: Shape (V + 1,); entry 0 is false.

    Returns:
        The split, and its validation queries with their hidden targets.
    """
    train, kept = split.train, ~hidden[split.train.item]
    offsets = np.append(0, np.cumsum(kept))[train.offsets]
    left = np.diff(offsets) > 0
    fewer = Sequences(
        np.append(0, offsets[1:][left]),
        train.item[kept],
        train.behavior[kept],
        None if train.time is None else train.time[kept],
        None if train.basket is None else train.basket[kept],
        None if train.shopper is None else train.shopper[left],
    )
    valid, test = (
        replace(asked, events=replace(asked.events, item=np.where(hidden[asked.events.item], 0, asked.events.item)))
        for asked in (split.valid, split.test)
    )
    return replace(split, train=fewer, valid=with_targets(valid, ~hidden), test=test), valid


def with_targets(queries: Queries, wanted: NDArray[np.bool_]) -> Queries:
    """The queries that have such targets, shape (V + 1,), and only those of their targets."""
    kept = wanted[queries.target] & (queries.target > 0)
    offsets = np.append(0, np.cumsum(kept))[queries.target_offsets]
    left = np.diff(offsets) > 0
    bounds = np.append(0, offsets[1:][left])
    return Queries(queries.events, queries.start[left], queries.stop[left], bounds, queries.target[kept])


def title_vectors(titles: Sequence[str | None], width: int = WIDTH) -> Floats:
    """TF-IDF over words and over character n-grams, each of unit length, and of both the first singular vectors.

    Args:
        titles: Length V.
        width: Of a vector.

    Returns:
        Shape (V, width).
    """
    words = [re.findall(r"[^\W_]+", (title or "").lower()) for title in titles]
    grams = [
        [
            f" {word} "[at : at + size]
            for word in row
            for size in (3, 4, 5)
            for at in range(max(0, len(word) + 3 - size))
        ]
        for row in words
    ]
    both = sparse.hstack([_tf_idf(words), _tf_idf(grams)]).tocsr()
    generator = np.random.default_rng(SEED)
    basis, _ = np.linalg.qr(both @ generator.standard_normal((both.shape[1], width + 16)))
    for _ in range(3):
        basis, _ = np.linalg.qr(both.T @ basis)
        basis, _ = np.linalg.qr(both @ basis)
    inner, values, _ = np.linalg.svd((both.T @ basis).T, full_matrices=False)
    vectors: Floats = ((basis @ inner[:, :width]) * values[:width]).astype(np.float32)
    return vectors


def _tf_idf(rows: Sequence[Sequence[str]]) -> "sparse.csr_matrix":
    """One row of unit length for each list of terms; terms of one list only are left out."""
    counted = [Counter(row) for row in rows]
    lists = Counter(term for row in counted for term in row)
    number = {term: at for at, term in enumerate(sorted(term for term, held in lists.items() if held > 1))}
    entries = [(at, number[t], 1 + np.log(n)) for at, row in enumerate(counted) for t, n in row.items() if t in number]
    owner, term, value = (np.array(column) for column in zip(*entries, strict=True))
    rarity = np.log((1 + len(rows)) / (1 + np.array([lists[t] for t in number]))) + 1
    matrix = sparse.csr_matrix((value * rarity[term], (owner, term)), shape=(len(rows), len(number)))
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    return sparse.diags(1 / np.maximum(lengths, 1e-12)) @ matrix


def trained(case: Case, with_titles: bool, epochs: int) -> tuple[Model, ItemFeatures]:
    """The model of one set, trained once and kept, and the content that it knows."""
    vectors = case.titles if with_titles else None
    settings, _ = decide(case.split, case.behaviors, SEED, teacher=False)
    settings = replace(settings, epochs=min(settings.epochs, epochs))
    kept = case.folder / f"{'titles' if with_titles else 'plain'}-{settings.epochs}.pt"
    features = replace(case.features, vectors=vectors)
    if not kept.exists():
        print(f"training {kept}", file=sys.stderr, flush=True)
        weights = train_model(case.split, features, settings).model.state_dict()
        torch.save(weights, kept)
    model = build_model(case.split, features, settings)
    model.load_state_dict(torch.load(kept))
    return model.eval(), features


class Lists:
    """What every query asked needs: the best other items, and where its targets stand.

    Attributes:
        asked: Queries, shape (Q,).
        histories: Known items of each, oldest first.
        others: Scores of the ten best items that training saw, shape (Q, 10).
        guesses: Scores of the U unseen items, shape (Q, U).
    """

    def __init__(self, case: Case, model: Model, blend: Blend, queries: Queries) -> None:
        self.unseen = 1 + np.flatnonzero(~model.items.trained.numpy() & (model.table()[1:].norm(dim=1) > 0).numpy())
        self.asked, seen = _asked(queries, case.hidden), np.ones(len(case.hidden), bool)
        seen[self.unseen] = False
        self.histories = [_known(queries, query) for query in self.asked.tolist()]
        self.others = np.zeros((len(self.asked), PLACES), np.float32)
        self.guesses = np.zeros((len(self.asked), len(self.unseen)), np.float32)
        cold, rest = [], []
        for rows, block in ModelScorer(model, filter_seen=case.split.filter_seen).score_blocks(queries, self.asked):
            for row, scores in zip(rows.tolist(), block.numpy(), strict=True):
                blend.add_to(scores, self.histories[row])
                scores[0] = -np.inf
                if case.split.filter_seen:
                    scores[self.histories[row]] = -np.inf
                self.guesses[row] = scores[self.unseen]
                known = np.where(seen, scores, -np.inf)
                self.others[row] = np.sort(np.partition(known, -PLACES)[-PLACES:])
                targets = queries.targets(int(self.asked[row]))
                rest += [(row, (known > scores[t]).sum(), scores[t]) for t in targets if t > 0 and seen[t]]
                cold += [(row, at) for at in np.flatnonzero(np.isin(self.unseen, targets[case.hidden[targets]]))]
        self._cold = tuple(np.array(cold, np.int64).T)
        owner, rank, score = zip(*rest, strict=True)
        self._owner, self._rank, self._score = np.array(owner), np.array(rank), np.array(score, np.float32)

    def recall(self, guesses: Floats, bonus: float = 0.0) -> float:
        """Share of the hidden targets that are among the first ten of all items."""
        wanted = guesses[self._cold]
        before = (guesses[self._cold[0]] > wanted[:, None]).sum(1)
        return float((before + (self.others[self._cold[0]] > wanted[:, None] + bonus).sum(1) < PLACES).mean())

    def recall_alone(self, guesses: Floats) -> float:
        """Share of the hidden targets that are among the first ten of the unseen items."""
        return float(((guesses[self._cold[0]] > guesses[self._cold][:, None]).sum(1) < PLACES).mean())

    def ndcg(self, guesses: Floats, bonus: float = -np.inf) -> float:
        """NDCG@10 over the targets that training saw; without a bonus no unseen item is shown."""
        rank = self._rank + (_best(guesses)[self._owner] + bonus > self._score[:, None]).sum(1)
        gain = np.where(rank < PLACES, 1 / np.log2(rank + 2.0), 0.0)
        wanted = np.bincount(self._owner, minlength=len(self.asked))
        ideal = np.append(0, np.cumsum(1 / np.log2(np.arange(PLACES) + 2.0)))[np.minimum(wanted, PLACES)]
        total = np.bincount(self._owner, gain, len(self.asked))
        return float((total[wanted > 0] / ideal[wanted > 0]).mean())

    def bonus_for(self, guesses: Floats, loss: float) -> float:
        """The largest bonus that costs at most a share of NDCG@10."""
        best = _best(guesses)
        least, low, high = (1 - loss) * self.ndcg(best), -200.0, 200.0
        for _ in range(18):
            middle = (low + high) / 2
            low, high = (middle, high) if self.ndcg(best, middle) >= least else (low, middle)
        return low


def _best(guesses: Floats) -> Floats:
    """The ten highest of each row."""
    return np.partition(guesses, -PLACES, axis=1)[:, -PLACES:] if guesses.shape[1] > PLACES else guesses


def _asked(queries: Queries, hidden: NDArray[np.bool_]) -> NDArray[np.int64]:
    """All queries with a hidden target and evenly spaced others, rising."""
    cold = np.flatnonzero(np.add.reduceat(hidden[queries.target], queries.target_offsets[:-1]))
    others = np.linspace(0, len(queries) - 1, min(_ASKED, len(queries))).astype(np.int64)
    return np.unique(np.concatenate([cold, others]))


def _known(queries: Queries, query: int) -> NDArray[np.int64]:
    history = queries.history(query).astype(np.int64)
    return history[history > 0]


@dataclass(frozen=True)
class Ranked:
    """One way to score hidden items, on test.

    Attributes:
        name: For the table.
        lists: Its queries.
        guesses: Scores of the unseen items, shape (Q, U).
        bonus: What is added to them.
    """

    name: str
    lists: Lists
    guesses: Floats
    bonus: float

    def row(self) -> list[str]:
        """Cells of the table."""
        before, after = self.lists.ndcg(self.guesses), self.lists.ndcg(self.guesses, self.bonus)
        found = (self.lists.recall(self.guesses, self.bonus), self.lists.recall_alone(self.guesses))
        return [self.name, f"{self.bonus:+.2f}", *(f"{x:.4f}" for x in (*found, after)), f"{1 - after / before:+.2%}"]

    def curve(self) -> list[str]:
        """Cells of the curve."""
        at = [self.lists.recall(self.guesses, self.lists.bonus_for(self.guesses, loss)) for loss in LOSSES]
        return [self.name, *(f"{found:.4f}" for found in at)]


def measure(case: Case, with_titles: bool, epochs: int) -> list[Ranked]:
    """Train, choose the bonus and the rival on validation, and ask the test."""
    model, features = trained(case, with_titles, epochs)
    split, seen = case.split, case.split.filter_seen
    arrays = count_tables(split.train, len(split.items)) | unseen_tables(model, features)
    parts, _ = fit_blend(model, split.valid, arrays, filter_seen=seen)
    raised, chosen = fit_unseen(model, parts, arrays, split.valid, filter_seen=seen)
    bonus = sum(part.weight for part in raised if part.name == "unseen")
    blend, ours = Blend(parts, arrays), Blend([part for part in raised if part.name != "unseen"], arrays)
    what = "hushrec with the titles' vectors" if with_titles else "hushrec"
    print(f"{case.folder.name}, {what}: {chosen}", file=sys.stderr, flush=True)
    test = Lists(case, model, ours, split.test)
    found = [
        Ranked(f"{what}, no bonus", test, test.guesses, 0.0),
        Ranked(what, test, test.guesses, bonus),
    ]
    if with_titles:
        valid = Lists(case, model, ours, case.valid)
        loss = 1 - valid.ndcg(valid.guesses, bonus) / valid.ndcg(valid.guesses)
        found += rivals(case, _content_alone(model), blend, loss)
    return found


def rivals(case: Case, model: Model, blend: Blend, loss: float) -> list[Ranked]:
    """Hidden items scored by their content in the Transformer, by a content-kNN, and by the sum of both.

    Args:
        case: The set.
        model: Knows hidden items by their content alone.
        blend: As it was fitted, without what is for unseen items.
        loss: Share of validation NDCG@10 that the bonus of each costs.
    """
    valid, test = (Lists(case, model, blend, queries) for queries in (case.valid, case.split.test))
    knn = {decay: (content_knn(case, valid, decay), content_knn(case, test, decay)) for decay in DECAYS}
    grid = list(itertools.product(DECAYS, BENDS, WEIGHTS))

    def best(name: str, settings: Sequence[tuple[float, float, float]], *, alone: bool) -> Ranked:
        """The setting that finds most hidden validation targets, alone or beside the Transformer's score."""

        def scored(at: int, decay: float, bend: float, weight: float) -> Floats:
            gain: Floats = weight * np.log1p(knn[decay][at] / np.float32(bend))
            guesses = (valid, test)[at].guesses
            return np.where(np.isfinite(guesses), gain if alone else gain + guesses, -np.inf)

        def found(setting: tuple[float, float, float]) -> float:
            guesses = scored(0, *setting)
            return valid.recall(guesses, valid.bonus_for(guesses, loss))

        chosen = max(settings, key=found)
        return Ranked(name, test, scored(1, *chosen), valid.bonus_for(scored(0, *chosen), loss))

    return [
        Ranked("content in the Transformer", test, test.guesses, valid.bonus_for(valid.guesses, loss)),
        best("content-kNN, tuned for the set", grid, alone=True),
        best("content in the Transformer and content-kNN", [ONE_FOR_ALL], alone=False),
        best("the same, tuned for the set", grid, alone=False),
    ]


def _content_alone(model: Model) -> Model:
    """The same model that does not ask which trained items an unseen one is like."""
    other = copy.deepcopy(model)
    other.items.near = other.items.near[:0]
    return other


def content_knn(case: Case, lists: Lists, decay: float) -> Floats:
    """Decayed sum of the cosines between the titles of a history and of each unseen item, shape (Q, U)."""
    titles = case.titles / np.maximum(np.linalg.norm(case.titles, axis=1, keepdims=True), 1e-12)
    cosines = np.maximum(titles @ titles[lists.unseen - 1].T, 0)
    counts = np.array([len(history) for history in lists.histories])
    ages = np.concatenate([np.arange(count - 1, -1, -1) for count in counts])
    owner, item = np.repeat(np.arange(len(counts)), counts), np.concatenate(lists.histories) - 1
    fading = sparse.csr_matrix((decay**ages, (owner, item)), shape=(len(counts), len(titles)))
    return np.asarray(fading @ cosines, np.float32)


def report(name: str, found: list[Ranked]) -> None:
    """Print the table and the curve of one set as Markdown."""
    print(f"\n{name}\n")
    head("hidden items ranked by", "bonus", "recall@10 among all", "among hidden", "NDCG@10 of the rest", "lost")
    for ranked in found:
        line(*ranked.row())
    print()
    head("recall@10 among all, where the rest loses", *(f"{loss:.2%}" for loss in LOSSES))
    for ranked in found:
        if not ranked.name.endswith("no bonus"):
            line(*ranked.curve())


if __name__ == "__main__":
    main()
