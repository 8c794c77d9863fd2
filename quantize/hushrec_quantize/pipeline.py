"""From a training folder to a bundle: prune, fine-tune, export, int8, pack, verify. What `hushrec quantize` calls."""

import copy
import tempfile
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from hushrec.bundle import Bundle
from hushrec.counts import Blend
from hushrec.manifest import BlendPart
from hushrec.staging import refuse_foreign
from hushrec.weights.tensors import Precision
from hushrec_model.blend import BlendScorer, fit_blend
from hushrec_model.model import Model, ModelScorer
from hushrec_model.progress import Progress, silent
from hushrec_model.run_folder import Run, catalog_items, load_run
from hushrec_model.training import train_model, validation_sample
from hushrec_model.unseen import fit_unseen
from hushrec_privacy import checks
from hushrec_privacy.accounting.guarantee import rounded_up
from hushrec_privacy.errors import ConfigError
from numpy.typing import NDArray

from hushrec_quantize.bundle_scorer import BundleScorer
from hushrec_quantize.convert import encoder_weights
from hushrec_quantize.graphs import Graphs, build_graphs
from hushrec_quantize.latency import graph_answer, in_turn_us, scorer_answer
from hushrec_quantize.pack import BundleFacts, Content, write_model_bundle
from hushrec_quantize.prune import encoder_parameters, prune
from hushrec_quantize.verify import (
    Measured,
    Tolerance,
    Verification,
    check,
    measure,
    overlap,
)

__all__ = ["QuantizeOptions", "QuantizeReport", "Step", "fine_tuned", "quantize"]

_FINE_TUNE_EPOCHS = 3  # the best of them is kept; docs/design.md has what one to three give
_FINE_TUNE_RATE = 5e-4
_SAMPLE = 5_000  # validation queries that steps are compared on


@dataclass(frozen=True)
class QuantizeOptions:
    """What the caller of one quantization chooses.

    Attributes:
        prune: Share of the encoder's weights to remove, 0 to below 1. `benchmarks/pruning.py` prints what shares cost.
        model_version: Of the release; at least 1.
        tolerance: What the bundle may lose.
    """

    prune: float = 0.0
    model_version: int = 1
    tolerance: Tolerance = field(default_factory=Tolerance)


@dataclass(frozen=True)
class Step:
    """The model after one step.

    Attributes:
        name: What was done.
        parameters: Weights of the encoder.
        bytes: Of the encoder: graph and weights.
        ndcg10: NDCG@10 on the validation sample.
        overlap: Share of the ten best items kept: of the trained model after pruning, of the same weights in float
            after int8.
        latency_us: Median time of one answer on one thread, in microseconds; all steps in turn, so their ratio counts.
    """

    name: str
    parameters: int
    bytes: int
    ndcg10: float
    overlap: float
    latency_us: float


@dataclass(frozen=True)
class QuantizeReport:
    """What one quantization did.

    Attributes:
        bundle: Where the bundle is.
        steps: One entry a step, in order.
        verification: The figures that the tolerance was checked against.
        blend: Parts of the blend that ships.
        encoder_bytes: Of encoder.onnx and encoder.bin.
        item_bytes: Of items.bin, per row of the table.
        bundle_bytes: Of all files that the manifest lists.
    """

    bundle: Path
    steps: list[Step]
    verification: Verification
    blend: list[dict[str, Any]]
    encoder_bytes: int
    item_bytes: float
    bundle_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "bundle": str(self.bundle)}


def quantize(
    run: Path, out: Path, options: QuantizeOptions | None = None, progress: Progress = silent
) -> QuantizeReport:
    """Make an int8 bundle of a trained model.

    Args:
        run: A folder that `hushrec train` finished.
        out: The bundle's directory; an earlier bundle there is replaced, and only by one that passed.
        options: See `QuantizeOptions`.
        progress: Told of every step.

    Returns:
        What every step cost.

    Raises:
        ConfigError: An option is outside its range.
        CheckpointError: `run` is no finished training folder.
        ToleranceError: The bundle would rank worse than allowed; nothing was written.
        BundleError: `out` holds something else, or the disk refused.
    """
    options = options or QuantizeOptions()
    checks.share(prune=options.prune)
    checks.at_least(1, model_version=options.model_version)
    refuse_foreign(out.resolve())
    return _Quantization(load_run(run), options, progress).run(out)


