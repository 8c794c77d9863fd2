"""From event and item files to a trained folder: what `hushrec train` calls."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from hushrec.counts import Blend
from hushrec_privacy import checks
from hushrec_privacy.errors import ConfigError

from hushrec_model.blend import BlendScorer, fit_blend
from hushrec_model.counting import count_tables
from hushrec_model.evaluate import evaluate
from hushrec_model.model import ModelScorer
from hushrec_model.prepared import save_prepared
from hushrec_model.progress import Progress, silent
from hushrec_model.protocols import PROTOCOLS
from hushrec_model.pseudonyms import load_or_create_key
from hushrec_model.reading import read_log
from hushrec_model.run_folder import PREPARED, begin_run, save_run, split_features
from hushrec_model.settings import decide
from hushrec_model.splits import Split, split_log
from hushrec_model.training import Trained, train_model

__all__ = ["TrainOptions", "TrainReport", "train"]

_MAX_SEED = 2**64 - 1  # what torch takes


@dataclass(frozen=True)
class TrainOptions:
    """What the caller of one training run chooses.

    Attributes:
        protocol: How the log is split: leave-one-out, sessions, temporal or baskets.
        test_from: Where the test begins, for sessions and temporal; aware.
        seed: Of initial weights, order and dropout.
        max_minutes: Time limit; the schedule is shortened to fit.
        columns: Column of the files for each role, where the names do not say it.
        attributes: Further item columns to learn from.
        device: A torch device.
        min_shoppers: Pairs of items that fewer shoppers made are left out of the count tables; no privacy guarantee.
    """

    protocol: str = "leave-one-out"
    test_from: datetime | None = None
    seed: int = 0
    max_minutes: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    device: str = "cpu"
    min_shoppers: int = 1


@dataclass(frozen=True)
class TrainReport:
    """What one run did.

    Attributes:
        out: The folder.
        protocol: How the log was split.
        protocol_sha256: Names the test.
        users: Test queries.
        items: Size of the catalogue, V.
        epochs: One entry an epoch: loss in nats, validation NDCG@10, seconds.
        best_epoch: The epoch kept, counted from 1.
        seconds: Time spent training.
        validation: NDCG@10 of "model" alone and of the "blend".
        test: HR@10 and NDCG@10 of "model" and "blend".
        decisions: What the data decided, one sentence each.
        warnings: What reading found, one sentence each.
    """

    out: Path
    protocol: str
    protocol_sha256: str
    users: int
    items: int
    epochs: list[dict[str, float]]
    best_epoch: int
    seconds: float
    validation: dict[str, float]
    test: dict[str, dict[str, float]]
    decisions: list[str]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "out": str(self.out)}


def train(
    events: Path, items: Path | None, out: Path, options: TrainOptions | None = None, progress: Progress = silent
) -> TrainReport:
    """Read a log, train on it, fit the blend and leave everything in a folder.

    A run that was interrupted goes on when called again with the same data and options.

    Args:
        events: Event file: CSV, Parquet, JSONL, or text with one user a line.
        items: Item file, or None.
        out: The folder; made if missing.
        options: See `TrainOptions`.
        progress: Told of every stage.

    Returns:
        What was done and measured.

    Raises:
        ConfigError: An option is wrong.
        DataError: A file cannot be read as it is.
        CheckpointError: `out` holds an unfinished run of other data or options.
    """
    options = options or TrainOptions()
    _check(options)
    began = time.monotonic()
    _make_folder(out)
    progress("read", 0, 1, f"reading {events.name}")
    key = load_or_create_key(out / "pseudonym.key")
    log, known, warnings = read_log(events, items, columns=options.columns, attributes=options.attributes, key=key)
    progress("read", 1, 1, f"{len(log):,} events of {len(log.users):,} users on {len(log.items):,} items")
    split = split_log(log, options.protocol, test_from=options.test_from)
    features = split_features(split, known)
    settings, decisions = decide(split, len(log.behaviors), options.seed)
    if options.min_shoppers > 1:
        decisions.append(f"count tables: only pairs of items that at least {options.min_shoppers} shoppers made")
    begin_run(out)
    prepared = save_prepared(out / PREPARED, log, known)
    for line in [*warnings, *split.notes, *decisions]:
        progress("decide", 0, 1, line)
    left = None if options.max_minutes is None else options.max_minutes - (time.monotonic() - began) / 60
    state = out / "training.pt"
    trained = train_model(
        split, features, settings, checkpoint=state, max_minutes=left, device=options.device, progress=progress
    )
    tables = count_tables(split.train, len(split.items), min_shoppers=options.min_shoppers)
    parts, validation = fit_blend(trained.model, split.valid, tables, filter_seen=split.filter_seen, progress=progress)
    alone = ModelScorer(trained.model, filter_seen=split.filter_seen)
    blended = BlendScorer(alone, Blend(parts, tables), filter_seen=split.filter_seen)
    test = {}
    for name, scorer in (("model", alone), ("blend", blended)):
        found = evaluate(scorer, split.test, len(split.items))
        test[name] = {"hr@10": found.hr, "ndcg@10": found.ndcg}
    report = _report(out, split, trained, validation, test, [*split.notes, *decisions], warnings)
    facts = {
        "protocol": split.protocol,
        "test_from": options.test_from.isoformat() if options.test_from else None,
        "protocol_sha256": split.protocol_sha256,
        "min_shoppers": options.min_shoppers,
        "events": str(events),
        "prepared": {"path": PREPARED, "sha256": prepared},
        "report": report.to_dict(),
    }
    save_run(out, trained.model, settings, parts, facts)
    state.unlink(missing_ok=True)
    return report


def _check(options: TrainOptions) -> None:
    checks.one_of(PROTOCOLS, protocol=options.protocol)
    if options.max_minutes is not None:
        checks.positive(max_minutes=options.max_minutes)
    checks.at_least(0, seed=options.seed)
    checks.at_least(1, min_shoppers=options.min_shoppers)
    if options.seed > _MAX_SEED:
        raise ConfigError(f"seed is {options.seed}; it must be at most {_MAX_SEED}")
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:  # how torch says that it does not know or have it
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device {options.device!r} cannot be used ({reason}); use cpu") from error


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written to ({error.strerror}); choose another folder for --out") from error


def _report(
    out: Path,
    split: Split,
    trained: Trained,
    validation: dict[str, float],
    test: dict[str, dict[str, float]],
    decisions: list[str],
    warnings: list[str],
) -> TrainReport:
    return TrainReport(
        out=out,
        protocol=split.protocol,
        protocol_sha256=split.protocol_sha256,
        users=len(split.test),
        items=len(split.items),
        epochs=trained.history,
        best_epoch=trained.best_epoch,
        seconds=trained.seconds,
        validation=validation,
        test=test,
        decisions=decisions,
        warnings=warnings,
    )
