"""`cappella serve` as a person sees it: checks first, engines loading, the address and a line to try."""

import asyncio
import gc
import json
import os
import shlex
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI
from rich.text import Text
from uvicorn.config import LOGGING_CONFIG

from cappella.config import Config, Tls
from cappella.engines.status import EngineStatus
from cappella.engines.supervisor import Supervisor, default_log_dir
from cappella.errors import CappellaError, ConfigError
from cappella.gateway.app import create_app
from cappella.gateway.console import Announcer, ForPeople, ForPrograms, stages, tell_stages
from cappella.gateway.http_protocol import Connection
from cappella.gateway.reload import Reloader
from cappella.gateway.routes import GatewayState
from cappella.gateway.systemd import Systemd
from cappella.placement.report import as_dict, picture
from cappella.sealing import guard
from cappella.telemetry import logs, tracing

EXIT_CONFIG = 2
REFRESH_S = 0.2
CUT_S = 5
"""Beyond the time to drain: what was cut is told so."""
ENGINES_END_S = 60
"""Beyond that, at most: every engine has a grace before it is ended by force."""
COLLECT_AFTER = (20_000, 50, 20)
# uvicorn's own 5 s are just what httpx, and so OpenAI's client, keeps an idle connection for: a call that was sent as
# it was closed was lost.
KEEP_ALIVE_S = 75


def serve(read: Callable[[], Config], log_dir: Path | None) -> int:
    """Serve what is read, until told to stop; returns the exit code. It is read again to be served anew.

    Raises ConfigError for what can be known before the start; where logs are JSON, that is a line like others.
    """
    config = read()
    if config.server.log_format == "text":
        return _run(config, read, log_dir, ForPeople())
    logs.as_json()
    announcer = ForPrograms()
    try:
        return _run(config, read, log_dir, announcer)
    except CappellaError as error:
        announcer.fail("refused", str(error))
        return EXIT_CONFIG if isinstance(error, ConfigError) else 1


def _run(config: Config, read: Callable[[], Config], log_dir: Path | None, announcer: Announcer) -> int:
    server = config.server
    if server.tracing:
        tracing.require_installed()
    listener = bind(server.host, server.port)
    port = listener.getsockname()[1]
    log_dir = log_dir or server.log_dir or default_log_dir(str(port))
    supervisor = Supervisor(config, log_dir)
    announcer.say("plan", "What lies where.", picture(supervisor.plan), **as_dict(supervisor.plan))
    guard.install([str(address) for address in server.may_reach], announcer.refused)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        app = create_app(config, supervisor, read)
        url = f"{'https' if server.tls else 'http'}://{server.host}:{port}"
        return runner.run(_serve(app, supervisor, listener, url, log_dir, announcer))


class _Server(uvicorn.Server):
    """uvicorn, that drains before it stops, reloads on SIGHUP, and keeps systemd informed.

    It ends by raising the signal that stopped it once more; a stop that was asked for is exit code 0 here.
    """

    def __init__(self, config: uvicorn.Config, reloader: Reloader, announcer: Announcer) -> None:
        super().__init__(config)
        self._generations = reloader
        self._announcer = announcer
        self._reloads: set[asyncio.Task[None]] = set()
        self._systemd = Systemd.around(os.environ)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with self._systemd.watching():
            starting = asyncio.create_task(self._tell_once_ready())
            try:
                await super().serve(sockets)
            finally:
                starting.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._systemd.stopping(self._generations.parts.config.server.drain_s + CUT_S + ENGINES_END_S)
        draining = asyncio.create_task(_drain(self._generations, self._announcer))
        await super().shutdown(sockets)
        draining.cancel()

    def _reload(self) -> None:
        task = asyncio.create_task(self._reload_and_tell())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_and_tell(self) -> None:
        self._systemd.reloading()
        await _reload(self._generations, self._announcer)
        await self._tell_once_ready()

    async def _tell_once_ready(self) -> None:
        """Ready is who can answer as one ensemble at least."""
        while not (names := _answering(self._generations.parts)):
            await asyncio.sleep(REFRESH_S)
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


def _answering(parts: GatewayState) -> list[str]:
    """The ensembles that can."""
    up = [name for name, engine in parts.engines.items() if engine.status.accepts_requests]
    return [f"cappella/{name}" for name, ensemble in parts.config.ensembles.items() if ensemble.can_answer(up)]


async def _drain(reloader: Reloader, announcer: Announcer) -> None:
    drain_s = reloader.parts.config.server.drain_s
    if inside := reloader.inside:
        announcer.say("stopping", f"Stopping: {inside} under way, which have {drain_s:g} s to end.", inside=inside)
    if cut := await reloader.drain(drain_s):
        announcer.say("cut", f"{cut} were cut.", cut=cut)


async def _reload(reloader: Reloader, announcer: Announcer) -> None:
    """As SIGHUP asks for it: nobody waits for what comes of it, so that it is told here."""
    try:
        told = await reloader.reload()
        words = [f"{what} {', '.join(told[what])}" for what in ("started", "ended", "kept") if told[what]]
        announcer.say("reloaded", f"Reloaded: {'; '.join(words)}.", **told)
    except CappellaError as error:
        announcer.fail("not_reloaded", f"Not reloaded: {error}")


