"""One run from request to answer. Read this file first, then a strategy.

1. Gate (`gate`): if the ensemble has one and the request is simple, one model answers alone.
2. Strategy (`strategies`): asks the panel (`rounds`, `panel`), which must give enough answers (`quorum`). With
   `early_exit`, or in a debate, answers that agree end the run; else the `judge` compares them, chooses one, or writes.
3. Fallback (`fallback`): if the judge fails, the best member's answer is returned and the run is `degraded`.

`RunContext` (`context`) holds the state of the run that these steps share.
"""

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import MappingProxyType

from cappella.background import background
from cappella.config.options import Settings
from cappella.engines import refusals, waiting
from cappella.engines.base import Engine
from cappella.engines.context_size import prompt_work
from cappella.engines.sanitize import each_text_once
from cappella.ensemble import conversation, gate, own_notes
from cappella.ensemble.caller_handles import caller_handles
from cappella.ensemble.context import RunContext
from cappella.ensemble.events import Emit, RunStarted
from cappella.ensemble.fallback import fallback_answer
from cappella.ensemble.living_judge import with_living_judge
from cappella.ensemble.messages import for_judge
from cappella.ensemble.progress import Progress
from cappella.ensemble.run import Answer, Panel, Run, Status, Verdict
from cappella.ensemble.strategies import STRATEGIES
from cappella.ensemble.waits import Waits
from cappella.errors import EngineError, JudgeFailed, ModelNotReady, RequestError
from cappella.threads import off_loop_if_large
from cappella.tools.base import ToolServer
from cappella.types import Prompt

LOADING_RETRY_AFTER_S = 5
FALLBACK_TIMEOUT_S = 5.0
"""For picking the fallback answer, which may happen after the run's deadline."""


def new_run_id() -> str:
    return f"run-{secrets.token_hex(12)}"


class Pipeline:
    """Runs prompts through ensembles, over a fixed set of engines and of servers of tools."""

    def __init__(
        self, engines: Mapping[str, Engine], tool_servers: Mapping[str, ToolServer] = MappingProxyType({})
    ) -> None:
        self._engines = engines
        self.tool_servers = tool_servers

    async def run(self, prompt: Prompt, settings: Settings, emit: Emit, run_id: str | None = None) -> Run:
        """One run; its events go to `emit` as they happen. Cancelling it cancels its engine calls.

        It has an id of its own unless `run_id` is given.

        If the judge fails, the run is `degraded` and returns a member's answer. Raises ModelNotReady, PanelFailed,
        JudgeFailed, EngineBroke or RequestError when there is nothing to return.
        """
        self.require_ready(settings)
        run_id = run_id or new_run_id()
        with each_text_once(), own_notes.known(settings.own_texts):
            if settings.progress == "off":
                return await self._run(prompt, settings, emit, run_id)
            progress = Progress(emit)
            return replace(await self._run(prompt, settings, progress, run_id), progress=progress.text)

    def require_ready(self, settings: Settings) -> None:
        """Raises ModelNotReady if too few members are up for the quorum, or a judge that it counts on is still starting."""
        down = [seat for seat in settings.first_seats if not self._engines[seat.model].status.accepts_requests]
        if len(settings.answer_names) - sum(seat.samples for seat in down) < settings.quorum:
            names = ", ".join(dict.fromkeys(seat.model for seat in down))
            raise ModelNotReady(f"Not ready: {names}. The quorum is {settings.quorum}.", LOADING_RETRY_AFTER_S)
        if not settings.counts_on_judge:
            return
        judges = [settings.judge, *(seat.model for seat in settings.next_judges)]
        is_up = any(self._engines[each].status.accepts_requests for each in judges)
        if not is_up and self._engines[settings.judge].status.state in ("waiting", "loading"):
            raise ModelNotReady(f"Not ready: the judge {settings.judge} is loading.", LOADING_RETRY_AFTER_S)

    async def _run(self, prompt: Prompt, settings: Settings, emit: Emit, run_id: str) -> Run:
        settings, failed = with_living_judge(self._engines, settings) if settings.counts_on_judge else (settings, [])
        judge = self._engines[settings.judge].capabilities
        judge_prompt = await off_loop_if_large(prompt_work(prompt), for_judge, prompt, judge)
        handles = await off_loop_if_large(prompt_work(prompt), caller_handles, prompt.messages, settings)
        strategy, servers = STRATEGIES[settings.strategy], self.tool_servers
        ctx = RunContext(self._engines, prompt, judge_prompt, settings, strategy, emit, run_id, servers, handles)
        ctx.failed_judges += failed
        ctx.failure_reason = failed[0].reason if failed else None
        emit(RunStarted(ctx.run_id, settings.answer_names, settings.asked_judge, settings.gate is not None))
        with waiting.listening(Waits(ctx.emit)):
            if answer := await gate.bypass(ctx):
                return _finished(ctx, Verdict(answer, answer.name), "bypassed", answer.call.usage.prompt_tokens)
            # Ends with the strategy: a slow tokenizer delays no answer.
            with _awake(ctx):
                async with background(conversation.count(ctx)) as counted:
                    verdict = await _verdict(ctx)
        prompt_tokens = conversation.tokens(counted, settings, ctx.rounds)
        return _finished(ctx, verdict, run_status(ctx.rounds, ctx.answers, ctx.failure_reason), prompt_tokens)


