"""The real gateway over scripted engines, served as by `cappella serve`."""

import asyncio
import sys
from pathlib import Path

import uvloop

from cappella.config import Config
from cappella.engines import backends
from cappella.engines.base import EngineServer
from cappella.engines.deployment import Deployment
from cappella.engines.sanitize import Sanitizer
from cappella.engines.status import EngineStatus
from cappella.gateway.app import create_app
from cappella.gateway.http_server import bind, http_server
from cappella.placement import machine
from cappella.placement.planner import Plan
from cappella.types import Capabilities


class ScriptedSupervisor:
    """The part of a supervisor that the application needs, for engines started elsewhere."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.engines: dict[str, EngineServer] = {}
        for name in config.models:
            status = EngineStatus(name, "ready")
            socket = folder / f"{name}.sock"
            self.engines |= backends.local_engines(socket, [name], status, Sanitizer(), Capabilities(), None)
        here = machine.own()
        self.deployment = Deployment(config, config, here, Plan(here, {}), {}, self.engines, {}, {})

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        for engine in self.engines.values():
            await engine.close()


def config(models: list[str], analysis: str, sequences: int) -> Config:
    """A config with the last model as judge and the others on the panel."""
    model = {"weights": "unused", "max_model_len": 8192, "kv_cache_bytes": "1GiB", "max_num_seqs": sequences}
    ensemble = {"panel": models[:-1], "judge": models[-1], "analysis": analysis}
    return Config.model_validate({"models": dict.fromkeys(models, model), "ensembles": {"default": ensemble}})


async def serve(folder: Path, models: list[str], analysis: str, sequences: int) -> None:
    """Serve until SIGTERM. The port is printed once clients can connect."""
    listener = bind("127.0.0.1", 0)
    served = config(models, analysis, sequences)
    app = create_app(served, ScriptedSupervisor(served, folder))  # type: ignore[arg-type]
    print(listener.getsockname()[1], flush=True)
    await http_server(app).serve(sockets=[listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3], int(sys.argv[4])))
