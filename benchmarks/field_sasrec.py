"""RecTools' SASRec on a split of ours: what `field_library.py` runs in an environment of RecTools' own.

Everything is the library's default but what is asked for: a width, and with it the length of the histories. It is
trained epoch by epoch (`fit_partial`), so that one run shows both what its default number of epochs gives and what
early stopping gives as in its own guide to training: NDCG@10 on validation, five epochs of patience, 100 epochs at
most, and the weights of the best. Lists are made by its `recommend`. It sees events, and no description of any item.

One thing is changed, and only to save time: the library pads every sequence to the longest history, scores the whole
catalogue after padding, too, and leaves those scores out of its loss. Here they are not made (`OnlyTargets`): the same
loss, the same gradients. `--as-it-comes` trains with the library's own step.

Writes into a folder `default.npy` and `stopped.npy`, lists of ten items for the test queries, shape (Q, 10), 0 where
there are no more; and `facts.json`, whose `finished` says whether training has ended. An interrupted run goes on after
its last whole epoch, to the same result.
"""

import argparse
import copy
import json
import logging
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hushrec_model import metrics
from numpy.typing import NDArray
from pytorch_lightning import seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.lightning import TransformerLightningModule
from torch import Tensor

__all__ = ["main"]

K = 10
PATIENCE, MOST_EPOCHS = 5, 100  # of the library's "advanced training guide"
STATE = "state.pt"
Arrays = dict[str, NDArray[Any]]


def main() -> None:
    """Train on one split, and leave lists and facts in a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("split", type=Path, help="what field_library.py wrote")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, help="width, with histories as long as ours; default: the library's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as-it-comes", action="store_true", help="score padding too, as the library does")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with np.load(options.split) as file:
        split = dict(file)
    seed_everything(options.seed)
    chosen: dict[str, Any] = {"epochs": MOST_EPOCHS}  # a bound for going on; fit_partial is told how many to run
    if not options.as_it_comes:
        chosen["lightning_module_type"] = OnlyTargets
    if options.width is not None:
        chosen |= {"n_factors": options.width, "session_max_len": int(split["history"])}
    kept = options.out / STATE
    state = torch.load(kept, weights_only=False) if kept.exists() else {"model": SASRecModel(**chosen), "epochs": []}
    train(state, split, options.out)


class OnlyTargets(TransformerLightningModule):  # type: ignore[misc]
    """The library's training step, but that nothing is scored where there is no target."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Mean loss of a batch, by the library's own loss."""
        del batch_idx
        network, wanted = self.torch_model, batch["y"] != 0
        table = network.item_model.get_all_embeddings()
        users = network.encode_sessions(batch, table)[wanted]  # (T, D)
        scores = network.similarity_module(users, table)[:, None]  # one "session" of one position a target
        loss: Tensor = self.loss_calculator(scores, batch["y"][wanted][:, None], batch["yw"][wanted][:, None])
        self.log(self.train_loss_name, loss, on_step=False, on_epoch=True)
        return loss


def train(state: dict[str, Any], split: Arrays, out: Path) -> None:
    """Train until validation no longer improves; the state after each epoch is kept, and gone on with."""
    model, epochs, best = state["model"], state["epochs"], state.get("best", {})
    if "random" in state:
        torch.set_rng_state(state["random"])
    events = dataset(split["train_offsets"], split["train_item"])
    while len(epochs) < MOST_EPOCHS and len(epochs) - best.get("epoch", 0) < PATIENCE:
        began, spent = time.perf_counter(), time.process_time()
        model.fit_partial(events, min_epochs=1, max_epochs=1)
        took = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - spent}
        score = validation_ndcg(model, split)
        epochs.append({**took, "ndcg": score})
        if score > best.get("ndcg", -1.0):
            weights = copy.deepcopy(model.torch_model.state_dict())
            best = {"epoch": len(epochs), "ndcg": score, "weights": weights}
        if len(epochs) == SASRecModel().epochs:
            np.save(out / "default.npy", lists(model, split, "test"))
        print(f"epoch {len(epochs)}, {took['seconds']:.0f} s, validation {score:.4f}", file=sys.stderr, flush=True)
        write_facts(model, epochs, best["epoch"], out, finished=False)
        torch.save({"model": model, "epochs": epochs, "best": best, "random": torch.get_rng_state()}, out / "part")
        (out / "part").replace(out / STATE)
    model.torch_model.load_state_dict(best["weights"])
    np.save(out / "stopped.npy", lists(model, split, "test"))
    write_facts(model, epochs, best["epoch"], out, finished=True)
    (out / STATE).unlink(missing_ok=True)


def dataset(offsets: NDArray[np.int64], item: NDArray[np.int32]) -> Dataset:
    """Sequences as the library's interactions: sequence s is user s, its order becomes its times."""
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    place = np.arange(len(item)) - np.repeat(offsets[:-1], np.diff(offsets))
    known = item > 0
    columns = {Columns.User: user, Columns.Item: item.astype(np.int64), Columns.Weight: 1.0}
    return Dataset.construct(pd.DataFrame({**columns, Columns.Datetime: pd.to_datetime(place, unit="s")})[known])


def lists(model: SASRecModel, split: Arrays, part: str) -> NDArray[np.int32]:
    """The best ten items for every query of a part: popular ones for a history of which the model knows no item."""
    asked = dataset(split[f"{part}_offsets"], split[f"{part}_item"])
    users = asked.user_id_map.external_ids
    rows = model.recommend(users, asked, K, bool(split["filter_seen"]), on_unsupported_targets="ignore")
    popular = np.argsort(-np.bincount(split["train_item"])[1:], kind="stable")[:K] + 1
    found = np.tile(popular.astype(np.int32), (len(split[f"{part}_offsets"]) - 1, 1))
    found[np.unique(rows[Columns.User])] = 0
    found[rows[Columns.User], rows[Columns.Rank] - 1] = rows[Columns.Item]
    return found


def validation_ndcg(model: SASRecModel, split: Arrays) -> float:
    """NDCG@10 over the validation queries."""
    offsets = split["valid_target_offsets"]
    hit = metrics.hits(lists(model, split, "valid"), split["valid_target"], offsets)
    return float(metrics.ndcg(hit, np.diff(offsets), K).mean())


def write_facts(
    model: SASRecModel, epochs: list[dict[str, float]], best_epoch: int, out: Path, *, finished: bool
) -> None:
    """What is known so far."""
    parameters = list(model.torch_model.parameters())
    facts = {
        "library": f"RecTools {version('rectools')}",
        "width": model.n_factors,
        "history": model.session_max_len,
        "default_epochs": SASRecModel().epochs,
        "parameters": sum(values.numel() for values in parameters),
        "bytes": sum(values.numel() * values.element_size() for values in parameters),
        "epochs": epochs,
        "best_epoch": best_epoch,
        "finished": finished,
    }
    (out / "part").write_text(json.dumps(facts), encoding="utf-8")
    (out / "part").replace(out / "facts.json")


if __name__ == "__main__":
    main()
