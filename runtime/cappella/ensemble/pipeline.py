"""The story of one run: a gate, a panel's rounds, a judge and its verdict. Read this file first."""

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import replace

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble import agreement, gate, review
from cappella.ensemble.budget import Budget, metered
from cappella.ensemble.call import EngineCall
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.events import AnalysisDelta, AnswerDelta, Emit, Event, FinalDelta, Gated, Reviewed, RunStarted
from cappella.ensemble.fallback import require_quorum, stand_in, status
from cappella.ensemble.judge import Judge
from cappella.ensemble.messages import for_judge
from cappella.ensemble.prefill import EarlyPrefill
from cappella.ensemble.rounds import Rounds
from cappella.ensemble.run import Answer, Call, GateDecision, Panel, Run, Timings, Verdict
from cappella.ensemble.strategies import STRATEGIES
from cappella.ensemble.timing import timings
from cappella.errors import EngineBroke, EngineError, JudgeFailed, ModelNotReady
from cappella.types import Prompt

LOADING_RETRY_AFTER_S = 5
SHORTCUT_SHARE = 0.25
"""Of the time there is: what a question may take whose answer only saves work, so that the work can still be done."""


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
        one = _OneRun(self._engines, prompt, settings, emit)
        emit(RunStarted(one.run_id, settings.answer_names, settings.judge))
        return await one.bypass() or await one.ensemble()


class _OneRun:
    """What one run knows on its way."""

    def __init__(self, engines: Mapping[str, Engine], prompt: Prompt, settings: Settings, emit: Emit) -> None:
        self.run_id = f"run-{secrets.token_hex(12)}"
        self._budget = Budget(settings.max_total_tokens) if settings.max_total_tokens else None
        self._engines = metered(engines, self._budget)
        # At most half of a budget is the panel's: the judge reads all that the panel writes.
        shares = 2 * settings.layers * len(settings.answer_names)
        share = settings.max_total_tokens and settings.max_total_tokens // shares
        self._members = metered(engines, self._budget, share)
        self._prompt = prompt
        self._settings = settings
        self._watch = emit
        self._began = time.monotonic()
        self._gate: GateDecision | None = None
        self._panel_ended_at = self._began
        self._first_final_at: float | None = None
        judge = self._engines[settings.judge]
        self._showing = Candidates(settings)
        self._early = EarlyPrefill(judge, for_judge(prompt, judge.capabilities), self._showing, settings)
        self._calls: list[Call] = []

    def _emit(self, event: Event) -> None:
        if isinstance(event, FinalDelta):
            self._first_final_at = self._first_final_at or time.monotonic()
        self._showing.hear(event)
        if self._may_read_early:
            self._early.hear(event)
        if isinstance(event, AnswerDelta | AnalysisDelta) and not self._settings.panel_watched:
            return
        self._watch(event)

    @property
    def _left_s(self) -> float:
        return max(0.0, self._settings.deadline_s - (time.monotonic() - self._began))

    async def bypass(self) -> Run | None:
        """One model's answer where the gate says that no panel is needed; else None."""
        settings = self._settings
        if settings.gate is None:
            return None
        voice = EngineCall("gate", settings.judge)
        timeout_s = SHORTCUT_SHARE * settings.deadline_s
        self._gate = await gate.decide(settings.gate, settings.judge, self._engines, self._prompt, voice, timeout_s)
        self._calls += [voice.call] if voice.spoke else []
        self._emit(Gated(self._gate))
        if not self._gate.bypass:
            return None
        alone = EngineCall("single", self._gate.model)
        is_answered = await self._ask_alone(alone)
        self._calls += [alone.call] if alone.spoke else []
        if not is_answered:
            return None
        answer = alone.takes[0].answer(self._gate.model, alone.call)
        return Run(
            run_id=self.run_id,
            settings=settings,
            status="bypassed",
            verdict=Verdict(answer, answer.name),
            answers=(),
            rounds=(),
            labels={},
            analysis=None,
            ranking=None,
            gate=self._gate,
            failure_reason=None,
            calls=self._calls,
            timings=self._timings([]),
        )

    async def ensemble(self) -> Run:
        """The panel's rounds, then the judge."""
        settings = self._settings
        rounds = Rounds(self._members, self._prompt, settings, self._emit)
        try:
            async with self._early.running() if self._may_read_early else nullcontext():
                panel = await rounds.ask(self._left_s)
            self._panel_ended_at = time.monotonic()
            require_quorum(panel, settings.quorum)
        finally:
            self._calls += [call for each in rounds.done for call in each.calls]
            self._calls += self._early.calls

        ranking = await self._review(panel.answers) if settings.review else None
        engine = self._engines[settings.judge]
        judge = Judge(engine, self._prompt, panel.answers, self._showing, settings, self._emit, ranking)
        verdict = await self._conclude(judge)
        self._calls += judge.calls
        failure_reason = judge.failure_reason or rounds.failure_reason
        return Run(
            run_id=self.run_id,
            settings=settings,
            status=status(rounds.done, panel.answers, failure_reason),
            verdict=verdict,
            answers=panel.answers,
            rounds=rounds.done,
            labels=judge.labels,
            analysis=judge.analysis,
            ranking=ranking,
            gate=self._gate,
            failure_reason=failure_reason,
            calls=self._calls,
            timings=self._timings(rounds.done),
        )

    async def _conclude(self, judge: Judge) -> Verdict:
        """The strategy's verdict, or a member's answer in its place if the judge fails."""
        settings = self._settings
        try:
            async with asyncio.timeout(self._left_s):
                early = await _early_exit(judge, SHORTCUT_SHARE * self._left_s)
                return early or await STRATEGIES[settings.strategy](judge)
        except TimeoutError:
            judge.failure_reason = "deadline"
        except EngineError as error:
            judge.failure_reason = error.reason
        if judge.written:
            return Verdict(judge.written)
        if judge.cannot_be_followed:
            raise JudgeFailed(f"The judge broke off ({judge.failure_reason}) in the middle of what cannot be mended.")
        answer = stand_in(judge.answers, judge.form, settings.judge_sampling.stop or (), judge.failure_reason)
        return Verdict(judge.hand_on(answer, behind_what_was_said=True), answer.name)

    async def _ask_alone(self, voice: EngineCall) -> bool:
        """Stream one model's answer; False if it gave nothing, so that the panel has to. Raises EngineError."""
        assert self._gate
        engine = self._engines[self._gate.model]
        effort = self._prompt.reasoning_effort if engine.capabilities.reasoning else None
        prompt = replace(self._prompt, reasoning_effort=effort)
        try:
            async with (
                asyncio.timeout(self._left_s),
                aclosing(voice.speak(engine, prompt, self._settings.judge_sampling)) as chunks,
            ):
                async for chunk in chunks:
                    if chunk.content or chunk.reasoning or chunk.logprobs:
                        self._emit(FinalDelta(chunk.without_end()))
            if problem := voice.takes[0].problem(self._gate.model):
                raise problem
        except (EngineError, TimeoutError) as error:
            if voice.first_token_at:
                raise EngineBroke(f"{self._gate.model} broke off: {str(error) or 'deadline'}") from error
            self._gate = replace(
                self._gate, bypass=False, reason=f"{self._gate.model} failed: {str(error) or 'deadline'}"
            )
            self._emit(Gated(self._gate))
            return False
        return True

    async def _review(self, answers: Sequence[Answer]) -> Sequence[str] | None:
        settings = self._settings
        timeout_s = min(settings.round_timeout_s, self._left_s)
        ranking, calls = await review.rank(self._members, self._prompt, answers, settings, timeout_s)
        self._calls += calls
        if ranking is not None:
            self._emit(Reviewed(ranking))
        return ranking

    @property
    def _may_read_early(self) -> bool:
        """A vote seldom needs the judge, and a budget is too dear for calls that may turn out to be in vain."""
        settings = self._settings
        return settings.early_prefill and settings.strategy != "vote" and self._budget is None

    def _timings(self, rounds: Sequence[Panel]) -> Timings:
        ended_at = time.monotonic()
        return timings(self._began, self._panel_ended_at, self._first_final_at, ended_at, rounds, self._calls)


