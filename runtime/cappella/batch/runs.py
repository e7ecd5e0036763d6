"""Runs for rows of batches: the ordinary pipeline, with limits on the time at work, and alike each time it is run."""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from cappella.batch.engines import NEVER_S, RowCalls
from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble.candidates import marks_from
from cappella.ensemble.deadline import JUDGE_SHARE
from cappella.ensemble.events import Emit
from cappella.ensemble.pipeline import Pipeline
from cappella.ensemble.run import Run
from cappella.tools.base import STARTING, ToolServer
from cappella.types import Prompt

POLL_S = 0.1


class RowPipeline(Pipeline):
    """The pipeline of one row, over its recorded engines. All that it draws at random derives from the row's `secret`."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        calls: RowCalls,
        secret: bytes,
        tool_servers: Mapping[str, ToolServer] = MappingProxyType({}),
    ) -> None:
        super().__init__(engines, tool_servers)
        self._calls = calls
        self._secret = secret

    async def run(self, prompt: Prompt, settings: Settings, emit: Emit, run_id: str | None = None) -> Run:
        """See `Pipeline.run`."""
        await self._tools_started(settings)
        self._calls.deadline_s = settings.deadline_s
        changed = self._changes(settings)
        with marks_from(self._secret):
            run = await super().run(prompt, settings.model_copy(update=changed), emit, run_id)
        told = {name: getattr(settings, name) for name in changed if name != "seed"}
        return replace(run, settings=run.settings.model_copy(update=told))

    async def _tools_started(self, settings: Settings) -> None:
        """A row is in no hurry: begun before its tools, it would be answered without them."""
        seats = [settings.judge_tools, *(seat.tools for seat in settings.panel)]
        seats += [seat.tools for seat in settings.next_judges]
        names = {name for tools in seats for name in tools.servers if name not in settings.withheld_tools}
        servers = [self.tool_servers[name] for name in names if name in self.tool_servers]
        while starting := [server.name for server in servers if server.problem == STARTING]:
            with self._calls.meter.waits_for_tools(starting):
                await asyncio.sleep(POLL_S)

    def _changes(self, settings: Settings) -> Mapping[str, Any]:
        """What a row's run does otherwise: its calls have the limits on time, and none is made in advance.

        The order of arrival would be another one when calls that are stored arrive at once.
        """
        changes: dict[str, Any] = {
            "deadline_s": NEVER_S,
            # Leaves the judge its share, since the round itself has no end.
            "round_timeout_s": min(settings.round_timeout_s, (1 - JUDGE_SHARE) * settings.deadline_s),
            "early_prefill": False,
            "answer_order": "shuffled",
        }
        if settings.judge_sampling.seed is None:
            drawn = hmac.digest(self._secret, b"seed", hashlib.sha256)
            changes["seed"] = int.from_bytes(drawn[:4])
        return changes
