"""The background thread of a fleet client: of lowest priority, a daemon, and never in the way of `recommend`.

It holds no lock that the app's threads wait for. Training is on one thread in ONNX Runtime, which lets go of the
interpreter while it computes; on Linux the system runs this thread when nothing else wants the processor.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable

from hushrec.fleet.gate import Gate

__all__ = ["Worker"]

LONGEST_SLEEP_S = 600.0
_LOWEST = 19  # nice values end here


class Worker:
    """Calls `step` again and again.

    Args:
        step: Does one thing, and says how many seconds to wait.
        gate: Its `stop` wakes the thread and ends whatever runs.
    """

    def __init__(self, step: Callable[[], float], gate: Gate) -> None:
        self._step, self._gate = step, gate
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def died(self) -> bool:
        """Whether the thread ended by an error of the app's own, such as in its `conditions`."""
        return self._thread is not None and not self._thread.is_alive() and not self._gate.stopping

    def start(self) -> None:
        """Start the thread; a second time changes nothing."""
        if not self.running:
            self._gate.reopen()
            self._thread = threading.Thread(target=self._run, name="hushrec-fleet", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ask it to end, and wait.

        Args:
            timeout_s: Seconds; a request that is on its way is not torn off.

        Returns:
            Whether it has ended.
        """
        self._gate.stop()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.running

    def _run(self) -> None:
        _lower_priority()
        while not self._gate.stopping:
            self._gate.pause(min(self._step(), LONGEST_SLEEP_S))


def _lower_priority() -> None:
    if sys.platform == "linux":  # there a thread has a priority of its own; elsewhere it is the whole process's
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
