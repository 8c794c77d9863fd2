"""The authority over HTTP: one route for devices, and one that says that it is alive."""

import asyncio
import time
from typing import TYPE_CHECKING

from hushrec.messages import ROUTES, CertificateAnswer, CertificateBody, read_json
from litestar import Litestar, Response, post
from litestar.handlers import HTTPRouteHandler

from hushrec_server.app import limited
from hushrec_server.authority import Authority
from hushrec_server.config import LimitSettings
from hushrec_server.front import Asked, read_body
from hushrec_server.metrics import Metrics
from hushrec_server.operator_routes import health
from hushrec_server.problems import EXCEPTION_HANDLERS
from hushrec_server.routing import JSON, json_bytes, litestar_path

if TYPE_CHECKING:
    from hushrec_server.slow_clients import App

__all__ = ["AUTHORITY_LIMITS", "authority_app", "certificate_route"]

AUTHORITY_LIMITS = LimitSettings(address_per_minute=60, connections=256, connections_per_address=32)
"""A device asks once a plan; shops behind one address ask for many."""


def certificate_route(authority: Authority) -> HTTPRouteHandler:
    """The route that gives certificates."""

    @post(litestar_path("certificate"), name="certificate", status_code=200)
    async def certificate(request: Asked) -> Response[bytes]:
        """Give the certificate of an account and plan."""
        body = read_json(await read_body(request, ROUTES["certificate"].body_bytes), CertificateBody)
        given = await asyncio.to_thread(authority.certify, body)
        return Response(json_bytes(CertificateAnswer(given)), media_type=JSON)

    return certificate


def authority_app(authority: Authority, limits: LimitSettings = AUTHORITY_LIMITS) -> "App":
    """The whole application of an authority that runs by itself."""
    routes = Litestar(
        [certificate_route(authority), health],
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None,
        logging_config=None,
        debug=False,
        request_max_body_size=None,
    )
    return limited(routes, Metrics(), limits, time.monotonic)
