"""Train a model that learns from the events and from a teacher: a model of the same size, trained before from another
seed.

A single event says that one item came next; a teacher says how likely every item was. So a student ranks better than
its teacher although both have seen the same events (Furlanello et al. 2018, "Born Again Neural Networks",
arXiv:1805.04770). The student is what ships; the graph on the device is the same with and without a teacher.
"""

from dataclasses import replace
from pathlib import Path

from hushrec_model.features import ItemFeatures
from hushrec_model.progress import Progress, silent
from hushrec_model.settings import Settings
from hushrec_model.splits import Split
from hushrec_model.training import Trained, train_model

__all__ = ["teacher_checkpoint", "train_taught"]

_SEEDS = 2**64
_TIME_SHARE = 0.4  # of a time limit, for the teacher; a student's step also asks the teacher


def teacher_checkpoint(checkpoint: Path) -> Path:
    """The file beside a run's checkpoint that keeps its teacher."""
    return checkpoint.with_name("teacher.pt")


def train_taught(
    split: Split,
    features: ItemFeatures,
    settings: Settings,
    *,
    checkpoint: Path | None = None,
    max_minutes: float | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> Trained:
    """Train a teacher, then the student; the student alone if the settings give the teacher no epochs.

    Args:
        split: Training and validation data.
        features: Content of the split's items.
        settings: How to train the student; the teacher differs in its seed and in its epochs.
        checkpoint: File of the student's state; the teacher's lies beside it. Both go on where they stopped.
        max_minutes: Time limit of both together.
        device: A torch device.
        progress: Told after every batch, of the teacher as the stage "teach".

    Returns:
        The student; its seconds are those of both.

    Raises:
        CheckpointError: A checkpoint belongs to other data or settings.
    """
    if not settings.teacher_epochs:
        return train_model(
            split, features, settings, checkpoint=checkpoint, max_minutes=max_minutes, device=device, progress=progress
        )

    def teaching(stage: str, done: float, total: float, note: str = "") -> None:
        progress("teach" if stage == "train" else stage, done, total, note)

    first = replace(settings, seed=(settings.seed + 1) % _SEEDS, epochs=settings.teacher_epochs, teacher_epochs=0)
    teacher = train_model(
        split,
        features,
        first,
        checkpoint=None if checkpoint is None else teacher_checkpoint(checkpoint),
        max_minutes=None if max_minutes is None else _TIME_SHARE * max_minutes,
        device=device,
        progress=teaching,
    )
    left = None if max_minutes is None else max_minutes - teacher.seconds / 60
    student = train_model(
        split,
        features,
        settings,
        teacher=teacher.model,
        checkpoint=checkpoint,
        max_minutes=left,
        device=device,
        progress=progress,
    )
    return replace(student, seconds=student.seconds + teacher.seconds)
