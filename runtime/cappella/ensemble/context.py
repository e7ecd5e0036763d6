"""The state of one run that its strategy works with: the panel, its answers, the judge, and the time left."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

from cappella.config.options import Seat, Settings
from cappella.config.weighing import Adaptive
from cappella.engines.base import Engine
from cappella.engines.context_size import prompt_work
from cappella.ensemble import agreement, given_answers, judge_lookups, prompts
from cappella.ensemble.adaptive import ask_until_safe
from cappella.ensemble.caller_handles import CallerHandles
from cappella.ensemble.candidates import Ordering
from cappella.ensemble.citations import Citations
from cappella.ensemble.deadline import Deadline
from cappella.ensemble.events import (
    AnalysisDelta,
    AnswerDelta,
    AnswerDone,
    AnswerFailed,
    CitationsRemoved,
    Emit,
    Event,
    FinalDelta,
    RoundStarted,
)
from cappella.ensemble.evidence import backings
from cappella.ensemble.grace import WaitPolicy
from cappella.ensemble.judge import Judge
from cappella.ensemble.living_judge import is_up, with_living_judge
from cappella.ensemble.messages import for_judge, format_of_members
from cappella.ensemble.prefill import EarlyPrefill
from cappella.ensemble.quorum import require_quorum
from cappella.ensemble.rounds import ask_round
from cappella.ensemble.run import (
    Answer,
    Call,
    FailedJudge,
    Failure,
    GateDecision,
    Grouped,
    Panel,
    Sampled,
    Timings,
    Verdict,
)
from cappella.ensemble.seat_tools import Tools
from cappella.ensemble.sources import Sources
from cappella.ensemble.timing import timings
from cappella.ensemble.token_shares import TokenShares
from cappella.ensemble.tool_run import ToolRun
from cappella.errors import EngineBroke, EngineError, EngineNotReady
from cappella.extraction.extractors import Reading
from cappella.threads import off_loop_if_large
from cappella.tools.base import ToolServer
from cappella.types import Prompt


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a run comes to its verdict, and what the rest of the pipeline has to know about that.

    `returns_member_answers`: a member's answer may be returned verbatim, so members get the caller's output format.
    `min_rounds`: `layers` counts as at least this many rounds.
    """

    conclude: Callable[["RunContext"], Awaitable[Verdict]]
    returns_member_answers: bool = False
    min_rounds: int = 1

    def __call__(self, ctx: "RunContext") -> Awaitable[Verdict]:
        """The verdict of one run. Raises EngineError, TimeoutError or PanelFailed."""
        return self.conclude(ctx)


