"""Asks all seats of the panel at once, and collects their answers and failures until a wait policy ends the round."""

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

CancelReason = Literal["deadline", "quorum_unreachable", "straggler"]
_CANCEL_MESSAGES: Mapping[CancelReason, str] = {
    "deadline": "cancelled: it had not finished when the round ended",
    "quorum_unreachable": "cancelled: too many other members had failed for the quorum",
    "straggler": "cancelled: it had not finished in the grace period after the quorum",
}


@dataclass(frozen=True, slots=True)
class SeatRequest:
    """The prompt for one seat, and the engine that answers it; `nonce` is that of the marks in the prompt."""

    seat: Seat
    engine: Engine
    prompt: Prompt
    nonce: str | None = None


@dataclass(frozen=True, slots=True)
class WaitPolicy:
    """When a round ends: after `timeout_s`, or `grace_s` (if set) after `quorum` answers have arrived.

    A round that has its quorum ends at `quorate_timeout_s` at the latest, which leaves the judge its share of time.
    """

    quorum: int
    timeout_s: float
    grace_s: float | None = None
    quorate_timeout_s: float = inf


async def collect_answers(requests: Sequence[SeatRequest], wait_policy: WaitPolicy, emit: Emit) -> Panel:
    """The answers and failures of one round. Seats still running at its end are cancelled, which frees their engines.

    The round ends early once so many answers have failed that the quorum cannot be met any more. Of a cancelled seat
    with several samples, those that had finished count as answers.
    """
    if not requests:
        return Panel([], [])
    members = [_Member(request, emit) for request in requests]
    tasks = [asyncio.create_task(member.answer()) for member in members]
    try:
        cause = await _wait(tasks, members, wait_policy)
    finally:
        await _cancel(tasks)
    for member, task in zip(members, tasks, strict=True):
        if task.cancelled():
            await member.on_cancelled(cause)
    outcomes = [member.outcomes[name] for member in members for name in member.seat.answer_names]
    return Panel(
        [outcome for outcome in outcomes if isinstance(outcome, Answer)],
        [outcome for outcome in outcomes if isinstance(outcome, Failure)],
        [member.call.record for member in members if member.call.was_called],
    )


class _Member:
    """One seat in one round; `outcomes` holds each of its answers or failures by the answer's name, once it is done."""

    def __init__(self, request: SeatRequest, emit: Emit) -> None:
        self.seat = request.seat
        self.call = EngineCall("panel", request.seat.name, request.seat.samples, request.nonce)
        self.outcomes: Mapping[str, Answer | Failure] = {}
        self._request = request
        self._emit = emit

    def count(self, kind: type[Answer] | type[Failure]) -> int:
        return sum(isinstance(outcome, kind) for outcome in self.outcomes.values())

    async def answer(self) -> None:
        """Make the call and set `outcomes`; an EngineError becomes a Failure."""
        request, names = self._request, self.seat.answer_names
        try:
            if has_images(request.prompt.messages) and not request.engine.capabilities.images:
                raise EngineUnusable(f"{self.seat.model} does not accept images", "images_not_supported")
            async with aclosing(self.call.stream(request.engine, request.prompt, self.seat.sampling)) as chunks:
                async for chunk in chunks:
                    if chunk.content or chunk.reasoning:
                        self._emit(AnswerDelta(names[chunk.sample], chunk.content, chunk.reasoning))
        except EngineError as error:
            await self._set_outcomes(error.reason, str(error), error.status_code)
        else:
            await self._set_outcomes("engine_broke", "the answer was cut off", 502)

    async def on_cancelled(self, cause: CancelReason) -> None:
        """Set `outcomes` after the call was cancelled."""
        await self._set_outcomes(cause, _CANCEL_MESSAGES[cause], 504)

    async def _set_outcomes(self, reason: str, error: str, status_code: int) -> None:
        """An answer for each usable completion, a failure for any other; the given reason is for unfinished ones."""
        completions = zip(self.seat.answer_names, self.call.completions, strict=True)
        self.outcomes = {
            name: await self._outcome(name, completion, Failure(name, reason, error, status_code, completion.text))
            for name, completion in completions
        }
        for outcome in self.outcomes.values():
            self._emit(AnswerDone(outcome) if isinstance(outcome, Answer) else AnswerFailed(outcome))

    async def _outcome(self, name: str, completion: Completion, unfinished: Failure) -> Answer | Failure:
        if completion.finish_reason is None:
            return unfinished
        if error := completion.error(name):
            return Failure(name, error.reason, str(error), error.status_code, completion.text)
        answer = completion.answer(name, self.call.record)
        if answer.tool_calls:
            return answer
        violation = await formats.violation(self._request.prompt.output_format, answer.content)
        return Failure(name, "invalid_format", violation, 502, completion.text) if violation else answer


async def _wait(
    tasks: Sequence["asyncio.Task[None]"], members: Sequence[_Member], wait_policy: WaitPolicy
) -> CancelReason:
    """Wait for the members as long as the policy says; returns the reason to cancel those still running."""
    clock = asyncio.get_running_loop().time
    began_at = clock()
    ends_at, in_grace = began_at + wait_policy.timeout_s, False
    max_failures = sum(member.seat.samples for member in members) - wait_policy.quorum
    pending, was_quorate = set(tasks), False
    while pending:
        timeout_s = max(0.0, ends_at - clock())
        done, pending = await asyncio.wait(pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
        for task in done:
            task.result()
        if sum(member.count(Failure) for member in members) > max_failures:
            return "quorum_unreachable"
        if not was_quorate and sum(member.count(Answer) for member in members) >= wait_policy.quorum:
            was_quorate = True
            ends_at = min(ends_at, began_at + wait_policy.quorate_timeout_s)
            if wait_policy.grace_s is not None and clock() + wait_policy.grace_s < ends_at:
                ends_at, in_grace = clock() + wait_policy.grace_s, True
    return "straggler" if in_grace else "deadline"


async def _cancel(tasks: Sequence["asyncio.Task[None]"]) -> None:
    """Cancel and wait, so that every connection is closed, and so every engine freed, before this returns."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
