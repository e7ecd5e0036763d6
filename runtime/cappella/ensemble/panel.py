"""Asks all seats of the panel at once, and collects their answers and failures until a wait policy ends the round."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cappella.background import background
from cappella.config.options import Seat
from cappella.engines import waiting
from cappella.engines.base import Engine
from cappella.engines.waiting import WaitReason
from cappella.ensemble.call import EngineCall
from cappella.ensemble.events import AnswerDelta, AnswerDone, AnswerFailed, Awake, Emit, GraceStarted, Waiting
from cappella.ensemble.grace import CancelReason, Patience, WaitPolicy
from cappella.ensemble.lookup_budget import LookupBudget
from cappella.ensemble.messages import has_images
from cappella.ensemble.run import Answer, Call, Cut, Failure, Panel
from cappella.ensemble.seat_tools import Tools, offering
from cappella.ensemble.structured import formats
from cappella.ensemble.tool_loop import ToolLoop
from cappella.ensemble.turns import Turns
from cappella.errors import EngineError, EngineUnusable
from cappella.types import Chunk, Prompt

_CANCEL_MESSAGES: Mapping[CancelReason, str] = {
    "deadline": "cancelled: it had not finished when the round ended",
    "quorum_unreachable": "cancelled: too many other members had failed for the quorum",
    "straggler": "answered without it: it had not finished in the grace period after the quorum",
}


@dataclass(frozen=True, slots=True)
class SeatRequest:
    """The prompt for one seat, and the engine that answers it; `nonce` is that of the marks in the prompt.

    With `tools` it may look things up before it answers, within the `budget` of a run with a limit on tokens.
    """

    seat: Seat
    engine: Engine
    prompt: Prompt
    nonce: str | None = None
    tools: Tools | None = None
    budget: LookupBudget | None = None


async def collect_answers(requests: Sequence[SeatRequest], wait_policy: WaitPolicy, emit: Emit) -> Panel:
    """The answers and failures of one round. A seat that is cut is cancelled, which frees its engine.

    The round ends early once so many answers have failed that the quorum cannot be met any more. Of a cancelled seat
    with several samples, those that had finished count as answers.
    """
    if not requests:
        return Panel([], [])
    changed = asyncio.Event()
    members = [_Member(request, emit, changed) for request in requests]
    round_ = _Round(members, wait_policy, emit, changed)
    try:
        await round_.wait()
    finally:
        await _cancel(round_.tasks.values())
    outcomes = [member.outcomes[name] for member in members for name in member.seat.answer_names]
    return Panel(
        [outcome for outcome in outcomes if isinstance(outcome, Answer)],
        [outcome for outcome in outcomes if isinstance(outcome, Failure)],
        [call for member in members for call in member.calls],
    )


class _Member:
    """One seat in one round; `outcomes` holds each of its answers or failures by the answer's name, once it is done.

    On the event loop's clock it is at work since `served_at`, None while it waits for its engine. It sets `changed` as it
    begins and ends to wait.
    """

    def __init__(self, request: SeatRequest, emit: Emit, changed: asyncio.Event) -> None:
        self.seat = request.seat
        self._call = EngineCall("panel", request.seat.name, request.seat.samples, request.nonce)
        names = request.seat.answer_names
        self._turns = [
            Turns(name, self._call, completion, request.tools is not None)
            for name, completion in zip(names, self._call.completions, strict=False)
        ]
        self.outcomes: Mapping[str, Answer | Failure] = {}
        self.served_at: float | None = asyncio.get_running_loop().time()
        self.ended_at = self._waits_since = 0.0
        self._request = request
        self._emit = emit
        self._changed = changed

    def count(self, kind: type[Answer] | type[Failure]) -> int:
        return sum(isinstance(outcome, kind) for outcome in self.outcomes.values())

    @property
    def calls(self) -> list[Call]:
        """All calls of its engine that were made."""
        first = [self._call.record] if self._call.was_called else []
        return [*first, *(call for each in self._turns for call in each.later_calls)]

    @property
    def worked_s(self) -> float:
        """How long it was at work until it was done."""
        return self.ended_at - (self.ended_at if self.served_at is None else self.served_at)

    async def answer(self) -> None:
        """Make the calls and set `outcomes`; an EngineError becomes a Failure."""
        with waiting.listening(self._on_wait):
            await self._answer()

    def _on_wait(self, _: str, reason: WaitReason | None) -> None:
        now = asyncio.get_running_loop().time()
        for name in self.seat.answer_names:
            self._emit(Waiting(name, reason) if reason else Awake(name, now - self._waits_since))
        if reason:
            self._waits_since = now
        self.served_at = None if reason else now
        self._changed.set()

    async def _answer(self) -> None:
        request, names = self._request, self.seat.answer_names
        try:
            if has_images(request.prompt.messages) and not request.engine.capabilities.images:
                raise EngineUnusable(f"{self.seat.model} does not accept images", "images_not_supported")
            prompt = offering(request.prompt, request.tools) if request.tools else request.prompt
            async with aclosing(self._call.stream(request.engine, prompt, self.seat.sampling)) as chunks:
                async for chunk in chunks:
                    may_be_asked_again = request.tools and request.prompt.output_format
                    self._tell(names[chunk.sample], replace(chunk, content="") if may_be_asked_again else chunk)
        except EngineError as error:
            await self._set_outcomes(error.reason, str(error), error.status_code)
        else:
            if request.tools:
                for turns in self._turns:
                    turns.completion.read_written_call(request.tools.box.tools)
                await asyncio.gather(*(self._go_on(turns, prompt, request.tools) for turns in self._turns))
            await self._set_outcomes("engine_broke", "the answer was cut off", 502)

    async def _go_on(self, turns: Turns, prompt: Prompt, tools: Tools) -> None:
        """Look up what this answer needs."""
        seed, number = self.seat.sampling.seed, self._turns.index(turns)
        # The engine itself adds its number to the seed of a sample.
        sampling = self.seat.sampling if seed is None else self.seat.sampling.model_copy(update={"seed": seed + number})
        loop = ToolLoop(turns.name, self._request.engine, prompt, sampling, tools, self._new_call)
        await turns.go_on(loop, self._request.prompt, partial(self._tell, turns.name), self._request.budget)

    def _new_call(self) -> EngineCall:
        return EngineCall("panel", self.seat.name, nonce=self._request.nonce)

    def _tell(self, name: str, chunk: Chunk) -> None:
        if chunk.content or chunk.reasoning:
            self._emit(AnswerDelta(name, chunk.content, chunk.reasoning))

    async def on_cancelled(self, cause: CancelReason, cut: Cut | None) -> None:
        """Set `outcomes` after the call was cancelled."""
        await self._set_outcomes(cause, _CANCEL_MESSAGES[cause], 504, cut if cause == "straggler" else None)

    async def _set_outcomes(self, reason: str, error: str, status_code: int, cut: Cut | None = None) -> None:
        """An answer for each usable completion, a failure for any other; the given reason is for unfinished ones."""
        self.outcomes = {
            turns.name: await self._outcome(
                turns, Failure(turns.name, reason, error, status_code, turns.completion.text, cut)
            )
            for turns in self._turns
        }
        self.ended_at = asyncio.get_running_loop().time()
        for outcome in self.outcomes.values():
            self._emit(AnswerDone(outcome) if isinstance(outcome, Answer) else AnswerFailed(outcome))

    async def _outcome(self, turns: Turns, unfinished: Failure) -> Answer | Failure:
        name, completion = turns.name, turns.completion
        if (error := turns.error) or (not turns.is_open and (error := completion.error(name))):
            return Failure(name, error.reason, str(error), error.status_code, completion.text)
        if turns.is_open:
            return unfinished
        answer = turns.answer
        if answer.tool_calls:
            return answer
        violation = await formats.violation(self._request.prompt.output_format, answer.content)
        return Failure(name, "invalid_format", violation, 502, completion.text) if violation else answer


class _Round:
    """The members at work, each in a task, and how long to wait for them."""

    def __init__(self, members: Sequence[_Member], policy: WaitPolicy, emit: Emit, changed: asyncio.Event) -> None:
        self.tasks = {member: asyncio.create_task(member.answer()) for member in members}
        self._policy = policy
        self._emit = emit
        self._changed = changed
        self._clock = asyncio.get_running_loop().time
        self._patience = Patience(policy, self._clock())

    async def wait(self) -> None:
        """Wait until all members are done; cut each as its time is over, and all once the quorum cannot be met."""
        while pending := self._pending:
            await self._next_change(pending)
            for task in self.tasks.values():
                if task.done() and not task.cancelled():
                    task.result()
            if self._count(Failure) > sum(member.seat.samples for member in self.tasks) - self._policy.quorum:
                await self._cut(self._pending, "quorum_unreachable")
                return
            self._note_quorum()
            for reason, members in self._overdue().items():
                await self._cut(members, reason)

    @property
    def _pending(self) -> list[_Member]:
        return [member for member, task in self.tasks.items() if not task.done()]

    async def _next_change(self, pending: Sequence[_Member]) -> None:
        """Wait until a member is done, begins or ends to wait for its engine, or is due."""
        timeout_s = max(0.0, min(self._patience.due(member.served_at)[0] for member in pending) - self._clock())
        async with background(self._changed.wait()) as changed:
            awaited: set[asyncio.Future[Any]] = {changed, *(self.tasks[member] for member in pending)}
            await asyncio.wait(awaited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        self._changed.clear()

    def _note_quorum(self) -> None:
        if self._patience.is_quorate or self._count(Answer) < self._policy.quorum:
            return
        took_s = max(member.worked_s for member in self.tasks if member.count(Answer))
        self._patience.meet_quorum(self._clock(), took_s)
        at_work = [member for member in self._pending if member.served_at is not None]
        names = [name for member in at_work for name in member.seat.answer_names]
        if names and (cut := self._patience.cut):
            self._emit(GraceStarted(names, cut.quorum_s, cut.grace_s))

    def _overdue(self) -> Mapping[CancelReason, Sequence[_Member]]:
        now, overdue = self._clock(), dict[CancelReason, list[_Member]]()
        for member in self._pending:
            due_at, reason = self._patience.due(member.served_at)
            if due_at <= now:
                overdue.setdefault(reason, []).append(member)
        return overdue

    async def _cut(self, members: Sequence[_Member], reason: CancelReason) -> None:
        tasks = [self.tasks[member] for member in members]
        await _cancel(tasks)
        for member, task in zip(members, tasks, strict=True):
            if task.cancelled():
                await member.on_cancelled(reason, self._patience.cut)

    def _count(self, kind: type[Answer] | type[Failure]) -> int:
        return sum(member.count(kind) for member in self.tasks)


async def _cancel(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel and wait, so that every connection is closed, and so every engine freed, before this returns."""
    tasks = set(tasks)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