def fine_tuned(run: Run, pruned: Model, progress: Progress = silent) -> Model:
    """Train a pruned model for a few epochs with the model of its run as the teacher.

    Args:
        run: Where it comes from.
        pruned: From `hushrec_quantize.prune.prune`; stays as it is.
        progress: Told after every batch.
    """
    settings = replace(
        run.settings, shape=pruned.encoder.shape, epochs=_FINE_TUNE_EPOCHS, learning_rate=_FINE_TUNE_RATE
    )
    start = copy.deepcopy(pruned)
    return train_model(run.split, run.features, settings, start=start, teacher=run.model, progress=progress).model


class _Quantization:
    def __init__(self, run: Run, options: QuantizeOptions, progress: Progress) -> None:
        self.trained, self.options, self.progress = run, options, progress
        self.privacy: dict[str, Any] | None = run.facts.get("privacy")
        if self.privacy is not None and options.prune:
            raise ConfigError("this run was trained privately, and pruning would train on events: leave --prune out")
        self.split = run.split
        self.index = validation_sample(self.split.valid, _SAMPLE)
        self.tables = run.tables()
        self.steps: list[Step] = []
        self.timed: list[Graphs | BundleScorer] = []  # what each step is timed by, all in turn at the end

    def run(self, out: Path) -> QuantizeReport:
        trained = self._alone(self.trained.model)
        self._step("trained, float32", self.trained.model, trained, 1.0)
        model = self._pruned(trained)
        floating = self._alone(model)
        blend = self._blend(model)
        scorer = ModelScorer(model, filter_seen=self.split.filter_seen)
        blended = self._measure(BlendScorer(scorer, Blend(blend, self.tables), filter_seen=self.split.filter_seen))
        self.progress("int8", 0, 1)
        graphs = self._graphs(model, "int8")
        content = Content(
            self.split.items, catalog_items(self.split, self.trained.known), self.trained.features, self.tables, model
        )
        with tempfile.TemporaryDirectory() as folder:
            draft = self._write(Path(folder) / "draft.hush", graphs, content, blend, {})
            found = self._verify(draft, model, graphs, trained, floating, blended)
        if self.privacy is None:  # otherwise whether there is a bundle would tell of private events
            check(found, self.options.tolerance)
        self.progress("write", 0, 1)
        bundle = self._write(out, graphs, content, blend, {} if self.privacy else self._results(found))
        self.progress("write", 1, 1)
        size = len(graphs.encoder_onnx) + len(graphs.encoder_bin)
        return QuantizeReport(
            bundle=out,
            steps=self.steps,
            verification=found,
            blend=[_part(part) for part in blend],
            encoder_bytes=size,
            item_bytes=len(graphs.items_bin) / graphs.capacity,
            bundle_bytes=bundle.size,
        )

    def _blend(self, model: Model) -> list[BlendPart]:
        """Fitted on validation; fixed beforehand where that would use private events."""
        if self.privacy is not None:
            return self.trained.blend
        seen = self.split.filter_seen
        parts, _ = fit_blend(model, self.split.valid, self.tables, filter_seen=seen, progress=self.progress)
        return fit_unseen(model, parts, self.tables, self.split.valid, filter_seen=seen)[0]

    def _pruned(self, trained: Measured) -> Model:
        """Prune and fine-tune with the trained model as the teacher, and keep the better of the two; the trained model
        itself if nothing is to be removed."""
        if not self.options.prune:
            return self.trained.model
        self.progress("prune", 0, 1)
        model = prune(self.trained.model, self.split, self.options.prune, seed=self.trained.settings.seed)
        found = self._alone(model)
        shape = model.encoder.shape
        self._step(
            f"pruned to heads {_list(shape.heads)}, channels {_list(shape.channels)}",
            model,
            found,
            overlap(trained.lists, found.lists),
        )
        tuned = fine_tuned(self.trained, model, self.progress)
        after = self._alone(tuned)
        self._step("fine-tuned", tuned, after, overlap(trained.lists, after.lists))
        return tuned if after.ndcg >= found.ndcg else model

    def _verify(
        self, draft: Bundle, model: Model, graphs: Graphs, trained: Measured, floating: Measured, blended: Measured
    ) -> Verification:
        """Ask the draft what the float model was asked."""
        seen = self.split.filter_seen
        plain, blending = BundleScorer(draft, filter_seen=seen, blend=()), BundleScorer(draft, filter_seen=seen)
        self.progress("verify", 0, 1)
        alone, whole = self._measure(plain), self._measure(blending)
        self._step("int8", model, alone, overlap(floating.lists, alone.lists), graphs)
        kept = overlap(blended.lists, whole.lists)
        self._step("int8, blended with counts", model, whole, kept, graphs, blending)
        self.progress("time", 0, 1)
        self._time(model)
        return Verification(
            queries=len(self.index),
            model_overlap=self.steps[-2].overlap,
            blend_overlap=self.steps[-1].overlap,
            model_lost=_lost(floating.ndcg, alone.ndcg),
            blend_lost=_lost(blended.ndcg, whole.ndcg),
            total_lost=_lost(trained.ndcg, alone.ndcg),
        )

    def _alone(self, model: Model) -> Measured:
        return self._measure(ModelScorer(model, filter_seen=self.split.filter_seen))

    def _measure(self, scorer: Any) -> Measured:
        return measure(scorer, self.split.valid, len(self.split.items), self.index)

    def _graphs(self, model: Model, precision: Precision) -> Graphs:
        rows: NDArray[np.float32] = model.table().numpy()
        return build_graphs(encoder_weights(model), rows, precision=precision)

    def _step(
        self,
        name: str,
        model: Model,
        found: Measured,
        kept: float,
        graphs: Graphs | None = None,
        scorer: BundleScorer | None = None,
    ) -> None:
        graphs = graphs or self._graphs(model, "fp32")
        self.timed.append(scorer or graphs)
        size = len(graphs.encoder_onnx) + len(graphs.encoder_bin)
        step = Step(name, encoder_parameters(model.encoder), size, found.ndcg, kept, latency_us=0.0)
        self.steps.append(step)
        self.progress("decide", 0, 1, f"{name}: NDCG@10 {found.ndcg:.4f}, overlap {kept:.3f}")

    def _time(self, model: Model) -> None:
        """Time every step in turn and enter it."""
        shape, valid = model.encoder.shape, self.split.valid
        with tempfile.TemporaryDirectory() as name:
            answers = []
            for number, timed in enumerate(self.timed):
                if isinstance(timed, BundleScorer):
                    answers.append(scorer_answer(timed, valid))
                else:
                    (folder := Path(name) / str(number)).mkdir()
                    answers.append(graph_answer(timed, folder, valid, shape.max_history, shape.behaviors))
            times = in_turn_us(answers, valid, self.index)
            answers.clear()  # closes the graphs before their files go
        self.steps = [replace(step, latency_us=us) for step, us in zip(self.steps, times, strict=True)]

    def _write(
        self, out: Path, graphs: Graphs, content: Content, blend: list[BlendPart], results: dict[str, Any]
    ) -> Bundle:
        facts = self.trained.facts
        card = {
            "made_by": f"hushrec {version('hushrec')}",
            "protocol": facts["protocol"],
            "test_from": facts["test_from"],
            "parameters": encoder_parameters(content.model.encoder),
            **results,
        }
        if self.privacy is None:
            card |= {"protocol_sha256": facts["protocol_sha256"], "min_shoppers": self.trained.min_shoppers}
        else:
            card |= {"headline": _headline(self.privacy), "privacy": self.privacy}
        told = BundleFacts(
            filter_seen=self.split.filter_seen,
            times=self.trained.log.time is not None,
            behaviors=self.trained.log.behaviors,
            public_catalog=not content.known.price_from_events
            and bool((self.split.catalog <= self.trained.log.listed).all()),
            model_version=self.options.model_version,
            card=card,
            learned="private" if self.privacy is None else f"dp({self.privacy['run']})",
        )
        return write_model_bundle(out, graphs, content, blend, told)

    def _results(self, found: Verification) -> dict[str, Any]:
        return {"verification": asdict(found), "validation_ndcg@10": self.steps[-1].ndcg10}


def _headline(privacy: dict[str, Any]) -> str:
    epsilon, delta = rounded_up(privacy["epsilon"], 4), rounded_up(privacy["delta"], 3)
    return f"epsilon {epsilon} at delta {delta} for {privacy['unit']}"


def _lost(before: float, after: float) -> float:
    return (before - after) / before if before > 0 else 0.0


def _part(part: BlendPart) -> dict[str, Any]:
    return {field: getattr(part, field) for field in part.__struct_fields__}


def _list(numbers: tuple[int, ...]) -> str:
    return "+".join(str(number) for number in numbers)
