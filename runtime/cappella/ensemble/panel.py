"""Ask every member at once; collect answers and failures until all are in or the time is up."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from cappella.engines.base import Engine
from cappella.ensemble.voice import Voice
from cappella.errors import EngineError
from cappella.types import Answer, AnswerDelta, AnswerDone, AnswerFailed, Emit, Failure, Message, Seat

_Outcome = Answer | Failure


@dataclass(frozen=True, slots=True)
class Panel:
    """What a round gave, in the order of the seats."""

    answers: Sequence[Answer]
    failures: Sequence[Failure]


async def ask_panel(
    engines: Mapping[str, Engine],
    conversation: Sequence[Message],
    seats: Sequence[Seat],
    quorum: int,
    timeout_s: float,
    emit: Emit,
) -> Panel:
    """Put the conversation to every seat. Who is not done after `timeout_s` is cut, and its engine freed.

    Ends early once so many members have failed that the quorum cannot be met any more.
    """
    voices = [Voice("panel", seat.name) for seat in seats]
    tasks = [
        asyncio.create_task(_hear(engines[seat.model], conversation, seat, voice, emit))
        for seat, voice in zip(seats, voices, strict=True)
    ]
    try:
        out_of_time = await _gather(tasks, may_fail=len(seats) - quorum, timeout_s=timeout_s)
    finally:
        await _cancel(tasks)
    outcomes = [
        _cut(seat, voice, emit, out_of_time) if task.cancelled() else task.result()
        for seat, voice, task in zip(seats, voices, tasks, strict=True)
    ]
    return Panel(
        [outcome for outcome in outcomes if isinstance(outcome, Answer)],
        [outcome for outcome in outcomes if isinstance(outcome, Failure)],
    )


async def _gather(tasks: Sequence["asyncio.Task[_Outcome]"], may_fail: int, timeout_s: float) -> bool:
    """Wait for the members; True if the time ran out."""
    clock = asyncio.get_running_loop().time
    by = clock() + timeout_s
    pending = set(tasks)
    while pending and sum(task.done() and isinstance(task.result(), Failure) for task in tasks) <= may_fail:
        done, pending = await asyncio.wait(pending, timeout=max(0.0, by - clock()), return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return True
    return False


async def _hear(engine: Engine, conversation: Sequence[Message], seat: Seat, voice: Voice, emit: Emit) -> _Outcome:
    try:
        async with aclosing(voice.speak(engine, conversation, seat.sampling)) as texts:
            async for text in texts:
                emit(AnswerDelta(seat.name, text))
    except EngineError as error:
        failure = Failure(seat, error.reason, str(error), error.status_code, voice.text)
        emit(AnswerFailed(failure))
        return failure
    answer = Answer(seat, voice.text, voice.finish_reason or "", voice.call, voice.reasoning)
    emit(AnswerDone(answer))
    return answer


def _cut(seat: Seat, voice: Voice, emit: Emit, out_of_time: bool) -> Failure:
    reason, error = (
        ("deadline", "it was not done when the round's time was up")
        if out_of_time
        else ("cut", "the quorum was out of reach, so it was not waited for")
    )
    failure = Failure(seat, reason, error, 504, voice.text)
    emit(AnswerFailed(failure))
    return failure


async def _cancel(tasks: Sequence["asyncio.Task[_Outcome]"]) -> None:
    """Cancel and wait, so that every connection is closed, and so every engine freed, before this returns."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
