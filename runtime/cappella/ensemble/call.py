"""One streamed engine call: passes chunks on, and keeps the partial output when the call fails."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import replace
from statistics import fmean

from cappella.engines.base import Engine
from cappella.engines.context_size import estimated_usage
from cappella.ensemble import call_counter
from cappella.ensemble.citations import CallCitations
from cappella.ensemble.own_marks import ChunkCutter
from cappella.ensemble.run import Answer, Call, Role
from cappella.ensemble.structured.json_value import parse_json
from cappella.ensemble.written_calls import written_calls
from cappella.errors import (
    EngineBroke,
    EngineError,
    EngineNotReady,
    EngineOnlyThought,
    EngineOverBudget,
    EngineUnusable,
)
from cappella.types import Chunk, Json, Prompt, Sampling, ToolCall, Usage


class Completion:
    """One of the completions of a call, as far as it has arrived; `finish_reason` is None until it has ended.

    Marks with the prompt's `nonce`, if it has one, are cut from all that is added, and of a final answer `citations` of nothing.
    Unless it `may_call`, calls of tools are left out.
    """

    def __init__(
        self, nonce: str | None = None, citations: CallCitations | None = None, *, may_call: bool = True
    ) -> None:
        self._may_call = may_call
        self._marks = ChunkCutter(nonce) if nonce else None
        self._citations = citations
        self.finish_reason: str | None = None
        self.stop_sequence: str | None = None
        self.has_written_call = False
        self.logprobs: list[Json] = []
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, ToolCall] = {}

    @property
    def text(self) -> str:
        return "".join(self._content)

    @property
    def has_answer(self) -> bool:
        """Whether there is more than thoughts and blanks."""
        return bool(self._tool_calls or self.text.strip())

    @property
    def has_calls(self) -> bool:
        return bool(self._tool_calls)

    def read_written_call(self, names: Collection[str]) -> None:
        """Take calls of tools of these names that a text begins with for what they are; the rest of it is made up."""
        ended = self.finish_reason in ("stop", "length")
        if not self._tool_calls and ended and (calls := written_calls(self.text, names)):
            self._tool_calls = {call.index: call for call in calls}
            self._content.clear()
            self.has_written_call = True

    def drop_calls(self) -> None:
        """Leave out calls of tools by a model that was told to make none."""
        self._tool_calls.clear()

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def output(self) -> str:
        """All generated text: reasoning, content and tool calls."""
        tool_calls = [f"{call.name}{call.arguments}" for call in self._tool_calls.values()]
        return "".join([*self._reasoning, *self._content, *tool_calls])

    def add(self, chunk: Chunk) -> Chunk:
        """Append the chunk; returns it without our marks and the blank lines between reasoning and answer."""
        if not self._may_call:
            chunk = _without_calls(chunk)
        chunk = self._marks.cut(chunk) if self._marks else chunk
        if chunk.content and self._reasoning and not self._content:
            chunk = replace(chunk, content=chunk.content.lstrip("\n"))
        chunk = self._citations.cut(chunk) if self._citations else chunk
        if chunk.content:
            self._content.append(chunk.content)
        if chunk.reasoning:
            self._reasoning.append(chunk.reasoning)
        self.logprobs.extend(chunk.logprobs)
        for piece in chunk.tool_calls:
            partial = self._tool_calls.get(piece.index)
            self._tool_calls[piece.index] = partial.joined(piece) if partial else piece
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.stop_sequence = chunk.stop_sequence or self.stop_sequence
        return chunk

    def error(self, name: str) -> EngineError | None:
        """Why this completion is no usable answer; None if it is one."""
        if self.finish_reason is None:
            return EngineBroke(f"the answer of {name} was cut off")
        if self.has_answer:
            return None
        if not self._reasoning:
            return EngineUnusable(f"{name} gave an empty answer", "empty_answer")
        why = ": its tokens ended before that" if self.finish_reason == "length" else ""
        return EngineOnlyThought(f"{name} thought, and gave no answer{why}")

    def answer(self, name: str, call: Call) -> Answer:
        return Answer(
            name,
            self.text,
            self._true_finish_reason,
            call,
            self.reasoning,
            [self._tool_calls[index] for index in sorted(self._tool_calls)],
            self.logprobs,
            self.stop_sequence,
            fmean(float(token["logprob"]) for token in self.logprobs) if self.logprobs else None,
        )

    @property
    def _true_finish_reason(self) -> str:
        """The engine's, but `length` for tool calls that are cut, and `stop` for calls of which there are none."""
        if not self._tool_calls:
            return "stop" if self.finish_reason == "tool_calls" else self.finish_reason or ""
        whole = all(_is_whole(call.arguments) for call in self._tool_calls.values())
        return (self.finish_reason or "") if whole else "length"


