"""How long work tells its caller where it stands; the command line draws a bar from it, a library caller passes
nothing."""

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called now and then during long work, from the thread that does it."""

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None:
        """Report that `done` of `total` steps of a stage are finished; `note` is a short text for people."""


def silent(stage: str, done: float, total: float, note: str = "") -> None:
    """Say nothing."""
