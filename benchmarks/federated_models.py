"""The two models between which a fleet's learning is measured: trained on a tenth of the users, and on all of them.

Both have the architecture and the defaults that `hushrec train` decides on for all users of MovieLens-1M, without item
descriptions: then everything is trained on the devices as well. `federated_quality.py` uses them.
"""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from datasets import prepare
from hushrec_model.evaluate import evaluate
from hushrec_model.features import ItemFeatures
from hushrec_model.log import Log
from hushrec_model.model import Model, ModelScorer
from hushrec_model.reading import read_log
from hushrec_model.run_folder import split_features
from hushrec_model.sequences import Queries, Sequences
from hushrec_model.settings import Settings, decide
from hushrec_model.splits import Split, split_log
from hushrec_model.training import build_model, train_model
from numpy.typing import NDArray

__all__ = ["Shop", "only_users", "score", "shop", "trained"]

STARTERS = 0.1  # share of the users whose events the first release is made from


@dataclass(frozen=True)
class Shop:
    """The log, divided, and who begins.

    Attributes:
        log: All events.
        split: Leave-one-out, every user.
        features: Of the items; nothing is known of them.
        settings: What the data of all users decides.
        starters: Which users the first model is made from, shape (users,), bool.
    """

    log: Log
    split: Split
    features: ItemFeatures
    settings: Settings
    starters: NDArray[np.bool_]


def shop(work: Path) -> Shop:
    """Read MovieLens-1M and divide its users, by a fixed seed."""
    log, known, _ = read_log(prepare("ml-1m", work).events, None, key=bytes(32))
    split = split_log(log, "leave-one-out")
    users = len(split.train)
    chosen = np.zeros(users, bool)
    chosen[np.random.default_rng(0).choice(users, round(STARTERS * users), replace=False)] = True
    return Shop(log, split, split_features(split, known), decide(split, len(log.behaviors))[0], chosen)


def only_users(data: Shop, chosen: NDArray[np.bool_]) -> Split:
    """The split as if only some users had been there, over the same catalogue."""
    return replace(
        data.split, train=_sequences(data.split.train, chosen), valid=_asked_of(data.split.valid, data.split, chosen)
    )


def trained(data: Shop, which: str, work: Path) -> Model:
    """The "start" or the "central" model, trained unless it is kept in `work`."""
    split = data.split if which == "central" else only_users(data, data.starters)
    epochs = decide(split, len(data.log.behaviors))[0].epochs
    settings, path = replace(data.settings, epochs=epochs), work / f"{which}.pt"
    if path.exists():
        model = build_model(split, data.features, settings)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    done = train_model(split, data.features, settings, checkpoint=work / f"{which}.training", progress=_told)
    torch.save(done.model.state_dict(), path)
    (work / f"{which}.json").write_text(json.dumps({"history": done.history, "test": score(data, done.model)}))
    return done.model


def score(data: Shop, model: Model, queries: Queries | None = None, table: torch.Tensor | None = None) -> float:
    """NDCG@10 of the Transformer alone, over every user's test query, or over the queries given; with other item
    vectors than the model's if `table` is given."""
    ranked = ModelScorer(model, filter_seen=data.split.filter_seen, table=table)
    return evaluate(ranked, queries or data.split.test, len(data.split.items)).ndcg


def _sequences(all_of_them: Sequences, chosen: NDArray[np.bool_]) -> Sequences:
    lengths = np.diff(all_of_them.offsets)
    kept = np.repeat(chosen, lengths)
    return Sequences(
        np.append(0, np.cumsum(lengths[chosen])),
        all_of_them.item[kept],
        all_of_them.behavior[kept],
        None if all_of_them.time is None else all_of_them.time[kept],
        None,
        None if all_of_them.shopper is None else all_of_them.shopper[chosen],
    )


def _asked_of(queries: Queries, split: Split, chosen: NDArray[np.bool_]) -> Queries:
    """One query a user, in the users' order; every user has one."""
    assert len(queries) == len(split.train) == len(chosen)
    return Queries(
        queries.events,
        queries.start[chosen],
        queries.stop[chosen],
        np.arange(int(chosen.sum()) + 1),
        queries.target[chosen],
    )


def _told(stage: str, done: float, total: float, note: str = "") -> None:
    if note:
        print(f"{stage} {done:g}/{total:g} {note}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = shop(folder)
    print(found.settings, f"{found.starters.sum()} of {len(found.split.train)} users start")
    for name in ("start", "central"):
        print(name, score(found, trained(found, name, folder)), flush=True)