def _is_whole(arguments: str) -> bool:
    """Whether the arguments of a call are complete JSON; a call without any has none."""
    try:
        parse_json(arguments or "{}")
    except ValueError:
        return False
    return True


class EngineCall:
    """One call and its `samples` completions, readable at any moment, also after a failure.

    `nonce` is that of the marks in the prompt, which are cut from the completions; `citations` checks those of a final answer.
    Unless it `may_call`, calls of tools are left out. `was_called` is False until the engine is called, and again if it refused
    before it began. `first_token_at` is on
    the clock of `time.monotonic`. The usage of a call that was cut is estimated from its texts: its prompt was read.
    """

    def __init__(
        self,
        role: Role,
        seat: str,
        samples: int = 1,
        nonce: str | None = None,
        citations: CallCitations | None = None,
        *,
        may_call: bool = True,
        of_judge: bool = False,
    ) -> None:
        self.completions = [Completion(nonce, citations, may_call=may_call) for _ in range(samples)]
        self.was_called = False
        self.first_token_at: float | None = None
        self.role: Role = role
        self._seat = seat
        self._of_judge = of_judge
        self._usage = Usage()
        self._tokens_per_step = 1.0
        self._began = self._ended = time.monotonic()

    @property
    def text(self) -> str:
        """The text of the first completion."""
        return self.completions[0].text

    @property
    def record(self) -> Call:
        """The tokens and seconds of the call so far."""
        first_token_s = self.first_token_at and self.first_token_at - self._began
        return Call(
            self.role,
            self._seat,
            self._usage,
            self._began,
            first_token_s,
            self._ended - self._began,
            self._tokens_per_step,
            self._of_judge,
        )

    async def stream(self, engine: Engine, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """Yield the chunks. Raises EngineError; the caller checks each completion with `Completion.error`."""
        self.was_called, is_cut = True, False
        self._began = time.monotonic()
        try:
            async with aclosing(engine.chat(prompt, sampling)) as chunks:
                async for chunk in chunks:
                    yield self._add(chunk)
        except (EngineNotReady, EngineOverBudget):
            # The call was not made, so it cost nothing and took no time.
            self.was_called = False
            raise
        except (asyncio.CancelledError, GeneratorExit):
            # One that sleeps has not read the prompt. What an early prefill reads counts with the judge's calls.
            is_cut = engine.status.state == "ready" and self.role != "prefill"
            raise
        finally:
            self._ended = time.monotonic()
            if self._usage == Usage() and (is_cut or self.first_token_at):
                self._usage = estimated_usage(prompt, "".join(each.output for each in self.completions))
            if self.was_called:
                call_counter.add_call(self.record)

    async def complete(
        self,
        engine: Engine,
        prompt: Prompt,
        sampling: Sampling,
        on_chunk: Callable[[Chunk], object] = lambda chunk: None,
    ) -> str:
        """The whole text of the first completion. Raises EngineError, also if the text is empty or cut off."""
        async with aclosing(self.stream(engine, prompt, sampling)) as chunks:
            async for chunk in chunks:
                on_chunk(chunk)
        if error := self.completions[0].error(self._seat):
            raise error
        return self.text

    def _add(self, chunk: Chunk) -> Chunk:
        self._usage = chunk.usage or self._usage
        self._tokens_per_step = chunk.tokens_per_step or self._tokens_per_step
        if chunk.sample >= len(self.completions):
            raise EngineBroke(f"{self._seat} sent more completions than requested")
        added = self.completions[chunk.sample].add(chunk)
        if added.content or added.reasoning or added.tool_calls:
            self.first_token_at = self.first_token_at or time.monotonic()
        return added


def _without_calls(chunk: Chunk) -> Chunk:
    """Not every engine keeps to `tool_choice: none`."""
    ends_in_calls = chunk.finish_reason == "tool_calls"
    if not chunk.tool_calls and not ends_in_calls:
        return chunk
    return replace(chunk, tool_calls=(), finish_reason="stop" if ends_in_calls else chunk.finish_reason)
