"""`cappella top`: the machine of a running server, refreshed every second."""

import asyncio
import json
import os
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live

from cappella.cli.client import request
from cappella.cli.client.durations import duration
from cappella.cli.client.http import Json, Server, ServerError, get
from cappella.cli.client.machine_view import Machine

PATH = "/api/machine"
INTERVAL_S = 1.0
TIMEOUT_S = 5.0
QUIT = ("q", "Q", "\x1b", "\x04")


async def top(server: Server, once: bool, as_json: bool) -> None:
    """Show it until q or Ctrl-C; once in a pipe. Raises ServerError if the first request fails."""
    reply = await get(server, PATH, TIMEOUT_S)
    console = request.watched_console()
    if as_json:
        print(json.dumps(reply, indent=2, ensure_ascii=False))
    elif once or console is None:
        (console or Console(highlight=False, width=120)).print(Machine(reply, server.url))
    else:
        # Ctrl-C is a normal way to quit.
        with suppress(asyncio.CancelledError), Live(console=console, screen=True, auto_refresh=False) as live:
            await _watch(server, reply, live)


async def _watch(server: Server, reply: Json, live: Live) -> None:
    replied_at, trouble = time.monotonic(), ""
    with _key_pressed() as pressed:
        while True:
            live.update(Machine(reply, server.url, trouble, is_for_screen=True), refresh=True)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(pressed), INTERVAL_S)
                return
            try:
                reply, trouble, replied_at = await get(server, PATH, TIMEOUT_S), "", time.monotonic()
            except ServerError:
                trouble = f"no answer for {duration(time.monotonic() - replied_at)}"


@contextmanager
def _key_pressed() -> Iterator["asyncio.Future[None]"]:
    """A future that is done once a quit key is pressed; never without a keyboard."""
    loop = asyncio.get_running_loop()
    pressed: asyncio.Future[None] = loop.create_future()
    if not sys.stdin.isatty():
        yield pressed
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def read() -> None:
        data = os.read(keyboard, 64).decode(errors="replace")
        if (not data or data[0] in QUIT) and not pressed.done():
            pressed.set_result(None)

    # Ctrl-C stays a signal.
    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, read)
    try:
        yield pressed
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
