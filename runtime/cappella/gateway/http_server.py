"""The HTTP server around the application: uvicorn, that drains, reloads, and tells systemd of it."""

import asyncio
import gc
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from cappella.background import background
from cappella.config import Tls
from cappella.errors import CappellaError, ConfigError
from cappella.gateway.console import Announcer, ForPeople
from cappella.gateway.http_protocol import Connection
from cappella.gateway.reload import Reloader
from cappella.gateway.systemd import Systemd

LOOK_INTERVAL_S = 0.2
CUT_S = 5
"""Beyond the time to drain: what was cut is told so."""
ENGINES_END_S = 60
"""Beyond that, at most: every engine has a grace before it is ended by force."""
COLLECT_AFTER = (20_000, 50, 20)
# uvicorn's own 5 s are just what httpx, and so OpenAI's client, keeps an idle connection for: a call that was sent as
# it was closed was lost.
KEEP_ALIVE_S = 75


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
            lifespan="on",
            server_header=False,
            **secured,
        ),
        reloader,
        announcer,
    )


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
        place, hint = f"server.port: {host}:{port}", "Stop what holds it, or choose another with --port"
        raise ConfigError(place, f"cannot be bound ({error.strerror})", hint) from error
    return listener


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
        async with self._systemd.watching(), background(self._tell_once_ready()):
            await super().serve(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        drain_s = self._generations.parts.config.server.drain_s
        self._systemd.stopping(drain_s + CUT_S + ENGINES_END_S)
        # A reload may have changed it since the start.
        self.config.timeout_graceful_shutdown = round(drain_s + CUT_S)
        async with background(_drain(self._generations, self._announcer)):
            await super().shutdown(sockets)

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
        while not any(self._generations.parts.deployment.answering().values()):
            await asyncio.sleep(LOOK_INTERVAL_S)
        names = [f"cappella/{name}" for name, can in self._generations.parts.deployment.answering().items() if can]
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
