"""What a judge looks up with tools of its own after it has read the answers, and before it compares them or writes."""

from collections.abc import Sequence
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


def tools_of(settings: Settings, engine: Engine, run: ToolRun, nonce: str) -> Tools | None:
    """What the judge of these settings looks things up with; None for one that writes nothing, or has no tools."""
    if not settings.may_ask_judge or not engine.capabilities.writes:
        return None
    box = run.toolbox(settings.judge_tools)
    return Tools(box, run, nonce) if box.tools else None


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
        """The turns of its lookups, for all its later prompts to go on from; none if it made no call, or failed before one."""
        asking, engine = self.asking, self.asking.engine
        own, between = self.settings.judge_texts, candidates.between
        between = replace(between, paragraphs=[*between.paragraphs, LOOK_UP])
        messages = extend(self.prompt.messages, [prompts.fence(candidates.texts, candidates.nonce, own)], between)
        prompt = offering(replace(self.prompt, messages=messages, logprobs=None, watched=False), self.tools)
        sampling = short_sampling(self.settings.judge_sampling, engine.capabilities, LOOKUP_TOKENS)
        loop = ToolLoop(asking.name, engine, prompt, sampling, self.tools, lambda: asking.begun("lookup", prompt))
        try:
            while loop.may_call:
                call = loop.new_call()
                await call.complete(engine, loop.prompt, sampling)
                said = call.completions[0]
                said.read_written_call(loop.names)
                if not said.has_calls:
                    break
                await loop.use(said.answer(asking.name, call.record), as_text=said.has_written_call)
        except EngineContextExceeded:
            loop.shorten()
        except EngineError:
            # What it has found counts; one that is dead fails in its next call, which is told.
            pass
        turns = loop.prompt.messages[len(messages) :]
        return [*turns, {"role": "assistant", "content": READY}] if turns else ()
