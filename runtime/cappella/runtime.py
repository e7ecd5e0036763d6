"""Cappella as a library: runs ensembles in the caller's process, without the HTTP gateway."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cappella.config import load
from cappella.config.overrides import Overrides
from cappella.engines import log_folder
from cappella.engines.supervisor import Supervisor, default_log_dir
from cappella.ensemble.events import Emit, Event
from cappella.ensemble.pipeline import Pipeline
from cappella.ensemble.run import Run
from cappella.ensemble.settings import resolve
from cappella.ensemble.stream import live
from cappella.errors import ModelNotReady, UnknownModel
from cappella.tools.servers import ToolServers, require_installed
from cappella.types import Message, Prompt, Sampling

POLL_S = 0.1


class Runtime:
    """The ensembles of one config; their engines run as long as the `async with` block.

        async with cappella.Runtime("model_configs/demo.yaml") as runtime:
            run = await runtime.ask("Please tell me the room of Gonil.")
            print(run.content)

    Entering the block waits until every engine is ready or has failed. It raises ConfigError for an invalid config or
    invalid weights, and ModelNotReady with the engines' reasons if no ensemble can answer.
    """

    def __init__(self, config: Path | str, log_dir: Path | None = None) -> None:
        written = load.load(Path(config))
        log_dir = log_dir or written.server.log_dir
        log_dir, self._log_dir_lock = (log_dir, log_folder.hold(log_dir)) if log_dir else _own_log_dir()
        try:
            require_installed(written)
            self._supervisor = Supervisor(written, log_dir)
        except BaseException:
            self._log_dir_lock.close()
            raise
        self.config = self._supervisor.deployment.config
        self._tool_servers = ToolServers(written, log_dir, self._supervisor.engines)
        self._pipeline = Pipeline(self._supervisor.engines, self._tool_servers)

    async def __aenter__(self) -> Self:
        await self._supervisor.start()
        try:
            await self._tool_servers.start()
            await self._wait_for_engines()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        await self._tool_servers.stop()
        await self._supervisor.stop()
        self._log_dir_lock.close()

    async def ask(
        self,
        prompt: str | Sequence[Message] | Prompt,
        ensemble: str = "default",
        overrides: Overrides = Overrides(),
        sampling: Sampling = Sampling(),
    ) -> Run:
        """One run; `sampling` is for the final answer. Raises the errors of `Pipeline.run`, and RequestError."""
        return await self._run(_as_prompt(prompt, watched=False), ensemble, overrides, sampling, lambda event: None)

    async def stream(
        self,
        prompt: str | Sequence[Message] | Prompt,
        ensemble: str = "default",
        overrides: Overrides = Overrides(),
        sampling: Sampling = Sampling(),
    ) -> AsyncGenerator[Event | Run, None]:
        """The run's events as they happen, then the Run. Closing the generator cancels the run."""
        watched = _as_prompt(prompt, watched=True)
        async with live(lambda emit: self._run(watched, ensemble, overrides, sampling, emit)) as run:
            async for events in run.events():
                for event in events:
                    yield event
            yield run.result

    async def _run(self, prompt: Prompt, ensemble: str, overrides: Overrides, sampling: Sampling, emit: Emit) -> Run:
        if ensemble not in self.config.ensembles:
            raise UnknownModel(ensemble, list(self.config.ensembles), "ensemble")
        settings = resolve(
            ensemble, self.config.ensembles[ensemble], self.config.models_by_name, overrides, prompt, sampling
        )
        return await self._pipeline.run(prompt, settings, emit)

    async def _wait_for_engines(self) -> None:
        statuses = self._supervisor.statuses
        while not all(status.start_finished for status in statuses.values()):
            await asyncio.sleep(POLL_S)
        if not any(self._supervisor.deployment.answering().values()):
            reasons = "; ".join(f"{n} {status.stage}" for n, status in statuses.items() if not status.accepts_requests)
            raise ModelNotReady(f"No ensemble can answer: {reasons}.", retry_after_s=0)


def _own_log_dir() -> tuple[Path, IO[str]]:
    """A log folder that no other Runtime of this user has, in any process; it stays locked while the file is open."""
    for number in count(1):
        folder = default_log_dir(f"runtime-{number}")
        if lock := log_folder.try_to_hold(folder):
            return folder, lock
    raise AssertionError("unreachable: count() does not end")


def _as_prompt(prompt: str | Sequence[Message] | Prompt, watched: bool) -> Prompt:
    if isinstance(prompt, Prompt):
        return replace(prompt, watched=watched)
    return Prompt([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt, watched=watched)
