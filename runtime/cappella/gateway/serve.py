"""`cappella serve`: reports the plan, the start of each engine, the address, and an example to try."""

import asyncio
import json
import shlex
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import uvloop
from rich.text import Text
from starlette.applications import Starlette

from cappella.background import background
from cappella.config import Config
from cappella.engines import log_folder
from cappella.engines.status import EngineStatus
from cappella.engines.supervisor import Supervisor, default_log_dir
from cappella.errors import CappellaError, ConfigError
from cappella.gateway.app import create_app
from cappella.gateway.console import (
    ChangeDetector,
    JsonReporter,
    Reporter,
    TextReporter,
    follow,
    report_ability,
    stage_display,
)
from cappella.gateway.http_server import bind, http_server
from cappella.gateway.model_list import stray_keys
from cappella.placement.report import as_dict, picture
from cappella.sealing import guard
from cappella.telemetry import logs, tracing
from cappella.tools.servers import ToolServers, require_installed

EXIT_CONFIG = 2
REFRESH_S = 0.2


def serve(read: Callable[[], Config], log_dir: Path | None) -> int:
    """Serve the config that `read` returns until a signal; returns the exit code. A reload calls `read` again.

    Raises ConfigError for a config that cannot be served; with JSON logs it is reported as a line instead.
    """
    config = read()
    if config.server.log_format == "text":
        return _run(config, read, log_dir, TextReporter())
    logs.use_json()
    reporter = JsonReporter()
    try:
        return _run(config, read, log_dir, reporter)
    except CappellaError as error:
        reporter.report_failure("refused", str(error))
        return EXIT_CONFIG if isinstance(error, ConfigError) else 1


def _run(config: Config, read: Callable[[], Config], log_dir: Path | None, reporter: Reporter) -> int:
    server = config.server
    if server.tracing:
        tracing.require_installed()
    listener = bind(server.host, server.port)
    port = listener.getsockname()[1]
    log_dir = log_dir or server.log_dir or default_log_dir(str(port))
    with log_folder.hold(log_dir):
        return _run_engines(config, read, listener, log_dir, reporter)


def _run_engines(
    config: Config, read: Callable[[], Config], listener: socket.socket, log_dir: Path, reporter: Reporter
) -> int:
    server, port = config.server, listener.getsockname()[1]
    require_installed(config)
    supervisor = Supervisor(config, log_dir)
    tool_servers = ToolServers(config, log_dir, supervisor.engines)
    shown = picture(supervisor.plan, config)
    reporter.report("plan", "Placement plan.", shown, **as_dict(supervisor.plan, config))
    for warning in supervisor.warnings:
        reporter.report("node", f"warning: {warning}")
    guard.install([str(address) for address in server.may_reach], reporter.report_blocked)
    for warning in stray_keys(config):
        reporter.report("key", warning)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        app = create_app(config, supervisor, read, tool_servers)
        url = f"{'https' if server.tls else 'http'}://{server.host}:{port}"
        return runner.run(_serve(app, supervisor, listener, url, log_dir, reporter))


async def _serve(
    app: Starlette, supervisor: Supervisor, listener: socket.socket, url: str, log_dir: Path, reporter: Reporter
) -> int:
    config = supervisor.deployment.config
    server = http_server(app, config.server.tls, reporter)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    attached = f", {', '.join(config.remote)} attached" if config.remote else ""
    count = len(config.servers_of(config.local))
    message = f"Gateway on {url}; starting {count} engine{'s' * (count != 1)} (logs in {log_dir}){attached}"
    reporter.report("listening", message, url=url, engines=list(config.models), log_dir=log_dir)
    async with background(_watch_start(config, supervisor.statuses, reporter)) as watching:
        await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
    exit_code = 0
    if not serving.done():
        exit_code = _report_start(config, supervisor, url, reporter)
        server.should_exit = server.should_exit or exit_code != 0
        # Engines that end with the server have not failed.
        following = follow(lambda: supervisor.deployment, reporter, REFRESH_S, lambda: server.should_exit)
        async with background(following):
            await asyncio.wait({serving})
    await serving
    reporter.report("stopped", "Stopped; no engine is left running.")
    return exit_code


async def _watch_start(config: Config, statuses: Mapping[str, EngineStatus], reporter: Reporter) -> None:
    """Show the stage of each engine until all starts have ended, and report each ensemble that can answer before that."""
    answering: set[str] = set()
    changes = ChangeDetector(statuses, starting=True)
    with stage_display(reporter, statuses) as show:
        while True:
            show()
            # As JSON every stage is told anyway.
            for line in () if reporter.writes_json else changes.update(statuses):
                reporter.log("engine", line)
            _report_answering(config, statuses, answering, reporter)
            if all(status.start_finished for status in statuses.values()):
                return
            await asyncio.sleep(REFRESH_S)


def _report_answering(
    config: Config, statuses: Mapping[str, EngineStatus], answering: set[str], reporter: Reporter
) -> None:
    """Report each ensemble that begins to answer while other engines still start, or ceases to."""
    starting = [name for name, status in statuses.items() if not status.start_finished]
    up = (name for name, status in statuses.items() if status.accepts_requests)
    for name, can in config.answering(up).items():
        if starting and can and name not in answering:
            answering.add(name)
            message = f"cappella/{name} answers now; still starting: {', '.join(starting)}"
            reporter.log("answering", message, ensemble=name, starting=starting)
        elif name in answering and not can:
            answering.remove(name)
            report_ability(reporter, name, answers=False)


def _report_start(config: Config, supervisor: Supervisor, url: str, reporter: Reporter) -> int:
    """Report which engines failed to start and which ensembles answer; returns EXIT_CONFIG if none does."""
    failed = {name for name, status in supervisor.statuses.items() if status.state == "failed"}
    for name, lifecycle in supervisor.lifecycles.items():
        status = supervisor.deployment.status_of(name)
        if status.state != "failed":
            continue
        log, last_words = lifecycle.log, lifecycle.log_excerpt()
        message = f"{name} {status.stage}"
        reporter.report_failure("engine_failed", message, last_words, model=name, log=log)
    able = config.answering(name for name in config.models if name not in failed)
    usable = [name for name, can in able.items() if can]
    if not usable:
        reporter.report_failure("useless", "No ensemble can answer: stopping.")
        return EXIT_CONFIG
    if not reporter.can_redraw:
        # A journal has the time of it; a person sees what follows.
        for name in usable:
            report_ability(reporter, name, answers=True)
    names = [f"cappella/{name}" for name in usable]
    example = _example(url, usable[0], config.ensembles[usable[0]].examples[0])
    notices = [f"{name}: {config.ensembles[name].notice}" for name in usable if config.ensembles[name].notice]
    shown = Text("\n".join([f"Ready: {', '.join(names)} on {url}.", *notices, f"Try:\n\n{example}"]))
    reporter.report("ready", f"Ready: {', '.join(names)} on {url}.", shown, ensembles=names, url=url)
    return 0


def _example(url: str, ensemble: str, question: str) -> str:
    """A curl command for a shell."""
    body = json.dumps({"model": f"cappella/{ensemble}", "messages": [{"role": "user", "content": question}]})
    return f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d {shlex.quote(body)}\n"
