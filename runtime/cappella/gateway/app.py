"""Wires the parts into one ASGI application."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from cappella.auth.gatekeeper import Gatekeeper
from cappella.auth.keys import KeyStore
from cappella.background import background
from cappella.config import Config
from cappella.engines.supervisor import Supervisor
from cappella.ensemble.pipeline import Pipeline
from cappella.gateway import browser_security, errors, health, openapi, page, runs
from cappella.gateway.admission import Admission
from cappella.gateway.drain import InFlight
from cappella.gateway.machine import create_router as create_machine_router
from cappella.gateway.middleware import RecordRequests
from cappella.gateway.reload import ReadConfig, Reloader
from cappella.gateway.routes import create_router
from cappella.gateway.state import GatewayState
from cappella.placement import machine
from cappella.telemetry.metrics import Metrics
from cappella.telemetry.observer import RequestObserver
from cappella.telemetry.persistence import Persistence
from cappella.telemetry.recorder import Recorder


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
                async with background(gatekeeper.write_usage()):
                    yield
            finally:
                await supervisor.stop()

    # FastAPI's own document describes no field of ours, and its pages load scripts from elsewhere. Nor is anybody sent
    # on from a path with a slash too much, to a host that the request itself names.
    app = _Gateway(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.include_router(openapi.create_router(gatekeeper, errors.codes(), keyed=config.server.keys is not None))
    parts = GatewayState(
        deployment=supervisor.deployment,
        pipeline=Pipeline(supervisor.engines),
        recorder=Recorder(metrics, gatekeeper, [watch, *memory.observers]),
        metrics=metrics,
        describe=errors.describe,
        gpus=machine.gpus_now,
        gatekeeper=gatekeeper,
        admission=Admission.of(config),
        in_flight=InFlight(),
        created=int(time.time()),
    )
    app.state.reloader = reloader = Reloader(parts, supervisor, reread or (lambda: config))
    app.include_router(create_router(lambda: reloader.parts, reloader.reload))
    app.include_router(health.create_router(lambda: reloader.parts))
    app.include_router(runs.create_router(gatekeeper, memory.traces))
    app.include_router(create_machine_router(lambda: reloader.parts, supervisor))
    app.include_router(page.create_router())
    browser_security.shield(app, config.server, errors.error_reply)
    # Around the shield: who is refused there is counted, too.
    app.add_middleware(RecordRequests, observe=watch.visited)
    errors.answer_errors(app)
    return app


class _Gateway(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        """With words for browsers on all that comes out of it, the framework's own replies too."""
        tls = self.state.reloader.parts.config.server.tls
        return browser_security.Spoken(super().build_middleware_stack(), tls is not None)
