"""Assembles the gateway: one ASGI application with its state, routers and middleware."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Lifespan

from cappella.auth.gatekeeper import Gatekeeper
from cappella.auth.keys import KeyStore
from cappella.background import background
from cappella.config import Config
from cappella.engines.supervisor import Supervisor
from cappella.ensemble.pipeline import Pipeline
from cappella.gateway import browser_security, errors, health, models, ollama, openapi, page, runs, tokens
from cappella.gateway.admission import Admission
from cappella.gateway.body_memory import BodyMemory
from cappella.gateway.drain import InFlight
from cappella.gateway.ignored import IgnoredFields
from cappella.gateway.machine import create_router as create_machine_router
from cappella.gateway.middleware import CloseUnfinished, RecordRequests
from cappella.gateway.paths import Paths, RightPath
from cappella.gateway.reload import ReadConfig, Reloader
from cappella.gateway.routes import create_router
from cappella.gateway.state import GatewayState
from cappella.placement import machine
from cappella.telemetry.metrics import Metrics
from cappella.telemetry.observer import RequestObserver
from cappella.telemetry.persistence import Persistence
from cappella.telemetry.recorder import Recorder


def create_app(config: Config, supervisor: Supervisor, read_config: ReadConfig | None = None) -> FastAPI:
    """The gateway. Its lifespan starts and stops the engines; a reload serves what `read_config` returns.

    `app.state.reloader` reloads and drains it.
    """
    gatekeeper = Gatekeeper(KeyStore(config.server.keys) if config.server.keys else None)
    metrics, persistence = Metrics(), Persistence(config)
    observer = RequestObserver(config.server, metrics)
    # FastAPI's own document would not describe our fields, and its pages load scripts from other hosts. A redirect of a
    # path with a trailing slash would go to whatever host the request names.
    lifespan = _lifespan(supervisor, gatekeeper, observer, persistence)
    app = _Gateway(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    state = GatewayState(
        deployment=supervisor.deployment,
        pipeline=Pipeline(supervisor.engines),
        recorder=Recorder(metrics, gatekeeper, [observer, *persistence.observers]),
        metrics=metrics,
        describe=errors.describe,
        gpus=machine.gpus_now,
        gatekeeper=gatekeeper,
        admission=Admission.of(config),
        bodies=BodyMemory(config.server.waiting_bytes),
        in_flight=InFlight(),
        ignored=IgnoredFields(metrics),
        created=int(time.time()),
    )
    app.state.reloader = reloader = Reloader(state, supervisor, read_config or (lambda: config))
    for router in _routers(reloader, supervisor, gatekeeper, persistence):
        # Not `include_router`: for a prefix or the like, of which there is none here, it would make each route again.
        app.router.routes += router.routes
    browser_security.protect(app, config.server, errors.error_reply)
    # The page's own files are no endpoints: their paths are known.
    app.state.paths = Paths(
        [route.path_format for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    )
    app.add_middleware(RightPath, paths=app.state.paths)
    # Outside the browser checks: requests that they refuse are counted, too.
    app.add_middleware(RecordRequests, observe=observer.request_ended)
    errors.answer_errors(app)
    return app


def _routers(
    reloader: Reloader, supervisor: Supervisor, gatekeeper: Gatekeeper, persistence: Persistence
) -> Iterator[APIRouter]:
    keyed = reloader.state.config.server.keys is not None
    yield openapi.create_router(gatekeeper, keyed)
    yield create_router(lambda: reloader.state, reloader.reload)
    yield models.create_router(lambda: reloader.state)
    yield tokens.create_router(lambda: reloader.state)
    yield ollama.create_router(lambda: reloader.state)
    yield health.create_router(lambda: reloader.state)
    yield runs.create_router(gatekeeper, persistence.run_store)
    yield create_machine_router(lambda: reloader.state, supervisor)
    yield page.create_router()


def _lifespan(
    supervisor: Supervisor, gatekeeper: Gatekeeper, observer: RequestObserver, persistence: Persistence
) -> Lifespan[FastAPI]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with observer.running(), persistence.running():
            await supervisor.start()
            try:
                async with background(gatekeeper.write_usage()):
                    yield
            finally:
                await supervisor.stop()

    return lifespan


class _Gateway(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        """Adds the security headers to all replies, those of the framework included, and ends unfinished requests."""
        tls = self.state.reloader.state.config.server.tls
        return CloseUnfinished(browser_security.SecurityHeaders(super().build_middleware_stack(), tls is not None))
