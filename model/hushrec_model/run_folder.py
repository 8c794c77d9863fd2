"""What `hushrec train` leaves in its folder, and how the next command reads it.

run.json       protocol, settings, blend, scores, and the path and sha256 of the prepared events
model.pt       weights of the best epoch
ledger.db, private.json, counts.npz, private.pt   of a private run: what was spent, its options, its tables, its state
prepared/      the events as they were read: pseudonyms instead of user ids
training.pt    state after the last finished epoch, and teacher.pt, that of its teacher; only while training runs
pseudonym.key  the key behind the pseudonyms; it never leaves the shop
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from hushrec.manifest import BlendPart
from hushrec_privacy import checks
from hushrec_privacy.errors import CheckpointError, ConfigError
from numpy.typing import NDArray

from hushrec_model.checkpoint import load_state, save_state
from hushrec_model.counting import count_tables
from hushrec_model.features import ItemFeatures, item_features
from hushrec_model.items import Items
from hushrec_model.log import Log
from hushrec_model.model import Model
from hushrec_model.network import EncoderShape
from hushrec_model.prepared import load_prepared
from hushrec_model.private_counts import COUNTS_FILE, Counts, load_counts
from hushrec_model.private_data import public_items, public_log, public_split
from hushrec_model.private_folder import check_private_folder, file_hashes
from hushrec_model.private_pipeline import LEDGER
from hushrec_model.protocols import PROTOCOLS
from hushrec_model.settings import Settings
from hushrec_model.splits import Split, split_log
from hushrec_model.training import build_model
from hushrec_model.unseen import unseen_tables

__all__ = ["PREPARED", "Run", "begin_run", "catalog_items", "load_run", "save_run", "split_features"]

PREPARED = "prepared"
_RUN, _MODEL = "run.json", "model.pt"


@dataclass(frozen=True)
class Run:
    """A finished training run, as later steps need it.

    Attributes:
        log: All events.
        known: What is known of each item of the log.
        split: Training, validation and test.
        features: Content of the split's items.
        settings: How it was trained.
        model: The trained weights, in evaluation mode.
        blend: Parts of the blend.
        facts: The whole of run.json.
        min_shoppers: Of the count tables.
        counts: Tables released under differential privacy, if the run was private: then nothing else is counted.
    """

    log: Log
    known: Items
    split: Split
    features: ItemFeatures
    settings: Settings
    model: Model
    blend: list[BlendPart]
    facts: dict[str, Any]
    min_shoppers: int
    counts: Counts | None = None

    def tables(self) -> dict[str, NDArray[np.generic]]:
        """Count the tables of the training part, as the blend was fitted on; of a private run, those it released."""
        if self.counts is not None:
            return self.counts.arrays()
        tables = count_tables(self.split.train, len(self.split.items), min_shoppers=self.min_shoppers)
        return tables | unseen_tables(self.model, self.features)


def split_features(split: Split, known: Items) -> ItemFeatures:
    """Content of the catalogue of a split, which may lack items that only test events name."""
    chosen = catalog_items(split, known)
    return item_features(chosen.title, chosen.price, chosen.attributes, chosen.vectors)


def catalog_items(split: Split, known: Items) -> Items:
    """What is known of the items of a split's catalogue, in its order."""
    rows = split.catalog - 1
    return Items(
        title=[known.title[row] for row in rows],
        price=known.price[rows],
        attributes={column: [values[row] for row in rows] for column, values in known.attributes.items()},
        vectors=None if known.vectors is None else known.vectors[rows],
        price_from_events=known.price_from_events,
    )


def begin_run(folder: Path) -> None:
    """Take back that an earlier run in this folder is finished, before its files are replaced one by one."""
    (folder / _RUN).unlink(missing_ok=True)


def save_run(folder: Path, model: Model, settings: Settings, blend: list[BlendPart], facts: dict[str, Any]) -> None:
    """Write model.pt, then run.json: a folder with run.json is a finished run.

    Args:
        folder: Exists and holds `prepared/`.
        model: Weights to keep.
        settings: How it was trained.
        blend: Parts of the blend.
        facts: Further JSON values: protocol, test_from, prepared, scores.
    """
    save_state(folder / _MODEL, {"identity": {}, "model": model.state_dict()})
    facts = {**facts, "settings": asdict(settings), "blend": [msgspec.structs.asdict(part) for part in blend]}
    if facts.get("privacy"):
        facts["made"] = file_hashes(folder, (_MODEL, COUNTS_FILE))
    part = folder / (_RUN + ".part")
    part.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(folder / _RUN)


def load_run(folder: Path) -> Run:
    """Read a finished run back.

    Args:
        folder: What `hushrec train --out` was given.

    Raises:
        CheckpointError: Not a training folder, not finished, or its prepared events are missing or changed; or it is
            private, and its files are of another run, or its ledger gives less than run.json states.
        LedgerError: It is private, and its ledger is missing or damaged.
    """
    try:
        facts = json.loads((folder / _RUN).read_text(encoding="utf-8"))
        settings = _settings(facts["settings"])
        blend = [msgspec.convert(part, BlendPart) for part in facts["blend"]]
        prepared, sha256 = folder / facts["prepared"]["path"], facts["prepared"]["sha256"]
        test_from = datetime.fromisoformat(facts["test_from"]) if facts["test_from"] else None
        min_shoppers = facts.get("min_shoppers", 1)
        checks.at_least(1, min_shoppers=min_shoppers)
        checks.one_of(PROTOCOLS, protocol=facts["protocol"])
        if facts.get("privacy"):
            check_private_folder(folder, LEDGER, facts["made"], facts["privacy"])
    except FileNotFoundError as error:
        unfinished = any((folder / name).exists() for name in ("teacher.pt", "training.pt", "private.pt"))
        hint = "training was interrupted: run the same train command again" if unfinished else "run hushrec train first"
        raise CheckpointError(f"{folder}: holds no finished run ({_RUN} is missing); {hint}") from error
    except (OSError, ValueError, KeyError, TypeError, ConfigError, msgspec.MsgspecError) as error:
        raise CheckpointError(f"{folder / _RUN}: cannot be read ({error}); train again") from error
    log, known = load_prepared(prepared, sha256)
    counts = load_counts(folder / COUNTS_FILE) if facts.get("privacy") else None
    if counts is not None:
        log, known = public_log(log), public_items(known)
    split = split_log(log, facts["protocol"], test_from=test_from, separable=counts is not None)
    if counts is not None:
        split = public_split(split, log, filter_seen=counts.filter_seen)
    features = split_features(split, known)
    model = build_model(split, features, settings, seen=None if counts is None else counts.popularity[1:] + 1)
    try:
        model.load_state_dict(load_state(folder / _MODEL)["model"])
    except (RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / _MODEL}: does not fit {_RUN}; train again") from error
    return Run(log, known, split, features, settings, model.eval(), blend, facts, min_shoppers, counts)


def _settings(saved: dict[str, Any]) -> Settings:
    return Settings(**{**saved, "shape": msgspec.convert(saved["shape"], EncoderShape)})
