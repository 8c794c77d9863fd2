"""How well a training folder or a bundle ranks, beside every baseline: what `hushrec evaluate` calls.

Both are asked the same queries: the events are split once, over the catalogue of the model. A training folder answers
in float32 with torch, a bundle through the runtime of the devices. Baselines are counted from the training part of the
same split.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from hushrec.bundle import Bundle
from hushrec.catalog import Catalog
from hushrec.counts import Blend, count_sources
from hushrec.manifest import MANIFEST_NAME, BlendPart
from hushrec_model.baselines import CountScorer, baseline_scorers
from hushrec_model.blend import BlendScorer
from hushrec_model.counting import count_tables
from hushrec_model.evaluate import Scorer, cold_items, evaluate
from hushrec_model.log import Log
from hushrec_model.model import ModelScorer
from hushrec_model.progress import Progress, silent
from hushrec_model.reading import read_log
from hushrec_model.run_folder import load_run
from hushrec_model.splits import Queries, Split, split_log
from hushrec_privacy.errors import CheckpointError
from numpy.typing import NDArray

from hushrec_quantize.bundle_scorer import BundleScorer

__all__ = ["evaluate_any"]


@dataclass(frozen=True)
class _Subject:
    """What is evaluated, before it has seen the events.

    Attributes:
        items: Its catalogue, V ids.
        behaviors: Names of its behaviours.
        blend: Parts of its blend.
        protocol: How it was trained.
        test_from: Where the test began then.
        arrays: Its count tables, counted from what it was trained on.
        scorer: Makes a scorer from (whether to filter seen items, parts of the blend; none: the Transformer alone).
    """

    items: list[str]
    behaviors: tuple[str, ...]
    blend: Sequence[BlendPart]
    protocol: str
    test_from: datetime | None
    arrays: Mapping[str, NDArray[np.generic]]
    scorer: Callable[[bool, Sequence[BlendPart]], Scorer]


def evaluate_any(
    path: Path,
    events: Path,
    *,
    protocol: str | None = None,
    test_from: datetime | None = None,
    columns: Mapping[str, str] | None = None,
    parts: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Evaluate on the test part of an event file.

    Args:
        path: A training folder or a bundle.
        events: Event file.
        protocol: How to split; None: as it was trained.
        test_from: Where the test begins; None: as it was trained, if the protocol is the same.
        columns: Column of the file for each role, where the names do not say it.
        parts: Also evaluate the Transformer and each source of counts alone, and the blend without each.
        progress: Told of every scorer.

    Returns:
        JSON values: protocol, protocol_sha256, users, items, hr@10, ndcg@10, mrr, coverage@10, the cold slice,
        baselines, and, if asked, parts and without.

    Raises:
        CheckpointError: `path` is neither.
        BundleError: The bundle is damaged.
        DataError: The events cannot be read, or leave nothing to ask.
    """
    subject = _subject(path)
    log, _, warnings = read_log(events, None, columns=columns or {}, attributes=(), key=secrets.token_bytes(32))
    same = protocol in (None, subject.protocol)
    split = split_log(
        _over(log, subject.items),
        protocol or subject.protocol,
        test_from=test_from or (subject.test_from if same else None),
    )
    for line in [*warnings, *split.notes]:
        progress("decide", 0, 1, line)
    tables = count_tables(split.train, len(split.items))
    scorers: dict[str, Scorer | None] = {"": subject.scorer(split.filter_seen, subject.blend)}
    if parts:
        scorers["parts/transformer"] = subject.scorer(split.filter_seen, ())
        scorers |= _part_scorers(subject, split.filter_seen)
    scorers |= {f"baselines/{name}": scorer for name, scorer in baseline_scorers(split, tables).items()}
    known = _as_known(split.test, len(subject.items), _behavior_numbers(log.behaviors, subject.behaviors))
    return _results(split, known, scorers, progress)


def _part_scorers(subject: _Subject, filter_seen: bool) -> dict[str, Scorer]:
    """Each source of counts alone, with the decay of its heaviest part, and the blend without all parts of a source."""
    popular: Any = subject.arrays["popularity"]
    heaviest = {part.name: part for part in sorted(subject.blend, key=lambda part: part.weight)}
    found: dict[str, Scorer] = {}
    for name, part in heaviest.items():
        (source,) = count_sources([part], subject.arrays)
        found[f"parts/{name}"] = CountScorer(source, popular, filter_seen=filter_seen)
        found[f"without/{name}"] = subject.scorer(filter_seen, [part for part in subject.blend if part.name != name])
    return found


