"""uvicorn as the HTTP server of the application, with drain, reload on SIGHUP, and notifications to systemd."""

import asyncio
import gc
import os
import resource
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import LOGGING_CONFIG

from cappella.background import background
from cappella.config import Tls
from cappella.errors import CappellaError, ConfigError, cause
from cappella.gateway.connection_limits import ConnectionLimits
from cappella.gateway.console import Reporter, TextReporter
from cappella.gateway.http_protocol import connections
from cappella.gateway.reload import Reloader
from cappella.gateway.state import GatewayState
from cappella.gateway.systemd import Systemd

POLL_S = 0.2
CANCEL_GRACE_S = 5
"""Time beyond the drain for replies to what was cancelled."""
ENGINES_STOP_S = 60
"""Time beyond that for the engines: each has a grace period before it is killed."""
MAX_FILES = 65_536
COLLECT_AFTER = (20_000, 50, 20)
# httpx, and so OpenAI's client, also keeps idle connections for 5 s, uvicorn's default: a request that is sent as the
# server closes the connection would be lost.
KEEP_ALIVE_S = 75


def http_server(app: Starlette, tls: Tls | None = None, reporter: Reporter = TextReporter()) -> uvicorn.Server:
    """The server of an application made by `create_app`, as `cappella serve` runs it."""
    secured: dict[str, Any] = {}
    if tls is not None:
        secured = {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.private_key, "ssl_ca_certs": tls.client_ca}
        secured["ssl_cert_reqs"] = ssl.CERT_REQUIRED if tls.client_ca else ssl.CERT_NONE
    # What exists by now lives as long as the process. A full collection under load stalled every stream for 60 ms; young
    # collections, which free what runs leave behind, take less than 5.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    reloader: Reloader = app.state.reloader
    protocol: Any = connections(connection_limits(reloader.state, raise_file_limit()))
    return _Server(
        uvicorn.Config(
            app,
            # uvicorn's own log handlers would write text among lines of JSON.
            log_config=None if reporter.writes_json else LOGGING_CONFIG,
            http=protocol,
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            lifespan="on",
            server_header=False,
            **secured,
        ),
        reloader,
        reporter,
    )


def connection_limits(state: GatewayState, max_files: int) -> ConnectionLimits:
    """The bounds on connections of the config that a server starts with; the metrics count what they refuse."""
    server = state.config.server
    max_in_all = min(server.max_connections, max_files // 2)
    return ConnectionLimits(max_in_all, server.max_connections_per_address, state.metrics.count_refused_connection)


def raise_file_limit() -> int:
    """Let this process have as many open files as it may; returns how many. A shell's limit is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft if soft != resource.RLIM_INFINITY else MAX_FILES


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError if the port cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # The address is printed before uvicorn accepts: until then a client waits instead of being refused.
        listener.listen()
    except OSError as error:
        listener.close()
        place, hint = f"server.port: {host}:{port}", "Stop the process that uses it, or choose another port with --port"
        raise ConfigError(place, f"cannot be bound ({cause(error)})", hint) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn with a drain before it stops, reload on SIGHUP, and notifications to systemd.

    uvicorn raises SIGINT or SIGTERM again after its shutdown; here the process exits with code 0 instead.
    """

    def __init__(self, config: uvicorn.Config, reloader: Reloader, reporter: Reporter) -> None:
        super().__init__(config)
        self._reloader = reloader
        self._reporter = reporter
        self._reloads: set[asyncio.Task[None]] = set()
        self._systemd = Systemd.from_environment(os.environ)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with self._systemd.watchdog(), background(self._notify_once_ready()):
            await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        drain_s = self._reloader.state.config.server.drain_s
        self._systemd.stopping(drain_s + CANCEL_GRACE_S + ENGINES_STOP_S)
        # A reload may have changed it since the start.
        self.config.timeout_graceful_shutdown = round(drain_s + CANCEL_GRACE_S)
        async with background(_drain(self._reloader, self._reporter)):
            await super().shutdown(sockets)

    def _reload(self) -> None:
        task = asyncio.create_task(self._reload_and_notify())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_and_notify(self) -> None:
        self._systemd.reloading()
        await _reload(self._reloader, self._reporter)
        await self._notify_once_ready()

    async def _notify_once_ready(self) -> None:
        """Notify systemd as soon as one ensemble can answer."""
        while not any(self._reloader.state.deployment.answering().values()):
            await asyncio.sleep(POLL_S)
        names = [f"cappella/{name}" for name, can in self._reloader.state.deployment.answering().items() if can]
        self._systemd.ready(f"Answers as {', '.join(names)}")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for each in signals:
            loop.add_signal_handler(each, self.handle_exit, each, None)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            yield
        finally:
            for each in (*signals, signal.SIGHUP):
                loop.remove_signal_handler(each)


async def _drain(reloader: Reloader, reporter: Reporter) -> None:
    drain_s = reloader.state.config.server.drain_s
    if count := reloader.in_flight:
        message = f"Stopping: requests in flight have {drain_s:g} s to finish ({count} of them)."
        reporter.report("stopping", message, inside=count)
    if count := await reloader.drain(drain_s):
        reporter.report("cut", f"Cancelled {count} requests that did not finish in time.", cut=count)


async def _reload(reloader: Reloader, reporter: Reporter) -> None:
    """Reload, and report the result: a signal has no reply that could."""
    try:
        reloaded = await reloader.reload()
        engines = {"started": reloaded["started"], "ended": reloaded["ended"], "kept": reloaded["kept"]}
        summary = "; ".join(f"{change} {', '.join(names)}" for change, names in engines.items() if names)
        reporter.report("reloaded", f"Reloaded: {summary}.", **reloaded)
    except CappellaError as error:
        reporter.report_failure("not_reloaded", f"Not reloaded: {error}")
