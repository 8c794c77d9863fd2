"""From event and item files to a trained folder: what `hushrec train` calls."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from hushrec.counts import Blend
from hushrec_privacy import checks
from hushrec_privacy.accounting.claims import SESSION, USER
from hushrec_privacy.accounting.gaussian import check_delta
from hushrec_privacy.errors import ConfigError
from hushrec_privacy.ledger.anchored import anchor_file, kept_anchor

from hushrec_model.blend import BlendScorer, fit_blend
from hushrec_model.columns import user_columns
from hushrec_model.counting import count_tables
from hushrec_model.evaluate import evaluate
from hushrec_model.items import Items
from hushrec_model.log import Log
from hushrec_model.model import ModelScorer
from hushrec_model.prepared import save_prepared
from hushrec_model.private_counts import COUNTS_FILE
from hushrec_model.private_data import public_items, public_log, public_split
from hushrec_model.private_pipeline import CHECKPOINT, PrivateOptions, train_with_privacy
from hushrec_model.progress import Progress, silent
from hushrec_model.protocols import PROTOCOLS
from hushrec_model.pseudonyms import load_or_create_key
from hushrec_model.reading import read_log
from hushrec_model.run_folder import PREPARED, begin_run, save_run, split_features
from hushrec_model.settings import decide
from hushrec_model.splits import TIMED, Split, split_log
from hushrec_model.table_files import open_table
from hushrec_model.teacher import teacher_checkpoint, train_taught
from hushrec_model.training import Trained
from hushrec_model.unseen import fit_unseen, unseen_tables

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
        teacher: Train a teacher first, whom the model that ships learns from; None: unless training is private.
        min_shoppers: Pairs of items that fewer shoppers made are left out of the count tables; no privacy guarantee.
        epsilon: Train under user-level differential privacy with this budget, tables included; None: without.
        delta: Of that budget; None: N^-1.1.
        max_grad_norm: L2 bound of one user's gradient; None: the default of private training.
        anchor: A head of an interrupted private run's ledger, or a file outside `out` that keeps it; None: neither.
    """

    protocol: str = "leave-one-out"
    test_from: datetime | None = None
    seed: int = 0
    max_minutes: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    device: str = "cpu"
    teacher: bool | None = None
    min_shoppers: int = 1
    epsilon: float | None = None
    delta: float | None = None
    max_grad_norm: float | None = None
    anchor: str | None = None


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
        privacy: What private training guarantees; None without.
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
    privacy: dict[str, Any] | None = None

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
        LedgerError: The ledger of a private run is damaged, older than its anchor, or cannot be written.
    """
    options = options or TrainOptions()
    _check(options)
    _check_anchor(options, out)
    began = time.monotonic()
    _make_folder(out)
    progress("read", 0, 1, f"reading {events.name}")
    if options.epsilon is not None and items is not None:
        _refuse_log_as_items(events, items, options.columns)
    key = load_or_create_key(out / "pseudonym.key")
    log, known, warnings = read_log(events, items, columns=options.columns, attributes=options.attributes, key=key)
    progress("read", 1, 1, f"{len(log):,} events of {len(log.users):,} users on {len(log.items):,} items")
    if options.epsilon is not None:
        return _train_privately(log, known, warnings, out, options, progress)
    split = split_log(log, options.protocol, test_from=options.test_from)
    features = split_features(split, known)
    settings, decisions = decide(split, len(log.behaviors), options.seed, teacher=options.teacher is not False)
    if options.min_shoppers > 1:
        decisions.append(f"count tables: only pairs of items that at least {options.min_shoppers} shoppers made")
    begin_run(out)
    prepared = save_prepared(out / PREPARED, log, known)
    for line in [*warnings, *split.notes, *decisions]:
        progress("decide", 0, 1, line)
    left = None if options.max_minutes is None else options.max_minutes - (time.monotonic() - began) / 60
    state = out / "training.pt"
    trained = train_taught(
        split, features, settings, checkpoint=state, max_minutes=left, device=options.device, progress=progress
    )
    tables = count_tables(split.train, len(split.items), min_shoppers=options.min_shoppers)
    tables |= unseen_tables(trained.model, features)
    parts, validation = fit_blend(trained.model, split.valid, tables, filter_seen=split.filter_seen, progress=progress)
    parts, raised = fit_unseen(trained.model, parts, tables, split.valid, filter_seen=split.filter_seen)
    progress("decide", 1, 1, raised)
    decisions.append(raised)
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
        "origins": {"model.pt": "private", PREPARED: "private", "run.json": "private"},
        "events": str(events),
        "prepared": {"path": PREPARED, "sha256": prepared},
        "report": report.to_dict(),
    }
    save_run(out, trained.model, settings, parts, facts)
    for done in (state, teacher_checkpoint(state)):
        done.unlink(missing_ok=True)
    return report


def _train_privately(
    log: Log, known: Items, warnings: list[str], out: Path, options: TrainOptions, progress: Progress
) -> TrainReport:
    """The same folder, but all of it that ships was noised."""
    began = time.monotonic()
    sessions = options.protocol == "sessions" and log.session is None
    public = public_log(log)
    split = public_split(split_log(public, options.protocol, test_from=options.test_from, separable=True), public)
    features = split_features(split, public_items(known))
    chosen = PrivateOptions(
        epsilon=options.epsilon or 0.0,
        delta=options.delta,
        seed=options.seed,
        unit=SESSION if sessions else USER,
        **({} if options.max_grad_norm is None else {"max_grad_norm": options.max_grad_norm}),
    )
    done = train_with_privacy(split, features, out, chosen, progress, options.anchor)
    begin_run(out)  # only now: what a refused or interrupted run finds here stays as it is
    prepared = save_prepared(out / PREPARED, log, known)
    split = replace(split, filter_seen=done.counts.filter_seen)
    outside = int((public.item > public.listed).sum())
    notes = [*split.notes, *done.decisions(), f"{outside:,} events on items that the items file lacks were left out"]
    warnings = [line.replace("; kept, without description", "") for line in warnings]
    for line in [*warnings, *notes]:
        progress("decide", 0, 1, line)
    asked = {"test": split.test} if options.protocol in TIMED else {"validation": split.valid, "test": split.test}
    scores = {}  # where the test begins at one time for all, validation was trained on
    for name, queries in asked.items():
        found = evaluate(done.scorer(), queries, len(split.items))
        scores[name] = {"hr@10": found.hr, "ndcg@10": found.ndcg}
    report = TrainReport(
        out=out,
        protocol=split.protocol,
        protocol_sha256=split.protocol_sha256,
        users=len(split.test),
        items=len(split.items),
        epochs=[],
        best_epoch=0,
        seconds=time.monotonic() - began,
        validation={"blend": scores["validation"]["ndcg@10"]} if "validation" in scores else {},
        test={"blend": scores["test"]},
        decisions=notes,
        warnings=warnings,
        privacy={**done.guarantee.to_dict(), "run": done.run, "steps": done.steps, "ledger_head": done.anchor},
    )
    facts = {
        "protocol": split.protocol,
        "test_from": options.test_from.isoformat() if options.test_from else None,
        "protocol_sha256": split.protocol_sha256,
        "min_shoppers": 1,
        "privacy": report.privacy,
        "origins": {"model.pt": done.origin(), COUNTS_FILE: done.origin(), PREPARED: "private", "run.json": "private"},
        "prepared": {"path": PREPARED, "sha256": prepared},
        "report": report.to_dict(),
    }
    save_run(out, done.model, done.as_settings(), done.counts.parts(), facts)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return report


def _check(options: TrainOptions) -> None:
    checks.one_of(PROTOCOLS, protocol=options.protocol)
    if options.max_minutes is not None:
        checks.positive(max_minutes=options.max_minutes)
    checks.at_least(0, seed=options.seed)
    checks.at_least(1, min_shoppers=options.min_shoppers)
    if options.epsilon is None:
        if options.delta is not None or options.max_grad_norm is not None:
            raise ConfigError("delta and max_grad_norm mean something to private training only; give epsilon too")
    else:
        _check_private(options)
    if options.seed > _MAX_SEED:
        raise ConfigError(f"seed is {options.seed}; it must be at most {_MAX_SEED}")
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:  # how torch says that it does not know or have it
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device {options.device!r} cannot be used ({reason}); use cpu") from error


def _refuse_log_as_items(events: Path, items: Path, columns: Mapping[str, str]) -> None:
    """What private training takes as public, and ships as it is, must not be the log."""
    advice = "with epsilon the items file is published without noise; give the shop's own list of items"
    if events.exists() and items.exists() and events.samefile(items):
        raise ConfigError(f"{items}: is the event log itself; {advice}")
    with open_table(items) as table:
        users = [] if table.per_user else user_columns(table.schema.names(), columns)
    if users:
        raise ConfigError(f"{items}: has a column of users, {users[0]!r}, so it seems made from the log; {advice}")


def _check_private(options: TrainOptions) -> None:
    checks.positive(epsilon=options.epsilon or 0.0)
    if options.delta is not None:
        check_delta(options.delta)
        checks.positive(delta=options.delta)
    if options.max_grad_norm is not None and not 1e-6 <= options.max_grad_norm <= 1e6:
        raise ConfigError(f"max_grad_norm is {options.max_grad_norm!r}; it must be from 1e-6 to 1e6, such as .5")
    if options.min_shoppers > 1:
        raise ConfigError(
            "min_shoppers is for count tables without privacy; with epsilon, noise and a threshold protect the pairs"
        )
    if options.teacher:
        raise ConfigError(
            "teacher: what a teacher learns from the log is not noised, and the model would learn it from the teacher; "
            "leave teacher out with epsilon"
        )
    if options.max_minutes is not None:
        raise ConfigError("max_minutes would make the number of steps depend on the machine; leave it out with epsilon")
    if options.device != "cpu":
        raise ConfigError(f"device is {options.device!r}; private training runs on the cpu")


def _check_anchor(options: TrainOptions, out: Path) -> None:
    if options.anchor is None:
        return
    if options.epsilon is None:
        raise ConfigError("anchor means something to private training only, which has a ledger; give epsilon too")
    kept = kept_anchor(options.anchor)  # refuses what is neither, before anything is read or made
    path = anchor_file(options.anchor)
    if path is not None and path.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"{path}: lies in the folder of the run and would be restored with it; keep it elsewhere")
    if path is not None and kept is None and not path.parent.is_dir():
        raise ConfigError(f"{path}: its folder is not there; make it, or name another place for the anchor")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)  # it will hold the log
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
