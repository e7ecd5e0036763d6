"""The real gateway over scripted engines, as a process that notes each request and each refusal."""

import asyncio
import sys
import tempfile
from pathlib import Path

import uvloop

from cappella.config import Config
from cappella.gateway.app import create_app
from cappella.gateway.http_server import bind, http_server
from clients.noting import Noting
from clients.player import play
from support.fake_engines import MEMBERS, running_fake_engines


def config() -> Config:
    """An ensemble for agents, large enough for their prompts."""
    model = {"weights": "unused", "max_model_len": 200_000, "kv_cache_bytes": "1GiB", "tool_parser": "hermes"}
    ensemble = {"panel": list(MEMBERS), "judge": "judge", "tools": True, "analysis": "off"}
    models = dict.fromkeys((*MEMBERS, "judge"), model)
    return Config.model_validate({"models": models, "ensembles": {"default": ensemble}})


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