async def _early_exit(judge: Judge, timeout_s: float) -> Verdict | None:
    """The answer that all gave, if they gave the same: by normalised equality, or as the judge sees it.

    A judge that does not say so in time has seen none.
    """
    mode, answers = judge.settings.early_exit, judge.answers
    if mode == "off" or len(answers) < 2:
        return None
    same = len(agreement.group_by_meaning(answers)) == 1
    if not same and (mode == "equal" or not await _sees_agreement(judge, timeout_s)):
        return None
    return Verdict(judge.hand_on(answers[0]), answers[0].name, early_exit="equal" if same else "judge")


async def _sees_agreement(judge: Judge, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await judge.sees_agreement()
    except (EngineError, TimeoutError):
        return False


def _require_ready(engines: Mapping[str, Engine], settings: Settings) -> None:
    """Refuse a run that cannot end well: too few members up, or a judge that has never been up."""
    down = [seat for seat in settings.panel if not engines[seat.model].status.accepts_requests]
    if len(settings.answer_names) - sum(seat.samples for seat in down) < settings.quorum:
        names = ", ".join(dict.fromkeys(seat.model for seat in down))
        raise ModelNotReady(f"Not ready: {names}. The quorum is {settings.quorum}.", LOADING_RETRY_AFTER_S)
    if engines[settings.judge].status.state in ("waiting", "loading"):
        raise ModelNotReady(f"Not ready: the judge {settings.judge} is loading.", LOADING_RETRY_AFTER_S)
