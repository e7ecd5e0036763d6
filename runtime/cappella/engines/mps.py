"""CUDA's Multi-Process Service, of our own: engines on one GPU run their kernels at the same time instead of in turn.

The control daemon is a child of this process and ends with it; its pipes and logs lie in a folder of ours, so that one
which an operator runs is left alone.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from cappella.engines.process.guardian import end_with_parent
from cappella.errors import ConfigError

CONTROL = "nvidia-cuda-mps-control"
STOP_TIMEOUT_S = 10.0


class Mps:
    """`environment` is for engines that are to use it. Raises ConfigError where CUDA's tools lack the daemon."""

    def __init__(self, folder: Path) -> None:
        if shutil.which(CONTROL) is None:
            hint = "Install it (it comes with NVIDIA's driver), or take placement.mps out"
            raise ConfigError("placement.mps", f"there is no {CONTROL} on this machine", hint)
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        pipes, logs = self._folder / "pipes", self._folder / "logs"
        return {"CUDA_MPS_PIPE_DIRECTORY": str(pipes), "CUDA_MPS_LOG_DIRECTORY": str(logs)}

    async def start(self, env: Mapping[str, str]) -> None:
        """Start the daemon in the environment `env`, which must show it every GPU that an engine will use."""
        for path in self.environment.values():
            Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "control.log").open("wb") as sink:
            self._process = await asyncio.create_subprocess_exec(
                CONTROL,
                "-f",
                env={**env, **self.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM),
            )

    async def stop(self) -> None:
        """End the daemon, and the servers that it started; to be called when no engine is left."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        if not await self._ends(self._process):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._ends(self._process)

    async def _ends(self, process: asyncio.subprocess.Process) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        return process.returncode is not None