class RunContext:
    """One run. `rounds` holds every round of the panel; `answers` are those of the last round with a quorum.

    `judge_prompt` is the caller's `prompt` for the judge (`messages.for_judge`); `grouped` is of `answers`.
    `failure_reason` is set by the last failure that did not end the run; `ranking` by the review.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        prompt: Prompt,
        judge_prompt: Prompt,
        settings: Settings,
        strategy: Strategy,
        emit: Emit,
        run_id: str,
        tool_servers: Mapping[str, ToolServer],
        handles: CallerHandles,
    ) -> None:
        self.run_id = run_id
        self.prompt = prompt
        self.settings = settings
        self.strategy = strategy
        self.max_rounds = max(strategy.min_rounds, settings.layers)
        self.answers: Sequence[Answer] = ()
        self.rounds: list[Panel] = []
        self.ranking: Sequence[str] | None = None
        self.gate: GateDecision | None = None
        self.sampled: Sampled | None = None
        self.grouped: Grouped | None = None
        self.failure_reason: str | None = None
        self.began_at = self.panel_ended_at = time.monotonic()
        self.deadline = Deadline(self.began_at, settings.deadline_s)
        self.first_final_at: float | None = None
        self._read: tuple[Sequence[Answer], Reading] | None = None
        self._emit_to_caller = emit
        self._tokens = TokenShares(engines, settings, self.max_rounds)
        self.engines, self.members = self._tokens.engines, self._tokens.members
        self.judge_engine = self.engines[settings.judge]
        self.judge_prompt = judge_prompt
        self.failed_judges: list[FailedJudge] = []
        self._calls_of_failed_judges: list[Call] = []
        self.sources = Sources(handles.all)
        self.tools = ToolRun(tool_servers, settings.withheld_tools, self.sources, self.emit)
        self._ordering = Ordering(settings)
        self._judge_tools = self._tools_of_judge()
        self._early_prefill = EarlyPrefill(self.judge_engine, self._reading_prompt, self._ordering, settings)
        self.gate_calls: list[Call] = []
        self.review_calls: list[Call] = []
        self.helper_calls: list[Call] = []
        self.citations = Citations(self.sources, lambda removed: self.emit(CitationsRemoved(removed)), handles.own)

    async def ask_panel(self) -> bool:
        """One round of the panel, which sets `answers`. From the second round on, members see the answers so far.

        Below the quorum, the first round raises PanelFailed; a later one keeps `answers`, sets `failure_reason` and
        returns False.
        """
        if self.rounds:
            self.emit(RoundStarted(len(self.rounds) + 1))
        with self.deadline.suspended():
            panel = await self._ask_round()
        self.rounds.append(panel)
        self.panel_ended_at = time.monotonic()
        if len(self.rounds) == 1:
            require_quorum(panel, self.settings.quorum)
        elif len(panel.answers) < self.settings.quorum:
            self.failure_reason = "layer_below_quorum"
            return False
        self.answers, self.grouped = panel.answers, None
        return True

    @property
    def question(self) -> str:
        """The text of the caller's last turn."""
        return prompts.text_of(self.prompt.messages[-1])

    async def reading(self) -> Reading:
        """The values of `answers`, which are read once."""
        if self._read is None or self._read[0] is not self.answers:
            self._read = (self.answers, await self._reading_of(self.answers))
        return self._read[1]

    @cached_property
    def judge(self) -> Judge:
        """The judge of `answers`; ask no further rounds once it has been used."""
        candidates = self._ordering.candidates(self.answers)
        candidates = replace(candidates, backings=backings(self.sources, self.answers))
        return Judge(
            self.judge_engine,
            self._reading_prompt,
            self.answers,
            candidates,
            self.settings,
            self.emit,
            self.ranking,
            self._early_prefill.read,
            self.citations,
            self._judge_tools,
            self._tokens.remaining_tokens,
        )

    async def replace_judge(self, error: EngineError) -> bool:
        """Go on with the next judge that is up, for one that broke before it had sent anything. False without one."""
        broke = isinstance(error, EngineBroke | EngineNotReady)
        if (
            not broke
            or self.judge.has_output
            or not any(is_up(self.engines, seat.model) for seat in self.settings.next_judges)
        ):
            return False
        settings, failed = with_living_judge(self.engines, self.settings, error)
        engine, prompt = self.engines[settings.judge], self.prompt
        # A timeout may cancel this: nothing of the run is of the next judge before it.
        judge_prompt = await off_loop_if_large(prompt_work(prompt), for_judge, prompt, engine.capabilities)
        self.failure_reason = error.reason
        self.failed_judges += failed
        self.settings, self.judge_engine, self.judge_prompt = settings, engine, judge_prompt
        # What was prefilled early is in another engine's cache; the calls were made.
        self._calls_of_failed_judges += [*self.judge.calls, *self._early_prefill.calls]
        self._judge_tools = self._tools_of_judge()
        self._early_prefill = EarlyPrefill(engine, self._reading_prompt, self._ordering, settings)
        del self.judge
        return True

    def emit(self, event: Event) -> None:
        """Send an event to the caller, and to the early prefill."""
        if isinstance(event, FinalDelta):
            self.first_final_at = self.first_final_at or time.monotonic()
        self._ordering.on_event(event)
        if self._prefills_early:
            self._early_prefill.on_event(event)
        if self.settings.panel_watched or not isinstance(event, AnswerDelta | AnalysisDelta):
            self._emit_to_caller(event)

    def _tools_of_judge(self) -> Tools | None:
        return judge_lookups.tools_of(
            self.settings,
            self.judge_engine,
            self.tools,
            self._ordering.nonce,
            lambda: self.deadline.remaining_s,
            lambda: self._tokens.remaining_tokens,
        )

    @property
    def _reading_prompt(self) -> Prompt:
        """The judge's prompt for reading answers."""
        return judge_lookups.reading_prompt(self.judge_prompt, self._judge_tools)

    @property
    def calls(self) -> list[Call]:
        """Every engine call so far, the final answer's last."""
        panel = [call for each in self.rounds for call in each.calls]
        judging = [*self.helper_calls, *self.judge.calls]
        prefills = [*self._calls_of_failed_judges, *self._early_prefill.calls]
        return [*self.gate_calls, *panel, *prefills, *self.review_calls, *judging]

    @property
    def timings(self) -> Timings:
        """The run's timings up to now."""
        ended_at = time.monotonic()
        return timings(self.began_at, self.panel_ended_at, self.first_final_at, ended_at, self.rounds, self.calls)

    async def _ask_round(self) -> Panel:
        settings, rounds_left = self.settings, self.max_rounds - len(self.rounds)
        prefill = self._early_prefill.running(is_last=rounds_left == 1) if self._prefills_early else nullcontext()
        async with prefill:
            given = [] if self.rounds else await self._read_given()
            seats = settings.panel if self.rounds else settings.first_seats
            there = sum(isinstance(each, Answer) for each in given)
            if isinstance(settings.samples, Adaptive) and not self.rounds and seats:
                asked, self.sampled = await ask_until_safe(
                    seats,
                    settings.samples,
                    settings.quorum - there,
                    lambda some, got: self._ask(some, there + got, rounds_left),
                    self._reading_of,
                )
            else:
                asked = await self._ask(seats, there, rounds_left)
        return given_answers.joined(given, asked, settings.answer_names) if given else asked

    async def _ask(self, seats: Sequence[Seat], there: int, rounds_left: int) -> Panel:
        """Ask these seats, where there are answers already."""
        settings = self.settings
        limits_s = self.deadline.limits_of_round_s(rounds_left, bool(self.rounds) or there >= settings.quorum)
        # At least one of those who are asked: the grace is a multiple of the time that it takes.
        quorum = max(1, min(settings.quorum - there, sum(seat.samples for seat in seats)))
        wait_policy = WaitPolicy(quorum, settings.round_timeout_s, settings.grace_s, *limits_s)
        return await ask_round(
            self.members,
            self.prompt,
            settings,
            seats,
            self.answers,
            wait_policy,
            self.emit,
            verbatim=self.strategy.returns_member_answers,
            tools=self.tools,
            budget=self._tokens.of_lookups(len(self.rounds)),
        )

    async def _reading_of(self, answers: Sequence[Answer]) -> Reading:
        settings = self.settings
        return await agreement.reading_of(answers, settings.extract, self.question, settings.extract_pattern)

    async def _read_given(self) -> Sequence[Answer | Failure]:
        """The candidates that the request brings along, told as any other answer."""
        output_format = format_of_members(self.prompt, self.settings, self.strategy.returns_member_answers)
        given = await given_answers.read(self.settings.answers, output_format)
        for each in given:
            self.emit(AnswerDone(each) if isinstance(each, Answer) else AnswerFailed(each))
        return given

    @property
    def _prefills_early(self) -> bool:
        """Not with a budget, which calls that may turn out useless would use up."""
        reads = self.settings.needs_judge and self.judge_engine.capabilities.writes
        return self.settings.early_prefill and reads and not self._tokens.are_limited
