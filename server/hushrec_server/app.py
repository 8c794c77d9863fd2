"""The HTTP application of the aggregation server: the routes, wrapped in what limits and observes them.

Built from parts that exist already (`hushrec_server.assembly` makes them); opens no file and starts no process.
"""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from litestar import Litestar
from litestar.datastructures import State

from hushrec_server.config import LimitSettings
from hushrec_server.device_routes import DEVICE_ROUTES
from hushrec_server.front import Front
from hushrec_server.metrics import Metrics
from hushrec_server.observed import Observed
from hushrec_server.operator_routes import OPERATOR_ROUTES
from hushrec_server.problems import EXCEPTION_HANDLERS
from hushrec_server.rates import TokenBuckets
from hushrec_server.release_files import release_file
from hushrec_server.slow_clients import SlowClientLimits
from hushrec_server.ticker import Ticker

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler

    from hushrec_server.slow_clients import App

__all__ = ["limited", "server_app"]


def server_app(
    front: Front,
    limits: LimitSettings,
    *,
    more: "tuple[ControllerRouterHandler, ...]" = (),
    chores: tuple[Callable[[], object], ...] = (),
    clock: Callable[[], float] = time.monotonic,
) -> "App":
    """Make the application.

    Args:
        front: The parts.
        limits: How much one client may take.
        more: Further routes, such as the authority's in a demonstration.
        chores: Done in the background now and then, such as signing the newest release's timestamp again.
        clock: Seconds from any start, never backwards.
    """
    ticker = Ticker(front.fleet, front.metrics, clock=clock, chores=chores)
    front.ready.add("rounds", ticker.check)

    def ticking(_: Litestar) -> AbstractAsyncContextManager[None]:
        return ticker.running()

    routes = Litestar(
        [*DEVICE_ROUTES, *OPERATOR_ROUTES, release_file, *more],
        state=State({"front": front}),
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[ticking],
        openapi_config=None,
        logging_config=None,
        debug=False,
        request_max_body_size=None,  # `front.read_body` has a limit for each route
    )
    return limited(routes, front.metrics, limits, clock)


def limited(routes: Litestar, metrics: Metrics, limits: LimitSettings, clock: Callable[[], float]) -> "App":
    """Wrap an application in its limits and counters."""
    rates = TokenBuckets(
        per_minute=limits.address_per_minute, burst=max(10, limits.address_per_minute // 6), clock=clock
    )
    patient = SlowClientLimits(routes, body_s=limits.body_seconds)  # type: ignore[arg-type]
    return Observed(patient, metrics, rates=rates, clock=clock)
