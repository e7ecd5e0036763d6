"""HTTP statuses, codes and JSON bodies of errors, by two tables: by class, and by the code that an error carries.

The OpenAPI document follows from them; `formats/api_errors.py` has the form of each API.
"""

import logging
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cappella import errors
from cappella.ensemble.errors import DeadlineExceeded, InsufficientQuorum, PanelFailed
from cappella.gateway.formats.api_errors import body_for
from cappella.gateway.paths import DOCUMENT
from cappella.gateway.reply_types import ErrorBody
from cappella.gateway.request import CLIENT_CLOSED_REQUEST, ClientGone
from cappella.telemetry import records, trace

_NOT_FOUND = 404

logger = logging.getLogger("cappella")

Codes = Mapping[int, tuple[str, ...]]
"""Error codes by HTTP status."""

# Error class: status, OpenAI's type, code. The first class of an error's MRO that is in the table decides.
HTTP_TABLE: dict[type[Exception], tuple[int, str, str | None]] = {
    errors.RequestError: (400, "invalid_request_error", None),
    errors.ModelNotReady: (503, "server_error", "model_not_ready"),
    errors.ActionRefused: (409, "invalid_request_error", "action_refused"),
    errors.ReloadFailed: (409, "server_error", "reload_failed"),
    errors.ConfigError: (400, "invalid_request_error", "config_error"),
    errors.ShuttingDown: (503, "server_error", "shutting_down"),
    errors.MemoryFull: (503, "server_error", "overloaded"),
    errors.QueueTimeout: (504, "server_error", "deadline_exceeded"),
    errors.Overloaded: (429, "rate_limit_error", "overloaded"),
    errors.RateLimited: (429, "rate_limit_error", "rate_limit_exceeded"),
    errors.AuditUnavailable: (503, "server_error", "audit_unavailable"),
    errors.RunsUnavailable: (503, "server_error", "runs_unavailable"),
    errors.BatchesUnavailable: (503, "server_error", "batches_unavailable"),
    errors.BatchRefused: (409, "invalid_request_error", "batch_refused"),
    errors.KeysUnavailable: (503, "server_error", "keys_unavailable"),
    errors.Unauthorized: (401, "authentication_error", "invalid_api_key"),
    errors.Forbidden: (403, "permission_error", None),
    errors.EngineNotReady: (503, "server_error", "model_not_ready"),
    errors.EngineRejected: (400, "invalid_request_error", "engine_rejected"),
    errors.EngineError: (502, "server_error", "engine_error"),
    errors.JudgeFailed: (502, "server_error", "judge_failed"),
    InsufficientQuorum: (502, "server_error", "insufficient_quorum"),
    DeadlineExceeded: (504, "server_error", "deadline_exceeded"),
    Exception: (500, "server_error", "internal_error"),
}
# Status: codes that a RequestError or Forbidden carries.
CARRIED_CODES: Codes = {
    400: tuple(
        "unknown_field invalid_value invalid_json context_length_exceeded nested_ensemble overrides_forbidden"
        " preset_not_found budget_too_small too_large wrong_task previous_response_not_found quota_exceeded".split()
    ),
    403: ("host_not_allowed", "origin_not_allowed", "scope_missing", "model_not_allowed"),
    404: tuple(
        "model_not_found run_not_found runs_not_kept response_not_found engine_not_found batches_not_kept batch_not_found"
        " file_not_found".split()
    ),
    408: ("body_too_slow",),
    413: ("body_too_large",),
    415: ("unsupported_media_type",),
}
_STATUS_BY_CODE = {code: status for status, codes in CARRIED_CODES.items() for code in codes}


def answer_errors(app: Starlette) -> None:
    """Makes the application reply to every error as the table says."""
    app.add_exception_handler(ClientGone, _gone)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, error_reply)
    app.add_exception_handler(errors.CappellaError, error_reply)


def codes() -> Codes:
    """All error codes by status."""
    rows = [(status, code) for code, status in _STATUS_BY_CODE.items()]
    rows += [(status, code) for status, _, code in HTTP_TABLE.values() if code]
    statuses = sorted({status for status, _ in rows})
    return {each: tuple(dict.fromkeys(code for status, code in rows if status == each)) for each in statuses}


def describe(error: Exception) -> ErrorBody:
    """The `error` object of a reply, or of an event in a stream that has already begun. Logs unexpected errors."""
    _, kind, code = _row(error)
    if code == "internal_error":
        logger.error("internal error", exc_info=error)
        return {"message": "Internal error: see the server's log.", "type": kind, "param": None, "code": code}
    body: ErrorBody = {"message": str(error), "type": kind, "param": None, "code": code}
    if isinstance(error, errors.RequestError):
        body["param"], body["code"] = error.param, error.code
    if isinstance(error, errors.Forbidden):
        body["code"] = error.code
    if isinstance(error, errors.ConfigError):
        body["place"], body["problem"], body["hint"] = error.place, error.problem, error.hint
    if isinstance(error, PanelFailed):
        body["responses"] = trace.responses(error.answers)
        body["failed_models"] = trace.failed_models(error.failures)
    return body


async def error_reply(request: Request, error: Exception) -> Response:
    """The reply to a request that failed with this error."""
    records.current().error = type(error).__name__
    status = _row(error)[0]
    if isinstance(error, errors.RequestError):
        status = _STATUS_BY_CODE.get(error.code, status)
    headers = None
    if isinstance(error, errors.ModelNotReady | errors.Overloaded):
        headers = {"Retry-After": str(error.retry_after_s)}
    return JSONResponse(body_for(request.url.path, status, describe(error)), status, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    """The reply to an unknown path or method, in the form of all other errors: it names what there is."""
    assert isinstance(error, HTTPException)
    path, message = request.url.path, f"{error.detail}."
    if error.status_code == _NOT_FOUND:
        message = request.app.state.paths.hint(path)
    elif allowed := (error.headers or {}).get("Allow"):
        message = f"{path[:100]} takes {allowed}, not {request.method[:20]}. {DOCUMENT}"
    body: ErrorBody = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse(body_for(path, error.status_code, body), error.status_code, headers=error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def _row(error: Exception) -> tuple[int, str, str | None]:
    return next(HTTP_TABLE[kind] for kind in type(error).__mro__ if kind in HTTP_TABLE)
