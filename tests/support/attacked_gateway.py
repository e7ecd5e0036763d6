"""A gateway with keys as a separate process, over engines that the test scripts: `attacked_gateway.py FOLDER`."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from cappella.config import Config
from cappella.config.server import Audit, Runs
from cappella.engines.deployment import Deployment
from cappella.engines.status import Action
from cappella.gateway.app import create_app
from cappella.gateway.http_server import bind, http_server
from cappella.placement import machine
from cappella.placement.planner import Placed, Plan
from support.fake_engines import MEMBERS, gateway_config
from support.plain_client import ready_client
from support.strict_gateway import with_keys


class Supervisor:
    """The part of a supervisor that the application needs, over engines that the test started in the folder."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.engines = {
            name: ready_client(name, folder / f"{name}.sock", config.models[name].capabilities)
            for name in (*MEMBERS, "judge")
        }
        placed = {name: Placed(name, (0,), 100, 10, 1000, 64, 1.0, 64, "there is room") for name in self.engines}
        self.plan = Plan(machine.own_memory(), placed)
        unplanned: Any = None
        lifecycles: Any = dict.fromkeys(self.engines)
        engines: Any = self.engines
        self.deployment = Deployment(config, config, unplanned, unplanned, {}, engines, lifecycles, {})

    async def start(self) -> None:
        pass

    def process_groups(self) -> Mapping[str, int]:
        return {}

    def actions(self, name: str) -> Sequence[Action]:
        return ()

    def log_of(self, name: str) -> Path | None:
        return None

    async def stop(self) -> None:
        for engine in self.engines.values():
            await engine.close()


async def serve(folder: Path) -> None:
    """Serve until SIGTERM; prints the port once clients may connect."""
    listener = bind("127.0.0.1", 0)
    config = with_keys(gateway_config(), folder / "keys.sqlite")
    recording = {
        "runs": Runs(file=folder / "runs.sqlite", content=True),
        "audit": Audit(file=folder / "audit", log_content=True),
    }
    config = config.model_copy(update={"server": config.server.model_copy(update=recording)})
    app = create_app(config, Supervisor(config, folder))  # type: ignore[arg-type]
    print(listener.getsockname()[1], flush=True)
    await http_server(app).serve(sockets=[listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1])))
