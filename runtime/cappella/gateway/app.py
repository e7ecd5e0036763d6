"""Wires the parts into one ASGI application; holds the one table from errors to HTTP."""

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from cappella import errors
from cappella.auth.gatekeeper import Gatekeeper
from cappella.auth.keys import KeyStore
from cappella.background import background
from cappella.config import Config
from cappella.engines.supervisor import Supervisor
from cappella.ensemble.errors import DeadlineExceeded, InsufficientQuorum, PanelFailed
from cappella.ensemble.pipeline import Pipeline
from cappella.gateway import browser_security, openapi, page
from cappella.gateway.admission import Admission
from cappella.gateway.drain import InFlight
from cappella.gateway.formats.anthropic_errors import error_body
from cappella.gateway.machine import create_router as create_machine_router
from cappella.gateway.reload import ReadConfig, Reloader
from cappella.gateway.request import GONE, ClientGone
from cappella.gateway.routes import GatewayState, create_router
from cappella.placement import machine
from cappella.telemetry import history, records, trace
from cappella.telemetry.metrics import Metrics
from cappella.telemetry.observer import RequestObserver
from cappella.telemetry.persistence import Persistence
from cappella.telemetry.recorder import Recorder
from cappella.telemetry.records import RecordRequests

logger = logging.getLogger("cappella")

# Error class: status, OpenAI's type, code. The nearest class in an error's ancestry decides.
HTTP_TABLE: dict[type[Exception], tuple[int, str, str | None]] = {
    errors.RequestError: (400, "invalid_request_error", None),
    errors.UnknownModel: (404, "invalid_request_error", None),
    errors.UnknownRun: (404, "invalid_request_error", None),
    errors.UnknownEngine: (404, "invalid_request_error", None),
    errors.ModelNotReady: (503, "server_error", "model_not_ready"),
    errors.ActionRefused: (409, "invalid_request_error", "action_refused"),
    errors.ReloadFailed: (409, "server_error", "reload_failed"),
    errors.ConfigError: (400, "invalid_request_error", "config_error"),
    errors.ShuttingDown: (503, "server_error", "shutting_down"),
    errors.Overloaded: (429, "rate_limit_error", "overloaded"),
    errors.RateLimited: (429, "rate_limit_error", "rate_limit_exceeded"),
    errors.AuditUnavailable: (503, "server_error", "audit_unavailable"),
    errors.Unauthorized: (401, "authentication_error", "invalid_api_key"),
    errors.Forbidden: (403, "permission_error", None),
    errors.EngineNotReady: (503, "server_error", "model_not_ready"),
    errors.EngineError: (502, "server_error", "engine_error"),
    errors.JudgeFailed: (502, "server_error", "judge_failed"),
    InsufficientQuorum: (502, "server_error", "insufficient_quorum"),
    DeadlineExceeded: (504, "server_error", "deadline_exceeded"),
    Exception: (500, "server_error", "internal_error"),
}
BODY_STATUS = {"body_too_large": 413, "body_too_slow": 408, "unsupported_media_type": 415}


def create_app(config: Config, supervisor: Supervisor, reread: ReadConfig | None = None) -> FastAPI:
    """The gateway. Engines start with it and stop with it; a reload takes what `reread` says.

    Its `state.generations` is what reloads and drains it.
    """

    gatekeeper = Gatekeeper(KeyStore(config.server.keys) if config.server.keys else None)
    metrics, memory = Metrics(), Persistence(config)
    watch = RequestObserver(config.server, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with watch.kept(), memory.kept():
            await supervisor.start()
            try:
                async with background(gatekeeper.keep()):
                    yield
            finally:
                await supervisor.stop()

    # FastAPI's own document describes no field of ours, and its pages load scripts from elsewhere. Nor is anybody sent
    # on from a path with a slash too much, to a host that the request itself names.
    app = _Gateway(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.include_router(openapi.create_router(gatekeeper, _codes(), keyed=config.server.keys is not None))
    parts = GatewayState(
        deployment=supervisor.deployment,
        pipeline=Pipeline(supervisor.engines),
        recorder=Recorder(metrics, gatekeeper, [watch, *memory.observers]),
        metrics=metrics,
        describe=describe,
        gpus=machine.gpus_now,
        gatekeeper=gatekeeper,
        admission=Admission.of(config),
        in_flight=InFlight(),
        created=int(time.time()),
    )
    app.state.reloader = reloader = Reloader(parts, supervisor, reread or (lambda: config))
    app.include_router(create_router(lambda: reloader.parts, reloader.reload))
    app.include_router(history.create_router(gatekeeper, memory.traces))
    app.include_router(create_machine_router(lambda: reloader.parts, supervisor))
    app.include_router(page.create_router())
    browser_security.shield(app, config.server, _error)
    # Around the shield: who is refused there is counted, too.
    app.add_middleware(RecordRequests, watch=watch.visited)
    _answer_errors(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    app.add_exception_handler(ClientGone, _gone)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _error)
    app.add_exception_handler(errors.CappellaError, _error)


class _Gateway(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        """With words for browsers on all that comes out of it, the framework's own replies too."""
        tls = self.state.reloader.parts.config.server.tls
        return browser_security.Spoken(super().build_middleware_stack(), tls is not None)


def _codes() -> openapi.Codes:
    """Of the table, by status."""
    rows = [(status, code) for status, _, code in HTTP_TABLE.values() if code]
    return {status: tuple(dict.fromkeys(code for other, code in rows if other == status)) for status, _ in rows}


def describe(error: Exception) -> Mapping[str, Any]:
    """The `error` object of a reply, or of an event in a stream that has already begun."""
    _, kind, code = _row(error)
    if code == "internal_error":
        logger.error("internal error", exc_info=error)
        return {"message": "An internal error; the server's log has more.", "type": kind, "param": None, "code": code}
    body: dict[str, Any] = {"message": str(error), "type": kind, "param": None, "code": code}
    if isinstance(error, errors.RequestError):
        body.update(param=error.param, code=error.code)
    if isinstance(error, errors.Forbidden):
        body["code"] = error.code
    if isinstance(error, errors.ConfigError):
        body.update(place=error.place, problem=error.problem, mend=error.mend)
    if isinstance(error, PanelFailed):
        body["responses"] = trace.responses(error.answers)
        body["failed_models"] = trace.failed_models(error.failures)
    return body


async def _error(request: Request, error: Exception) -> Response:
    records.current().error = type(error).__name__
    status = _row(error)[0]
    if isinstance(error, errors.RequestError):
        status = BODY_STATUS.get(error.code, status)
    retry = None
    if isinstance(error, errors.ModelNotReady | errors.Overloaded):
        retry = {"Retry-After": str(error.retry_after_s)}
    return JSONResponse(_body(request, status, describe(error)), status, headers=retry)


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, in the shape of every other error."""
    assert isinstance(error, HTTPException)
    body = {"message": f"{error.detail}.", "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse(_body(request, error.status_code, body), error.status_code, headers=error.headers)


def _body(request: Request, status: int, error: Mapping[str, Any]) -> Mapping[str, Any]:
    """The error in the form of the API that was called."""
    return error_body(status, error) if request.url.path == "/v1/messages" else {"error": error}


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=GONE)


def _row(error: Exception) -> tuple[int, str, str | None]:
    return next(HTTP_TABLE[kind] for kind in type(error).__mro__ if kind in HTTP_TABLE)
