"""How far long work is, on stderr: one moving bar a stage on a terminal, a plain line now and then elsewhere."""

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

__all__ = ["ProgressLine"]

_BAR_WIDTH = 24
_REDRAW_EVERY_S = 0.1
_PLAIN_EVERY_S = 10.0
_REMARK = "decide"
"""Stage whose notes are sentences to keep, such as what the data decided; each gets a line of its own."""


def _stderr() -> TextIO:
    return sys.stderr


@dataclass
class ProgressLine:
    """Called by the packages below as `progress(stage, done, total, note)`.

    A stage ends when the next one starts or `close` is called; as a context manager it closes itself.

    Attributes:
        stream: Where to write; stderr, so that stdout stays data.
        clock: Seconds, monotonic.
        remarks: Whether to show what the data decided; off where it was shown before.

    >>> import io
    >>> shown = io.StringIO()
    >>> progress = ProgressLine(shown, clock=iter([0.0, 4.0, 12.0, 15.0]).__next__)
    >>> for done in (0.0, 1.0, 2.0):
    ...     progress("training", done, 4.0, f"epoch {done:.0f}")
    >>> progress.close()
    >>> print(shown.getvalue(), end="")
    training ...
    training  50 %  epoch 2
    training done in 15 s  epoch 2
    """

    stream: TextIO = field(default_factory=_stderr)
    clock: Callable[[], float] = time.monotonic
    remarks: bool = True
    _stage: str = field(default="", init=False)
    _note: str = field(default="", init=False)
    _started: float = field(default=0.0, init=False)
    _shown: float = field(default=0.0, init=False)
    _width: int = field(default=0, init=False)

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None:
        """Show that `done` of `total` of a stage is through; total 0 or less: not known."""
        now = self.clock()
        if stage == _REMARK:
            self._finish(now)
            self._stage = ""
            if self.remarks:
                self._write(f"  {note}\n")
            return
        fresh = stage != self._stage
        if fresh:
            self._finish(now)
            self._stage, self._started = stage, now
        self._note = note
        share = min(1.0, max(0.0, done / total)) if total > 0 else 0.0
        if self.stream.isatty():
            if fresh or share >= 1.0 or now - self._shown >= _REDRAW_EVERY_S:
                self._shown = now
                self._draw(self._bar(share, now))
        elif fresh:
            self._shown = now
            self._write(f"{stage} ...\n")
        elif now - self._shown >= _PLAIN_EVERY_S:
            self._shown = now
            self._write(f"{stage} {share:4.0%}".replace("%", " %") + self._tail() + "\n")

    def close(self, *, failed: bool = False) -> None:
        """End the running stage with a line that says how long it took."""
        self._finish(self.clock() if self._stage else 0.0, "stopped after" if failed else "done in")
        self._stage = ""

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.close(failed=kind is not None)

    def _bar(self, share: float, now: float) -> str:
        full = round(share * _BAR_WIDTH)
        bar = "#" * full + "." * (_BAR_WIDTH - full)
        return f"{self._stage} [{bar}] {share:4.0%} {now - self._started:.0f} s{self._tail()}"

    def _tail(self) -> str:
        return f"  {self._note}" if self._note else ""

    def _draw(self, line: str) -> None:
        line = line[: shutil.get_terminal_size().columns - 1]  # a wrapped line cannot be drawn over
        self._write("\r" + line.ljust(self._width))
        self._width = len(line)

    def _finish(self, now: float, how: str = "done in") -> None:
        if not self._stage:
            return
        line = f"{self._stage} {how} {now - self._started:.0f} s{self._tail()}"
        if self.stream.isatty():
            self._draw(line)
            self._width = 0
            self._write("\n")
        else:
            self._write(line + "\n")
        self._note = ""

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