def http_server(app: FastAPI, tls: Tls | None = None, announcer: Announcer = ForPeople()) -> uvicorn.Server:
    """The server around the application of `create_app`, as `cappella serve` runs it."""
    secured: dict[str, Any] = {}
    if tls is not None:
        secured = {"ssl_certfile": tls.certificate, "ssl_keyfile": tls.private_key, "ssl_ca_certs": tls.client_ca}
        secured["ssl_cert_reqs"] = ssl.CERT_REQUIRED if tls.client_ca else ssl.CERT_NONE
    # Whatever is there by now stays. A full collection under load held every stream up for 60 ms; the young ones,
    # which find what runs leave behind, take less than 5.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    reloader: Reloader = app.state.reloader
    return _Server(
        uvicorn.Config(
            app,
            # Its own handlers would write text among lines of JSON.
            log_config=None if announcer.for_programs else LOGGING_CONFIG,
            http=Connection,
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=round(reloader.parts.config.server.drain_s + CUT_S),
            lifespan="on",
            server_header=False,
            **secured,
        ),
        reloader,
        announcer,
    )


async def _serve(
    app: FastAPI, supervisor: Supervisor, listener: socket.socket, url: str, log_dir: Path, announcer: Announcer
) -> int:
    config = supervisor.deployment.config
    server = http_server(app, config.server.tls, announcer)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    attached = f", {', '.join(config.remote)} attached" if config.remote else ""
    message = f"Gateway on {url}; starting {len(config.local)} engines (logs in {log_dir}){attached}"
    announcer.say("listening", message, url=url, engines=list(config.models), log_dir=log_dir)
    watching = asyncio.create_task(_watch_start(config, supervisor.statuses, announcer))
    await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
    exit_code = 0
    if not serving.done():
        exit_code = _report(config, supervisor, url, announcer)
        server.should_exit = server.should_exit or exit_code != 0
        watching = asyncio.create_task(_follow(supervisor, announcer))
    await serving
    watching.cancel()
    announcer.say("stopped", "Stopped; no engine is left running.")
    return exit_code


async def _watch_start(config: Config, statuses: Mapping[str, EngineStatus], announcer: Announcer) -> None:
    """Show every engine's stage until each is ready or given up, and say of each ensemble when it can answer."""
    answering: set[str] = set()
    with stages(announcer, statuses) as show:
        while True:
            show()
            _announce(config, statuses, answering, announcer)
            if all(status.start_finished for status in statuses.values()):
                return
            await asyncio.sleep(REFRESH_S)


async def _follow(supervisor: Supervisor, announcer: Announcer) -> None:
    """For programs, go on saying what becomes of the engines; a person asks /ready."""
    told = {name: (status.stage, status.restarts) for name, status in supervisor.statuses.items()}
    while announcer.for_programs:
        await asyncio.sleep(REFRESH_S)
        tell_stages(announcer, told, supervisor.statuses)


def _announce(config: Config, statuses: Mapping[str, EngineStatus], answering: set[str], announcer: Announcer) -> None:
    """Say once of each ensemble that it answers, if that is before the last engine is up."""
    up = config.hosted(name for name, status in statuses.items() if status.accepts_requests)
    starting = [name for name, status in statuses.items() if not status.start_finished]
    for name, ensemble in config.ensembles.items():
        if starting and name not in answering and ensemble.can_answer(up):
            answering.add(name)
            message = f"cappella/{name} answers now; still starting: {', '.join(starting)}"
            announcer.say("answering", message, ensemble=name, starting=starting)


def _report(config: Config, supervisor: Supervisor, url: str, announcer: Announcer) -> int:
    """Say what came up and what did not; returns EXIT_CONFIG if no ensemble can answer."""
    failed = {name for name, status in supervisor.statuses.items() if status.state == "failed"}
    for name in sorted(failed):
        lifecycle = supervisor.lifecycles[name]
        log, words = lifecycle.log, lifecycle.last_words()
        announcer.fail("engine_failed", f"{name} {supervisor.statuses[name].stage}", words, model=name, log=log)
    up = config.hosted(name for name in config.models if name not in failed)
    usable = [name for name, ensemble in config.ensembles.items() if ensemble.can_answer(up)]
    if not usable:
        announcer.fail("useless", "No ensemble can answer: stopping.")
        return EXIT_CONFIG
    names = [f"cappella/{name}" for name in usable]
    example = _example(url, usable[0], config.ensembles[usable[0]].example)
    shown = Text(f"Ready: {', '.join(names)} on {url}. Try:\n\n{example}")
    announcer.say("ready", f"Ready: {', '.join(names)} on {url}.", shown, ensembles=names, url=url)
    return 0


def _example(url: str, ensemble: str, question: str) -> str:
    """A line for a shell."""
    body = json.dumps({"model": f"cappella/{ensemble}", "messages": [{"role": "user", "content": question}]})
    return f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d {shlex.quote(body)}\n"


def bind(host: str, port: int) -> socket.socket:
    """A socket that takes connections from now on. Raises ConfigError if another process holds the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # The address is printed before uvicorn accepts: from here on a client waits instead of being refused.
        listener.listen()
    except OSError as error:
        listener.close()
        place, mend = f"server.port: {host}:{port}", "Stop what holds it, or choose another with --port"
        raise ConfigError(place, f"cannot be bound ({error.strerror})", mend) from error
    return listener
