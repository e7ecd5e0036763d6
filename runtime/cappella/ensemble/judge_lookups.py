"""What a judge looks up with tools of its own after it has read the answers, and before it compares them or writes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.engines.context_size import estimate_tokens
from cappella.ensemble import prompts
from cappella.ensemble.asking import Asking
from cappella.ensemble.between import extend
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.choice import CHOICE_TOKENS
from cappella.ensemble.evidence import LOOK_UP, READY
from cappella.ensemble.messages import has_images
from cappella.ensemble.reading import reply_of
from cappella.ensemble.seat_tools import Tools, offering
from cappella.ensemble.shares import ANSWER_SLACK_TOKENS, SLACK_TOKENS
from cappella.ensemble.token_limits import SHORT_THINKING_TOKENS, limited, short_sampling
from cappella.ensemble.tool_loop import MIN_CALL_TOKENS, ToolLoop
from cappella.ensemble.tool_run import ToolRun
from cappella.errors import EngineContextExceeded, EngineError
from cappella.types import Message, Prompt
from cappella.vocabulary import STRATEGIES

LOOKUP_TOKENS = 512
"""Of one turn: it writes calls, and no answer."""
TIME_SHARE = 0.5
"""Of the time until the run's deadline, what all lookups may take: the judge writes in the rest."""


def tools_of(
    settings: Settings,
    engine: Engine,
    run: ToolRun,
    nonce: str,
    remaining_s: Callable[[], float],
    remaining_tokens: Callable[[], int | None],
) -> Tools | None:
    """What the judge of these settings looks things up with; None for one that writes nothing, or has no tools."""
    if not settings.may_ask_judge or not engine.capabilities.writes:
        return None
    box = run.toolbox(settings.judge_tools)
    return Tools(box, run, nonce, remaining_s, remaining_tokens) if box.tools else None


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

        After a share of the time that is left it goes on with what it has found by then. It calls no tools once there is no
        room for more beside the conversation, the whole answers and its reply, or its reply would lack tokens of the run.
        """
        asking, engine = self.asking, self.asking.engine
        own, between = self.settings.judge_texts, candidates.between
        between = replace(between, paragraphs=[*between.paragraphs, LOOK_UP])
        messages = extend(self.prompt.messages, [prompts.fence(candidates.texts, candidates.nonce, own)], between)
        prompt = offering(replace(self.prompt, messages=messages, logprobs=None, watched=False), self.tools)
        sampling = short_sampling(self.settings.judge_sampling, engine.capabilities, LOOKUP_TOKENS)
        if self.tools.remaining_tokens() is not None:
            sampling = limited(sampling, LOOKUP_TOKENS + SHORT_THINKING_TOKENS)
        loop = ToolLoop(asking.name, engine, prompt, sampling, self.tools, lambda: asking.begun("lookup", prompt))
        ends_at = asyncio.get_running_loop().time() + TIME_SHARE * self.tools.remaining_s()
        try:
            await self._turns(loop, candidates, ends_at)
        except EngineContextExceeded:
            loop.shorten()
        except (EngineError, TimeoutError):
            # What it has found counts; one that is dead fails in its next call, which is told.
            pass
        turns = loop.prompt.messages[len(messages) :]
        return [*turns, {"role": "assistant", "content": READY}] if turns else ()

    async def _turns(self, loop: ToolLoop, candidates: Candidates, ends_at: float) -> None:
        """Ask until it makes no more calls. Raises EngineError, and TimeoutError where an engine lasts beyond the end."""
        is_limited = loop.engine.capabilities.context_tokens is not None or self.tools.remaining_tokens() is not None
        async with asyncio.timeout_at(ends_at):
            needs = await self._needs(candidates) if is_limited else None
            size = begun = await self._size(loop.prompt) if needs else 0
        while loop.may_call:
            if needs:
                loop.left_tokens = self._left(loop, needs, size, size - begun)
                if loop.left_tokens < MIN_CALL_TOKENS:
                    return
            call = loop.new_call()
            async with asyncio.timeout_at(ends_at):
                await call.complete(loop.engine, loop.prompt, loop.sampling)
            said = call.completions[0]
            said.read_written_call(loop.names)
            if not said.has_calls:
                return
            answer = said.answer(self.asking.name, call.record)
            await loop.use(answer, as_text=said.has_written_call, ends_at=ends_at)
            if loop.left_tokens is not None:
                most = size + loop.left_tokens
                if (size := await self._size(loop.prompt)) > most:
                    loop.shorten()
                    size = await self._size(loop.prompt)
                if size > most:
                    loop.forget_last()
                    return

    def _left(self, loop: ToolLoop, needs: "_Needs", size: int, grown: int) -> int:
        """By how many tokens the prompt, which now has `size` and grew by `grown`, may grow."""
        lefts = []
        if (context := loop.engine.capabilities.context_tokens) is not None:
            wanted = loop.sampling.max_completion_tokens or LOOKUP_TOKENS
            lefts += [context - needs.prompt - needs.reply - grown, context - size - wanted]
        if (remaining := self.tools.remaining_tokens()) is not None:
            turn = size + (loop.sampling.max_completion_tokens or 0)
            lefts.append((remaining - turn - needs.written) // needs.steps - needs.prompt - grown)
        return min(lefts)

    async def _needs(self, candidates: Candidates) -> "_Needs":
        """What the judge needs to read the whole answers, and to reply. Where it folds, it reads them in parts."""
        settings, engine = self.settings, self.asking.engine
        whole = candidates if settings.answers_exceed == "fold" else candidates.shortened({})
        own, between = settings.judge_texts, replace(whole.between, paragraphs=[*whole.between.paragraphs, LOOK_UP])
        messages = prompts.final_messages(
            self.prompt.messages,
            whole.texts,
            whole.nonce,
            criteria=settings.criteria,
            tools=bool(self.prompt.tools),
            texts=own,
            between=between,
        )
        longest = Prompt([{"role": "user", "content": max(whole.texts, key=len)}])
        size, longest_size = await asyncio.gather(
            self._size(replace(self.prompt, messages=messages)), self._size(longest)
        )
        reply = reply_of(settings, engine.capabilities)
        context = engine.capabilities.context_tokens or 0
        writes = STRATEGIES[settings.strategy].judge_writes
        analyses = int(writes and settings.analysis != "off")
        steps = 1 + analyses if writes else len(whole.answers) if settings.debias else 1
        quarter = (settings.max_total_tokens or 0) // 4
        wanted = min(reply.tokens or quarter, quarter) if writes else steps * CHOICE_TOKENS
        written = wanted + analyses * min(settings.analysis_max_tokens, quarter)
        slack = SLACK_TOKENS + ANSWER_SLACK_TOKENS * len(whole.answers)
        return _Needs(size + slack, reply.reserved(context, longest_size), steps, written)

    async def _size(self, prompt: Prompt) -> int:
        """Its tokens, as the judge's tokenizer counts them; images are estimated."""
        if has_images(prompt.messages):
            return estimate_tokens(prompt)
        try:
            return (await self.asking.engine.count_tokens(prompt)).tokens
        except EngineError:
            return estimate_tokens(prompt)


@dataclass(frozen=True, slots=True)
class _Needs:
    """The tokens that a judge needs after its lookups: of its longest `prompt`, kept free in the context for a `reply`.

    It reads the answers in so many `steps`, and in all of them `written` tokens are kept for what it writes.
    """

    prompt: int
    reply: int
    steps: int
    written: int
