"""The story of one run: a panel answers, a judge compares and writes. Read this file first."""

import asyncio
import secrets
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from cappella.engines.base import Engine
from cappella.ensemble.judge import Judge
from cappella.ensemble.outcome import best_answer, require_quorum, status
from cappella.ensemble.panel import ask_panel
from cappella.errors import EngineError, ModelNotReady
from cappella.types import Answer, Emit, FinalDelta, Message, Run, RunStarted, Settings, Timings

LOADING_RETRY_AFTER_S = 5


class Pipeline:
    """Runs prompts through panels and judges over a fixed set of engines."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    async def run(self, conversation: Sequence[Message], settings: Settings, emit: Emit) -> Run:
        """Panel, then judge. Events go to `emit` as they happen; cancelling frees every engine.

        Raises ModelNotReady, InsufficientQuorum, DeadlineExceeded or ContextLengthExceeded when there is nothing to
        return. A judge that fails costs the run its status, not its answer.
        """
        self._require_ready(settings)
        began = time.monotonic()
        run_id = f"run-{secrets.token_hex(12)}"
        emit(RunStarted(run_id, [seat.name for seat in settings.panel], settings.judge))

        round_s = min(settings.round_timeout_s, settings.deadline_s)
        panel = await ask_panel(self._engines, conversation, settings.panel, settings.quorum, round_s, emit)
        panel_s = time.monotonic() - began
        require_quorum(panel, settings.quorum)

        judge = Judge(self._engines[settings.judge], conversation, panel.answers, settings, emit)
        failure_reason = await _judge(judge, settings, settings.deadline_s - panel_s)
        answer = judge.answer or _fall_back(judge, panel.answers, emit)

        return Run(
            run_id=run_id,
            settings=settings,
            content=answer.content,
            finish_reason=answer.finish_reason,
            status=status(panel, failure_reason),
            answers=panel.answers,
            failures=panel.failures,
            labels=judge.labels,
            analysis=judge.analysis,
            failure_reason=failure_reason,
            calls=[*(answer.call for answer in panel.answers), *judge.calls],
            timings=_timings(began, panel_s, judge),
        )

    def _require_ready(self, settings: Settings) -> None:
        """Refuse a run that cannot end well: too few members up, or a judge that has never been up."""
        down = [seat.model for seat in settings.panel if self._engines[seat.model].status.state != "ready"]
        if len(settings.panel) - len(down) < settings.quorum:
            raise ModelNotReady(
                f"Not ready: {', '.join(down)}. The quorum is {settings.quorum}.", LOADING_RETRY_AFTER_S
            )
        if self._engines[settings.judge].status.state in ("waiting", "loading"):
            raise ModelNotReady(f"Not ready: the judge {settings.judge} is loading.", LOADING_RETRY_AFTER_S)


async def _judge(judge: Judge, settings: Settings, timeout_s: float) -> str | None:
    """Compare and write in the settings' order; returns why not, if the judge failed at either."""
    failure_reason = None

    async def compare() -> None:
        nonlocal failure_reason
        try:
            await judge.compare()
        except EngineError as error:
            failure_reason = error.reason

    try:
        async with asyncio.timeout(max(0.0, timeout_s)):
            match settings.analysis:
                case "before":
                    await compare()
                    await judge.write()
                case "alongside":
                    await _both(compare(), judge.write())
                case "off":
                    await judge.write()
    except TimeoutError:
        failure_reason = "deadline"
    except EngineError as error:
        failure_reason = error.reason
    return failure_reason


async def _both(aside: Coroutine[Any, Any, None], main: Coroutine[Any, Any, None]) -> None:
    """Run the two at once; if `main` fails, `aside` is not waited for."""
    task = asyncio.create_task(aside)
    try:
        await main
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


def _fall_back(judge: Judge, answers: Sequence[Answer], emit: Emit) -> Answer:
    """The best member's answer, also sent to whoever watches the stream, behind what the judge had begun."""
    answer = best_answer(answers, judge.settings.judge_sampling.stop or ())
    emit(FinalDelta(f"\n\n{answer.content}" if judge.writing.text else answer.content))
    return answer


def _timings(began: float, panel_s: float, judge: Judge) -> Timings:
    return Timings(
        panel_s=panel_s,
        analysis_s=judge.comparing.call.total_s if judge.comparing.spoke else None,
        first_token_s=judge.writing.first_token_at and judge.writing.first_token_at - began,
        total_s=time.monotonic() - began,
    )
