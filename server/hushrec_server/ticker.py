"""Advances the rounds in the background: calls `tick` when it is due, in a thread of its own, and never gives up.

A tick may take seconds (the sum of a large round); requests go on meanwhile. Several processes over one database may
all tick: the service sees to it that only one does each piece of work.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

from hushrec_privacy.errors import FleetError, HushrecError

from hushrec_server.fleet import Fleet
from hushrec_server.logs import log_fault
from hushrec_server.metrics import Metrics

__all__ = ["Ticker"]

_SHORTEST_S, _LONGEST_S = 0.05, 30.0
_FAILED_S = 1.0
_CHORES_S = 600.0
_SILENT_S = 300.0  # without a tick that succeeded; above the longest sum of a round


class Ticker:
    """The background task.

    Args:
        fleet: What is advanced.
        metrics: Counts ticks and their time.
        clock: Seconds from any start, never backwards.
        chores: Done in the same thread, at the start and then every ten minutes.
    """

    def __init__(
        self,
        fleet: Fleet,
        metrics: Metrics,
        *,
        clock: Callable[[], float],
        chores: tuple[Callable[[], object], ...] = (),
    ) -> None:
        self._fleet, self._metrics, self._clock, self._chores = fleet, metrics, clock, chores
        self._chores_at = clock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tick")
        self._succeeded_at = clock()
        self._failures = 0

    def once(self) -> float:
        """Tick once, and give the seconds to wait before the next time."""
        began = self._clock()
        try:
            wait = min(max(self._fleet.tick(), _SHORTEST_S), _LONGEST_S)
        except Exception as error:  # noqa: BLE001  rounds of the next minute must not end with a fault of this one
            log_fault("tick-failed" if isinstance(error, HushrecError) else "bug", error)
            self._failures += 1
            wait, result = min(_FAILED_S * 2.0 ** min(self._failures - 1, 5), _LONGEST_S), "failed"
        else:
            self._failures, self._succeeded_at, result = 0, self._clock(), "done"
        self._metrics.count("hushrec_ticks_total", result=result)
        self._metrics.count("hushrec_tick_seconds_total", max(0.0, self._clock() - began))
        self._do_chores()
        return wait

    def _do_chores(self) -> None:
        if self._clock() < self._chores_at:
            return
        self._chores_at = self._clock() + _CHORES_S
        for chore in self._chores:
            try:
                chore()
            except Exception as error:  # noqa: BLE001  as above; /readyz tells of what stays undone
                log_fault("chore-failed", error)

    def check(self) -> None:
        """For /readyz: whether rounds still advance.

        Raises:
            FleetError: No tick has succeeded for minutes.
        """
        silent = self._clock() - self._succeeded_at
        if silent > _SILENT_S:
            raise FleetError(f"rounds have not advanced for {silent:.0f} s; the log says why", reason="busy")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tick while the block runs; at its end, wait for a tick that has begun."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await asyncio.to_thread(self._thread.shutdown)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait = await loop.run_in_executor(self._thread, self.once)
            await asyncio.sleep(wait)
