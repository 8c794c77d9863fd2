"""Errors as HTTP answers: problem+json (RFC 9457) for everything that is refused or goes wrong, in one place.

The reason of every refusal is left in the request's scope for the log and the counters. An unexpected error answers 500
without a word about its cause, which goes to the log as a type and places in the code.
"""

import math
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec
from hushrec.messages import PROBLEM_TYPE, problem_of
from hushrec_privacy.errors import FleetError, HushrecError
from litestar import Request, Response
from litestar.exceptions import HTTPException

from hushrec_server.logs import log_fault

__all__ = ["EXCEPTION_HANDLERS", "REFUSAL", "problem_answer", "refusal_reason"]

REFUSAL = "hushrec.refusal"
"""Key of a request's scope: why it was refused."""

_HTTP_REASONS = {401: "unauthorized", 404: "not-found", 405: "wrong-method", 413: "too-large"}
_HTTP_TEXTS = {
    "not-found": "there is nothing under this path",
    "wrong-method": "this path does not take this method",
    "too-large": "the body is longer than this path takes",
}


def problem_answer(error: HushrecError) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to an error."""
    problem = problem_of(error)
    headers = {"content-type": PROBLEM_TYPE, "cache-control": "no-store"}
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(problem.retry_after_s))
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return problem.status, headers, msgspec.json.encode(problem)


def refusal_reason(error: HushrecError) -> str:
    """The one word that log and counters have for it."""
    return error.reason if isinstance(error, FleetError) else error.code


def _answer(request: Request[Any, Any, Any], error: HushrecError) -> Response[bytes]:
    scope: MutableMapping[str, Any] = request.scope  # type: ignore[assignment]
    scope[REFUSAL] = refusal_reason(error)
    status, headers, body = problem_answer(error)
    if status >= 500 and not isinstance(error, FleetError):  # "busy" is a refusal like any other
        log_fault("failed", error)
    return Response(body, status_code=status, headers=headers, media_type=PROBLEM_TYPE)


def _of_hushrec(request: Request[Any, Any, Any], error: HushrecError) -> Response[bytes]:
    return _answer(request, error)


def _of_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    reason = _HTTP_REASONS.get(error.status_code, "malformed")
    text = _HTTP_TEXTS.get(reason, "the request is not one that this path takes")
    return _answer(request, FleetError(text, reason=reason))


def _of_anything(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log_fault("bug", error)
    return _answer(request, HushrecError("unexpected"))


EXCEPTION_HANDLERS: dict[int | type[Exception], Callable[[Request[Any, Any, Any], Any], Response[bytes]]] = {
    HushrecError: _of_hushrec,
    HTTPException: _of_http,
    Exception: _of_anything,
}
"""For `Litestar(exception_handlers=…)`."""
