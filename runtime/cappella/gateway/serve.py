"""`cappella serve` as a person sees it: checks first, engines loading, the address and a line to try."""

import asyncio
import json
import shlex
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import uvloop
from fastapi import FastAPI
from rich.text import Text

from cappella.background import background
from cappella.config import Config
from cappella.engines.status import EngineStatus
from cappella.engines.supervisor import Supervisor, default_log_dir
from cappella.errors import CappellaError, ConfigError
from cappella.gateway.app import create_app
from cappella.gateway.console import Announcer, ForPeople, ForPrograms, follow, stages
from cappella.gateway.http_server import bind, http_server
from cappella.placement.report import as_dict, picture
from cappella.sealing import guard
from cappella.telemetry import logs, tracing

EXIT_CONFIG = 2
REFRESH_S = 0.2


def serve(read: Callable[[], Config], log_dir: Path | None) -> int:
    """Serve what is read, until told to stop; returns the exit code. It is read again to be served anew.

    Raises ConfigError for what can be known before the start; where logs are JSON, that is a line like others.
    """
    config = read()
    if config.server.log_format == "text":
        return _run(config, read, log_dir, ForPeople())
    logs.use_json()
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


async def _serve(
    app: FastAPI, supervisor: Supervisor, listener: socket.socket, url: str, log_dir: Path, announcer: Announcer
) -> int:
    config = supervisor.deployment.config
    server = http_server(app, config.server.tls, announcer)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    attached = f", {', '.join(config.remote)} attached" if config.remote else ""
    message = f"Gateway on {url}; starting {len(config.local)} engines (logs in {log_dir}){attached}"
    announcer.say("listening", message, url=url, engines=list(config.models), log_dir=log_dir)
    async with background(_watch_start(config, supervisor.statuses, announcer)) as watching:
        await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
    exit_code = 0
    if not serving.done():
        exit_code = _report(config, supervisor, url, announcer)
        server.should_exit = server.should_exit or exit_code != 0
        # Engines that end with the server have not fallen.
        following = follow(lambda: supervisor.deployment, announcer, REFRESH_S, lambda: server.should_exit)
        async with background(following):
            await asyncio.wait({serving})
    await serving
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


def _announce(config: Config, statuses: Mapping[str, EngineStatus], answering: set[str], announcer: Announcer) -> None:
    """Say once of each ensemble that it answers, if that is before the last engine is up."""
    starting = [name for name, status in statuses.items() if not status.start_finished]
    up = (name for name, status in statuses.items() if status.accepts_requests)
    for name, can in config.answering(up).items():
        if starting and can and name not in answering:
            answering.add(name)
            message = f"cappella/{name} answers now; still starting: {', '.join(starting)}"
            announcer.say("answering", message, ensemble=name, starting=starting)


def _report(config: Config, supervisor: Supervisor, url: str, announcer: Announcer) -> int:
    """Say what came up and what did not; returns EXIT_CONFIG if no ensemble can answer."""
    failed = {name for name, status in supervisor.statuses.items() if status.state == "failed"}
    for name in sorted(failed):
        lifecycle = supervisor.lifecycles[name]
        log, words = lifecycle.log, lifecycle.log_excerpt()
        announcer.fail("engine_failed", f"{name} {supervisor.statuses[name].stage}", words, model=name, log=log)
    able = config.answering(name for name in config.models if name not in failed)
    usable = [name for name, can in able.items() if can]
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
