"""Assembles the gateway: one ASGI application with its state, routers and middleware."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan

from cappella.auth.gatekeeper import Gatekeeper
from cappella.auth.keys import KeyStore
from cappella.background import background
from cappella.batch.runner import running
from cappella.batch.store import BatchStore
from cappella.config import Config
from cappella.config.server import Server
from cappella.engines.supervisor import Supervisor, default_log_dir
from cappella.ensemble.pipeline import Pipeline
from cappella.gateway import (
    batches,
    browser_security,
    docs_pages,
    documents,
    errors,
    files,
    health,
    judge,
    message_batches,
    models,
    ollama,
    openapi,
    page,
    pooling,
    runs,
    stored_responses,
    tokens,
)
from cappella.gateway.admission import Admission
from cappella.gateway.batch_rows import begin_rows
from cappella.gateway.body_memory import BodyMemory
from cappella.gateway.drain import InFlight
from cappella.gateway.ignored import IgnoredFields
from cappella.gateway.kept_responses import KeptResponses
from cappella.gateway.machine import create_router as create_machine_router
from cappella.gateway.machine import load_of, reading_of
from cappella.gateway.machine_details import create_router as create_details_router
from cappella.gateway.mcp import endpoint as mcp
from cappella.gateway.middleware import CloseUnfinished, RecordRequests
from cappella.gateway.paths import Paths, RightPath
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.reload import ReadConfig, Reloader
from cappella.gateway.routes import APIS, create_router
from cappella.gateway.state import GatewayState
from cappella.placement import machine
from cappella.telemetry.engine_metrics import Reading
from cappella.telemetry.figures_history import FiguresHistory
from cappella.telemetry.metrics import Metrics
from cappella.telemetry.observer import RequestObserver
from cappella.telemetry.persistence import Persistence
from cappella.telemetry.recorder import Recorder
from cappella.tools.servers import ToolServers


def create_app(
    config: Config,
    supervisor: Supervisor,
    read_config: ReadConfig | None = None,
    tool_servers: ToolServers | None = None,
) -> Starlette:
    """The gateway. Its lifespan starts and stops the engines and tool servers; a reload serves what `read_config` returns.

    `app.state.reloader` reloads and drains it.
    """
    tool_servers = tool_servers or ToolServers(config, default_log_dir("tools"), supervisor.engines)
    gatekeeper = Gatekeeper(KeyStore(config.server.keys) if config.server.keys else None)
    metrics, persistence = Metrics(), Persistence(config)
    observer = RequestObserver(config.server, metrics, APIS)
    responses = _kept_responses(config, persistence, observer)
    batch = config.server.batch
    batch_store = BatchStore(batch.folder, batch.retention_days, batch.max_bytes_per_key) if batch else None
    # FastAPI's own document would not describe our fields, and its pages load scripts from other hosts. A redirect of a
    # path with a trailing slash would go to whatever host the request names.
    tools = mcp.McpEndpoint(lambda: reloader.state)
    read_figures = reading_of(lambda: reloader.state, supervisor)
    history = FiguresHistory(read_figures, lambda: load_of(reloader.state))
    rows = running(batch_store, lambda: begin_rows(lambda: reloader.state, supervisor.swap_scheduler))
    lifespan = _lifespan(supervisor, tool_servers, gatekeeper, tools, observer, persistence, responses, history, rows)
    app = _Gateway(lifespan=lifespan)
    # A redirect of a path with a trailing slash would go to whatever host the request names.
    app.router.redirect_slashes = False
    recorder = Recorder(metrics, gatekeeper, [observer, *persistence.observers])
    state = _state(config, supervisor, tool_servers, recorder, metrics, gatekeeper, responses, batch_store)
    app.state.reloader = reloader = Reloader(state, supervisor, read_config or (lambda: config), persistence.actions)
    routers = [*_routers(reloader, gatekeeper, persistence)]
    routers += _machine_routers(reloader, supervisor, read_figures, history, observer, persistence)
    if config.server.mcp and tools.is_installed():
        routers.append(tools.create_router())
    app.router.routes += [route for router in routers for route in router.routes]
    _wrap(app, config.server, observer)
    return app


def _state(
    config: Config,
    supervisor: Supervisor,
    tool_servers: ToolServers,
    recorder: Recorder,
    metrics: Metrics,
    gatekeeper: Gatekeeper,
    responses: KeptResponses | None,
    batches: BatchStore | None,
) -> GatewayState:
    return GatewayState(
        deployment=supervisor.deployment,
        pipeline=Pipeline(supervisor.engines, tool_servers),
        tool_servers=tool_servers,
        recorder=recorder,
        metrics=metrics,
        describe=errors.describe,
        gpus=machine.gpus_now,
        gatekeeper=gatekeeper,
        admission=Admission.of(config, supervisor.deployment.max_calls),
        bodies=BodyMemory(config.server.waiting_bytes),
        in_flight=InFlight(),
        rows=InFlight(),
        ignored=IgnoredFields(metrics),
        responses=responses,
        batches=batches,
        created=int(time.time()),
    )


def _kept_responses(config: Config, persistence: Persistence, observer: RequestObserver) -> KeptResponses | None:
    if persistence.responses is None:
        return None
    most = config.server.runs.max_background if config.server.runs else 0
    return KeptResponses(persistence.responses, most, errors.describe, observer.background_ended)


def _wrap(app: Starlette, server: Server, observer: RequestObserver) -> None:
    """Put around the routes what each request passes on its way to them."""
    browser_security.protect(app, server, errors.error_reply)
    app.state.paths = Paths([each.path_format for each in app.routes if isinstance(each, Route) and _is_endpoint(each)])
    app.add_middleware(RightPath, paths=app.state.paths)
    # Outside the browser checks: requests that they refuse are counted, too.
    app.add_middleware(RecordRequests, observe=observer.request_ended)
    errors.answer_errors(app)


def _routers(reloader: Reloader, gatekeeper: Gatekeeper, persistence: Persistence) -> Iterator[PlainRoutes]:
    keyed = reloader.state.config.server.keys is not None
    yield openapi.create_router(gatekeeper, keyed)
    yield create_router(lambda: reloader.state, reloader.reload)
    yield stored_responses.create_router(lambda: reloader.state)
    yield models.create_router(lambda: reloader.state)
    yield tokens.create_router(lambda: reloader.state)
    yield pooling.create_router(lambda: reloader.state)
    yield judge.create_router(lambda: reloader.state)
    yield documents.create_router(lambda: reloader.state)
    yield ollama.create_router(lambda: reloader.state)
    yield health.create_router(lambda: reloader.state)
    yield runs.create_router(gatekeeper, persistence.run_store)
    yield files.create_router(lambda: reloader.state, persistence.actions)
    yield batches.create_router(lambda: reloader.state, persistence.actions)
    yield message_batches.create_router(lambda: reloader.state, persistence.actions)
    yield page.create_router()
    yield docs_pages.create_router()


def _machine_routers(
    reloader: Reloader,
    supervisor: Supervisor,
    read: Callable[[], Awaitable[Reading]],
    history: FiguresHistory,
    observer: RequestObserver,
    persistence: Persistence,
) -> Iterator[PlainRoutes]:
    yield create_machine_router(lambda: reloader.state, supervisor, persistence.actions, read)
    calls, digest_of = observer.recent_calls, persistence.digest_of
    yield create_details_router(lambda: reloader.state, supervisor, history, calls, digest_of)


def _is_endpoint(route: Route) -> bool:
    """The page's own files are none: their paths are known."""
    return route.include_in_schema or route.path_format == mcp.PATH


def _lifespan(
    supervisor: Supervisor,
    tool_servers: ToolServers,
    gatekeeper: Gatekeeper,
    tools: mcp.McpEndpoint,
    observer: RequestObserver,
    persistence: Persistence,
    responses: KeptResponses | None,
    history: FiguresHistory,
    rows: AbstractAsyncContextManager[None],
) -> Lifespan[Starlette]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with observer.running(), persistence.running():
            await supervisor.start()
            try:
                async with (
                    tool_servers.running(),
                    background(gatekeeper.write_usage()),
                    background(history.sample_forever()),
                    tools.running(),
                    rows,
                ):
                    yield
            finally:
                if responses:
                    await responses.stop()
                await supervisor.stop()

    return lifespan


class _Gateway(Starlette):
    def build_middleware_stack(self) -> ASGIApp:
        """Adds the security headers to all replies, those of the framework included, and ends unfinished requests."""
        tls = self.state.reloader.state.config.server.tls
        return CloseUnfinished(browser_security.SecurityHeaders(super().build_middleware_stack(), tls is not None))
