"""Ask every member at once; collect answers and failures until all are in or the time is up."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from math import inf
from typing import Literal

from cappella.config.options import Seat
from cappella.engines.base import Engine
from cappella.ensemble.call import Completion, EngineCall
from cappella.ensemble.events import AnswerDelta, AnswerDone, AnswerFailed, Emit
from cappella.ensemble.messages import has_images
from cappella.ensemble.run import Answer, Failure, Panel
from cappella.ensemble.structured import formats
from cappella.errors import EngineError, EngineUnusable
from cappella.types import Prompt

CancelReason = Literal["deadline", "cut", "straggler"]
_CUT_BECAUSE: Mapping[CancelReason, str] = {
    "deadline": "it was not done when the round's time was up",
    "cut": "the quorum was out of reach, so it was not waited for",
    "straggler": "the quorum was met, and the grace after that was over",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What one seat is asked, and by which engine."""

    seat: Seat
    engine: Engine
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """How long a round waits: until `timeout_s`; once `quorum` answers are there, `grace_s` more if that is given.

    Time from `quorate_timeout_s` on is left to the judge, if the quorum is met by then.
    """

    quorum: int
    timeout_s: float
    grace_s: float | None = None
    quorate_timeout_s: float = inf


async def ask_panel(questions: Sequence[Question], patience: WaitPolicy, emit: Emit) -> Panel:
    """Put each seat's question to it. Who is not done in time is cut, and its engine freed.

    Ends early once so many members have failed that the quorum cannot be met any more. A seat of several samples
    that is cut has given those that had ended by then.
    """
    members = [_Member(question, emit) for question in questions]
    tasks = [asyncio.create_task(member.speak()) for member in members]
    try:
        cause = await _gather(tasks, members, patience)
    finally:
        await _cancel(tasks)
    for member, task in zip(members, tasks, strict=True):
        if task.cancelled():
            await member.cut(cause)
    outcomes = [member.outcomes[name] for member in members for name in member.seat.answer_names]
    return Panel(
        [outcome for outcome in outcomes if isinstance(outcome, Answer)],
        [outcome for outcome in outcomes if isinstance(outcome, Failure)],
        [member.voice.call for member in members if member.voice.spoke],
    )


class _Member:
    """One seat in one round: `outcomes` holds what became of each of its answers, by the answer's name."""

    def __init__(self, question: Question, emit: Emit) -> None:
        self.seat = question.seat
        self.voice = EngineCall("panel", question.seat.name, question.seat.samples)
        self.outcomes: Mapping[str, Answer | Failure] = {}
        self._question = question
        self._emit = emit

    def count(self, kind: type[Answer] | type[Failure]) -> int:
        return sum(isinstance(outcome, kind) for outcome in self.outcomes.values())

    async def speak(self) -> None:
        asked, names = self._question, self.seat.answer_names
        try:
            if has_images(asked.prompt.messages) and not asked.engine.capabilities.images:
                raise EngineUnusable(f"{self.seat.model} takes no images", "images_not_supported")
            async with aclosing(self.voice.speak(asked.engine, asked.prompt, self.seat.sampling)) as chunks:
                async for chunk in chunks:
                    if chunk.content or chunk.reasoning:
                        self._emit(AnswerDelta(names[chunk.sample], chunk.content, chunk.reasoning))
        except EngineError as error:
            await self._settle(error.reason, str(error), error.status_code)
        else:
            await self._settle("engine_broke", "the answer has no end", 502)

    async def cut(self, cause: CancelReason) -> None:
        """Say what became of it, now that it is not waited for."""
        await self._settle(cause, _CUT_BECAUSE[cause], 504)

    async def _settle(self, reason: str, error: str, status_code: int) -> None:
        """An answer for each take that is one; for the others a failure, for the reason given if they have no end."""
        takes = zip(self.seat.answer_names, self.voice.takes, strict=True)
        self.outcomes = {name: await self._outcome(name, take, reason, error, status_code) for name, take in takes}
        for outcome in self.outcomes.values():
            self._emit(AnswerDone(outcome) if isinstance(outcome, Answer) else AnswerFailed(outcome))

    async def _outcome(
        self, name: str, take: Completion, reason: str, error: str, status_code: int
    ) -> Answer | Failure:
        if take.finish_reason is None:
            return Failure(name, reason, error, status_code, take.text)
        if unusable := take.problem(name):
            return Failure(name, unusable.reason, str(unusable), unusable.status_code, take.text)
        answer = take.answer(name, self.voice.call)
        misfit = None if answer.tool_calls else await formats.problem(self._question.prompt.form, answer.content)
        return Failure(name, "invalid_format", misfit, 502, take.text) if misfit else answer


async def _gather(
    tasks: Sequence["asyncio.Task[None]"], members: Sequence[_Member], patience: WaitPolicy
) -> CancelReason:
    """Wait for the members; returns why those that are left are not waited for."""
    clock = asyncio.get_running_loop().time
    began_at = clock()
    by, graced = began_at + patience.timeout_s, False
    may_fail = sum(member.seat.samples for member in members) - patience.quorum
    pending, was_quorate = set(tasks), False
    while pending:
        done, pending = await asyncio.wait(pending, timeout=max(0.0, by - clock()), return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
        for task in done:
            task.result()
        if sum(member.count(Failure) for member in members) > may_fail:
            return "cut"
        if not was_quorate and sum(member.count(Answer) for member in members) >= patience.quorum:
            was_quorate = True
            by = min(by, began_at + patience.quorate_timeout_s)
            if patience.grace_s is not None and clock() + patience.grace_s < by:
                by, graced = clock() + patience.grace_s, True
    return "straggler" if graced else "deadline"


async def _cancel(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Cancel and wait, so that every connection is closed, and so every engine freed, before this returns."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