@contextmanager
def _awake(ctx: RunContext) -> Iterator[None]:
    """Keeps the engines of the run awake: a judge that it counts on wakes while the members answer, and stays awake."""
    settings = ctx.settings
    judge = [settings.judge] if settings.counts_on_judge else []
    with ExitStack() as stack:
        for model in dict.fromkeys((*(seat.model for seat in settings.called_seats), *judge, *settings.helpers)):
            stack.enter_context(ctx.engines[model].keep_awake())
        yield


async def _verdict(ctx: RunContext) -> Verdict:
    """The strategy's verdict, or the fallback if the judge fails or the deadline passes. Raises PanelFailed and RequestError."""
    while True:
        try:
            async with ctx.deadline.enforced():
                return await ctx.strategy(ctx)
        except TimeoutError:
            ctx.failure_reason = "deadline"
        except EngineError as error:
            if await ctx.replace_judge(error):
                continue
            _require_served(ctx, error)
            ctx.failure_reason = error.reason
        return await _fallback(ctx)


def _require_served(ctx: RunContext, error: EngineError) -> None:
    """Raises RequestError if the judge refused the format or the tools that the request asks for. A scorer is sent neither."""
    if not ctx.judge_engine.capabilities.writes:
        return
    asked = ctx.prompt.output_format.field if ctx.prompt.output_format else "tools" if ctx.prompt.tools else None
    if asked and refusals.blames_request(error):
        raise RequestError(f"The judge {ctx.settings.judge} refused {asked}: {error}", asked)


async def _fallback(ctx: RunContext) -> Verdict:
    """The judge's answer if it had finished one, else the best member's. Raises JudgeFailed if there is neither."""
    judge, reason = ctx.judge, ctx.failure_reason or ""
    if judge.final_answer:
        return Verdict(judge.final_answer)
    if judge.rules_out_fallback:
        message = f"The judge failed ({reason}) after part of a tool call or of formatted output had been sent."
        raise JudgeFailed(message)
    stop = ctx.settings.judge_sampling.stop or ()
    try:
        async with asyncio.timeout(FALLBACK_TIMEOUT_S):
            answer = await fallback_answer(ctx.answers, judge.output_format, stop, reason, ctx.settings)
    except TimeoutError as error:
        message = f"The judge failed ({reason}), and checking the members' answers took over {FALLBACK_TIMEOUT_S:g} s."
        raise JudgeFailed(message) from error
    return Verdict(judge.return_verbatim(answer, after_partial_output=True), answer.name)


def run_status(rounds: Sequence[Panel], answers: Sequence[Answer], failure_reason: str | None) -> Status:
    """`degraded` if the judge failed, `single` if one answer reached it, `degraded` if a member failed, else `ok`.

    Stragglers are no failures: the settings asked not to wait for them.
    """
    if failure_reason:
        return "degraded"
    if len(answers) == 1:
        return "single"
    return "degraded" if any(f.reason != "straggler" for panel in rounds for f in panel.failures) else "ok"


def _finished(ctx: RunContext, verdict: Verdict, status: Status, prompt_tokens: int) -> Run:
    judge = ctx.judge
    return Run(
        run_id=ctx.run_id,
        settings=ctx.settings,
        status=status,
        verdict=verdict,
        answers=ctx.answers,
        rounds=ctx.rounds,
        # A judge that scores reads each answer alone.
        labels=judge.labels if ctx.judge_engine.capabilities.writes else {},
        analysis=judge.analysis,
        ranking=ctx.ranking,
        gate=ctx.gate,
        failure_reason=ctx.failure_reason,
        calls=ctx.calls,
        prompt_tokens=prompt_tokens,
        timings=ctx.timings,
        shortened=judge.shortened,
        dropped_points=judge.dropped_points,
        failed_judges=ctx.failed_judges,
        sampled=ctx.sampled,
        grouped=ctx.grouped,
        tool_uses=ctx.tools.uses,
        missing_tools=ctx.tools.missing,
        sources=ctx.citations.told(verdict.answer, ctx.answers),
    )
