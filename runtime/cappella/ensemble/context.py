"""What a strategy sees of its run, and may ask: the panel round by round, the judge, the time that is left."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble.budget import Budget, metered
from cappella.ensemble.candidates import Ordering
from cappella.ensemble.events import AnalysisDelta, AnswerDelta, Emit, Event, FinalDelta, RoundStarted
from cappella.ensemble.fallback import require_quorum
from cappella.ensemble.judge import Judge
from cappella.ensemble.messages import for_judge
from cappella.ensemble.panel import WaitPolicy
from cappella.ensemble.prefill import EarlyPrefill
from cappella.ensemble.rounds import ask_round
from cappella.ensemble.run import Answer, Call, GateDecision, Panel, Timings, Verdict
from cappella.ensemble.timing import timings
from cappella.types import Prompt

JUDGE_SHARE = 0.25
"""Of the deadline: what a panel with its quorum leaves to the judge, however late its other members are."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a run comes to its verdict, and what the rest has to know of that.

    `returns_member_answers`: a member's answer may be returned as it is, so members are held to the caller's form.
    `judge_writes`: the final answer is the judge's own, after its analysis. `needs_judge`: most runs come to the judge.
    `min_rounds`: the panel is asked so often at most, or as `layers` says if that is more.
    """

    conclude: Callable[["RunContext"], Awaitable[Verdict]]
    returns_member_answers: bool = False
    judge_writes: bool = False
    needs_judge: bool = True
    min_rounds: int = 1

    def __call__(self, ctx: "RunContext") -> Awaitable[Verdict]:
        """The verdict of one run. Raises EngineError, TimeoutError or PanelFailed."""
        return self.conclude(ctx)


class RunContext:
    """One run. `answers` are those of the last round that counts, `rounds` all that were asked.

    `failure_reason` says what else than the judge went wrong; `ranking` is the members' own, if they gave one.
    """

    def __init__(
        self, engines: Mapping[str, Engine], prompt: Prompt, settings: Settings, strategy: Strategy, emit: Emit
    ) -> None:
        self.run_id = f"run-{secrets.token_hex(12)}"
        self.prompt = prompt
        self.settings = settings
        self.strategy = strategy
        self.max_rounds = max(strategy.min_rounds, settings.layers)
        self.answers: Sequence[Answer] = ()
        self.rounds: list[Panel] = []
        self.ranking: Sequence[str] | None = None
        self.gate: GateDecision | None = None
        self.failure_reason: str | None = None
        self.began_at = self.panel_ended_at = time.monotonic()
        self.first_final_at: float | None = None
        self._watch = emit
        self._budget = Budget(settings.max_total_tokens) if settings.max_total_tokens else None
        self.engines = metered(engines, self._budget)
        # At most half of a budget is the panel's: the judge reads all that the panel writes.
        shares = 2 * self.max_rounds * len(settings.answer_names)
        share = settings.max_total_tokens and settings.max_total_tokens // shares
        self.members = metered(engines, self._budget, share)
        self.judge_engine = self.engines[settings.judge]
        self.judge_prompt = for_judge(prompt, self.judge_engine.capabilities)
        self._ordering = Ordering(settings)
        self._early = EarlyPrefill(self.judge_engine, self.judge_prompt, self._ordering, settings)
        self._limit: asyncio.Timeout | None = None
        self.gate_calls: list[Call] = []
        self.review_calls: list[Call] = []

    async def ask_panel(self) -> bool:
        """Ask every member; from the second round on they read `answers` first. Those it gives become `answers`.

        False for a later round below the quorum: `answers` stay, and `failure_reason` says so. Raises PanelFailed for a
        first one.
        """
        if self.rounds:
            self.emit(RoundStarted(len(self.rounds) + 1))
        with self._limit_lifted():
            panel = await self._ask_round()
        self.rounds.append(panel)
        self.panel_ended_at = time.monotonic()
        if len(self.rounds) == 1:
            require_quorum(panel, self.settings.quorum)
        elif len(panel.answers) < self.settings.quorum:
            self.failure_reason = "layer_below_quorum"
            return False
        self.answers = panel.answers
        return True

    @cached_property
    def judge(self) -> Judge:
        """The judge of `answers`: ask no more rounds after this."""
        return Judge(
            self.judge_engine,
            self.judge_prompt,
            self.answers,
            self._ordering.candidates(self.answers),
            self.settings,
            self.emit,
            self.ranking,
        )

    def emit(self, event: Event) -> None:
        """Tell of an event: the caller, and what reads along."""
        if isinstance(event, FinalDelta):
            self.first_final_at = self.first_final_at or time.monotonic()
        self._ordering.hear(event)
        if self._may_read_early:
            self._early.hear(event)
        if self.settings.panel_watched or not isinstance(event, AnswerDelta | AnalysisDelta):
            self._watch(event)

    @property
    def left_s(self) -> float:
        """Of the deadline."""
        return max(0.0, self.settings.deadline_s - (time.monotonic() - self.began_at))

    @property
    def panel_left_s(self) -> float:
        """What is left of the deadline before the judge's share begins."""
        return max(0.0, self.left_s - JUDGE_SHARE * self.settings.deadline_s)

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Raises TimeoutError at the deadline, but not during a round of the panel: that ends by its own limits."""
        async with asyncio.timeout(self.left_s) as self._limit:
            yield

    @property
    def calls(self) -> list[Call]:
        """Every call that was made, the final answer's last."""
        panel = [call for each in self.rounds for call in each.calls]
        return [*self.gate_calls, *panel, *self._early.calls, *self.review_calls, *self.judge.calls]

    @property
    def timings(self) -> Timings:
        """Up to now."""
        ended_at = time.monotonic()
        return timings(self.began_at, self.panel_ended_at, self.first_final_at, ended_at, self.rounds, self.calls)

    async def _ask_round(self) -> Panel:
        settings, left = self.settings, self.max_rounds - len(self.rounds)
        enough_s = min(settings.round_timeout_s, self.panel_left_s / left)
        # The first round alone may take the judge's time: below the quorum there is nothing to judge.
        timeout_s = enough_s if self.rounds else min(settings.round_timeout_s, self.left_s / left)
        patience = WaitPolicy(settings.quorum, timeout_s, settings.grace_s, enough_s)
        async with self._early.running(is_last=left == 1) if self._may_read_early else nullcontext():
            return await ask_round(
                self.members,
                self.prompt,
                settings,
                self.answers,
                patience,
                self.emit,
                verbatim=self.strategy.returns_member_answers,
            )

    @contextmanager
    def _limit_lifted(self) -> Iterator[None]:
        """A deadline that fell into a round would take with it what the round has by then."""
        if self._limit is None:
            yield
            return
        self._limit.reschedule(None)
        try:
            yield
        finally:
            self._limit.reschedule(asyncio.get_running_loop().time() + self.left_s)

    @property
    def _may_read_early(self) -> bool:
        """A budget is too dear for calls that may turn out to be in vain."""
        return self.settings.early_prefill and self.strategy.needs_judge and self._budget is None
