"""The real gateway over scripted engines, as a process that notes each request and each refusal."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from cappella.config import Config
from cappella.gateway.app import create_app
from cappella.gateway.http_server import bind, http_server
from clients.player import play
from support.fake_engines import MEMBERS, running_fake_engines


def config() -> Config:
    """An ensemble for agents, large enough for their prompts."""
    model = {"weights": "unused", "max_model_len": 200_000, "kv_cache_bytes": "1GiB", "tool_parser": "hermes"}
    ensemble = {"panel": list(MEMBERS), "judge": "judge", "tools": True, "analysis": "off"}
    models = dict.fromkeys((*MEMBERS, "judge"), model)
    return Config.model_validate({"models": models, "ensembles": {"default": ensemble}})


class Noting:
    """The application, with a line of JSON in a file for each request that ended."""

    def __init__(self, app: Any, file: Path) -> None:
        self._app = app
        self._file = file

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        sent, replied = bytearray(), bytearray()
        status = 0

        async def noting_receive() -> Any:
            message = await receive()
            sent.extend(message.get("body", b""))
            return message

        async def noting_send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            replied.extend(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, noting_receive, noting_send)
        finally:
            note = {
                "request": f"{scope['method']} {scope['path']}",
                "status": status,
                "sent": sent.decode(errors="replace"),
            }
            with self._file.open("a") as file:
                file.write(json.dumps({**note, "replied": replied.decode(errors="replace")}) + "\n")


async def serve(notes: Path) -> None:
    """Serve until SIGTERM. The port is printed once clients can connect."""
    listener = bind("127.0.0.1", 0)
    with tempfile.TemporaryDirectory() as folder:
        async with running_fake_engines(Path(folder)) as engines:
            for name in (*MEMBERS, "judge"):
                engines.let(name, play)
            served = config()
            engines.serve(served)
            app = create_app(served, engines)  # type: ignore[arg-type]
            app.add_middleware(Noting, file=notes)
            print(listener.getsockname()[1], flush=True)
            await http_server(app).serve(sockets=[listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1])))