def _results(split: Split, known: Queries, scorers: Mapping[str, Scorer | None], progress: Progress) -> dict[str, Any]:
    result: dict[str, Any] = {"protocol": split.protocol, "protocol_sha256": split.protocol_sha256}
    for done, (name, scorer) in enumerate(scorers.items()):
        progress("evaluate", done, len(scorers), name.split("/")[-1])
        group, _, key = name.partition("/")
        if not key:
            found = evaluate(scorer, known, len(split.items), cold=cold_items(split))  # type: ignore[arg-type]
            result |= found.to_dict()
            continue
        scores = None
        if scorer is not None:
            asked = split.test if group == "baselines" else known
            found = evaluate(scorer, asked, len(split.items))
            scores = {"hr@10": found.hr, "ndcg@10": found.ndcg}
        result.setdefault(group, {})[key] = scores
    progress("evaluate", len(scorers), len(scorers))
    return result


def _subject(path: Path) -> _Subject:
    if (path / MANIFEST_NAME).is_file():
        return _bundle(Bundle.open(path))
    if (path / "run.json").is_file():
        return _run(path)
    if not path.exists():
        raise CheckpointError(
            f"{path}: does not exist; give a folder of hushrec train, or a bundle of hushrec quantize"
        )
    raise CheckpointError(
        f"{path}: is neither a finished training folder nor a bundle (no run.json, no {MANIFEST_NAME})"
    )


def _bundle(bundle: Bundle) -> _Subject:
    model, card = bundle.manifest.model, bundle.manifest.card
    catalog = Catalog(bundle.path("catalog.sqlite"))
    items = catalog.ids(range(1, model.items + 1))
    catalog.close()

    def scorer(filter_seen: bool, blend: Sequence[BlendPart]) -> Scorer:
        return BundleScorer(bundle, filter_seen=filter_seen, blend=blend)

    arrays = {name: bundle.array(name) for name in bundle.manifest.arrays if not name.startswith("features.")}
    return _Subject(
        items=list(items),
        behaviors=model.behaviors,
        blend=bundle.manifest.blend,
        protocol=str(card.get("protocol", "leave-one-out")),
        test_from=_time(card.get("test_from")),
        arrays=arrays,
        scorer=scorer,
    )


def _run(path: Path) -> _Subject:
    run = load_run(path)
    arrays = run.tables()

    def scorer(filter_seen: bool, blend: Sequence[BlendPart]) -> Scorer:
        alone = ModelScorer(run.model, filter_seen=filter_seen)
        return BlendScorer(alone, Blend(blend, arrays), filter_seen=filter_seen) if blend else alone

    return _Subject(
        items=run.split.items,
        behaviors=run.log.behaviors,
        blend=run.blend,
        protocol=run.facts["protocol"],
        test_from=_time(run.facts["test_from"]),
        arrays=arrays,
        scorer=scorer,
    )


def _over(log: Log, items: Sequence[str]) -> Log:
    """The same log with the items of a catalogue first, as if an item file had listed them."""
    place = {item: index for index, item in enumerate(items, start=1)}
    others = [item for item in log.items if item not in place]
    for item in others:
        place[item] = len(place) + 1
    number = np.array([0, *(place[item] for item in log.items)], np.int32)
    return replace(log, items=[*items, *others], listed=len(items), item=number[log.item])


def _as_known(queries: Queries, items: int, behaviors: NDArray[np.int8]) -> Queries:
    """The same queries as the model knows them: items that its catalogue lacks are 0 in histories, behaviours have its
    numbers; targets stay."""
    events = queries.events
    item = np.where(events.item <= items, events.item, 0)
    return replace(queries, events=replace(events, item=item, behavior=behaviors[events.behavior]))


def _behavior_numbers(found: tuple[str, ...], known: tuple[str, ...]) -> NDArray[np.int8]:
    """For each behaviour of the events the model's index of it; "view", or the first, for one it does not know."""
    other = known.index("view") if "view" in known else 0
    return np.array([known.index(name) if name in known else other for name in found], np.int8)


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
