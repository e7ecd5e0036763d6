"""A private CUDA Multi-Process Service (MPS): engines that share a GPU run their kernels at the same time.

The control daemon is a child of this process and ends with it. Its pipes and logs lie in a private folder, apart from
those of a daemon that an operator runs.
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
    """The control daemon; `environment` is for the engines that use it. Raises ConfigError if it is not installed."""

    def __init__(self, folder: Path) -> None:
        if shutil.which(CONTROL) is None:
            hint = "Install it (it comes with NVIDIA's driver), or remove placement.mps"
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
        """Stop the daemon and the MPS servers that it started. Call it when no engine is left."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        if not await self._has_ended(self._process):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._has_ended(self._process)

    async def _has_ended(self, process: asyncio.subprocess.Process) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        return process.returncode is not None
