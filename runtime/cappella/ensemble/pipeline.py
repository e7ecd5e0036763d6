"""The story of one run: a gate, a panel, a strategy and its verdict. Read this file first, and a strategy next."""

import asyncio
from collections.abc import Mapping

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble import gate
from cappella.ensemble.context import RunContext
from cappella.ensemble.events import Emit, RunStarted
from cappella.ensemble.fallback import stand_in, status
from cappella.ensemble.run import Run, Status, Verdict
from cappella.ensemble.strategies import STRATEGIES
from cappella.errors import EngineError, JudgeFailed, ModelNotReady
from cappella.types import Prompt

LOADING_RETRY_AFTER_S = 5
FALLBACK_TIMEOUT_S = 5.0
"""For finding the member's answer that stands in, since by then the deadline may be over."""


class Pipeline:
    """Runs prompts through panels and judges over a fixed set of engines."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    async def run(self, prompt: Prompt, settings: Settings, emit: Emit) -> Run:
        """The whole story. Events go to `emit` as they happen; cancelling frees every engine.

        Raises ModelNotReady, InsufficientQuorum, DeadlineExceeded, JudgeFailed or RequestError when there is nothing
        to return. A judge that fails costs the run its status, not its answer, while a member's answer can stand in.
        """
        _require_ready(self._engines, settings)
        ctx = RunContext(self._engines, prompt, settings, STRATEGIES[settings.strategy], emit)
        emit(RunStarted(ctx.run_id, settings.answer_names, settings.judge))
        if answer := await gate.bypass(ctx):
            return _ended(ctx, Verdict(answer, answer.name), "bypassed")
        verdict = await _verdict(ctx)
        return _ended(ctx, verdict, status(ctx.rounds, ctx.answers, _failure_reason(ctx)))


async def _verdict(ctx: RunContext) -> Verdict:
    """The strategy's: it asks the panel and the judge. If the judge fails, a member's answer stands in."""
    try:
        async with ctx.in_time():
            return await ctx.strategy(ctx)
    except TimeoutError:
        ctx.judge.failure_reason = "deadline"
    except EngineError as error:
        ctx.judge.failure_reason = error.reason
    return await _fallback(ctx)


async def _fallback(ctx: RunContext) -> Verdict:
    """What the judge wrote, if it was whole; else the best answer of a member. Raises JudgeFailed if there is none."""
    judge, reason = ctx.judge, ctx.judge.failure_reason or ""
    if judge.written:
        return Verdict(judge.written)
    if judge.cannot_be_followed:
        raise JudgeFailed(f"The judge broke off ({reason}) in the middle of what cannot be mended.")
    try:
        async with asyncio.timeout(FALLBACK_TIMEOUT_S):
            answer = await stand_in(ctx.answers, judge.form, ctx.settings.judge_sampling.stop or (), reason)
    except TimeoutError as error:
        raise JudgeFailed(f"The judge failed ({reason}), and to check the members' answers took too long.") from error
    return Verdict(judge.hand_on(answer, behind_what_was_said=True), answer.name)


def _ended(ctx: RunContext, verdict: Verdict, status: Status) -> Run:
    judge = ctx.judge
    return Run(
        run_id=ctx.run_id,
        settings=ctx.settings,
        status=status,
        verdict=verdict,
        answers=ctx.answers,
        rounds=ctx.rounds,
        labels=judge.labels,
        analysis=judge.analysis,
        ranking=ctx.ranking,
        gate=ctx.gate,
        failure_reason=_failure_reason(ctx),
        calls=ctx.calls,
        timings=ctx.timings,
    )


def _failure_reason(ctx: RunContext) -> str | None:
    return ctx.judge.failure_reason or ctx.failure_reason


def _require_ready(engines: Mapping[str, Engine], settings: Settings) -> None:
    """Refuse a run that cannot end well: too few members up, or a judge that has never been up."""
    down = [seat for seat in settings.panel if not engines[seat.model].status.accepts_requests]
    if len(settings.answer_names) - sum(seat.samples for seat in down) < settings.quorum:
        names = ", ".join(dict.fromkeys(seat.model for seat in down))
        raise ModelNotReady(f"Not ready: {names}. The quorum is {settings.quorum}.", LOADING_RETRY_AFTER_S)
    if engines[settings.judge].status.state in ("waiting", "loading"):
        raise ModelNotReady(f"Not ready: the judge {settings.judge} is loading.", LOADING_RETRY_AFTER_S)
