"""The HTTP application of the aggregation server: the routes, wrapped in what limits and observes them.

Built from parts that exist already (`hushrec_server.assembly` makes them); opens no file and starts no process.
"""

import re
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from hushrec_privacy.errors import FleetError
from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.static_files import create_static_files_router

from hushrec_server.config import LimitSettings
from hushrec_server.device_routes import DEVICE_ROUTES
from hushrec_server.front import Asked, Front, in_path
from hushrec_server.metrics import Metrics
from hushrec_server.observed import Observed
from hushrec_server.operator_routes import OPERATOR_ROUTES
from hushrec_server.problems import EXCEPTION_HANDLERS
from hushrec_server.rates import TokenBuckets
from hushrec_server.slow_clients import SlowClientLimits
from hushrec_server.ticker import Ticker

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler

    from hushrec_server.slow_clients import App

__all__ = ["limited", "server_app"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_DEEPEST = 6


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

    static: tuple[Router, ...] = ()
    if front.releases is not None:
        static = (
            create_static_files_router("/releases", [front.releases], name="releases", before_request=_check_file),
        )
    routes = Litestar(
        [*DEVICE_ROUTES, *OPERATOR_ROUTES, *static, *more],
        state=State({"front": front}),
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[ticking],
        openapi_config=None,
        logging_config=None,
        debug=False,
        request_max_body_size=None,  # `front.read_body` has a limit for each route
    )
    return limited(routes, front.metrics, limits, clock)


def _check_file(request: Asked) -> None:
    """Let only names pass that a release repository shows to all; what is odd never reaches the file system."""
    names = in_path(request, "file_path").lstrip("/").split("/")
    if names[0] not in ("metadata", "targets") or len(names) > _DEEPEST or not all(map(_NAME.fullmatch, names)):
        raise FleetError("there is nothing under this path", reason="not-found")


def limited(routes: Litestar, metrics: Metrics, limits: LimitSettings, clock: Callable[[], float]) -> "App":
    """Wrap an application in its limits and counters."""
    rates = TokenBuckets(
        per_minute=limits.address_per_minute, burst=max(10, limits.address_per_minute // 6), clock=clock
    )
    patient = SlowClientLimits(routes, body_s=limits.body_seconds)  # type: ignore[arg-type]
    return Observed(patient, metrics, rates=rates, clock=clock)
