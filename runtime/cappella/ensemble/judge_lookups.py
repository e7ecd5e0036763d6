"""What a judge looks up with tools of its own after it has read the answers, and before it compares them or writes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.asking import Asking
from cappella.ensemble.between import extend
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.choice import short_sampling
from cappella.ensemble.evidence import LOOK_UP, READY
from cappella.ensemble.tool_loop import ToolLoop, Tools, offering
from cappella.ensemble.tool_run import ToolRun
from cappella.errors import EngineContextExceeded, EngineError
from cappella.types import Message, Prompt

LOOKUP_TOKENS = 512
"""Of one turn: it writes calls, and no answer."""
TIME_SHARE = 0.5
"""Of the time until the run's deadline, what all lookups may take: the judge writes in the rest."""


def tools_of(
    settings: Settings, engine: Engine, run: ToolRun, nonce: str, remaining_s: Callable[[], float]
) -> Tools | None:
    """What the judge of these settings looks things up with; None for one that writes nothing, or has no tools."""
    if not settings.may_ask_judge or not engine.capabilities.writes:
        return None
    box = run.toolbox(settings.judge_tools)
    return Tools(box, run, nonce, remaining_s) if box.tools else None


def reading_prompt(prompt: Prompt, tools: Tools | None) -> Prompt:
    """The judge's prompt for reading answers. It lists the judge's own tools in all calls, so that its cache matches.

    Where the caller brings tools, it lists those: the judge may propose calls of them.
    """
    if tools is None or prompt.tools:
        return prompt
    return replace(prompt, tools=tools.box.definitions, tool_choice="none")


@dataclass(frozen=True, slots=True)
class JudgeLookups:
    """Calls of the judge's own tools over the conversation in `prompt`."""

    asking: Asking
    prompt: Prompt
    settings: Settings
    tools: Tools

    async def look_up(self, candidates: Candidates) -> Sequence[Message]:
        """The turns of its lookups, for all its later prompts to go on from; none if it made no call, or failed before one.

        After a share of the time that is left it goes on with what it has found by then.
        """
        asking, engine = self.asking, self.asking.engine
        own, between = self.settings.judge_texts, candidates.between
        between = replace(between, paragraphs=[*between.paragraphs, LOOK_UP])
        messages = extend(self.prompt.messages, [prompts.fence(candidates.texts, candidates.nonce, own)], between)
        prompt = offering(replace(self.prompt, messages=messages, logprobs=None, watched=False), self.tools)
        sampling = short_sampling(self.settings.judge_sampling, engine.capabilities, LOOKUP_TOKENS)
        loop = ToolLoop(asking.name, engine, prompt, sampling, self.tools, lambda: asking.begun("lookup", prompt))
        ends_at = asyncio.get_running_loop().time() + TIME_SHARE * self.tools.remaining_s()
        try:
            await self._turns(loop, ends_at)
        except EngineContextExceeded:
            loop.shorten()
        except (EngineError, TimeoutError):
            # What it has found counts; one that is dead fails in its next call, which is told.
            pass
        turns = loop.prompt.messages[len(messages) :]
        return [*turns, {"role": "assistant", "content": READY}] if turns else ()

    async def _turns(self, loop: ToolLoop, ends_at: float) -> None:
        """Ask until it makes no more calls. Raises EngineError, and TimeoutError where a call of the engine lasts beyond the end."""
        while loop.may_call:
            call = loop.new_call()
            async with asyncio.timeout_at(ends_at):
                await call.complete(loop.engine, loop.prompt, loop.sampling)
            if not call.completions[0].has_calls:
                return
            await loop.use(call.completions[0].answer(self.asking.name, call.record), ends_at)
