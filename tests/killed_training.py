"""Training that is killed at a moment of its progress."""

from hushrec_model.progress import Progress


class KilledError(Exception):
    """What the kill of the process stands for."""


def killer(where: str, moment: float) -> Progress:
    """Progress that raises once a stage has come this far, in epochs."""

    def progress(stage: str, done: float, total: float, note: str = "") -> None:  # noqa: ARG001
        if stage == where and done >= moment:
            raise KilledError

    return progress
