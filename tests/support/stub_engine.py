"""Engine processes with a stub module instead of vLLM."""

import os
from pathlib import Path

from cappella.engines.backends import STARTUP_STAGES
from cappella.engines.process.process import ForkServer
from support.real_deployment import ROOT

NAME = "engine_stub_module"


def environment(folder: Path) -> dict[str, str]:
    """The environment in which a process finds the package and the module in `folder`."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "runtime"), str(folder)))}


def fork_server(folder: Path, source: str) -> ForkServer:
    """A fork server that imports `source`; the `main()` in it is the engine."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.py").write_text(source)
    return ForkServer(NAME, STARTUP_STAGES, environment(folder), folder / "fork-server.log")
